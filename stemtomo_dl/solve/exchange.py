"""Elements exchanged where chemistry speaks against their places, and intensities hardly for them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from stemtomo_dl.solve.checks import bond_valences, is_off
from stemtomo_dl.solve.refine import Fit
from stemtomo_dl.solve.trials import Trial, refined_as

_RISE = 1.15  # of R1: in thick crystals heavy and light atoms look alike, but not the room that they have


def exchanged(trial: Trial) -> Trial:
    """A trial, with the two elements exchanged of which that makes most bond valences sound.

    As it is where none are unsound, or R1 rises by more than dynamical intensities are off.
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
    return best


def _unsound(fit: Fit) -> int:
    """Atoms whose bond valences are off."""
    return sum(is_off(total, expected) for _, total, expected in bond_valences(fit))
