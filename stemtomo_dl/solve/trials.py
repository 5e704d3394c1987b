"""Models of one structure in several space groups, and which of them to believe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from stemtomo_dl.solve.build import build, penalised
from stemtomo_dl.solve.candidates import Candidate, absences, rank, symmetrise
from stemtomo_dl.solve.checks import overlaps, stands_still
from stemtomo_dl.solve.flip import Amplitudes
from stemtomo_dl.solve.lift import lifted
from stemtomo_dl.solve.model import Model, Symmetry
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.refine import U_RANGE, Fit, Reflections, refine
from stemtomo_dl.solve.restraints import Restraints
from stemtomo_dl.solve.stated import Stated
from stemtomo_dl.solve.symmetry import Merged, not_forbidden
from stemtomo_dl.solve.wilson import centre_likelihood

SURE = 0.12  # R1 at which one start is enough
_AGAIN = 3  # starts that have to lead to the same model otherwise
_SPEAKING = 0.05  # of R1, what absences are worth between groups of as much symmetry
_SAME = 0.03  # relative difference of R1 up to which models are the same
_GROUPS = 5  # space groups of which models are built, from one set of phases
_MORE = 4  # built besides from later starts: those that were built least often, for phases may hide the true one
_DOUBTFUL = 0.2  # R1 of the best model, from which that is done, and atoms must be where atoms can be
_ALIKE = 1.15  # R1 of a group with more symmetry may be higher by this factor
_CHANCE = 10.0  # 2n ln of such a factor is no more than chance among n reflections
_NEARLY = 1.4  # and by this one as long as weights and extinction are not refined: that may go either way by a quarter
HOPEFUL = 0.4  # R1 up to which a model's phases are better than those that it came of, and worth to be found again
# log-likelihood of absences from which what is left there is scattering twice, which subgroups would fit as atoms
_TELLING = 10.0
_STANDS_OUT = 3.0  # σ; scattering twice leaves nothing where a centring forbids
_TOO_CLOSE = 1.5  # times R1, what a model counts whose atoms overlap
_WORTH = 20.0  # of Bayes' criterion, what more parameters must bring


@dataclass(frozen=True, eq=False)
class Trial:
    """A space group with the best model that was built in it.

    Attributes
    ----------
    candidate : Candidate
    merged : Merged
    data : Reflections
    fit : Fit
    r1_total : float
        R1 of all reflections as they were measured, not merged; those that the group forbids are zero in the model.
        Merged data of a lower class have more scatter in them, so only this compares models of different classes.
    stated : Stated
        What the structure is said to hold.
    times : int
        Starts that led to it.
    built : int
        Sets of phases from which models were built in its group.
    recycled : bool
        Whether its phases came of dual-space recycling rather than of charge flipping.
    correlation : float or None
        Of |E| with |Ec| in the start of recycling that it was built from.
    restraints : Restraints or None
        With which it was refined.
    """

    candidate: Candidate
    merged: Merged
    data: Reflections
    fit: Fit
    r1_total: float
    stated: Stated
    times: int = 1
    built: int = 1
    recycled: bool = False
    correlation: float | None = None
    restraints: Restraints | None = None

    @cached_property
    def misfit(self) -> float:
        """What trials are compared by: ``r1_total``, more where the model departs from what is said to be there.

        And where atoms are closer than atoms come: many of them fit anything.
        """
        return self.r1_total * self.stated.cost(self.counts) * (_TOO_CLOSE if len(overlaps(self.fit)) else 1.0)

    @property
    def counts(self) -> np.ndarray:
        """Atoms of each stated element (element,) in the cell."""
        return self.stated.counts(self.fit.model.elements, self.fit.model.multiplicities)

    @property
    def order(self) -> int:
        """Operations of the group, centring included."""
        return len(self.fit.model.symmetry.rotations)


def add_trials(
    found: dict[str, Trial],
    data: Intensities,
    merged: Merged,
    groups: list[Any],
    grid: Amplitudes,
    factors: np.ndarray,
    *,
    more: bool = False,
    of: Trial | None = None,
) -> None:
    """Build models from one set of phases in the groups that suit it, and keep in ``found`` the best of each group.

    ``more``: in groups besides that suit it less, those first in which models were built least often.
    ``of``: the phases are those of this trial, whose atoms are symmetrised, too, in groups of more symmetry; a model
    that is found in its own phases is not confirmed by that.
    """
    ranked = rank(merged, groups, grid, factors, centre_likelihood(merged, data.reciprocal))
    often = {name: t.built for name, t in found.items()}
    further = sorted(ranked[_GROUPS:], key=lambda c: often.get(c.group.xhm(), 0))
    for candidate in ranked[:_GROUPS] + further[: _MORE * more]:
        name, order = candidate.group.xhm(), len(candidate.group.operations())
        limit = _ALIKE * min((t.misfit for t in found.values()), default=np.inf)
        fitting = [t.order for t in found.values() if t.misfit <= limit and t.fit.r1 < HOPEFUL]
        if name in found and order < max(fitting, default=0):
            continue  # it was given its chance, and more symmetry does
        built = [build_trial(data, merged, candidate, symmetrise(candidate, merged, factors, grid.shape))]
        if of and order > of.order:
            built.append(_lift(data, merged, candidate, of))
        if made := [t for t in built if t]:
            found[name] = _better(min(made, key=lambda t: t.misfit), found.get(name), of is None)


def _better(new: Trial, old: Trial | None, confirms: bool) -> Trial:
    """The better of two trials of a group, with the number of starts that led to it."""
    if old is None:
        return new
    if new.misfit < (1 - _SAME) * old.misfit:
        return replace(new, built=old.built + 1)
    times = old.times + (confirms and new.misfit < (1 + _SAME) * old.misfit)
    return replace(min(new, old, key=lambda t: t.misfit), times=times, built=old.built + 1)


def fits_well(found: dict[str, Trial]) -> bool:
    """Whether some model does, so that groups which suit the phases less are none."""
    return min((t.fit.r1 for t in found.values()), default=np.inf) < _DOUBTFUL


def settled(found: dict[str, Trial]) -> bool:
    """Whether more starts are not expected to change the result."""
    if not found:
        return False
    best = in_order(list(found.values()))[0]
    whole = bool((best.counts > 0).all()) or not best.stated.whole
    enough = _AGAIN if whole else 2 * _AGAIN  # Mg and Al look alike
    sane = best.fit.r1 < _DOUBTFUL or not (stands_still(best.fit).any() or overlaps(best.fit))  # others may be found
    return (whole and best.fit.r1 < SURE) or (best.fit.r1 < HOPEFUL and best.times >= enough and sane)


def raise_symmetry(
    found: dict[str, Trial], data: Intensities, merged: Merged, groups: list[Any], grid: Amplitudes
) -> None:
    """Build again from the phases of the best model of this Laue class, as long as that finds a better group."""
    seen: set[str] = set()
    while found:
        best = in_order(list(found.values()))[0]
        name = best.candidate.group.xhm()
        if best.merged is not merged or best.r1_total > HOPEFUL or name in seen:
            return
        seen.add(name)
        add_trials(found, data, merged, groups, grid, phased_by(best, grid), of=best)


def raise_class(
    found: dict[str, Trial], data: Intensities, grids: list[tuple[Merged, Amplitudes]], groups: list[Any]
) -> None:
    """Build in the higher Laue classes, too, from the phases of the best model, if it is of a lower one.

    A model of few symmetries is found more easily, and shows the symmetry that it has besides.
    """
    best = in_order(list(found.values()))[0] if found else None
    if best is None or best.r1_total > HOPEFUL:
        return
    for merged, grid in grids:
        if len(merged.rotations) > len(best.merged.rotations):
            add_trials(found, data, merged, groups, grid, phased_by(best, grid), of=best)


def phased_by(trial: Trial, grid: Amplitudes) -> np.ndarray:
    """Measured amplitudes (a, b, c // 2 + 1) with a model's phases, in P1.

    They show the symmetry of a model that was built in too small a group more sharply than the phases that it came of.
    """
    factors = np.zeros(grid.value.shape, complex)
    symmetry = trial.fit.model.symmetry
    for rotation, shift in zip(symmetry.rotations, symmetry.shifts, strict=True):
        image = trial.data.hkl @ rotation
        value = trial.fit.fc * np.exp(-2j * np.pi * (trial.data.hkl @ shift))
        for sign, wave in ((1, value), (-1, value.conj())):
            upper = sign * image[:, 2] >= 0
            factors[tuple((sign * image[upper] % grid.shape).T)] = wave[upper]
    return np.asarray(grid.value * np.exp(1j * np.angle(factors)) * (factors != 0))


def build_trial(data: Intensities, merged: Merged, candidate: Candidate, phases: np.ndarray) -> Trial | None:
    """Build a model in a candidate group from the phases (reflection,), rad, of the merged reflections."""
    reflections, allowed = _allowed(data, merged, candidate)
    symmetry = Symmetry(candidate.group.operations(), data.cell, data.cell_esd)
    fit = build(symmetry, reflections, phases[allowed], data.stated, data.d_min)
    return _as_trial(data, merged, candidate, reflections, fit) if fit else None


def _lift(data: Intensities, merged: Merged, candidate: Candidate, trial: Trial) -> Trial | None:
    """The atoms of a trial under the operations of a candidate that was found in its phases."""
    symmetry = Symmetry(candidate.group.operations(), data.cell, data.cell_esd)
    model = lifted(trial.fit.model, symmetry, candidate.origin)
    if model is None:
        return None
    reflections, _ = _allowed(data, merged, candidate)
    return _as_trial(data, merged, candidate, reflections, refine(model, reflections, cycles=10))


def _allowed(data: Intensities, merged: Merged, candidate: Candidate) -> tuple[Reflections, np.ndarray]:
    """Merged reflections that a group does not forbid, and which (reflection,) these are."""
    allowed = ~absences(candidate.group.operations(), merged.hkl)
    theta2 = 2 * np.arcsin(np.clip(data.wavelength * np.linalg.norm(merged.hkl @ data.reciprocal, axis=1) / 2, 0, 0.99))
    path = data.wavelength**3 / np.sin(theta2)
    return Reflections(merged.hkl[allowed], merged.intensity[allowed], merged.sigma[allowed], path[allowed]), allowed


def _as_trial(data: Intensities, merged: Merged, candidate: Candidate, reflections: Reflections, fit: Fit) -> Trial:
    return Trial(candidate, merged, reflections, fit, _total(data, merged, candidate, fit), data.stated)


def _total(data: Intensities, merged: Merged, candidate: Candidate, fit: Fit) -> float:
    """R1 of all reflections as they were measured."""
    operations = candidate.group.operations()
    model, allowed = np.zeros(len(merged.hkl)), ~absences(operations, merged.hkl)
    centred = ~not_forbidden(operations, merged.hkl) & (merged.intensity > _STANDS_OUT * merged.sigma)
    counted = allowed | (candidate.absences < _TELLING) | centred
    model[allowed] = np.sqrt(fit.fc2)
    fo = np.sqrt(np.maximum(data.intensity, 0))
    off = np.abs(fo - model[merged.index])[counted[merged.index]]
    return float(off.sum() / max(float(fo.sum()), 1e-30))


def in_order(trials: list[Trial]) -> list[Trial]:
    """Best first: of the groups that fit about as well as any, the one with most symmetry."""
    if not trials:
        return []
    least = min(t.misfit for t in trials)

    def place(t: Trial) -> tuple[bool, int, float]:
        spoken = 1 - _SPEAKING * float(np.tanh(t.candidate.absences / 10))
        alike = t.misfit <= max(_ALIKE, float(np.exp(_CHANCE / (2 * len(t.data.hkl))))) * least
        return not alike, -t.order if alike else 0, t.misfit * spoken

    return sorted(trials, key=place)


def finish(trial: Trial) -> Trial:
    """Refine to the end: weights of goodness of fit 1, then extinction and anisotropy where the data carry them."""
    data, model = trial.data, trial.fit.model
    weighted = [refine(model, data, weight=a) for a in (0.05, 0.1, 0.15, 0.2, 0.3)]
    fit = min(weighted, key=lambda f: abs(np.log(max(f.goof, 1e-6))))
    options = [(model, True), (replace(model, anisotropic=True), False), (replace(model, anisotropic=True), True)]
    for option, extinction in options:
        trial_fit = refine(option, data, cycles=25, extinction=extinction, weight=fit.weight)
        principal = trial_fit.model.principal
        sound = principal.min() > 1.01 * U_RANGE[0] and principal.max() < 0.99 * U_RANGE[1]
        if sound and penalised(trial_fit, data) < penalised(fit, data) - _WORTH:
            fit = trial_fit
    return replace(trial, fit=fit)


def more_symmetric(best: Trial, others: list[Trial], data: Intensities) -> Trial | None:
    """The trial with most symmetry of those that fit about as well as the finished one when refined in the same way.

    What scattering twice changes is taken up by extinction, and without it as well by a group of fewer symmetries.
    """
    limit = _ALIKE * replace(best, r1_total=_total(data, best.merged, best.candidate, best.fit)).misfit
    rivals = [t for t in others if t.order > best.order and t.misfit <= _NEARLY * best.misfit and t.fit.r1 < HOPEFUL]
    for trial in sorted(rivals, key=lambda t: (-t.order, t.misfit)):
        model = replace(trial.fit.model, anisotropic=best.fit.model.anisotropic)
        fit = refine(model, trial.data, cycles=25, extinction=best.fit.extinction > 0, weight=best.fit.weight)
        if replace(trial, fit=fit, r1_total=_total(data, trial.merged, trial.candidate, fit)).misfit <= limit:
            return trial
    return None


def refined_as(trial: Trial, model: Model, cycles: int = 8) -> Fit:
    """Another model refined with a finished trial's data, weights, extinction and restraints."""
    return refine(
        model,
        trial.data,
        cycles=cycles,
        extinction=trial.fit.extinction > 0,
        weight=trial.fit.weight,
        restraints=trial.restraints,
    )
