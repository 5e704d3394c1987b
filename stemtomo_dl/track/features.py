"""What the tracker compares of an outline: where it is, how large, what shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.records import Masks, Record, array


@dataclass(frozen=True, eq=False)
class Features(Record):
    """Sightings without their outlines; all that linking needs, so that centroid series can be linked as well."""

    xy: np.ndarray = array("f8", "instance 2", "px (x, y)")
    area: np.ndarray = array("f8", "instance", "px²")
    covariance: np.ndarray = array("f8", "instance 2 2", "px², second moments")
    at_border: np.ndarray | None = array("bool", "instance", "touches the scan's edge", optional=True)


def features(masks: Masks) -> Features:
    """Centroids, areas and second moments of all outlines, and which of them the scan's edge may cut."""
    n = len(masks)
    xy, area, covariance = np.zeros((n, 2)), np.zeros(n), np.zeros((n, 2, 2))
    for i, crop in enumerate(masks.crops):
        points = np.argwhere(crop)[:, ::-1] + masks.origin[i, ::-1]
        area[i] = max(len(points), 1)
        if len(points):
            xy[i] = points.mean(0)
            covariance[i] = np.cov(points.T, bias=True) if len(points) > 1 else 0
        covariance[i] += np.eye(2) / 12  # a pixel's own extent
    extent = np.array([c.shape for c in masks.crops]).reshape(-1, 2)
    edge = (masks.origin <= 0).any(1) | (masks.origin + extent >= np.array(masks.shape)).any(1)
    return Features(xy, area, covariance, edge)
