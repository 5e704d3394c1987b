"""Where the direct beam is when nothing of it is seen: the point about which a mean pattern is symmetric."""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.errors import BadScan
from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.records import TiltSeries
from stemtomo_dl.stream import sample_blocks
from stemtomo_dl.virtual.beam import seed_centres

_SCATTER_PX = 3.0
_BRIGHTEST = 0.98  # of the pixels: above it are a few reflections, and what passes the stop, opposite which it is dark
_PAIRED = 0.2  # of the good pixels: those whose opposite must be good, too


def hidden_in_series(series: TiltSeries, bad: np.ndarray, config: ImagesConfig) -> bool:
    """Whether the direct beam is hidden in most of a few tilts, and so in all: a stop stays where it is.

    Where a stop lets through a rim of the beam at some tilt, that tilt alone would look as if the beam were seen.

    Parameters
    ----------
    series : TiltSeries
        Up to ``config.bad_pixel_tilts`` of its tilts are sampled.
    bad : (qy, qx) bool array
    config : ImagesConfig
    """
    i, tilts = series.instrument, list(series.good())
    disk = disk_radius_px(i.convergence_mrad, wavelength(i.voltage_kv), i.pixel_inv_angstrom)
    votes = []
    for k in np.unique(np.linspace(0, len(tilts) - 1, config.bad_pixel_tilts).round().astype(int)):
        try:
            votes.append(is_hidden(seed_centres(sample_blocks(tilts[k][1]), ~bad, disk)[1], disk))
        except BadScan:  # told when its images are made
            continue
    return sum(votes) > len(votes) / 2


def is_hidden(scatter_px: float, disk_px: float) -> bool:
    """Whether what stands out is not the direct beam but a reflection here and another one there.

    A direct beam is in every pattern, so that the places found in groups of probes lie on one smooth surface.

    Parameters
    ----------
    scatter_px : float
        Median distance of the places from that surface, of `beam.seed_centres`; NaN where nothing was found.
    disk_px : float
        Radius of the diffraction disks.
    """
    return scatter_px > max(_SCATTER_PX, disk_px)


def symmetry_centre(pattern: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Centre (column, row) of inversion of a mean pattern, by Friedel's law; NaN where it has none.

    The highest correlation coefficient of the pattern with itself turned by 180°, over centres half a pixel apart
    and over those pixels alone that are good with their opposite (masked correlation: Padfield, IEEE Trans. Image
    Process. 21, 2706 (2012)); then a parabola along columns and rows. The square root gives the diffuse background
    of many pixels a say beside a few reflections, of which not all have their opposite excited.

    Parameters
    ----------
    pattern : (qy, qx) array
        Mean over many probes.
    good : (qy, qx) bool array
    """
    known = good & np.isfinite(pattern)
    if not known.any():
        return np.full(2, np.nan)
    values = np.zeros(pattern.shape)
    low, high = pattern[known].min(), np.quantile(pattern[known], _BRIGHTEST)
    values[known] = np.sqrt(np.minimum(pattern[known], high) - low)
    values[known] -= values[known].mean()
    full = tuple(2 * n - 1 for n in pattern.shape)
    padded = [next_fast_len(n, real=True) for n in full]
    one, level, square = (rfft2(a, padded) for a in (known.astype(float), values, values**2))

    def paired(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Sum over pixels of ``a`` times ``b`` at the opposite; index (row, column) is twice the centre."""
        return np.asarray(irfft2(a * b, padded)[: full[0], : full[1]])

    pairs = paired(one, one)
    n = np.maximum(pairs, 1)
    mean = paired(level, one) / n
    variance = paired(square, one) / n - mean**2
    likeness = np.full(full, -1.0)
    there = (pairs > _PAIRED * known.sum()) & (variance > 1e-9 * values.var())
    likeness[there] = (paired(level, level) / n - mean**2)[there] / variance[there]
    if not there.any():
        return np.full(2, np.nan)
    row, column = np.clip(np.unravel_index(likeness.argmax(), full), 1, np.array(full) - 2)
    along = likeness[row, column - 1 : column + 2], likeness[row - 1 : row + 2, column]
    return (np.array([column, row]) + [_vertex(a) for a in along]) / 2


def _vertex(a: np.ndarray) -> float:
    """Where the parabola through three equally spaced values has its top, from the middle one, at most one away."""
    bend = a[0] - 2 * a[1] + a[2]
    return float(np.clip(0.5 * (a[0] - a[2]) / bend, -1, 1)) if bend < 0 else 0.0
