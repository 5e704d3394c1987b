"""Structures of light atoms: dual-space recycling in the groups that the absences suggest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gemmi
import numpy as np

from stemtomo_dl.solve.model import Symmetry
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.recycle import Normalised, Recycler
from stemtomo_dl.solve.symmetry import Candidate, Merged, absence_likelihood, absences, laue_rotations
from stemtomo_dl.solve.trials import Trial, build_trial

_LIGHTEST_HEAVY = 11  # atomic number from which flipping finds an atom by itself
_STARTS = 400
_GROUPS = 3  # that are tried in turn
_STANDS_OUT = 0.04  # by so much must a merit exceed all before it, to be built
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

    A start whose merit stands out of all before it is built; so is the best one at the end.
    """
    likely = _by_absences(merged, groups)[:_GROUPS]
    engines = [_recycler(data, merged, c) for c in likely]
    merits: list[list[float]] = [[] for _ in likely]
    best: tuple[float, np.ndarray, int] | None = None
    for start in range(_STARTS):
        which = start % len(likely)
        phases, merit = engines[which].start(rng)
        seen = max(merits[which], default=1.0)
        merits[which].append(merit)
        advance()
        if best is None or merit > best[0]:
            best = merit, phases, which
        if merit > seen + _STANDS_OUT and _built(found, data, merged, likely[which], phases):
            return start + 1
    if best is not None:
        _built(found, data, merged, likely[best[2]], best[1])
    return _STARTS


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
        found[name] = trial
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
