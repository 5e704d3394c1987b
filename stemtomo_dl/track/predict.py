"""Linking anew: every sighting to the particle that is expected there."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.track.assign import assign
from stemtomo_dl.track.likeness import Likeness
from stemtomo_dl.track.rigid import Fit
from stemtomo_dl.track.series import Series

_LIMIT = 9.0  # dearest link, as a negative log likelihood
PARTIAL = 0.05  # of the sightings: outlines that show a part of a particle, or more than it
_FLOOR_PX = 0.5  # outlines on a raster scatter rarely, but then by a pixel, however small their noise


def relink(series: Series, index: np.ndarray, fitted: Fit, likeness: Likeness) -> np.ndarray:
    """Assign the sightings of every tilt to the predicted particles, optimally.

    The looks are compared with the track's own sighting at the nearest other tilt.

    Parameters
    ----------
    series : Series
    index : (track, rank) int array
        The tracks that the fit was made of.
    fitted : Fit
    likeness : Likeness

    Returns
    -------
    (n) int array
        Track of each sighting, -1 for none.
    """
    place, variance = fitted.predict()
    variance = np.maximum(variance + fitted.noise[:, None] ** 2, _FLOOR_PX**2)
    near = _nearest_other(index, fitted.weight)
    label = np.full(len(series.xy), -1)
    for rank, here in enumerate(series.groups):
        x, y = (series.xy[here, k] - place[:, rank, None, k] for k in (0, 1))
        squared, wide = x * x + y * y, variance[:, rank] + series.partial[near[:, rank]]
        i, j = np.nonzero(squared < 2 * _LIMIT * wide[:, None])
        cost = misplaced(squared[i, j] / variance[i, rank], np.log(variance[i, rank] / variance.min()),
                         squared[i, j] / wide[i], np.log(wide[i] / variance.min()))  # fmt: skip
        cost += likeness.cost(series, near[i, rank], here[j])
        chosen = assign(i, j, cost, _LIMIT)
        label[here[j[chosen]]] = i[chosen]
    return label


def misplaced(squared: np.ndarray, volume: np.ndarray, wide: np.ndarray, wide_volume: np.ndarray) -> np.ndarray:
    """Negative log likelihood of a difference, mostly of the noise, but now and then of outlines that show a part.

    Parameters
    ----------
    squared, wide : (n) arrays
        Squared Mahalanobis distances given whole outlines, and given partial ones.
    volume, wide_volume : (n) arrays
        Logarithms of what the densities are normalised by: a wide one says less.
    """
    return -np.logaddexp(np.log(1 - PARTIAL) - squared / 2 - volume, np.log(PARTIAL) - wide / 2 - wide_volume)


def _nearest_other(index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """For every track and rank the track's trusted sighting at the nearest other rank, (track, rank)."""
    tracks, tilts = index.shape
    trusted = (index >= 0) & (weight > 0.25)
    trusted[~trusted.any(1)] = index[~trusted.any(1)] >= 0
    rank = np.arange(tilts)
    before = np.maximum.accumulate(np.where(trusted, rank, -10 * tilts), 1)
    after = np.minimum.accumulate(np.where(trusted, rank, 10 * tilts)[:, ::-1], 1)[:, ::-1]
    before = np.concatenate([np.full((tracks, 1), -10 * tilts), before[:, :-1]], 1)
    after = np.concatenate([after[:, 1:], np.full((tracks, 1), 10 * tilts)], 1)
    nearest = np.where(rank - before <= after - rank, before, after)
    lonely = (nearest < 0) | (nearest >= tilts)  # seen at this rank alone
    return np.where(lonely, index, np.take_along_axis(index, np.clip(nearest, 0, tilts - 1), 1))
