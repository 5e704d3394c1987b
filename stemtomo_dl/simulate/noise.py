"""Counting statistics of virtual images, drawn per probe without its pattern."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.special import ndtri

from stemtomo_dl.simulate.library import (
    CUBES,
    GROUPS,
    IN_ADF,
    IN_BF,
    IN_HAADF,
    ON_CRYSTAL,
    ON_FILM,
    PEAK,
    SQUARES,
)
from stemtomo_dl.simulate.planes import BY_CRYSTAL, BY_FILM, DIRECT

_NORMAL = 10.0  # means from which Poisson numbers are drawn as skewed normal ones, in a third of the time
_FEW = 12.0  # means up to which the greatest of a group of pixels is drawn exactly
_STEPS = 256
# equally likely values of the greatest of 1, 2, 4, … normal numbers
_GREATEST = ndtri(((np.arange(_STEPS) + 0.5) / _STEPS) ** (0.5 ** np.arange(GROUPS))[:, None])


class Detectors(NamedTuple):
    """What of `library.Responses` the counts depend on; ``crystal`` is the mean of its ``diffuse``."""

    direct: float
    area_px: np.ndarray
    film: np.ndarray
    crystal: np.ndarray
    squares: np.ndarray
    cubes: np.ndarray
    levels: np.ndarray
    hottest: np.ndarray


@njit(cache=True, nogil=True, error_model="numpy")
def draw_counts(
    rng: np.random.Generator,
    electrons: float,
    planes: np.ndarray,
    detectors: Detectors,
    bragg: float,
    row_dose: np.ndarray,
    shading: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill ``out`` (detector, y, x) with bf, adf, haadf, variance and maximum.

    The variance is Σv² − (Σvm)²/Σm² over the dark field, m the mean pattern. Σv² = n + 2·pairs, where n electrons
    hit the dark field and ``pairs`` is the number of pairs of them in one pixel.

    Parameters
    ----------
    planes : (y, x, plane) array
        Of `simulate.planes`.
    bragg : float
        Σ over the dark field of the squared radial profile of all reflections, averaged over probes.
    row_dose : (y,) array
        Electrons of every row over the mean.
    shading : (3, 5) array
        Of `images.ImageSample`.
    """
    rows, columns = planes.shape[:2]
    area, profile = detectors.area_px, _along_profile(_mean(planes), detectors, bragg)
    for y in range(rows):
        for x in range(columns):
            p, e = planes[y, x], electrons * row_dose[y]
            v, u = 2 * (y + 0.5) / rows - 1, 2 * (x + 0.5) / columns - 1
            bright = e * (detectors.direct * p[DIRECT] + p[IN_BF]) * _kept(shading[0], u, v)
            adf, haadf = e * p[IN_ADF] * _kept(shading[1], u, v), e * p[IN_HAADF] * _kept(shading[2], u, v)
            out[0, y, x] = _poisson(rng, bright) / area[0]
            low, high = _poisson(rng, adf), _poisson(rng, haadf)
            out[1, y, x], out[2, y, x] = low / area[1], high / area[2]
            out[3, y, x], out[4, y, x] = _scatter_and_peak(rng, p, low + high, adf + haadf, detectors, profile)


@njit(cache=True, nogil=True, error_model="numpy")
def _scatter_and_peak(
    rng: np.random.Generator, p: np.ndarray, n: float, expected: float, detectors: Detectors, profile: np.ndarray
) -> tuple[float, float]:
    """Variance and maximum of a pattern whose dark field received n electrons, where ``expected`` were."""
    if n == 0:
        return 0.0, 0.0
    area, film_in, crystal_in = detectors.area_px, detectors.film, detectors.crystal
    flat, dark = 1 / (area[1] + area[2]), p[IN_ADF] + p[IN_HAADF]
    pairs = _pairs(rng, n, _squares(p, detectors) / (dark * dark), _cubes(p, detectors) / (dark * dark * dark))
    along = 0.0  # Σvm/√Σm² for counts that are spread as expected
    for k in range(len(p)):
        along += profile[k] * p[k]
    along *= n / dark
    kept = expected / dark
    f, c = p[BY_FILM], p[BY_CRYSTAL]
    top = _from_table(rng, detectors.levels, detectors.hottest, kept * (f + c), c / max(f + c, 1e-12))
    beneath = kept * flat * (f * (film_in[1] + film_in[2]) + c * (crystal_in[1] + crystal_in[2]))
    return max(n + 2 * pairs - along * along, 0.0) * flat, min(max(top, _greatest(rng, kept, p, beneath)), n)


@njit(cache=True, nogil=True, error_model="numpy")
def _mean(planes: np.ndarray) -> np.ndarray:
    """Every plane's mean over the field."""
    out = np.zeros(planes.shape[2])
    for y in range(planes.shape[0]):
        for x in range(planes.shape[1]):
            for k in range(len(out)):
                out[k] += planes[y, x, k]
    return out / (planes.shape[0] * planes.shape[1])


@njit(cache=True, nogil=True, error_model="numpy")
def _squares(p: np.ndarray, detectors: Detectors) -> float:
    """Sum over the dark field of the squared mean pattern of a probe."""
    f, c, both = p[BY_FILM], p[BY_CRYSTAL], detectors.squares
    diffuse = f * f * both[0] + 2 * f * c * both[1] + c * c * both[2]
    return float(diffuse + 2 * (f * p[ON_FILM] + c * p[ON_CRYSTAL]) + p[SQUARES])


