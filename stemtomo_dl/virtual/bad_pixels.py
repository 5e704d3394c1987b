"""Bad detector pixels, found from the data of a few tilts."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.records import TiltSeries
from stemtomo_dl.stream import sample
from stemtomo_dl.virtual.beam import coarse_centre

_SAMPLE_TILES, _SAMPLE_BYTES = 6, 4 << 20
_RING = np.ones((5, 5), bool)
_RING[1:4, 1:4] = False


def find_bad_pixels(series: TiltSeries, config: ImagesConfig) -> np.ndarray:
    """Pixels to leave out: the user's, and those that stand out at every tilt whatever crystal is in the beam.

    A Bragg spot moves from tilt to tilt and covers a disk; a hot pixel stays and is alone. Dead pixels and gaps
    never count where their surroundings do; values of a gap written as the dtype's maximum never change.

    Parameters
    ----------
    series : TiltSeries
        Up to ``config.bad_pixel_tilts`` of its tilts are sampled.

    Returns
    -------
    (qy, qx) bool array
    """
    tilts = list(series.good())
    chosen = np.unique(np.linspace(0, len(tilts) - 1, config.bad_pixel_tilts).round().astype(int))
    means, low, high, probes = [], np.inf, -np.inf, 0
    for i in chosen:
        patterns = sample(tilts[i][1], _SAMPLE_TILES, _SAMPLE_BYTES)
        means.append(patterns.mean(0, dtype="f8"))
        low, high = np.minimum(low, patterns.min(0)), np.maximum(high, patterns.max(0))
        probes += len(patterns)
    dtype = tilts[0][1].dtype
    level = np.median(means, 0)
    bad = np.zeros(level.shape, bool) if series.bad_pixels is None else series.bad_pixels.copy()
    if np.issubdtype(dtype, np.integer):
        bad |= (low == high) & (high == np.iinfo(dtype).max)
    bad |= ~np.isfinite(level)
    disk = disk_radius_px(
        series.instrument.convergence_mrad, wavelength(series.instrument.voltage_kv), series.instrument.pixel_inv_angstrom
    )
    hot = _hot(level, bad, probes / len(chosen), config.bad_pixel_sigma)
    centre = coarse_centre(level, ~(bad | hot), disk)
    y, x = np.indices(level.shape)
    r = np.hypot(x - centre[0], y - centre[1])
    bad |= hot & (r > 2 * disk + 3)
    return bad | _dead(level, bad, high, r, probes)


def _hot(level: np.ndarray, bad: np.ndarray, probes: float, sigma: float) -> np.ndarray:
    """Pixels far above the ring of their second neighbours, by counting statistics and by half their value."""
    filled = np.where(bad, np.nan, level)
    around = ndimage.generic_filter(filled, np.nanmedian, footprint=_RING, mode="mirror") if bad.any() else (
        ndimage.median_filter(level, footprint=_RING, mode="mirror")
    )
    around = np.nan_to_num(around)
    spread = np.sqrt((around + 1 / probes) / probes)
    alone = level >= ndimage.maximum_filter(np.nan_to_num(filled), 3) * (1 - 1e-12)
    return alone & (level - around > sigma * spread + 0.5 * around)


def _dead(level: np.ndarray, bad: np.ndarray, high: np.ndarray, r: np.ndarray, probes: int) -> np.ndarray:
    """Pixels without a count where those at the same radius and nearby would have given many."""
    ring = r.astype(int).ravel()
    alive = ~bad.ravel() & (high.ravel() > 0)
    n = np.bincount(ring, alive)
    mean = np.bincount(ring, np.where(alive, level.ravel(), 0)) / np.maximum(n, 1)
    expected = ndimage.median_filter(mean, 5)[ring].reshape(level.shape) * probes
    return (high <= 0) & (expected > 25)
