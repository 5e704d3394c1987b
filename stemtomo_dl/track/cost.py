"""What it costs to call a predicted particle and an outline the same."""

from __future__ import annotations

import numpy as np

_SIZE_SPREAD = 0.35  # of log area from tilt to tilt
_SHAPE_SPREAD = 0.35


def link_cost(
    predicted: np.ndarray,
    spread: np.ndarray,
    area: np.ndarray,
    covariance: np.ndarray,
    found: np.ndarray,
    found_area: np.ndarray,
    found_covariance: np.ndarray,
    gate: np.ndarray,
) -> np.ndarray:
    """Squared normalised differences in position, size and shape, (n, m); inf beyond the gate.

    Parameters
    ----------
    predicted : (n, 2) array
        Predicted positions (x, y), px.
    spread : (n, 2, 2) array
        Covariance of the difference between prediction and sighting, px².
    area, covariance : (n), (n, 2, 2) arrays
        The particles' last areas and second moments, px².
    found, found_area, found_covariance : (m, 2), (m), (m, 2, 2) arrays
        The same of the outlines.
    gate : (n) array
        Largest distance allowed, px.
    """
    step = found[None] - predicted[:, None]
    position = np.einsum("nmi,nij,nmj->nm", step, np.linalg.inv(spread), step)
    size = (np.log(found_area[None] / area[:, None]) / _SIZE_SPREAD) ** 2
    difference = np.linalg.norm(found_covariance[None] - covariance[:, None], axis=(2, 3))
    scale = np.linalg.norm(found_covariance, axis=(1, 2))[None] + np.linalg.norm(covariance, axis=(1, 2))[:, None]
    shape = (difference / scale / _SHAPE_SPREAD) ** 2
    return np.where(np.hypot(*np.moveaxis(step, -1, 0)) <= gate[:, None], position + size + shape, np.inf)
