"""From measurements frame by frame to one intensity a passage through the Ewald sphere.

Two estimates: the integral over the excitation error, by the trapezoid rule on whatever excitation errors there are
(so uneven, reversed and missing tilts need no further care, and the Lorentz factor is in it), and a fit of the rocking
curve, which also takes what was seen of one side only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stemtomo_dl.crystal.disks import Sums
from stemtomo_dl.crystal.predict import Predicted
from stemtomo_dl.crystal.rocking import Doubt, Rocking, variance

_GAP = 3  # tilt angles without a measurement that part two passages
_SIDES = 1.5  # widths on both sides of the sphere that a sum must reach
_HOLE = 1.6  # widths between measurements that it may leave
_SUMMED = 3.5  # widths that it takes in
_LEAST_PROFILE = 0.2  # of the peak squared, summed over a passage: less tells too little
_LEAST_SHARE = 1e-9  # of the peak: far from the sphere a Gaussian is 0, which no intensity explains
_MOST_DOUBT = 0.6  # of an intensity, from orientation alone
_LEAST_PAIRS = 20
_SHARES = np.linspace(0.0, 0.5, 51)  # of an intensity
_USUAL_ERROR = 0.05  # where repeats are too few to tell
_MEDIAN_CHI2 = 0.4549  # of one degree of freedom


@dataclass(frozen=True, eq=False)
class Passages:
    """One row a passage; ``keep`` says which were seen well enough for this estimate."""

    row: np.ndarray  # of the list of reflections
    frame: np.ndarray  # nearest to the sphere
    intensity: np.ndarray  # counts per probe · 1/Å
    variance: np.ndarray
    keep: np.ndarray


def passages(at: Predicted, alpha_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order of the rows by reflection and tilt angle, and the passage (n,) of every ordered row."""
    rank = np.unique(alpha_deg, return_inverse=True)[1].ravel()[at.frame]
    order = np.lexsort((rank, at.row))
    new = (np.diff(at.row[order], prepend=-1) != 0) | (np.diff(rank[order], prepend=-99) > _GAP)
    return order, np.cumsum(new) - 1


def summed(at: Predicted, sums: Sums, passage: np.ndarray, rocking: Rocking) -> Passages:
    """Integrals over s of passages that were seen on both sides without holes.

    They are divided by what the same sum makes of the rocking curve, which mends what coarse steps miss.
    """
    order = np.lexsort((at.s, passage))
    p, s, width = passage[order], at.s[order], rocking.width(at.length[order])
    inside = np.abs(s) < _SUMMED * width
    step = np.where(np.diff(p) == 0, np.diff(s), 0)
    weight = (np.append(step, 0) + np.append(0, step)) / 2 * inside
    n = int(passage.max(initial=-1)) + 1
    hole = np.zeros(n)
    near = (np.diff(p) == 0) & (np.abs(s[1:] + s[:-1]) / 2 < _SIDES * width[1:])
    np.maximum.at(hole, p[1:][near], (step / width[1:])[near])
    low, high = _extremes(p, s / width, n)
    share = np.bincount(p, weight * rocking.at(s, at.length[order]), n)
    keep = (low < -_SIDES) & (high > _SIDES) & (hole < _HOLE) & (share > 0.7)
    norm = np.maximum(share, 0.1)
    total = np.bincount(p, weight * sums.net[order], n) / norm
    counts = sums.noise + sums.per_count * np.maximum(sums.net, 0)
    return _made(at, passage, total, np.bincount(p, weight**2 * counts[order], n) / norm**2, keep)


def fitted(at: Predicted, sums: Sums, passage: np.ndarray, rocking: Rocking, doubt: Doubt) -> Passages:
    """Rocking curves fitted to passages that come near enough to the sphere: I = Σ w P I / Σ w P².

    Weights are those of the intensity that is found, so that a count that is low by chance weighs no more.
    """
    peak, n = rocking.peak(at.length), int(passage.max(initial=-1)) + 1
    profile = np.maximum(rocking.at(at.s, at.length), _LEAST_SHARE * peak)
    total = np.full(n, np.maximum(np.median(sums.net / profile), 0) if len(profile) else 0.0)
    for _ in range(3):
        spread = variance(at, sums, rocking, total[passage], doubt)
        norm = np.maximum(np.bincount(passage, profile**2 / spread, n), 1e-300)
        total = np.bincount(passage, profile * sums.net / spread, n) / norm
    seen = np.bincount(passage, (profile / peak) ** 2, n)
    shaky = (rocking.slope(at.s, at.length) / profile * np.linalg.norm(at.turning, axis=1) * doubt.turn) ** 2
    unknown = 1 / np.maximum(np.bincount(passage, 1 / np.maximum(shaky, 1e-6), n), 1e-12)
    return _made(at, passage, total, 1 / norm, (seen > _LEAST_PROFILE) & (unknown < _MOST_DOUBT**2))


def completed(total: Passages, fit: Passages) -> Passages:
    """Sums, and fits of the passages that cannot be summed."""
    which = np.where(total.keep, total.intensity, fit.intensity), np.where(total.keep, total.variance, fit.variance)
    return replace(total, intensity=which[0], variance=which[1], keep=total.keep | fit.keep)


def with_model_error(p: Passages, group: np.ndarray) -> Passages:
    """Variances with what no counting statistics tells: the share of an intensity that makes χ² of equals 1.

    ``group`` (n,) numbers equivalent reflections. A median is used, so that no outlier sets it.
    """
    n = group.max(initial=0) + 1
    number = np.bincount(group[p.keep], minlength=n)
    use = p.keep & (number[group] > 1)
    # of the mean of equals: were the share of each one's own, the low ones would be the surer
    level = (np.bincount(group[p.keep], p.intensity[p.keep], n) / np.maximum(number, 1))[group]
    if use.sum() < _LEAST_PAIRS:
        return replace(p, variance=p.variance + (_USUAL_ERROR * level) ** 2)
    g, value = np.unique(group[use], return_inverse=True)[1].ravel(), p.intensity[use]
    count = np.bincount(g)
    share = np.sqrt(count / (count - 1))[g]
    mean = (np.bincount(g, value) / count)[g]
    chosen = _SHARES[-1]
    for b in _SHARES:
        z2 = (share * (value - mean)) ** 2 / (p.variance[use] + (b * mean) ** 2)
        strong = mean**2 > 25 * p.variance[use]
        if np.median(z2[strong] if strong.sum() >= _LEAST_PAIRS else z2) < _MEDIAN_CHI2:
            chosen = b
            break
    return replace(p, variance=p.variance + (chosen * level) ** 2)


def _extremes(passage: np.ndarray, u: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(low, passage, u)
    np.maximum.at(high, passage, u)
    return low, high


def _made(at: Predicted, passage: np.ndarray, total: np.ndarray, spread: np.ndarray, keep: np.ndarray) -> Passages:
    nearest = np.lexsort((np.abs(at.s), passage))
    first = nearest[np.unique(passage[nearest], return_index=True)[1]]
    return Passages(at.row[first], at.frame[first], total, spread, keep)
