"""How much the looks of two sightings speak for one particle, as the series itself teaches it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stemtomo_dl.track.series import Series

_FLAT = np.zeros(40)
_STRONGEST = 4.0  # no look alone decides: outlines merge, crystals flip in and out of a zone axis
_FEWEST = 50  # pairs to learn from


def _bins(values: np.ndarray, low: float, high: float) -> np.ndarray:
    cell = (values - low) / (high - low) * len(_FLAT)
    return np.clip(np.nan_to_num(cell), 0, len(_FLAT) - 1).astype(int)


@dataclass(frozen=True, eq=False)
class Likeness:
    """Tables of −log(p(difference | one particle) / p(difference | two)), one per look; zero tables say nothing.

    ``size`` over the absolute difference of log area, ``shape`` over the distance of ellipticities, ``pattern``
    over the correlation of diffraction patterns.
    """

    size: np.ndarray = field(default_factory=lambda: _FLAT)
    shape: np.ndarray = field(default_factory=lambda: _FLAT)
    pattern: np.ndarray = field(default_factory=lambda: _FLAT)

    def cost(self, series: Series, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """What the looks add to the negative log likelihood that sightings ``a`` and ``b`` show one particle."""
        size, shape = _differences(series, a, b)
        cost = self.size[_bins(size, 0, 2)] + self.shape[_bins(shape, 0, 1)]
        if series.descriptor is not None and self.pattern.any():
            same = _correlation(series.descriptor, a, b)
            cost += np.where(np.isfinite(same), self.pattern[_bins(same, -1, 1)], 0.0)
        return cost


def _differences(series: Series, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    difference = series.looks[a] - series.looks[b]
    return np.abs(difference[:, 0]), np.hypot(difference[:, 1], difference[:, 2])


def _correlation(descriptor: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of rows of unit variance and zero mean; NaN where a row is unknown."""
    return np.einsum("nb,nb->n", descriptor[a], descriptor[b]) / descriptor.shape[1]


def learn_likeness(series: Series, label: np.ndarray) -> Likeness:
    """Compare sightings of one piece at neighbouring tilts with those of different pieces at the same tilts.

    Parameters
    ----------
    series : Series
    label : (n) int array
        Pieces that are sure, -1 where a sighting belongs to none.
    """
    order = np.lexsort((series.rank, label))
    order = order[label[order] >= 0]
    follows = (label[order][1:] == label[order][:-1]) & (np.diff(series.rank[order]) <= 2)
    a, b = order[:-1][follows], order[1:][follows]
    if len(a) < _FEWEST:
        return Likeness()
    # a stranger for every pair: the later sighting of the next pair at the same tilt
    at = np.argsort(series.rank[b], kind="stable")
    same_tilt = series.rank[b[at]][1:] == series.rank[b[at]][:-1]
    first, other = a[at[:-1][same_tilt]], b[at[1:][same_tilt]]
    strange = label[first] != label[other]
    first, other = first[strange], other[strange]
    if len(first) < _FEWEST:
        return Likeness()
    own, theirs = _differences(series, a, b), _differences(series, first, other)
    pattern = _FLAT
    if series.descriptor is not None:
        same, different = _correlation(series.descriptor, a, b), _correlation(series.descriptor, first, other)
        pattern = _table(same[np.isfinite(same)], different[np.isfinite(different)], -1, 1)
    return Likeness(_table(own[0], theirs[0], 0, 2), _table(own[1], theirs[1], 0, 1), pattern)


def _table(same: np.ndarray, different: np.ndarray, low: float, high: float) -> np.ndarray:
    """Negative log ratio of two smoothed histograms; flat where there is too little to go by."""
    if min(len(same), len(different)) < _FEWEST:
        return _FLAT
    smooth = np.array([0.25, 0.5, 0.25])
    ratio = np.zeros(len(_FLAT))
    for values, sign in ((same, -1), (different, 1)):
        count = np.convolve(np.bincount(_bins(values, low, high), minlength=len(_FLAT)), smooth, mode="same")
        ratio += sign * np.log((count + 1) / (len(values) + len(_FLAT)))
    return np.clip(ratio, -_STRONGEST, _STRONGEST)
