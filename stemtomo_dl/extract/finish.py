"""From sums to patterns: gaps filled and flagged, the beam brought to the centre, variances."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from scipy.optimize import nnls

from stemtomo_dl.extract.collect import Sums

_STILL_PX = 1e-4  # displacements that are not worth moving an image for
_LEAST_KNOWN = 0.5  # of the weight that goes into a pixel, for it to count as measured
_MOST_FILLED = 0.1  # of the weight of an interpolated pixel
_NEAR = np.exp(-0.5 * (np.arange(-6, 7) / 1.5) ** 2)  # a Gaussian's weights, pixel by pixel
_NEAR /= _NEAR.sum()
_LEAST_NEAR = 1e-3  # of the weights, for a pixel to be filled
_LEAST_GAUGE, _GAUGE_BINS, _DARK = 20, 12, 0.9  # the brightest tenth is the direct beam
_FAR_BETTER = 0.5  # of the misfit, for a camera to have an offset


class Camera(NamedTuple):
    """Variance of a pixel's value n: ``gain`` · n + ``readout``, counts² per count and counts².

    ``readout`` is the variance of a value of 0: below 0 where the camera adds an offset to all values. ``least`` is
    that which even the darkest pixels have without a single count.
    """

    gain: float
    readout: float
    least: float = 0.0


COUNTING = Camera(1.0, 0.0)


def camera_noise(sums: Sums, bad: np.ndarray) -> Camera:
    """Noise of the camera from how the patterns of the bare support scatter; counting noise if they are too few.

    Photon transfer: variance against mean over pixels is a line whose slope is the gain (Janesick 2007, Photon
    Transfer, SPIE).
    """
    n = sums.n_gauge
    if n < _LEAST_GAUGE:
        return COUNTING
    mean = sums.gauge[0] / n
    variance = (sums.gauge[1] - n * mean**2) / (n - 1)
    use = ~bad & (mean <= np.quantile(mean[~bad], _DARK))
    bins = [b for b in np.array_split(np.argsort(mean[use]), _GAUGE_BINS) if len(b)]
    m, v = (np.array([values[use][b].mean(dtype="f8") for b in bins]) for values in (mean, variance))
    return _line(m, v) if (v > 0).all() else COUNTING


def _line(mean: np.ndarray, variance: np.ndarray) -> Camera:
    """The line through variances (n) against means, each known to the same share of itself.

    It does not fall, and starts below 0 only where the fit is then far better: values with an offset.
    """
    design, ones = np.stack([mean, np.ones_like(mean)], 1) / variance[:, None], np.ones(len(mean))
    (gain, readout), misfit = nnls(design, ones)
    free = np.linalg.lstsq(design, ones, rcond=None)[0]
    if free[0] > 0 and np.linalg.norm(design @ free - ones) < _FAR_BETTER * misfit:
        gain, readout = free
    least = max(float(readout + gain * min(mean.min(), 0.0)), 0.0)
    return Camera(float(gain) if gain > 0 else 1.0, float(readout), least)


class Pattern(NamedTuple):
    """One particle's pattern on the common centre, (qy, qx) each."""

    values: np.ndarray
    variance: np.ndarray
    measured: np.ndarray


def finish(
    sums: np.ndarray,
    lost: np.ndarray,
    squares: np.ndarray,
    total: np.ndarray,
    remaining: np.ndarray,
    floor: tuple[float, float],
    camera: Camera,
) -> Pattern:
    """A particle's pattern from its sums.

    Parameters
    ----------
    sums, lost : (2, qy, qx) arrays
        Σ c d and the Σ|c| without a value, of its own probes and of the rest.
    squares : (qy, qx) array
        Σ c² d.
    total : (2,) array
        Σ|c|.
    remaining : (2, 2) array
        Displacement (column, row) that whole pixels have left, px.
    floor : (float, float)
        Σ c², and the mean c² of its own probes: where next to nothing was counted, as if one count had been.
    camera : Camera
    """
    known = 1 - lost / np.maximum(total, 1e-30).astype("f4")[:, None, None]
    measured = (known >= _LEAST_KNOWN) | (total == 0)[:, None, None]
    whole = np.where(measured, sums / np.maximum(known, _LEAST_KNOWN), 0)
    there = np.maximum(known[0], _LEAST_KNOWN)
    variance = camera.gain * squares + np.float32(camera.readout * floor[0]) * there
    variance = np.maximum(variance, camera.gain * floor[1] + np.float32(camera.least * floor[0]) * there) / there**2
    both = measured.all(0)
    values, gaps = np.zeros(squares.shape, "f4"), np.zeros(squares.shape, bool)
    for kind in range(2 if total[1] else 1):
        values += _moved(fill(whole[kind], measured[kind]), remaining[kind])
        gaps |= _gap(measured[kind], remaining[kind])
    variance = _moved(fill(variance, both), remaining[0], power=2)
    return Pattern(fill(values, ~gaps), variance, ~gaps)


