"""How far tilts' orientations stray, learned from all of them: few spots a tilt leave more open than a stage is off."""

from __future__ import annotations

import numpy as np
from scipy import sparse

_SCATTERS = np.geomspace(0.05, 1.0, 25)  # that are tried, of what turns are good to as stated
_FAR = 9.0  # χ² beyond which a turn tells nothing more of the others


def hold_of_turns(normal: sparse.csr_matrix, turns: np.ndarray, off: np.ndarray, hold: np.ndarray) -> np.ndarray:
    """Weights (tilt, 3) with which turns are held, by how much more they scatter than their spots leave open.

    Few spots a tilt leave more open than a good goniometer is off. The scatter about the axes across the beam and that
    about the beam are those of greatest likelihood (empirical Bayes), at most what was stated; the larger counts.
    """
    seen = normal.diagonal()[turns].all(1)
    if not seen.any():
        return hold
    rows = turns[seen]
    own = np.stack([np.asarray(normal[rows[:, i], rows[:, j]]).ravel() for i in range(3) for j in range(3)], 1)
    own = own.reshape(-1, 3, 3)
    least = 1e-9 * np.trace(own, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    open_to = np.diagonal(np.linalg.inv(own + least), 0, 1, 2)  # variances
    free2 = (off[seen] * (1 + hold[seen] * open_to)) ** 2

    def likeliest(axes: slice) -> float:
        total = _SCATTERS[:, None, None] ** 2 + open_to[None, :, axes]
        cost = (np.log(total) + np.minimum(free2[None, :, axes] / total, _FAR)).sum((1, 2))
        return float(_SCATTERS[np.argmin(cost)])

    return np.full_like(hold, max(likeliest(slice(2)), likeliest(slice(2, 3))) ** -2.0)
