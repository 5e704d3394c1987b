"""Structure solution: intensities in, atoms out, or what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gemmi
import numpy as np

from stemtomo_dl.solve.charges import least_charge
from stemtomo_dl.solve.checks import missing_elements, overlaps, warnings, without_anions
from stemtomo_dl.solve.crowding import crowded
from stemtomo_dl.solve.exchange import exchanged
from stemtomo_dl.solve.flip import Amplitudes, flip, of_heavy_atom
from stemtomo_dl.solve.hidden import symmetry_beyond
from stemtomo_dl.solve.light import STARTS as RECYCLED
from stemtomo_dl.solve.light import add_recycled, expected_atoms, is_light
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.objections import objections_to, possible_reasons
from stemtomo_dl.solve.symmetry import (
    Merged,
    compatible_groups,
    expand,
    find_laue,
    laue_rotations,
    merge,
    not_forbidden,
)
from stemtomo_dl.solve.trials import (
    HOPEFUL,
    SURE,
    Trial,
    add_trials,
    finish,
    fits_well,
    in_order,
    more_symmetric,
    raise_class,
    raise_symmetry,
    settled,
)
from stemtomo_dl.solve.wilson import wilson_statistic

STARTS = 12
_MORE = 3  # times as many, where a model fits that chemistry speaks against: others may be found
_FLIPS = 3  # starts of charge flipping that a structure of light atoms is given
_LEAST = 0.1  # completeness; with less, phases are not looked for
_SHARE = 0.75  # of the atoms that are expected; a model with fewer is none yet
_PER_PARAMETER = 2.0  # reflections, fewer do not tell a wrong model from a right one
_DEPARTS = 0.15  # share of the atoms of a solved model that may be of another element than is known
_SOLVED = 0.35  # R1 above which a model is not called a solution
_GRAVE = 2  # kinds of objections that a solution does not have
_CLEAR = 0.2  # R1 above which a chemist must have nothing against it besides


@dataclass(frozen=True, eq=False)
class Solution:
    """What came of it.

    Attributes
    ----------
    intensities : Intensities
    merged : Merged
        In the Laue class that was used last.
    best : Trial or None
        None where no model could be built.
    solved : bool
    trials : tuple of Trial
        One for each space group that was tried, best first.
    starts : int
        Sets of random phases that were tried.
    skewness : tuple of float
        Of the map of each start of charge flipping: high where it has peaks and flat ground.
    centric_statistic : float
        Mean of abs(E² − 1).
    completeness : float
        Share of the reflections to ``d_min`` that were measured, of those that the lattice's centring allows.
    missing : tuple of str
        Why it may not be solved, for a person.
    """

    intensities: Intensities
    merged: Merged
    best: Trial | None
    solved: bool
    trials: tuple[Trial, ...]
    starts: int
    skewness: tuple[float, ...]
    centric_statistic: float
    completeness: float
    missing: tuple[str, ...]


def most_starts(data: Intensities) -> int:
    """Starts that `solve` makes at most."""
    return _FLIPS + RECYCLED if is_light(data) else _MORE * STARTS


def solve(
    data: Intensities, rng: np.random.Generator, advance: Callable[[], None] = lambda: None, starts: int = STARTS
) -> Solution:
    """Solve a structure ab initio.

    Phases come from charge flipping in P1, those of the second start from a heavy atom at the origin; the space group
    comes from the phased density, atoms from peaks. New phases are drawn until a model fits and others confirm it, or
    ``starts`` are spent; three times as many where the best one fits but is objected to. Structures of light atoms
    alone that do not give way to a few starts are given to dual-space recycling. Less than a tenth of the reflections
    is not tried.

    Parameters
    ----------
    data : Intensities
    rng : numpy.random.Generator
    advance : callable
        Called after each start.
    starts : int
    """
    groups = [_stated(data)] if data.operations else compatible_groups(data)
    classes = [merge(data, laue_rotations(groups[0].operations()))] if data.operations else find_laue(data, groups)
    found: dict[str, Trial] = {}
    skewness: list[float] = []
    done, light = 0, is_light(data)
    if _completeness(data, classes[0], groups) < _LEAST:
        starts, light = 0, False
    grids = [(m, Amplitudes.on_grid(*expand(m, np.sqrt(np.maximum(m.intensity, 0))), data.reciprocal)) for m in classes]
    sound = True
    while done < starts * (1 if sound else _MORE) and not (settled(found) and sound):
        for merged, grid in grids:
            tried = any(t.merged is merged for t in found.values())
            if tried and any(t.merged is not merged and t.fit.r1 < SURE for t in found.values()):
                continue  # a higher class does
            factors, skewed = of_heavy_atom(grid) if done == 1 else flip(grid, rng)
            skewness.append(skewed)
            add_trials(found, data, merged, groups, grid, factors, more=done > 0 and not fits_well(found))
            raise_symmetry(found, data, merged, groups, grid)
        raise_class(found, data, grids, groups)
        done += 1
        sound = _is_sound(data, found)
        advance()
        if done == _FLIPS and light:
            break
    if light and not (settled(found) and sound):
        done += add_recycled(found, data, classes[0], groups, rng, advance)
    ordered = in_order(list(found.values()))
    best = finish(exchanged(ordered[0])) if ordered else None
    if best and (simpler := more_symmetric(best, ordered[1:], data)):
        ordered.sort(key=lambda t: t is not simpler)
        best = finish(exchanged(simpler))
    doubts = _doubts(data, best, done)
    solved = not doubts
    merged = best.merged if best else classes[0]
    completeness = _completeness(data, merged, [best.candidate.group] if best else groups)
    return Solution(
        intensities=data,
        merged=merged,
        best=best,
        solved=solved,
        trials=tuple(ordered),
        starts=done,
        skewness=tuple(skewness),
        centric_statistic=wilson_statistic(merged, data.reciprocal),
        completeness=completeness,
        missing=()
        if solved
        else (*doubts, *_missing(data, merged, completeness), *possible_reasons(data, merged, ordered)),
    )


def _is_sound(data: Intensities, found: dict[str, Trial]) -> bool:
    """Whether nothing is said against the best model, if there is one that fits."""
    best = next(iter(in_order(list(found.values()))), None)
    return best is None or best.fit.r1 >= HOPEFUL or not _doubts(data, exchanged(best), 0)


class _Group:
    """A stated group that has the face of one from gemmi's tables."""

    def __init__(self, operations: gemmi.GroupOps) -> None:
        self._operations = operations
        self._entry = gemmi.find_spacegroup_by_ops(operations)

    def operations(self) -> gemmi.GroupOps:
        return self._operations

    def xhm(self) -> str:
        return self._entry.xhm() if self._entry else "?"


