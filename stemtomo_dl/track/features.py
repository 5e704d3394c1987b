"""What the tracker compares of an outline: where it is, how large, what shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.records import Masks, Record, array


@dataclass(frozen=True, eq=False)
class Features(Record):
    """Sightings without their outlines; all that linking needs, so that centroid series can be linked as well."""

    xy: np.ndarray = array("f8", "instance 2", "px (x, y)")
    area: np.ndarray = array("f8", "instance", "px²; 0: no outline")
    covariance: np.ndarray = array("f8", "instance 2 2", "px², second moments")
    at_border: np.ndarray | None = array("bool", "instance", "touches the scan's edge", optional=True)


def features(masks: Masks) -> Features:
    """Centroids, areas and second moments of all outlines, and which of them the scan's edge may cut."""
    n = len(masks)
    xy, area, covariance = np.zeros((n, 2)), np.zeros(n), np.zeros((n, 2, 2))
    for i, crop in enumerate(masks.crops):
        points = np.stack(np.nonzero(crop)[::-1]).astype(float)
        count = points.shape[1]
        area[i] = count
        if count:
            middle = points.sum(1) / count
            xy[i] = middle + masks.origin[i, ::-1]
            points -= middle[:, None]
            covariance[i] = points @ points.T / count
    covariance += np.eye(2) / 12  # a pixel's own extent
    return Features(xy, area, covariance, at_border(masks))


def at_border(masks: Masks) -> np.ndarray:
    """Instances (n) that reach the scan's edge: part of them may be cut off."""
    extent = np.array([c.shape for c in masks.crops]).reshape(-1, 2)
    edge = (masks.origin <= 0) | (masks.origin + extent >= np.array(masks.shape))
    return np.asarray(edge.any(1))
