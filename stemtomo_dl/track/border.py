"""Outlines that the scan's edge cuts: where the middle of the whole particle is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stemtomo_dl.track.series import Series

_MOVED, _LEAST = 0.5, 0.25  # standard deviation of what was moved: of the way, and of a cut outline's, at least
_DEPTH = np.linspace(-0.9, 1.0, 96)  # of a unit disc's middle inside a straight edge, in radii


def _visible_middle(depth: np.ndarray) -> np.ndarray:
    """How far inside the edge the centroid of what is seen of a unit disc lies, in radii."""
    root = np.sqrt(1 - depth**2)
    area = np.pi - np.arccos(depth) + depth * root
    return np.asarray(depth + 2 / 3 * root**3 / area)


_SEEN = _visible_middle(_DEPTH)


def uncut(series: Series, index: np.ndarray) -> Series:
    """The series with sightings that the scan's edge cuts moved to where their particle's middle is.

    An ellipse of uniform density with the second moments of the track's whole outlines, cut by a straight edge, is a
    disc in other coordinates: how far the centroid of what is left lies inside the edge tells how far the middle does.
    What is moved is no better known than to half of how far it was moved, nor than to a quarter of what a cut outline
    is off: the particle is no ellipse.

    Parameters
    ----------
    series : Series
        As it was seen.
    index : (track, rank) int array
        Tracks; one without a whole outline keeps its sightings as they are.
    """
    xy, cut = series.xy.copy(), series.cut.copy()
    half = np.array(series.shape[::-1]) / 2  # pixels reach half a pixel beyond their centres
    for row in index:
        mine = row[row >= 0]
        touching = mine[series.cut[mine] > 0]
        whole = mine[series.cut[mine] == 0]
        if not len(touching) or not len(whole):
            continue
        covariance = np.median(series.covariance[whole], 0)
        for k in touching:
            move = _moved(xy[k], covariance, half)
            xy[k] += move
            least = _LEAST**2 * series.cut[k]
            cut[k] = min(cut[k], max(_MOVED**2 * (move**2).sum(), least))
    return replace(series, xy=xy, cut=cut)


def _moved(xy: np.ndarray, covariance: np.ndarray, half: np.ndarray) -> np.ndarray:
    """From the centroid of what is seen to the particle's middle, px; across the edge that cuts most of it."""
    reach = 2 * np.sqrt(np.diag(covariance))  # of an ellipse from its middle
    inside = (half - np.abs(xy)) / reach
    axis = int(inside.argmin())
    if inside[axis] >= 1:
        return np.zeros(2)
    depth = np.interp(inside[axis], _SEEN, _DEPTH)
    along = (inside[axis] - depth) * reach[axis] * np.sign(xy[axis])
    return np.asarray(covariance[:, axis] / covariance[axis, axis] * along)
