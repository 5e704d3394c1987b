"""How far the whole field moved between two tilts."""

from __future__ import annotations

import numpy as np


def vote_shift(
    predicted: np.ndarray, found: np.ndarray, area: np.ndarray, found_area: np.ndarray, reach_px: float
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
    weight = alike * np.exp(-np.hypot(*shift.T) / (2 * reach_px))
    width = 2.0
    distance2 = ((shift[:, None] - shift[None]) ** 2).sum(-1)
    support = (np.exp(-0.5 * distance2 / width**2) * weight[None]).sum(1)
    best = shift[support.argmax()]
    for _ in range(5):  # mean shift to the mode's centre
        pull = weight * np.exp(-0.5 * ((shift - best) ** 2).sum(1) / width**2)
        best = (pull[:, None] * shift).sum(0) / pull.sum()
    return best
