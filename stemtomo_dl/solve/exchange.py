"""Elements exchanged where chemistry speaks against their places, and intensities hardly for them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import gemmi

from stemtomo_dl.solve.charges import ANIONS, charge_of_anion
from stemtomo_dl.solve.checks import bond_valences, distances, is_off
from stemtomo_dl.solve.crowding import REACH_A, anion_sum
from stemtomo_dl.solve.refine import Fit
from stemtomo_dl.solve.stated import ALIKE
from stemtomo_dl.solve.trials import Trial, refined_as

_SAME = 1.02  # times R1; elements that scatter alike fit alike
_RISE = 1.15  # of R1: in thick crystals heavy and light atoms look alike, but not the room that they have


def exchanged(trial: Trial) -> Trial:
    """A trial, with the two elements exchanged of which that makes most bond valences sound.

    Not where none are unsound, or R1 rises by more than dynamical intensities are off. Then anions that scatter alike
    are told apart.
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
    return _with_anions_by_their_sums(best)


def _with_anions_by_their_sums(trial: Trial) -> Trial:
    """A trial, with anions that scatter alike, as O and F or S and Cl, told apart by their bond valences.

    Each is the one whose charge the sum of its bond valences is nearest to (Brown, *The Chemical Bond in Inorganic
    Chemistry*, 2002, ch. 4). As it is where an element would vanish, or R1 rises.
    """
    fit, elements = trial.fit, trial.fit.model.elements
    near = distances(fit, REACH_A)

    def off(atom: int, anion: str) -> float:
        charge = charge_of_anion(anion)
        return abs(anion_sum(fit, near, atom, anion) - charge) / charge

    named = list(elements)
    for atom, own in enumerate(elements):
        alike = [e for e in trial.stated.elements if e in ANIONS and _are_alike(e, own)]
        if own in ANIONS and len(alike) > 1:
            named[atom] = min(alike, key=lambda e: off(atom, e))
    if tuple(named) == elements or set(named) != set(elements):
        return trial
    other = refined_as(trial, replace(fit.model, elements=tuple(named)))
    return replace(trial, fit=other) if other.r1_all < _SAME * fit.r1_all else trial


def _are_alike(first: str, second: str) -> bool:
    return abs(gemmi.Element(first).atomic_number - gemmi.Element(second).atomic_number) <= ALIKE


def _unsound(fit: Fit) -> int:
    """Atoms whose bond valences are off."""
    return sum(is_off(total, expected) for _, total, expected in bond_valences(fit))
