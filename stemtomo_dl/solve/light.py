"""Structures of light atoms: dual-space recycling in the groups that the absences suggest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gemmi
import numpy as np

from stemtomo_dl.solve.model import Symmetry
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.recycle import Normalised, Recycler
from stemtomo_dl.solve.symmetry import Candidate, Merged, absence_likelihood, absences, laue_rotations
from stemtomo_dl.solve.trials import Trial, build_trial

_LIGHTEST_HEAVY = 11  # atomic number from which flipping finds an atom by itself
STARTS = 400  # of recycling, at most
_GROUPS = 3  # that are tried in turn
_STANDS_OUT = 0.04  # by so much must a merit exceed all others of its group, to be built
_FOUND = 0.27  # R1 of a built model at which the search ends
ROOM = 18.0  # Å³ that an atom but hydrogen takes in a molecular crystal


def is_light(data: Intensities) -> bool:
    """Whether no element is heavier than neon."""
    return all(gemmi.Element(e).atomic_number < _LIGHTEST_HEAVY for e in data.elements)


def expected_atoms(data: Intensities) -> float:
    """Atoms in the cell, hydrogen left out: as stated, else by volume in light-atom structures, else 0, not known."""
    stated = sum(n for e, n in data.composition if e in data.elements)
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

    The best start is built as soon as its merit stands out of all others of its group, and so is the best one at the
    end.
    """
    likely = _by_absences(merged, groups)[:_GROUPS]
    engines = [_recycler(data, merged, c) for c in likely]
    merits: list[list[float]] = [[] for _ in likely]
    best: list[tuple[float, np.ndarray]] = [(0.0, np.zeros(0))] * len(likely)
    built: set[float] = set()
    for start in range(STARTS):
        which = start % len(likely)
        phases, merit = engines[which].start(rng)
        merits[which].append(merit)
        best[which] = max(best[which], (merit, phases), key=lambda b: b[0])
        advance()
        top, second = best[which][0], max([m for m in merits[which] if m < best[which][0]], default=1.0)
        if top > second + _STANDS_OUT and top not in built:
            built.add(top)
            if _built(found, data, merged, likely[which], best[which][1]):
                return start + 1
    which = int(np.argmax([b[0] for b in best]))
    if best[which][0] not in built:
        _built(found, data, merged, likely[which], best[which][1])
    return STARTS


def _built(
    found: dict[str, Trial], data: Intensities, merged: Merged, candidate: Candidate, phases: np.ndarray
) -> bool:
    """Build a model and keep it if it is the best of its group; whether it fits."""
    allowed = ~absences(candidate.group.operations(), merged.hkl)
    everywhere = np.zeros(len(merged.hkl))
    everywhere[allowed] = phases
    trial = build_trial(data, merged, candidate, everywhere)
    name = candidate.group.xhm()
    if trial and (name not in found or trial.misfit < found[name].misfit):
        found[name] = replace(trial, recycled=True)
    return trial is not None and trial.fit.r1 < _FOUND


def _recycler(data: Intensities, merged: Merged, candidate: Candidate) -> Recycler:
    operations = candidate.group.operations()
    symmetry = Symmetry(operations, data.cell)
    allowed = ~absences(operations, merged.hkl)
    amplitude = np.sqrt(np.maximum(merged.intensity[allowed], 0))
    composition = tuple((e, n) for e, n in data.composition if e in data.elements)
    order = len(symmetry.rotations)
    atoms = max(1, round(expected_atoms(data) / order))
    return Recycler(Normalised.of(symmetry, merged.hkl[allowed], amplitude, composition), atoms)


def _by_absences(merged: Merged, groups: list[Any]) -> list[Candidate]:
    """Groups of a Laue class whose absent reflections are weak, those that forbid most first."""
    found = []
    for group in groups:
        operations = group.operations()
        if not np.array_equal(laue_rotations(operations), merged.rotations):
            continue
        absent = absences(operations, merged.hkl)
        likelihood = absence_likelihood(merged, absent) if absent.any() else 0.0
        found.append(Candidate(group, 0.0, 0.0, likelihood, np.zeros(3)))
    return sorted(found, key=lambda c: -c.absences)
