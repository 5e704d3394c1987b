"""How sure the elements of a model's atoms are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stemtomo_dl.solve.trials import Trial, refined_as

_SURE = 20.0  # of Bayes' criterion, by which an atom must fit better than as any other element
_MOST = 40  # atoms; of larger structures nothing is said


@dataclass(frozen=True)
class Rival:
    """The element that an atom could be as well.

    Attributes
    ----------
    atom : int
        Its place in the model.
    element : str
        Of those that are said to be there, the one that fits next best.
    rise : float
        Of R1 of all reflections with it.
    sure : bool
        Whether 2n ln(R1 with it / R1), as `build.penalised` has it, is more than chance and small errors make.
    """

    atom: int
    element: str
    rise: float
    sure: bool


def rivals(trial: Trial) -> list[Rival]:
    """For each atom of a refined model the element that it could be as well, the model refined with it."""
    model = trial.fit.model
    if len(model.elements) > _MOST:
        return []
    found = []
    for atom, own in enumerate(model.elements):
        others = [e for e in trial.stated.elements if e != own]
        if not others:
            continue
        named = [replace(model, elements=(*model.elements[:atom], e, *model.elements[atom + 1 :])) for e in others]
        r1 = [refined_as(trial, m).r1_all for m in named]
        best = int(np.argmin(r1))
        apart = 2 * len(trial.data.hkl) * np.log(max(r1[best], 1e-6) / max(trial.fit.r1_all, 1e-6))
        found.append(Rival(atom, others[best], r1[best] - trial.fit.r1_all, bool(apart > _SURE)))
    return found
