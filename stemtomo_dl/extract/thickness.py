"""How thick a particle is from its outline inward, from the dark field where nothing else is in the beam."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_LEAST = 0.15  # of the mean thickness
_LEAST_PROBES = 4  # of one depth, for its brightness to be believed


def profile(outline: np.ndarray, alone: np.ndarray, light: np.ndarray | None) -> np.ndarray:
    """Relative thickness at every probe of an outline, in the order of its pixels, 1 on average.

    Thickness is taken to depend on the depth below the outline alone: its course is read off the probes that meet
    no other particle, and so holds where others are in the beam as well. Dark-field signal is proportional to
    thickness as long as electrons scatter once.

    Parameters
    ----------
    outline : (y, x) bool array
    alone : (y, x) bool array
        Probes of the same window that meet this outline only.
    light : (y, x) array or None
        What the particle adds to the dark field; None: it counts as flat.

    Returns
    -------
    (n) array
    """
    n = int(outline.sum())
    depth = ndimage.distance_transform_edt(np.pad(outline, 1))[1:-1, 1:-1]
    ring = np.round(depth).astype(int)
    mine = alone & outline
    if light is None or mine.sum() < _LEAST_PROBES:
        return np.ones(n)
    counts = np.bincount(ring[mine], minlength=ring.max() + 1)
    total = np.bincount(ring[mine], light[mine], minlength=ring.max() + 1)
    known = np.flatnonzero(counts >= _LEAST_PROBES)
    if not len(known):
        return np.ones(n)
    course = np.interp(np.arange(len(counts)), known, total[known] / counts[known])
    course = np.maximum.accumulate(course)  # a particle is not thinner inside
    thick = course[ring[outline]]
    if not thick.mean() > 0:
        return np.ones(n)
    thick = np.maximum(thick / thick.mean(), _LEAST)
    return np.asarray(thick / thick.mean())
