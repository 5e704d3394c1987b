"""The sightings in the order in which tilts are near each other, and what of the stage is known beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stemtomo_dl.geometry import field_centre
from stemtomo_dl.track.features import Features

# An outline that shows from half to all of a particle is off by up to √.75 of its second moment's root (a rod; a disc
# by √.72), evenly: a third of that as a variance.
_PARTIAL = 0.25


@dataclass(frozen=True, eq=False)
class Series:
    """Sightings sorted by tilt angle; a tilt's place in this order is its rank.

    Attributes
    ----------
    xy : (n, 2) array
        From the field's centre, px.
    looks : (n, 3) array
        Logarithm of the area, and the two components of the shape's ellipticity.
    partial : (n) array
        Variance of a centre along each axis, px², where outlines like this one show no more than a part of their
        particle.
    cut : (n) array
        Variance that a sighting has beyond its noise, px²: ``partial`` where the scan's edge cuts its outline, else 0.
    covariance : (n, 2, 2) array
        Second moments, px².
    narrow : (n) array
        Root of the smaller second moment, px: a quarter of an outline's width.
    rank : (n) int array
        -1 for a sighting at a tilt without an angle, or without an outline.
    groups : list of int arrays
        The sightings of every rank.
    tilts : (rank) int array
        Tilt number of every rank.
    alpha : (rank) array
        Radians; zeros where the series states no angles at all.
    shape : (int, int)
        Scan rows and columns.
    descriptor : (n, bins) array or None
        Diffraction patterns of unit variance, NaN rows where unknown.
    """

    xy: np.ndarray
    looks: np.ndarray
    partial: np.ndarray
    cut: np.ndarray
    covariance: np.ndarray
    narrow: np.ndarray
    rank: np.ndarray
    groups: list[np.ndarray]
    tilts: np.ndarray
    alpha: np.ndarray
    shape: tuple[int, int]
    descriptor: np.ndarray | None


def arrange(
    seen: Features, tilt: np.ndarray, alpha_deg: np.ndarray, shape: tuple[int, int], descriptor: np.ndarray | None
) -> Series:
    """Sort the sightings by tilt angle, or by tilt number where no angle is known."""
    tilt = np.asarray(tilt, int)
    if np.isfinite(alpha_deg).any():
        tilts = np.argsort(alpha_deg, kind="stable")[: int(np.isfinite(alpha_deg).sum())]
        alpha = np.radians(alpha_deg[tilts])
    else:
        tilts, alpha = np.arange(len(alpha_deg)), np.zeros(len(alpha_deg))
    rank_of = np.full(len(alpha_deg), -1)
    rank_of[tilts] = np.arange(len(tilts))
    rank = np.where(seen.area > 0, rank_of[tilt], -1)
    order = np.argsort(rank, kind="stable")
    edges = np.searchsorted(rank[order], np.arange(len(tilts) + 1))
    groups = [order[a:b] for a, b in pairwise(edges)]
    cxx, cyy, cxy = seen.covariance[:, 0, 0], seen.covariance[:, 1, 1], seen.covariance[:, 0, 1]
    looks = np.stack([np.log(np.maximum(seen.area, 1)), (cxx - cyy) / (cxx + cyy), 2 * cxy / (cxx + cyy)], 1)
    partial = _PARTIAL * (cxx + cyy) / 2
    cut = np.zeros(len(partial)) if seen.at_border is None else np.where(seen.at_border, partial, 0.0)
    narrow = np.sqrt(np.linalg.eigvalsh(seen.covariance)[:, 0])
    xy = seen.xy - field_centre(shape)
    return Series(xy, looks, partial, cut, seen.covariance, narrow, rank, groups, tilts, alpha, shape, descriptor)
