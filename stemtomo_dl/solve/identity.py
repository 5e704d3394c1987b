"""What a known phase that a crystal is like has to say of its elements, and they of it."""

from __future__ import annotations

from dataclasses import replace

import gemmi
import numpy as np

from stemtomo_dl.solve.naming import Known, likenesses
from stemtomo_dl.solve.nouns import HYDROGEN, Intensities
from stemtomo_dl.solve.solution import Solution
from stemtomo_dl.solve.stated import ALIKE

_OTHERS = 0.1  # share of a phase's atoms, or of a model's, that may be of elements which the other lacks


def with_contents(data: Intensities, phases: list[Known], *, sample: bool) -> Intensities:
    """Intensities with the atoms in the cell of the phase that they are of, where nothing else is said of them.

    The phase must hold each element that is stated of the crystal, and no other; of those of a ``sample`` it may lack
    some.
    """
    like = likenesses(data, phases)
    if data.stated.counted or not like or not like[0].named:
        return data
    phase = next(p for p in phases if p.name == like[0].name)
    held, stated = {e for e, _ in phase.composition} - set(HYDROGEN), set(data.elements)
    if not (held == stated or (sample and held < stated)):
        return data
    cells = 1 / abs(np.linalg.det(like[0].turn))  # of the phase, in one of the crystal's
    return replace(data, composition=tuple((e, n * cells) for e, n in phase.composition), per_cell=True)


def other_elements(solution: Solution, phase: Known) -> list[str]:
    """Elements in which a phase and the crystal differ, as far as the crystal's are known; few atoms do not count.

    Isotypes scatter alike: by intensities alone LiCoO₂ is LiNiO₂. Of the elements that are stated, those that the data
    cannot tell apart stand for each other.
    """
    data, best = solution.intensities, solution.best
    if data.guessed:
        return []
    theirs = {e: n for e, n in phase.composition if e not in HYDROGEN}
    if best is None or not solution.solved:
        return _beyond(theirs, set(data.elements))
    ours = {e: float(n) for e, n in zip(data.elements, best.counts, strict=True) if n}
    beyond = _beyond(theirs, _or_alike(set(ours), data.elements)), _beyond(ours, _or_alike(set(theirs), data.elements))
    return sorted({e for part in beyond for e in part})


def _beyond(counts: dict[str, float], there: set[str]) -> list[str]:
    """Elements that are not ``there``, where they are more than few of the atoms."""
    beyond = [e for e in counts if e not in there]
    return sorted(beyond) if sum(counts[e] for e in beyond) > _OTHERS * sum(counts.values()) else []


def _or_alike(elements: set[str], stated: tuple[str, ...]) -> set[str]:
    """Elements, and of the stated ones those that cannot be told from a stated one among them."""
    number = {e: gemmi.Element(e).atomic_number for e in stated}
    held = elements & set(stated)
    return elements | {e for e in stated if any(abs(number[e] - number[h]) <= ALIKE for h in held)}