def _stated(data: Intensities) -> Any:
    return _Group(gemmi.GroupOps([gemmi.Op(t) for t in data.operations or ()]))


def _completeness(data: Intensities, merged: Merged, groups: list[Any]) -> float:
    """Measured share of what a sphere to d_min holds, counted in P1 with both Friedel mates.

    What the centring forbids does not count: that of the group, or of several that which the data prove, see
    `compatible_groups`.
    """
    hkl, _ = expand(merged, merged.intensity)
    forms = [g.operations() for g in groups]
    centred = min(forms, key=lambda f: len(f.cen_ops))
    points = len(centred.cen_ops)
    volume = gemmi.UnitCell(*data.cell).volume
    return float(min(1.0, not_forbidden(centred, hkl).sum() * points / (4 / 3 * np.pi * volume / data.d_min**3)))


def _doubts(data: Intensities, best: Trial | None, starts: int) -> tuple[str, ...]:
    """Why a model is not called a solution, in words."""
    if best is None:
        return (f"no model could be built after {starts} starts" if starts else "too little was measured to try",)
    fit, said = best.fit, []
    if fit.r1 >= _SOLVED:
        said.append(f"no model fits after {starts} starts (lowest R1 {fit.r1:.2f})")
    elif fit.r1 >= _CLEAR and (objections := warnings(fit, fit.model.labels)):
        said.append(f"R1 is {fit.r1:.2f}, and {objections[0]}")
    elif len(grave := objections_to(best, data.guessed)) > 1:
        said.append(f"R1 is {fit.r1:.2f}, but {', '.join(grave)}")
    if data.whole:
        said += [f"the model holds no {e}, which is said to be there" for e in missing_elements(fit, data.elements)]
    elif len(set(fit.model.elements)) < 2:
        said.append(f"the model holds {fit.model.elements[0]} alone, of {', '.join(data.elements)}")
    if data.stated.departure(best.counts) > _DEPARTS:
        numbers = zip(data.stated.elements, best.counts, data.stated.expected(best.counts), strict=True)
        told = "; ".join(f"{e} {there:.0f}, expected {known:.0f}" for e, there, known in numbers)
        said.append(f"the model has other atoms than are said to be in the cell ({told})")
    held = dict(zip(data.stated.elements, best.counts, strict=True))
    charge = least_charge({e: n for e, n in held.items() if n}, data.stated.elements)
    if charge is not None and charge > 0:
        said.append("the model has too few anions to balance its charges")
    elif charge is not None and not data.guessed and (lonely := without_anions(fit)):
        said.append(f"{fit.model.labels[lonely[0]]} has no anion among its neighbours")
    if not data.guessed and (near := crowded(fit)):
        atom, total, whole = near[0]
        said.append(
            f"bonds are far too short for these elements: valences of {fit.model.labels[atom]}'s sum to {total:.1f}, "
            f"expected {whole}"
        )
    expected, there = expected_atoms(data), float(fit.model.multiplicities.sum())
    if there < _SHARE * expected:
        said.append(f"the model has {there:.0f} atoms in the cell, of about {expected:.0f}")
    if turn := symmetry_beyond(data):
        said.append(f"intensities are alike under {turn}, a symmetry that the cell has not: the cell may be wrong")
    if close := len(overlaps(fit)):
        said.append(f"{close} pairs of atoms of the model are closer than atoms come")
    if len(best.data.hkl) < _PER_PARAMETER * fit.n_parameters:
        said.append(f"{len(best.data.hkl)} reflections are too few for {fit.n_parameters} parameters")
    return tuple(said)


def _missing(data: Intensities, merged: Merged, completeness: float) -> tuple[str, ...]:
    """What may stand in the way, in words."""
    said = []
    if completeness < 0.6:
        said.append(f"completeness is {100 * completeness:.0f} %; 60 % or more is needed")
    if data.d_min > 1.0:
        said.append(f"resolution is {data.d_min:.2f} Å; 1.0 Å or better is needed")
    rint = measured_rint(data, merged)
    if rint is not None and rint > 0.35:
        said.append(f"Rint is {rint:.2f}; below 0.35 is needed")
    return tuple(said)


def measured_rint(data: Intensities, merged: Merged) -> float | None:
    """Rint of reflections that were given more than once, else of the observations that they are means of."""
    return data.rint if np.isnan(merged.rint) else merged.rint