def _moved(image: np.ndarray, by: np.ndarray, power: int = 1) -> np.ndarray:
    """An image moved back by a fraction of a pixel (column, row), or its variance for ``power`` = 2."""
    if np.abs(by).max() <= _STILL_PX:
        return image
    return _correlated(image, taps(by[0]) ** power, taps(by[1]) ** power)


def _gap(measured: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Pixels that owe too much to what was not measured once an image has been moved."""
    if measured.all() or np.abs(by).max() <= _STILL_PX:
        return ~measured
    return np.asarray(_correlated(~measured, np.abs(taps(by[0])), np.abs(taps(by[1]))) > _MOST_FILLED)


@numba.njit(nogil=True, cache=True)
def _correlated(image: np.ndarray, along_x: np.ndarray, along_y: np.ndarray) -> np.ndarray:
    """Each pixel's neighbours −2 … 2 by their weights, along rows and then columns; edges go on as they are."""
    rows, cols = image.shape
    between, out = np.empty((rows, cols), np.float32), np.empty((rows, cols), np.float32)
    line = np.empty(cols + 4)
    for y in range(rows):
        line[:2], line[2:-2], line[-2:] = image[y, 0], image[y], image[y, -1]
        target = between[y]
        for x in range(cols):
            near = along_x[1] * line[x + 1] + along_x[2] * line[x + 2] + along_x[3] * line[x + 3]
            target[x] = along_x[0] * line[x] + near + along_x[4] * line[x + 4]
    for y in range(rows):
        a, b, c = between[max(y - 2, 0)], between[max(y - 1, 0)], between[y]
        d, e, target = between[min(y + 1, rows - 1)], between[min(y + 2, rows - 1)], out[y]
        for x in range(cols):
            near = along_y[1] * b[x] + along_y[2] * c[x] + along_y[3] * d[x]
            target[x] = along_y[0] * a[x] + near + along_y[4] * e[x]
    return out


def taps(fraction: float) -> np.ndarray:
    """Weights of the pixels −2 … 2 for the value a fraction (−½ … ½) of a pixel further on.

    Cubic convolution with a = −½: quadratics are reproduced, so that spots keep their place, sum and width (Keys
    1981, IEEE Trans. Acoust. Speech Signal Process. 29, 1153).
    """
    r = np.abs(np.arange(-2, 3) - fraction)
    near, far = 1.5 * r**3 - 2.5 * r**2 + 1, -0.5 * r**3 + 2.5 * r**2 - 4 * r + 2
    return np.where(r < 1, near, np.where(r < 2, far, 0.0))


def fill(pattern: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Values for what was not measured, from the measured pixels nearby (zero where there are none)."""
    if measured.all():
        return pattern
    out = pattern.copy()
    _fill_gaps(pattern, measured, _NEAR, out)
    return out


@numba.njit(nogil=True, cache=True)
def _fill_gaps(pattern: np.ndarray, measured: np.ndarray, near: np.ndarray, out: np.ndarray) -> None:
    """Mean of the measured pixels about each that is not, weighted by ``near`` (n) along rows and columns.

    Beyond its edges the pattern is mirrored. Only gaps cost anything: filters over the whole pattern would take most
    of the time that it takes to complete one.
    """
    rows, cols = measured.shape
    reach = len(near) // 2
    row, column = np.empty(len(near), np.int64), np.empty(len(near), np.int64)
    for y in range(rows):
        for j in range(len(near)):
            row[j] = _mirrored(y + j - reach, rows)
        for x in range(cols):
            if measured[y, x]:
                continue
            for i in range(len(near)):
                column[i] = _mirrored(x + i - reach, cols)
            value = weight = 0.0
            for j in range(len(near)):
                for i in range(len(near)):
                    if measured[row[j], column[i]]:
                        weight += near[j] * near[i]
                        value += near[j] * near[i] * pattern[row[j], column[i]]
            out[y, x] = value / weight if weight > _LEAST_NEAR else 0.0


@numba.njit(nogil=True, cache=True)
def _mirrored(i: int, n: int) -> int:
    i %= 2 * n
    return i if i < n else 2 * n - 1 - i
