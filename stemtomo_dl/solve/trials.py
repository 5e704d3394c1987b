"""Models of one structure in several space groups, and which of them to believe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stemtomo_dl.solve.build import build, penalised
from stemtomo_dl.solve.flip import Amplitudes
from stemtomo_dl.solve.model import Symmetry
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.refine import U_RANGE, Fit, Reflections, refine
from stemtomo_dl.solve.symmetry import Candidate, Merged, absences, rank, symmetrise

GOOD = 0.2  # R1 at which no more phases are drawn
_GROUPS = 5  # space groups of which models are built, from one set of phases
_ALIKE = 1.15  # R1 of a group with more symmetry may be higher by this factor
_HOPEFUL = 0.4  # R1 up to which a model's phases are better than those that it came of
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
        R1 of all reflections, those counted as zero that the group forbids.
    """

    candidate: Candidate
    merged: Merged
    data: Reflections
    fit: Fit
    r1_total: float

    @property
    def order(self) -> int:
        """Operations of the group, centring included."""
        return len(self.fit.model.symmetry.rotations)


def add_trials(
    found: dict[str, Trial], data: Intensities, merged: Merged, groups: list[Any], grid: Amplitudes, factors: np.ndarray
) -> None:
    """Build models from one set of phases in the groups that suit it, and keep in ``found`` the best of each group."""
    for candidate in rank(merged, groups, grid, factors)[:_GROUPS]:
        order = len(candidate.group.operations())
        if any(t.order >= order and t.r1_total < GOOD for t in found.values()):
            continue  # a subgroup of what fits already, or no better
        trial = _try(data, merged, candidate, symmetrise(candidate, merged, factors, grid.shape))
        name = candidate.group.xhm()
        if trial and (name not in found or trial.r1_total < found[name].r1_total):
            found[name] = trial


def raise_symmetry(
    found: dict[str, Trial], data: Intensities, merged: Merged, groups: list[Any], grid: Amplitudes
) -> None:
    """Build again from the phases of the best model of this Laue class, as long as that finds a better group."""
    seen: set[str] = set()
    while found:
        best = in_order(list(found.values()))[0]
        name = best.candidate.group.xhm()
        if best.merged is not merged or best.r1_total > _HOPEFUL or name in seen:
            return
        seen.add(name)
        add_trials(found, data, merged, groups, grid, phased_by(best, grid))


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


def _try(data: Intensities, merged: Merged, candidate: Candidate, phases: np.ndarray) -> Trial | None:
    """Build a model in a candidate group."""
    operations = candidate.group.operations()
    allowed = ~absences(operations, merged.hkl)
    theta2 = 2 * np.arcsin(np.clip(data.wavelength * np.linalg.norm(merged.hkl @ data.reciprocal, axis=1) / 2, 0, 0.99))
    path = data.wavelength**3 / np.sin(theta2)
    reflections = Reflections(merged.hkl[allowed], merged.intensity[allowed], merged.sigma[allowed], path[allowed])
    fit = build(Symmetry(operations, data.cell), reflections, phases[allowed], data.elements, data.d_min)
    if fit is None:
        return None
    return Trial(candidate, merged, reflections, fit, _total(merged, reflections, fit))


def _total(merged: Merged, data: Reflections, fit: Fit) -> float:
    everything = float(np.sqrt(np.maximum(merged.intensity, 0)).sum())
    fo = data.amplitude
    return float((np.abs(fo - np.sqrt(fit.fc2)).sum() + everything - fo.sum()) / max(everything, 1e-30))


def in_order(trials: list[Trial]) -> list[Trial]:
    """Best first: of the groups that fit about as well as any, the one with most symmetry."""
    if not trials:
        return []
    limit = _ALIKE * min(t.r1_total for t in trials)
    return sorted(trials, key=lambda t: (t.r1_total > limit, -t.order if t.r1_total <= limit else 0, t.r1_total))


def finish(trial: Trial) -> Trial:
    """Refine to the end: weights of goodness of fit 1, then extinction and anisotropy where the data carry them."""
    data, model = trial.data, trial.fit.model
    weighted = [refine(model, data, weight=a) for a in (0.05, 0.1, 0.15, 0.2, 0.3)]
    fit = min(weighted, key=lambda f: abs(np.log(max(f.goof, 1e-6))))
    options = [(model, True), (replace(model, anisotropic=True), False), (replace(model, anisotropic=True), True)]
    for option, extinction in options:
        trial_fit = refine(option, data, cycles=25, extinction=extinction, weight=fit.weight)
        sound = np.linalg.eigvalsh(trial_fit.model.tensors).min() > 0 and trial_fit.model.u.max() < U_RANGE[1]
        if sound and penalised(trial_fit, data) < penalised(fit, data) - _WORTH:
            fit = trial_fit
    return replace(trial, fit=fit, r1_total=_total(trial.merged, data, fit))
