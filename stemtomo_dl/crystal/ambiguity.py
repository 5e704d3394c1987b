"""One setting for all particles of a phase: which of the lattice's rotations each has been indexed with.

Where the Laue class is lower than the lattice's symmetry, or the lattice only nearly has a symmetry, particles may be
indexed in ways that their intensities tell apart (Brehm & Diederichs 2014, Acta Cryst. D70, 101). A particle is
compared with the mean of all others in every way its cell allows; means and choices are renewed until none changes.
One that shares too few reflections to be compared belongs to the others by its cell, where that is theirs in one way
only and the few do not speak against it: narrow wedges of a triclinic crystal hardly overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stemtomo_dl.crystal.laue import unique_codes, weighted_cc
from stemtomo_dl.crystal.nouns import Reflections
from stemtomo_dl.crystal.settings import Change, reindexed

LEAST_COMMON = 12  # reflections that two sets must share to be compared
LEAST_CC = 0.3  # of a particle with all others of its phase
_LEAST_TO_REFUTE = 5  # reflections in common, for a correlation to speak against a cell
_SURE = 1.5  # standard errors, of such a correlation
_CELL_NEAR, _CELL_APART = 0.3, 0.6  # of the cells' tolerances: the way that fits, and all others, where a cell tells
_OF_TYPICAL = 0.55  # of the phase's median correlation: a particle below does not agree
_BY_CELL = 0.01  # of a correlation: what a particle that only its cell brings adds to an alignment
_SEEDS = 4
_SWEEPS = 8
_PER_SHELL = 40
_CELL_PENALTY = 0.04  # of a correlation, at the limit of the cells' tolerances
_NOISE = 0.15  # of a normalised amplitude, beyond counting


class Amplitudes(NamedTuple):
    """Normalised amplitudes √(I / <I>), and what they weigh."""

    hkl: np.ndarray
    value: np.ndarray
    weight: np.ndarray


class Table(NamedTuple):
    """Mean amplitudes by unique code, sorted."""

    code: np.ndarray
    value: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Aligned:
    """How a particle is brought into the setting of the others.

    Attributes
    ----------
    choice : int
        Of its changes of basis.
    cc : float
        Correlation of its normalised amplitudes with those of all others; NaN where it shares fewer than 12.
    common : int
        Reflections compared.
    second : float
        Highest correlation of a choice that is not equivalent; NaN where there is none.
    agrees : bool
        Whether it is one of the phase; if not, ``choice`` is the best that it could be.
    """

    choice: int
    cc: float
    common: int
    second: float
    agrees: bool


def normalised(reflections: Reflections, reciprocal: np.ndarray) -> Amplitudes:
    """Amplitudes over the root mean square of those of about the same resolution.

    Parameters
    ----------
    reflections : Reflections
    reciprocal : (3, 3) array
        Columns a*, b*, c*, 1/Å.
    """
    level = resolution_mean(np.linalg.norm(reflections.hkl @ reciprocal.T, axis=1), reflections.intensity)
    square, sigma = reflections.intensity / level, reflections.sigma / level
    value = np.sqrt(np.maximum(square, 0))
    error = sigma / np.maximum(2 * value, np.sqrt(np.maximum(sigma, 1e-6)))
    return Amplitudes(reflections.hkl, value, 1 / (error**2 + _NOISE**2))


def resolution_mean(inverse_d: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """Mean intensity (reflection,) of reflections of about the same 1/d."""
    order = np.argsort(inverse_d)
    shells = np.array_split(order, max(1, len(order) // _PER_SHELL))
    middle = [inverse_d[s].mean() for s in shells]
    mean = [max(intensity[s].mean(), 0.0) for s in shells]
    least = max(0.02 * max(mean), 1e-12)  # beyond what was seen, noise is not to be blown up
    return np.asarray(np.interp(inverse_d, middle, np.maximum(mean, least)))


def tabulated(amplitudes: Sequence[Amplitudes], rotations: np.ndarray) -> Table:
    """Weighted means over equivalents, of one set or of several."""
    code = np.concatenate([unique_codes(a.hkl, rotations) for a in amplitudes])
    value = np.concatenate([a.value for a in amplitudes])
    weight = np.concatenate([a.weight for a in amplitudes])
    return _summed(code, value, weight)


def _summed(code: np.ndarray, value: np.ndarray, weight: np.ndarray) -> Table:
    unique, index = np.unique(code, return_inverse=True)
    total = np.bincount(index, weight, len(unique))
    return Table(unique, np.bincount(index, weight * value, len(unique)) / np.maximum(total, 1e-12), total)


class _Pool:
    """Sums over particles in their present choices; codes of tables that go in are rows of it."""

    def __init__(self, size: int) -> None:
        self.count = np.zeros(size, int)
        self.weight = np.zeros(size)
        self.sum = np.zeros(size)

    def add(self, table: Table, times: int = 1) -> None:
        """Add a table, or with −1 take it out again."""
        self.count[table.code] += times
        self.weight[table.code] += times * table.weight
        self.sum[table.code] += times * table.weight * table.value

    def compare(self, table: Table) -> tuple[float, int]:
        """Correlation with the mean of what is in it, NaN where next to nothing is common, and how many are common."""
        both = np.flatnonzero(self.count[table.code])
        if len(both) < _LEAST_TO_REFUTE:
            return np.nan, len(both)
        weight, mine = self.weight[table.code[both]], table.weight[both]
        mean = self.sum[table.code[both]] / weight
        return weighted_cc(table.value[both], mean, 1 / (1 / mine + 1 / weight)), len(both)

    def refutes(self, table: Table) -> bool:
        """Whether what is common is surely less alike than a phase's."""
        cc, common = self.compare(table)
        if common < _LEAST_TO_REFUTE:
            return False
        return bool(np.arctanh(np.clip(cc, -0.999, 0.999)) + _SURE / np.sqrt(common - 3) < np.arctanh(LEAST_CC))

    def score(self, table: Table) -> float:
        """Lower bound of the correlation; −1 where too little is common."""
        cc, common = self.compare(table)
        if common < LEAST_COMMON:
            return -1.0
        return float(np.tanh(np.arctanh(np.clip(cc, -0.999, 0.999)) - 1 / np.sqrt(common - 3)))


