"""What the tracker compares of an outline: where it is, how large, what shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.records import Masks


@dataclass(frozen=True)
class Features:
    """Per instance: centroid (n, 2) in px (x, y), area (n) in px², second moments (n, 2, 2) in px²."""

    xy: np.ndarray
    area: np.ndarray
    covariance: np.ndarray


def features(masks: Masks) -> Features:
    """Centroids, areas and second moments of all outlines."""
    n = len(masks)
    xy, area, covariance = np.zeros((n, 2)), np.zeros(n), np.zeros((n, 2, 2))
    for i, crop in enumerate(masks.crops):
        points = np.argwhere(crop)[:, ::-1] + masks.origin[i, ::-1]
        area[i] = max(len(points), 1)
        if len(points):
            xy[i] = points.mean(0)
            covariance[i] = np.cov(points.T, bias=True) if len(points) > 1 else 0
        covariance[i] += np.eye(2) / 12  # a pixel's own extent
    return Features(xy, area, covariance)
