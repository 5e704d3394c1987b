"""Agreement of repeated measurements, by shells of resolution.

R_int = Σ|I − <I>| / Σ<I> over reflections measured more than once; R_meas has √(n/(n−1)) and R_pim √(1/(n−1)) in each
term (Diederichs & Karplus 1997, Nature Struct. Biol. 4, 269; Weiss 2001, J. Appl. Cryst. 34, 130). CC1/2 is the
correlation of the means of random halves (Karplus & Diederichs 2012, Science 336, 1030), the mean over several splits.
Fewer than five reflections measured more than once have no R, and fewer than ten no CC1/2.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

_SPLITS = 10
_LEAST_FOR_CC = 10
_LEAST_FOR_R = 5  # reflections measured more than once


class Shell(NamedTuple):
    """Figures of one shell of resolution; NaN where it holds nothing to take them from."""

    d_max: float  # Å
    d_min: float
    n_observations: int
    n_unique: int
    n_possible: int
    completeness: float
    redundancy: float
    r_int: float
    r_meas: float
    r_pim: float
    cc_half: float
    mean_intensity: float
    i_over_sigma: float


class Observations(NamedTuple):
    """Scaled intensities and the unique reflection that each is of."""

    group: np.ndarray  # row of the unique reflections
    intensity: np.ndarray
    sigma: np.ndarray


def shell_edges(inverse_d: np.ndarray, most: int = 10, least: int = 40) -> np.ndarray:
    """Edges of shells of equal volume in 1/d (shell + 1,), fewer where reflections are few."""
    n = int(np.clip(len(inverse_d) // least, 1, most))
    low, high = float(inverse_d.min()), float(inverse_d.max())
    return np.asarray(np.cbrt(np.linspace(low**3, high**3, n + 1)))


def shells(
    observed: Observations,
    merged: tuple[np.ndarray, np.ndarray],
    inverse_d: np.ndarray,
    possible: np.ndarray,
    edges: np.ndarray,
    rng: np.random.Generator,
) -> list[Shell]:
    """Figures shell by shell.

    Parameters
    ----------
    observed : Observations
    merged : pair of (reflection,) arrays
        Merged intensities and sigmas.
    inverse_d : (reflection,) array
        1/d of the unique reflections, 1/Å.
    possible : (n,) array
        1/d of all unique reflections that the lattice offers.
    edges : (shell + 1,) array
        In 1/d, ascending.
    rng : numpy.random.Generator
        For the halves.
    """
    half = cc_half_values(observed, len(inverse_d), rng)
    out = []
    for low, high in pairwise(edges.tolist()):
        last = high == edges[-1]
        inside = _between(inverse_d, low, high, last)
        offered = int(_between(possible, low, high, last).sum())
        out.append(_shell(observed, merged, inside, offered, half, (1 / low, 1 / high)))
    return out


def _between(x: np.ndarray, low: float, high: float, last: bool) -> np.ndarray:
    tiny = 1e-6 * high
    return np.asarray((x >= low - tiny) & ((x < high - tiny) | (last & (x <= high + tiny))))


def _shell(
    observed: Observations,
    merged: tuple[np.ndarray, np.ndarray],
    inside: np.ndarray,
    offered: int,
    half: list[tuple[np.ndarray, np.ndarray]],
    d: tuple[float, float],
) -> Shell:
    mine = inside[observed.group]
    unique, n = int(inside.sum()), int(mine.sum())
    several = np.bincount(observed.group[mine], minlength=len(inside)) > 1
    r = (np.nan,) * 3
    if several.sum() >= _LEAST_FOR_R:
        r = r_factors(observed.group[mine], observed.intensity[mine], len(inside))
    cc = [_cc(a[inside], b[inside]) for a, b in half]
    known = [c for c in cc if np.isfinite(c)]
    intensity, sigma = merged[0][inside], merged[1][inside]
    return Shell(
        d[0],
        d[1],
        n,
        unique,
        offered,
        unique / offered if offered else np.nan,
        n / unique if unique else np.nan,
        *r,
        float(np.mean(known)) if known else np.nan,
        float(intensity.mean()) if unique else np.nan,
        float((intensity / sigma).mean()) if unique else np.nan,
    )


def r_factors(group: np.ndarray, intensity: np.ndarray, n_groups: int) -> tuple[float, float, float]:
    """R_int, R_meas and R_pim over groups of at least two; NaN where there are none."""
    count = np.bincount(group, minlength=n_groups)
    several = count[group] > 1
    if not several.any():
        return np.nan, np.nan, np.nan
    mean = np.bincount(group, intensity, n_groups) / np.maximum(count, 1)
    off, n = np.abs(intensity - mean[group])[several], count[group][several]
    total = max(float(np.abs(mean[group][several]).sum()), 1e-12)
    return (
        float(off.sum() / total),
        float((np.sqrt(n / (n - 1)) * off).sum() / total),
        float((np.sqrt(1 / (n - 1)) * off).sum() / total),
    )


def cc_half_values(
    observed: Observations, n_groups: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Means of random halves (reflection,), several times; NaN for reflections measured once."""
    out = []
    order = np.argsort(observed.group, kind="stable")
    for _ in range(_SPLITS):
        shuffled = order[np.lexsort((rng.random(len(order)), observed.group[order]))]
        group = observed.group[shuffled]
        first = np.searchsorted(group, group)
        # of an odd number, either half may get the larger part
        odd = rng.integers(0, 2, n_groups)[group]
        side = (np.arange(len(group)) - first + odd) % 2
        halves = []
        for s in (0, 1):
            g, i = group[side == s], observed.intensity[shuffled][side == s]
            n = np.bincount(g, minlength=n_groups)
            halves.append(np.where(n > 0, np.bincount(g, i, n_groups) / np.maximum(n, 1), np.nan))
        out.append((halves[0], halves[1]))
    return out


def _cc(a: np.ndarray, b: np.ndarray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < _LEAST_FOR_CC or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return np.nan
    return float(np.corrcoef(a[both], b[both])[0, 1])
