"""Elements exchanged where chemistry speaks against their places, and intensities hardly for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import combinations

import gemmi

from stemtomo_dl.solve.charges import ANIONS, charge_of_anion
from stemtomo_dl.solve.checks import Bond, bond_valences, cation_sum, distances, is_off
from stemtomo_dl.solve.crowding import REACH_A, anion_sum
from stemtomo_dl.solve.model import Model
from stemtomo_dl.solve.refine import Fit
from stemtomo_dl.solve.stated import ALIKE
from stemtomo_dl.solve.trials import Trial, refined_as

_SAME = 1.02  # times R1; elements that scatter alike fit alike
_MOST = 12  # atoms of the asymmetric unit; in larger structures single ones are not renamed
_CLEARLY = 0.1  # of a charge, by which the sum of bond valences must be nearer to it than to the atom's own
_RISE = 1.15  # of R1: in thick crystals heavy and light atoms look alike, but not the room that they have


@lru_cache(maxsize=4)  # starts that find nothing better ask again
def exchanged(trial: Trial) -> Trial:
    """A trial, with elements exchanged, or one atom's by another, as makes most bond valences sound.

    Not where none are unsound, R1 rises by more than dynamical intensities are off, or the contents depart more from
    what is said to be there. Then elements that scatter alike are told apart.
    """
    best, (sound, unsound) = trial, _judged(trial.fit)
    for named in _other_names(trial):
        if not unsound:
            break
        model = replace(trial.fit.model, elements=named)
        if _cost(trial, model) > _cost(trial, best.fit.model):
            continue
        fit = refined_as(trial, model)
        now = _judged(fit)
        if fit.r1_all < _RISE * trial.fit.r1_all and now[1] < unsound and now[0] >= sound:
            best, (sound, unsound) = replace(trial, fit=fit), now
    return _named_by_sums(best)


def _other_names(trial: Trial) -> Iterator[tuple[str, ...]]:
    """Elements of the atoms with two in each other's places, or one atom as another; none vanishes."""
    elements = trial.fit.model.elements
    for first, second in combinations(sorted(set(elements)), 2):
        other = {first: second, second: first}
        yield tuple(other.get(e, e) for e in elements)
    for atom in range(len(elements) if len(elements) <= _MOST else 0):
        for element in sorted({*elements, *trial.stated.elements} - {elements[atom]}):
            named = (*elements[:atom], element, *elements[atom + 1 :])
            if set(elements) <= set(named):
                yield named


def _cost(trial: Trial, model: Model) -> float:
    return trial.stated.cost(trial.stated.counts(model.elements, model.multiplicities))


def _judged(fit: Fit) -> tuple[int, int]:
    """Atoms whose bond valences are what they should be, and those whose are not."""
    off = [is_off(total, expected) for _, total, expected in bond_valences(fit)]
    return len(off) - sum(off), sum(off)


def _named_by_sums(trial: Trial) -> Trial:
    """A trial, with elements that scatter alike, as Al and Si or O and F, told apart by bond valences.

    Each atom is the one whose charge the sum of its bond valences is clearly nearest to (Brown, *The Chemical Bond in
    Inorganic Chemistry*, 2002, ch. 4). As it is where an element would vanish, or R1 rises, or the contents depart more
    from what is said to be there.
    """
    fit, elements = trial.fit, trial.fit.model.elements
    near = distances(fit, REACH_A)
    named = list(elements)
    for atom, own in enumerate(elements):
        off = {
            e: o for e in trial.stated.elements if _are_alike(e, own) and (o := _off(fit, near, atom, e)) is not None
        }
        nearest = min(off, key=lambda e: off[e], default=own)
        if own in off and off[nearest] < off[own] - _CLEARLY:
            named[atom] = nearest
    if tuple(named) == elements or not set(elements) <= set(named):
        return trial
    other = refined_as(trial, replace(fit.model, elements=tuple(named)))
    before, after = (f.r1_all * _cost(trial, f.model) for f in (fit, other))
    return replace(trial, fit=other) if after < _SAME * before else trial


def _off(fit: Fit, near: list[Bond], atom: int, element: str) -> float | None:
    """What the sum of an atom's bond valences is off its charge as an element, relative to that; None if not known."""
    if element in ANIONS:
        charge = charge_of_anion(element)
        return abs(anion_sum(fit, near, atom, element) - charge) / charge
    told = cation_sum(fit, near, atom, element)
    return told and abs(told[0] - told[1]) / told[1]


def _are_alike(first: str, second: str) -> bool:
    return abs(gemmi.Element(first).atomic_number - gemmi.Element(second).atomic_number) <= ALIKE
