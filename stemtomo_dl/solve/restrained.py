"""A solved structure refined once more, with restraints on its bonds and displacements."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np
from scipy.linalg import block_diag, helmert

from stemtomo_dl.solve.checks import Bond, bonds
from stemtomo_dl.solve.refine import Fit
from stemtomo_dl.solve.restraints import Restraints
from stemtomo_dl.solve.trials import Trial, refined_as

_GAP = 0.1  # Å; bonds whose lengths leave such a gap are of two kinds, as those of carbon,
_BEYOND = 3.0  # unless it is no more than so many of its esds
_EQUAL = 6  # decimals of a length in Å to which bonds that symmetry makes equal agree


def restrained(trial: Trial) -> Trial:
    """A finished trial, refined on with restraints; as it is where no atoms are bonded.

    Bonds are alike that join the same elements, each with as many neighbours, and whose lengths leave no gap. Of
    bonds that symmetry makes equal one counts.
    """
    found = restraints_of(trial.fit)
    if found is None:
        return trial
    held = replace(trial, restraints=found)
    return replace(held, fit=refined_as(held, trial.fit.model, cycles=25))


def restraints_of(fit: Fit) -> Restraints | None:
    """Restraints on the bonds of a model; None where it has none."""
    every = bonds(fit)
    unlike = list({(b.first, b.second, round(b.length, _EQUAL)): b for b in reversed(every)}.values())
    if not unlike:
        return None
    neighbours = _neighbours(fit, every)
    kinds = _kinds(fit, unlike, neighbours)
    order = [b for kind in kinds for b in kind]
    symmetry = fit.model.symmetry
    return Restraints(
        first=np.array([b.first for b in order]),
        second=np.array([b.second for b in order]),
        rotations=symmetry.rotations[[b.operation for b in order]].astype(float),
        shifts=symmetry.shifts[[b.operation for b in order]] + np.array([b.cell for b in order]),
        contrasts=block_diag(*(helmert(len(kind)) if len(kind) > 1 else np.zeros((0, 1)) for kind in kinds)),
    )


def _neighbours(fit: Fit, every: list[Bond]) -> np.ndarray:
    """Bonds that each atom (atom,) has."""
    places, count = fit.model.multiplicities, np.zeros(len(fit.model.elements))
    for b in every:
        count[b.first] += 1
        if b.second != b.first:
            count[b.second] += places[b.first] / places[b.second]
    return np.rint(count)


def _kinds(fit: Fit, unlike: list[Bond], neighbours: np.ndarray) -> list[list[Bond]]:
    """Bonds that ought to be as long as each other."""

    def kind(b: Bond) -> list[tuple[str, float]]:
        return sorted((fit.model.elements[a], float(neighbours[a])) for a in (b.first, b.second))

    kinds = []
    for _, same in groupby(sorted(unlike, key=lambda b: (kind(b), b.length)), kind):
        members = list(same)
        ends = [i + 1 for i, (a, b) in enumerate(pairwise(members)) if b.length - a.length > _widest(a, b)]
        kinds += [members[i:j] for i, j in zip([0, *ends], [*ends, len(members)], strict=True)]
    return kinds


def _widest(a: Bond, b: Bond) -> float:
    """Difference of length, Å, of like bonds at most."""
    return max(_GAP, _BEYOND * float(np.hypot(a.esd, b.esd)))
