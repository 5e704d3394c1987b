"""Quadratic surfaces over a scan: what descan and a support film follow."""

from __future__ import annotations

import numpy as np


def quadratic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Terms 1, x, y, x², xy, y² of positions of any shape, (…, 6)."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)


def robust_fit(design: np.ndarray, values: np.ndarray, rounds: int = 8) -> np.ndarray:
    """Least squares that far values hardly sway.

    Iteratively reweighted with the Geman–McClure weight, its scale the median misfit of each round. Rows with
    values that are not finite do not count; terms that the rows do not determine are zero.

    Parameters
    ----------
    design : (n, term) array
    values : (n, k) array

    Returns
    -------
    (k, term) array
    """
    known = np.isfinite(values).all(1)
    design, values = design[known], values[known]
    weight = np.ones(len(values))
    coef = np.zeros((values.shape[1], design.shape[1]))
    if not len(values):
        return coef
    for _ in range(rounds):
        w = np.sqrt(weight)[:, None]
        coef = np.linalg.lstsq(design * w, values * w, rcond=1e-9)[0].T
        misfit = np.sqrt(((values - design @ coef.T) ** 2).sum(1))
        scale = max(1.4826 * float(np.median(misfit)), 1e-6)
        weight = 1 / (1 + (misfit / (2 * scale)) ** 2) ** 2
    return coef
