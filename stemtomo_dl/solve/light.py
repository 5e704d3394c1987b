"""Structures of light atoms: dual-space recycling in the groups that the absences suggest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gemmi
import numpy as np

from stemtomo_dl.solve.candidates import Candidate, absence_likelihood, absences, are_present
from stemtomo_dl.solve.model import Symmetry
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.recycle import Normalised, Recycler
from stemtomo_dl.solve.symmetry import Merged, laue_rotations
from stemtomo_dl.solve.trials import Trial, build_trial
from stemtomo_dl.solve.wilson import centre_likelihood

_LIGHTEST_HEAVY = 11  # atomic number from which flipping finds an atom by itself
STARTS = 1200  # of recycling, at most
_GROUPS = 3  # that are tried in turn
_GOOD = 0.9  # merit of a start that is tried whatever the crowd is like
_STANDS_OUT = 5.0  # standard deviations of the crowd above its median, from which a start is built
_CROWD = 10  # starts that make one
_ONWARDS = 3  # times that a start which stands out is recycled on
_KEPT = 3  # best starts of a group whose phases are kept until then
_FOUND = 0.27  # R1 of a built model at which the search ends
_PROMISING = 0.45  # R1 of a built model whose phases are worth to be built from again
_BETTER = 0.98  # of the R1 before, at which that goes on
ROOM = 18.0  # Å³ that an atom but hydrogen takes in a molecular crystal


def is_light(data: Intensities) -> bool:
    """Whether no element is heavier than neon."""
    return all(gemmi.Element(e).atomic_number < _LIGHTEST_HEAVY for e in data.elements)


def expected_atoms(data: Intensities) -> float:
    """Atoms in the cell, hydrogen left out: as stated, else by volume in light-atom structures, else 0, not known."""
    stated = sum(data.stated.numbers) if data.per_cell else 0.0
    return stated or (gemmi.UnitCell(*data.cell).volume / ROOM if is_light(data) else 0.0)


def add_recycled(
    found: dict[str, Trial],
    data: Intensities,
    merged: Merged,
    groups: list[Any],
    rng: np.random.Generator,
    advance: Callable[[], None],
) -> int:
    """Draw starts until a model fits or they are spent; keep in ``found`` the models, and return how many starts.

    Wrong starts are a crowd of like merits. Those that stand out of it are recycled on
    and built, and the best one at the end.
    """
    likely = _by_statistics(data, merged, groups)[:_GROUPS]
    engines = [_recycler(data, merged, c) for c in likely]
    merits: list[list[float]] = [[] for _ in likely]
    waiting: list[list[tuple[float, np.ndarray]]] = [[] for _ in likely]
    for start in range(STARTS):
        which = start % len(likely)
        phases, merit = engines[which].start(rng)
        merits[which].append(merit)
        best = sorted([*waiting[which], (merit, phases)], key=lambda w: -w[0])[:_KEPT]
        waiting[which] = [w for w in best if w[0] <= _crowd(merits[which])]
        advance()
        for promising in [w for w in best if w[0] > _crowd(merits[which])]:
            again = [engines[which].start(rng, promising[1]) for _ in range(_ONWARDS)]
            merit, phases = max([promising, *((m, p) for p, m in again)], key=lambda w: w[0])
            if _built(found, data, merged, likely[which], phases, merit):
                return start + 1
    left = [(w[0][0], w[0][1], candidate) for w, candidate in zip(waiting, likely, strict=True) if w]
    if left:
        merit, phases, candidate = max(left, key=lambda best: best[0])
        _built(found, data, merged, candidate, phases, merit)
    return STARTS


def _crowd(merits: list[float]) -> float:
    """Merit above which a start is none of the crowd: median and median deviation do not heed the few good ones.

    Of a few atoms a good part of the starts are good.
    """
    if len(merits) < _CROWD:
        return np.inf
    middle = float(np.median(merits))
    return min(_GOOD, middle + _STANDS_OUT * 1.4826 * float(np.median(np.abs(np.array(merits) - middle))))


def _built(
    found: dict[str, Trial], data: Intensities, merged: Merged, candidate: Candidate, phases: np.ndarray, merit: float
) -> bool:
    """Build a model, again from its own phases while that helps, and keep it if it is the best of its group.

    ``merit`` is that of the start that the phases came of.

    Returns whether it fits.
    """
    allowed = ~absences(candidate.group.operations(), merged.hkl)
    name, before = candidate.group.xhm(), _PROMISING
    while True:
        everywhere = np.zeros(len(merged.hkl))
        everywhere[allowed] = phases
        trial = build_trial(data, merged, candidate, everywhere)
        if trial is None:
            return False
        if name not in found or trial.misfit < found[name].misfit:
            found[name] = replace(trial, recycled=True, correlation=merit)
        if trial.fit.r1 < _FOUND or trial.fit.r1 > _BETTER * before:
            return trial.fit.r1 < _FOUND
        phases, before = np.angle(trial.fit.fc), trial.fit.r1


def _recycler(data: Intensities, merged: Merged, candidate: Candidate) -> Recycler:
    operations = candidate.group.operations()
    symmetry = Symmetry(operations, data.cell)
    allowed = ~absences(operations, merged.hkl)
    amplitude = np.sqrt(np.maximum(merged.intensity[allowed], 0))
    composition = tuple((e, n) for e, n in data.composition if e in data.elements)
    return Recycler(Normalised.of(symmetry, merged.hkl[allowed], amplitude, composition), expected_atoms(data))


def _by_statistics(data: Intensities, merged: Merged, groups: list[Any]) -> list[Candidate]:
    """Groups of a Laue class by their absences, and by what the intensities' distribution tells of a centre."""
    found, centre = [], centre_likelihood(merged, data.reciprocal)
    for group in groups:
        operations = group.operations()
        if not np.array_equal(laue_rotations(operations), merged.rotations):
            continue
        absent = absences(operations, merged.hkl)
        if are_present(merged, operations, absent):
            continue
        likelihood = absence_likelihood(merged, absent) if absent.any() else 0.0
        statistics = centre if operations.is_centrosymmetric() else -centre
        found.append(Candidate(group, 0.0, 0.0, likelihood, np.zeros(3), statistics))
    return sorted(found, key=lambda c: -c.absences - c.statistics)
