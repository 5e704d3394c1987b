"""How far the whole field moved between two tilts."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

_WIDTH_PX, _BIN_PX = 2.0, 0.5  # how far pairs of the same shift scatter; bins in which they are counted


def vote_shift(
    predicted: np.ndarray,
    found: np.ndarray,
    area: np.ndarray,
    found_area: np.ndarray,
    trust: np.ndarray,
    reach_px: float,
) -> np.ndarray:
    """The displacement that most pairs of predicted and found particles agree on.

    A vote among all pairs needs no links, so births, losses and crossings do not sway it; pairs of unlike size
    count little, and small shifts win a draw.

    Parameters
    ----------
    predicted, found : (n, 2), (m, 2) arrays
        Positions (x, y), px.
    area, found_area : (n), (m) arrays
        Outline areas, px².
    trust : (n) array
        Weight of each predicted particle's votes.
    reach_px : float
        Largest shift considered along x and y.

    Returns
    -------
    (2,) array, px; zero where nothing can be said.
    """
    shift = (found[None] - predicted[:, None]).reshape(-1, 2)
    alike = np.exp(-0.5 * (np.log(found_area[None] / area[:, None]).ravel() / 0.35) ** 2)
    near = (np.abs(shift) <= reach_px).all(1) & (alike > 1e-3)
    shift, alike = shift[near], alike[near]
    if not len(shift):
        return np.zeros(2)
    weight = np.repeat(trust, len(found))[near] * alike * np.exp(-np.hypot(*shift.T) / (2 * reach_px))
    edges = np.arange(-reach_px - 3 * _WIDTH_PX, reach_px + 3 * _WIDTH_PX + _BIN_PX, _BIN_PX)
    votes = np.histogram2d(shift[:, 0], shift[:, 1], bins=[edges, edges], weights=weight)[0]
    votes = gaussian_filter(votes, _WIDTH_PX / _BIN_PX)
    best = edges[np.array(np.unravel_index(votes.argmax(), votes.shape))] + _BIN_PX / 2
    for _ in range(5):  # mean shift to the mode's centre
        pull = weight * np.exp(-0.5 * ((shift - best) ** 2).sum(1) / _WIDTH_PX**2)
        best = (pull[:, None] * shift).sum(0) / max(pull.sum(), 1e-300)
    return best