def _ranked(options: list[list[Table]]) -> tuple[list[list[Table]], int]:
    """The tables with their codes' ranks for codes, and how many codes there are."""
    codes = np.unique(np.concatenate([t.code for one in options for t in one]))
    return [[t._replace(code=np.searchsorted(codes, t.code)) for t in one] for one in options], len(codes)


def align(
    amplitudes: Sequence[Amplitudes], changes: Sequence[Sequence[Change]], rotations: np.ndarray
) -> list[Aligned]:
    """Choose among each particle's changes of basis, and tell which particles agree.

    Parameters
    ----------
    amplitudes : sequence of Amplitudes
        One a particle, in its own setting.
    changes : sequence of sequences of Change
        To the common setting.
    rotations : (operation, 3, 3) array
        Of the Laue class, as far as it is known.

    Returns
    -------
    list of Aligned
    """
    options = [
        [tabulated([turned(a, c.matrix)], rotations) for c in one] for a, one in zip(amplitudes, changes, strict=True)
    ]
    options, size = _ranked(options)
    penalty = [np.array([_CELL_PENALTY * c.misfit**2 for c in one]) for one in changes]
    by_cell = {n: k for n, one in enumerate(changes) if (k := _told_by_cell(one, rotations)) is not None}
    observations = np.array([len(a.hkl) for a in amplitudes])
    best: tuple[float, list[Aligned]] = (-1.0, [])
    for seed in np.argsort(-observations, kind="stable")[:_SEEDS]:
        choices = _settled(options, penalty, by_cell, int(seed), _Pool(size))
        outcome = _judged(options, choices, _Pool(size), changes, rotations)
        total = sum(max(np.nan_to_num(o.cc), _BY_CELL) for o in outcome if o.agrees)
        if total > best[0] + 1e-6:
            best = total, outcome
    return best[1]


def turned(amplitudes: Amplitudes, matrix: np.ndarray) -> Amplitudes:
    """Amplitudes after a change of basis, h' = matrix · h; those whose indices are not whole then are left out."""
    hkl, whole = reindexed(amplitudes.hkl, matrix)
    return Amplitudes(hkl[whole], amplitudes.value[whole], amplitudes.weight[whole])


