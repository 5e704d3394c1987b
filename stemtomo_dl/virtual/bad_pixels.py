"""Bad detector pixels, found from the data of a few tilts."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.errors import BadScan, InputError
from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.records import TiltSeries
from stemtomo_dl.stream import finite_mean, sample
from stemtomo_dl.virtual.beam import coarse_centre

_LEAST_PROBES = 50
_NARROW_PX, _NARROW_TAIL, _DISK_STEP = 0.8, 0.02, 0.25
_MOST_CONSTANT = 0.2  # share of the detector; more pixels than that do not stay the same because they are bad
_SEEN = 25  # counts that pixels would have given, for none to say that they are dead
_RING = np.ones((5, 5), bool)
_RING[1:4, 1:4] = False
_NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)


def find_bad_pixels(series: TiltSeries, config: ImagesConfig) -> np.ndarray:
    """Pixels to leave out: the user's, and those that stand out at every tilt whatever crystal is in the beam.

    A Bragg spot moves from tilt to tilt and covers a disk; a hot pixel stays and is alone. Dead pixels and gaps
    never count where their surroundings do, or always the same number.

    Parameters
    ----------
    series : TiltSeries
        Up to ``config.bad_pixel_tilts`` of its tilts are sampled.

    Returns
    -------
    (qy, qx) bool array

    Raises
    ------
    BadScan
        If none of the sampled tilts can be read.
    """
    tilts = list(series.good())
    chosen = np.unique(np.linspace(0, len(tilts) - 1, config.bad_pixel_tilts).round().astype(int))
    means: list[np.ndarray] = []
    low, high, probes = np.array(np.inf), np.array(-np.inf), 0
    for k in chosen:
        try:
            patterns = sample(tilts[k][1])
        except BadScan as e:  # told, with what to do, when its images are made; the other tilts are enough here
            unreadable = e
            continue
        mean = finite_mean(patterns)
        if not np.isfinite(mean).any():
            unreadable = BadScan(f"{tilts[k][1].name}: holds no numbers; leave it out")
            continue
        means.append(mean)
        low, high = np.fmin(low, np.fmin.reduce(patterns)), np.fmax(high, np.fmax.reduce(patterns))
        probes += len(patterns)
    if not means:
        raise unreadable
    level = _median(means)
    bad = np.zeros(level.shape, bool) if series.bad_pixels is None else series.bad_pixels.copy()
    bad |= ~np.isfinite(level)
    if bad.all():
        raise InputError("[detector] mask and the data leave no detector pixel to use; correct the mask")
    constant = (low == high) & (high > 0)  # a gap that is filled with some number; counts always scatter
    if probes >= _LEAST_PROBES and constant.mean() < _MOST_CONSTANT:
        bad |= constant
    bad |= _gaps(level, high, probes)
    i = series.instrument
    disk = disk_radius_px(i.convergence_mrad, wavelength(i.voltage_kv), i.pixel_inv_angstrom)
    hot = _hot(level, bad, probes / len(means), config.bad_pixel_sigma, narrow=disk < _NARROW_PX)
    centre = coarse_centre(level, ~(bad | hot.alone), disk)
    if not np.isfinite(centre).all():
        raise BadScan(
            f"{tilts[chosen[0]][1].name}: no direct beam stands out in the mean pattern of the sampled tilts; "
            "check the scans, the dataset and [detector] mask"
        )
    y, x = np.indices(level.shape)
    r = np.hypot(x - centre[0], y - centre[1])
    bad |= hot.alone | (hot.any & (r > 2 * disk + 3))
    return bad | _dead(level, bad, high, r, probes)


def _gaps(level: np.ndarray, high: np.ndarray, probes: int) -> np.ndarray:
    """Whole rows and columns without a count between such that have many: where chips meet.

    They are told before the beam is looked for, since what they leave of its disk may not look like one.
    """
    out = np.zeros(level.shape, bool)
    for axis in (0, 1):
        counting = np.flatnonzero((np.nan_to_num(high) > 0).any(1 - axis))
        counts = np.nan_to_num(level).sum(1 - axis) * probes
        for a, b in pairwise(counting.tolist()):
            if min(counts[a], counts[b]) > _SEEN:
                np.moveaxis(out, axis, 0)[a + 1 : b] = True
    return out


class _Hot(NamedTuple):
    """Pixels that stand out; those that do so alone cannot be part of the direct beam."""

    any: np.ndarray
    alone: np.ndarray


def _hot(level: np.ndarray, bad: np.ndarray, probes: float, sigma: float, narrow: bool) -> _Hot:
    """Pixels far above the ring of their second neighbours, by counting statistics and by half their value.

    A beam covers neighbouring pixels: if its disk is at least about a pixel in radius, none of it is several times
    its neighbours; if it is ``narrow``, it still has a tail. A gap may leave single pixels of it.
    """
    filled = np.where(bad, np.nan, level)
    around = np.nan_to_num(_ring_median(filled))
    # Beside counting statistics, what the pixels show of fixed pattern and readout noise.
    other = 1.4826 * float(np.nanmedian(np.abs(filled - around)))
    spread = np.hypot(np.sqrt((np.maximum(around, 0) + 1 / probes) / probes), other)
    limit = sigma * spread + 0.5 * np.maximum(around, 0)
    known = np.nan_to_num(filled)
    hot = (known >= ndimage.maximum_filter(known, 3) * (1 - 1e-12)) & (known - around > limit)
    beside = ndimage.maximum_filter(known, footprint=_NEIGHBOURS)
    share = _NARROW_TAIL if narrow else _DISK_STEP
    beside_gap = ndimage.convolve(bad.astype(int), _NEIGHBOURS.astype(int), mode="constant") > 1
    return _Hot(
        hot, hot & ~beside_gap & (beside - around <= limit + share * (known - around)) & (known > beside / _DISK_STEP)
    )


def _ring_median(image: np.ndarray) -> np.ndarray:
    """Median of the known second neighbours of every pixel, NaN where none is known."""
    padded = np.pad(image, 2, mode="reflect")
    rows, columns = image.shape
    neighbours = [padded[y : y + rows, x : x + columns] for y, x in np.argwhere(_RING)]
    return _median(neighbours)


def _median(images: list[np.ndarray]) -> np.ndarray:
    """Median of what is known, pixel by pixel; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a pixel amid a wide gap has no known neighbour
        return np.asarray(np.nanmedian(images, 0))


def _dead(level: np.ndarray, bad: np.ndarray, high: np.ndarray, r: np.ndarray, probes: int) -> np.ndarray:
    """Pixels without a count where those at the same radius and nearby would have given many."""
    ring = r.astype(int)
    alive = ~bad & (high > 0)
    expected = np.zeros(level.shape)
    for k in range(int(ring.max()) + 1):
        on = ring == k
        if (on & alive).any():
            # A low quantile: at the rim of the beam's disk the pixels of one radius are far from alike.
            expected[on] = np.quantile(level[on & alive], 0.25) * probes
    return (high <= 0) & (expected > _SEEN)
