"""Elements exchanged where chemistry speaks against their places, and intensities hardly for them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import gemmi

from stemtomo_dl.solve.charges import ANIONS, charge_of_anion
from stemtomo_dl.solve.checks import Bond, bond_valences, cation_sum, distances, is_off
from stemtomo_dl.solve.crowding import REACH_A, anion_sum
from stemtomo_dl.solve.refine import Fit
from stemtomo_dl.solve.stated import ALIKE
from stemtomo_dl.solve.trials import Trial, refined_as

_SAME = 1.02  # times R1; elements that scatter alike fit alike
_CLEARLY = 0.1  # of a charge, by which the sum of bond valences must be nearer to it than to the atom's own
_RISE = 1.15  # of R1: in thick crystals heavy and light atoms look alike, but not the room that they have


def exchanged(trial: Trial) -> Trial:
    """A trial, with the two elements exchanged of which that makes most bond valences sound.

    Not where none are unsound, or R1 rises by more than dynamical intensities are off. Then elements that scatter
    alike are told apart.
    """
    unsound, best = _unsound(trial.fit), trial
    for first, second in combinations(sorted(set(trial.fit.model.elements)), 2):
        if not unsound:
            break
        other = {first: second, second: first}
        model = replace(trial.fit.model, elements=tuple(other.get(e, e) for e in trial.fit.model.elements))
        fit = refined_as(trial, model)
        if fit.r1_all < _RISE * trial.fit.r1_all and _unsound(fit) < unsound:
            unsound, best = _unsound(fit), replace(trial, fit=fit)
    return _named_by_sums(best)


def _named_by_sums(trial: Trial) -> Trial:
    """A trial, with elements that scatter alike, as Al and Si or O and F, told apart by bond valences.

    Each atom is the one whose charge the sum of its bond valences is clearly nearest to (Brown, *The Chemical Bond in
    Inorganic Chemistry*, 2002, ch. 4). As it is where an element would vanish, or R1 rises, or the contents depart more
    from what is said to be there.
    """
    fit, elements, stated = trial.fit, trial.fit.model.elements, trial.stated
    near = distances(fit, REACH_A)
    named = list(elements)
    for atom, own in enumerate(elements):
        off = {e: o for e in stated.elements if _are_alike(e, own) and (o := _off(fit, near, atom, e)) is not None}
        nearest = min(off, key=lambda e: off[e], default=own)
        if own in off and off[nearest] < off[own] - _CLEARLY:
            named[atom] = nearest
    if tuple(named) == elements or not set(elements) <= set(named):
        return trial
    other = refined_as(trial, replace(fit.model, elements=tuple(named)))
    before, after = (
        f.r1_all * stated.cost(stated.counts(f.model.elements, f.model.multiplicities)) for f in (fit, other)
    )
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


def _unsound(fit: Fit) -> int:
    """Atoms whose bond valences are off."""
    return sum(is_off(total, expected) for _, total, expected in bond_valences(fit))