def _told_by_cell(options: Sequence[Change], rotations: np.ndarray) -> int | None:
    """The one change of basis, but for rotations of the Laue class, that the cells allow; None: they do not tell."""
    if not options:
        return None
    best = min(range(len(options)), key=lambda k: options[k].misfit)
    others = [c.misfit for c in options if not _equivalent(c, options[best], rotations)]
    told = options[best].misfit < _CELL_NEAR and min(others, default=np.inf) > _CELL_APART
    return best if told else None


def _settled(
    options: list[list[Table]], penalty: list[np.ndarray], by_cell: dict[int, int], seed: int, pool: _Pool
) -> dict[int, int]:
    """Choices that grow from one particle: those that agree join the pool, and all are compared with it again.

    Where no more do, of those that share too few reflections the one joins that shares most, by its cell, if cells have
    told how one of the pool lies.
    """
    choices = {seed: int(np.argmin(penalty[seed]))}
    pool.add(options[seed][choices[seed]])
    while True:
        _swept(options, penalty, choices, seed, pool)
        left = {n: options[n][k] for n, k in by_cell.items() if n not in choices and not pool.refutes(options[n][k])}
        left = {n: table for n, table in left.items() if pool.compare(table)[1] < LEAST_COMMON}
        if not left or not any(choices.get(n) == k for n, k in by_cell.items()):
            return choices
        joins = max(left, key=lambda n: pool.compare(left[n])[1])
        choices[joins] = by_cell[joins]
        pool.add(left[joins])


def _swept(
    options: list[list[Table]], penalty: list[np.ndarray], choices: dict[int, int], seed: int, pool: _Pool
) -> None:
    """Renew the choices of all that can be compared with the others, until none changes."""
    for _ in range(_SWEEPS):
        before = dict(choices)
        for n, tables in enumerate(options):
            if n == seed:
                continue
            old = choices.pop(n, None)
            if old is not None:
                pool.add(tables[old], -1)
            scores = np.array([pool.score(t) for t in tables]) - penalty[n]
            k = int(np.argmax(scores))
            if scores[k] > LEAST_CC / 2:
                choices[n] = k
            elif old is not None and pool.compare(tables[old])[1] < LEAST_COMMON:
                choices[n] = old  # its cell has brought it
            if n in choices:
                pool.add(tables[choices[n]])
        if choices == before:
            break


def _judged(
    options: list[list[Table]],
    choices: dict[int, int],
    pool: _Pool,
    changes: Sequence[Sequence[Change]],
    rotations: np.ndarray,
) -> list[Aligned]:
    """What each particle's correlation with all others is; those that agree least are left out one by one."""
    kept = dict(choices)
    for n, choice in kept.items():
        pool.add(options[n][choice])

    def without(n: int, tables: Sequence[Table]) -> list[tuple[float, int]]:
        own = options[n][kept[n]] if n in kept else None
        if own is not None:
            pool.add(own, -1)
        found = [pool.compare(t) for t in tables]
        if own is not None:
            pool.add(own)
        return found

    limit = LEAST_CC
    while len(kept) > 1:
        agreement = {n: without(n, [options[n][c]])[0] for n, c in kept.items()}
        told = {n: cc for n, (cc, common) in agreement.items() if common >= LEAST_COMMON}
        if not told:
            break
        limit = max(LEAST_CC, _OF_TYPICAL * float(np.median(list(told.values()))))
        worst = min(told, key=lambda n: told[n])
        if told[worst] >= limit:
            break
        pool.add(options[worst][kept.pop(worst)], -1)
    out = []
    for n, tables in enumerate(options):
        found = [(cc if common >= LEAST_COMMON else np.nan, common) for cc, common in without(n, tables)]
        known = np.nan_to_num([cc for cc, _ in found], nan=-1.0)
        choice = kept[n] if n in kept else int(np.argmax(known))
        same = [_equivalent(c, changes[n][choice], rotations) for c in changes[n]]
        second = max((cc for (cc, _), s in zip(found, same, strict=True) if not s and cc == cc), default=np.nan)
        cc, common = found[choice]
        out.append(Aligned(choice, cc, common, second, n in kept or cc >= limit))
    return out


def _equivalent(a: Change, b: Change, rotations: np.ndarray) -> bool:
    """Whether two changes differ by a rotation of the Laue class."""
    relation = a.matrix @ np.linalg.inv(b.matrix)
    return any(np.abs(relation - r.T).max() < 1e-3 for r in rotations)