@njit(cache=True, nogil=True, error_model="numpy")
def _cubes(p: np.ndarray, detectors: Detectors) -> float:
    """The same of its cube, without the products of reflections and diffuse scattering."""
    f, c, k = p[BY_FILM], p[BY_CRYSTAL], detectors.cubes
    return float(f * f * f * k[0] + 3 * f * c * (f * k[1] + c * k[2]) + c * c * c * k[3] + p[CUBES])


@njit(cache=True, nogil=True, error_model="numpy")
def _along_profile(mean: np.ndarray, detectors: Detectors, bragg: float) -> np.ndarray:
    """Weights of a probe's planes that give the part of its pattern along the scan's mean radial profile, √(…)².

    Sums over the dark field of products are bilinear in film, crystals and reflections. A probe's own reflections
    count as if they were spread over radii like those of all probes.
    """
    f, c, both = mean[BY_FILM], mean[BY_CRYSTAL], detectors.squares
    reflected = mean[IN_ADF] + mean[IN_HAADF]
    reflected -= f * (detectors.film[1] + detectors.film[2]) + c * (detectors.crystal[1] + detectors.crystal[2])
    each = bragg / reflected if reflected > 1e-9 else 0.0
    out = np.zeros(len(mean))
    out[ON_FILM], out[ON_CRYSTAL], out[IN_ADF], out[IN_HAADF] = f, c, each, each
    out[BY_FILM] = f * both[0] + c * both[1] + mean[ON_FILM] - each * (detectors.film[1] + detectors.film[2])
    out[BY_CRYSTAL] = (
        f * both[1] + c * both[2] + mean[ON_CRYSTAL] - each * (detectors.crystal[1] + detectors.crystal[2])
    )
    return out / np.sqrt(max((out * mean).sum(), 1e-30))


@njit(cache=True, nogil=True, error_model="numpy")
def _kept(shading: np.ndarray, x: float, y: float) -> float:
    loss = shading[0] * x + shading[1] * y + shading[2] * x * x + shading[3] * x * y + shading[4] * y * y
    return max(1 - loss, 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _poisson(rng: np.random.Generator, mean: float) -> float:
    """A Poisson number; large ones from a normal number by the first terms of Cornish and Fisher's expansion."""
    if mean < _NORMAL:
        return _quantile(rng.random(), mean) if mean > 0 else 0.0
    z, root = rng.standard_normal(), np.sqrt(mean)
    return float(np.floor(max(mean + root * z + (z * z - 1) / 6 + (z - z * z * z) / (72 * root) + 0.5, 0.0)))


@njit(cache=True, nogil=True, error_model="numpy")
def _pairs(rng: np.random.Generator, n: float, second: float, third: float) -> float:
    """Number of pairs among n electrons that share a pixel, with its exact mean and variance.

    With chances p of the pixels, Σp² = second and Σp³ = third: mean C(n,2)Σp² and variance
    C(n,2)(Σp² − (Σp²)²) + 6 C(n,3)(Σp³ − (Σp²)²).
    """
    both = n * (n - 1) / 2
    mean = both * second
    if mean <= 0:
        return 0.0
    excess = max(third - second * second, 0.0)
    variance = both * second * (1 - second) + both * (n - 2) * 2 * excess
    if mean > _NORMAL:
        return float(max(np.floor(mean + np.sqrt(max(variance, 0.0)) * rng.standard_normal() + 0.5), 0.0))
    more = variance - mean
    if more > 0.05 * mean:  # a Poisson number whose mean is itself drawn, so that the variances add up
        mean = rng.standard_gamma(mean * mean / more) * more / mean
    return _poisson(rng, mean)


@njit(cache=True, nogil=True, error_model="numpy")
def _from_table(
    rng: np.random.Generator, levels: np.ndarray, hottest: np.ndarray, electrons: float, mix: float
) -> float:
    """Count of the hottest pixel of diffuse scattering: one of its equally likely values at the nearest entries.

    Which of two entries counts is drawn too, so that distributions, not values, are interpolated.
    """
    if electrons < levels[0]:
        return 1.0 if electrons > 0 else 0.0
    place = np.log(electrons / levels[0]) / np.log(levels[-1] / levels[0]) * (len(levels) - 1)
    u = rng.random() * hottest.shape[2]  # its digits serve three times
    level = min(int(place + (u % 1)), len(levels) - 1)
    other = min(int(mix * (hottest.shape[1] - 1) + (u * 1024) % 1), hottest.shape[1] - 1)
    # beyond the table's end the greatest count grows as the electrons do: noise hardly matters any more
    return float(np.floor(hottest[level, other, int(u)] * max(1.0, electrons / levels[-1])))


@njit(cache=True, nogil=True, error_model="numpy")
def _greatest(rng: np.random.Generator, electrons: float, plane: np.ndarray, beneath: float) -> float:
    """The highest count in Bragg disks, from the means of its hottest 1, next 2, next 4, … pixels."""
    best = 0.0
    for g in range(GROUPS):
        mean = electrons * plane[PEAK + g]
        if mean < 0.02:
            break
        mean += beneath
        if mean < _FEW:
            value = _quantile(rng.random() ** (0.5**g), mean)
        else:
            # the square root of a Poisson number is nearly normal, with variance 1/4
            root = np.sqrt(mean - 0.25) + _GREATEST[g, int(rng.random() * _STEPS)] / 2
            value = np.floor(root * root + 0.5)
        best = max(best, value)
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def _quantile(chance: float, mean: float) -> float:
    """Smallest count that a Poisson number does not exceed with this chance."""
    term = np.exp(-mean)
    total, k = term, 0
    while total < chance and k < 60:
        k += 1
        term *= mean / k
        total += term
    return float(k)
