"""Laue class from equivalent intensities, and the space groups that a cell allows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import gemmi
import numpy as np

from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.wilson import strangers

_METRIC = 0.015  # by so much, of its size, symmetry may change the metric tensor of a measured cell
_REPEATED = 0.1  # with fewer equivalents than this share of the reflections, data were merged already
_TRUE = 0.45  # of the way from the Rint of Friedel mates to that of strangers; a true class stays below
_CLEARLY = 0.7  # of what a class's R_meas is above that of Friedel mates; a lower class below it is tried besides
_CHANCE = 0.9  # of R_meas of a class, what that of another must be below to be more than chance
_NONE = 0.02  # of the mean intensity; no more is left where a lattice's centring forbids: scattering twice adds nothing
_SEEN = 0.1  # share of those reflections that are above 3σ, at most, by noise and by neighbours' tails
_THERE = 0.06  # of the mean intensity; more is not left there by neighbours
_MANY = 0.25  # share of them above 3σ, then
_TELLING = 20  # reflections that a centring is told by, at least


@dataclass(frozen=True, eq=False)
class Merged:
    """Unique reflections of a Laue class.

    Attributes
    ----------
    rotations : (operation, 3, 3) i8
        Of the Laue class, the inversion included; h' = h·operation.
    hkl : (reflection, 3) i4
    intensity, sigma : (reflection,) f8
    rint : float
        Of reflections measured more than once; nan where there are none.
    repeated : float
        Share of the reflections given that repeat another.
    index : (given,) i8
        Row of ``hkl`` of each reflection that was given.
    """

    rotations: np.ndarray
    hkl: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray
    rint: float
    repeated: float
    index: np.ndarray


def rotations_of(operations: gemmi.GroupOps) -> np.ndarray:
    """Rotation parts (operation, 3, 3) of the primitive operations."""
    return np.array([op.rot for op in operations.sym_ops]) // gemmi.Op.DEN


def laue_rotations(operations: gemmi.GroupOps) -> np.ndarray:
    """Rotations (operation, 3, 3) with the inversion added, in a fixed order."""
    r = rotations_of(operations)
    return np.unique(np.concatenate([r, -r]), axis=0)


def merge(data: Intensities, rotations: np.ndarray) -> Merged:
    """Average equivalents, weighted by 1/σ² but never by less than the spread that they show."""
    images = np.einsum("ni,oij->noj", data.hkl.astype(int), rotations)
    code = images @ np.array([1 << 40, 1 << 20, 1])
    unique, index, counts = np.unique(code.max(1), return_inverse=True, return_counts=True)
    picked = images[np.arange(len(code)), code.argmax(1)]
    first = np.zeros(len(unique), int)
    first[index] = np.arange(len(index))
    mean = np.bincount(index, data.intensity) / counts
    away = np.abs(data.intensity - mean[index])
    many = counts[index] > 1
    rint = away[many].sum() / data.intensity[many].sum() if many.any() else np.nan
    weight = 1 / (data.sigma**2 + (0.1 * np.abs(mean[index])) ** 2)
    total = np.bincount(index, weight)
    intensity = np.bincount(index, weight * data.intensity) / total
    spread = np.sqrt(np.bincount(index, away**2) / counts / np.maximum(counts - 1, 1))
    own = np.sqrt(np.bincount(index, data.sigma**2)) / counts
    repeated = 1 - len(unique) / len(index)
    return Merged(rotations, picked[first], intensity, np.maximum(own, spread), float(rint), repeated, index)


def compatible_groups(data: Intensities) -> list[Any]:
    """Space groups of the tables, in all settings, whose operations leave the cell's metric as it is.

    Of choices of origin, that at an inversion centre is kept, else the first of the tables: C 2/c, not C 2/n. Where all
    reflections but noise are those of a centred lattice, the groups are centred.
    """
    lengths = np.sqrt(np.diag(data.metric))
    allowed = _METRIC * np.outer(lengths, lengths)
    groups = []
    for group in _settings():
        r = rotations_of(group.operations())
        if (np.abs(np.swapaxes(r, 1, 2) @ data.metric @ r - data.metric) <= allowed).all():
            groups.append(group)
    points = [len(g.operations().cen_ops) for g in groups]
    sure = [n * is_centred(g.operations(), data) for g, n in zip(groups, points, strict=True)]
    kept = [n > max(sure) or m == max(sure) for n, m in zip(points, sure, strict=True)]
    return [g for g, keep in zip(groups, kept, strict=True) if keep]


@cache
def _settings() -> tuple[Any, ...]:
    """Space groups of the tables in all settings, each about one origin."""
    first: dict[tuple[int, bytes], list[Any]] = {}
    for group in gemmi.spacegroup_table():
        if group.ext != "1" and group.ext != "R":
            others = first.setdefault((group.number, np.sort(rotations_of(group.operations()), 0).tobytes()), [])
            if not any(_is_moved(group, other) for other in others):
                others.append(group)
    return tuple(g for same in first.values() for g in same)


def _is_moved(group: Any, other: Any) -> bool:
    """Whether a group is another about an origin that is quarters of the edges away."""
    own = {op.triplet() for op in group.operations()}
    for i, j, k in np.ndindex(4, 4, 4):
        about = other.operations()
        about.change_basis_forward(gemmi.Op(f"x+{i}/4,y+{j}/4,z+{k}/4"))
        if {op.triplet() for op in about} == own:
            return True
    return False


def is_centred(operations: gemmi.GroupOps, data: Intensities) -> bool:
    """Whether the reflections that the centring of a group forbids are not in the data, or there is nothing in them.

    Scattering twice on a lattice leads to points of that lattice, so unlike those of screw axes and glide planes these
    reflections are as weak as noise is.
    """
    forbidden = ~not_forbidden(operations, data.hkl)
    if forbidden.sum() < _TELLING:
        return not forbidden.any()
    intensity, sigma = data.intensity[forbidden], data.sigma[forbidden]
    return bool(intensity.mean() < _NONE * data.intensity.mean() and (intensity > 3 * sigma).mean() < _SEEN)


def is_primitive(operations: gemmi.GroupOps, merged: Merged) -> bool:
    """Whether the reflections that the centring of a group forbids are there: it is not that of the lattice."""
    forbidden = ~not_forbidden(operations, merged.hkl)
    if forbidden.sum() < _TELLING:
        return False
    intensity, sigma = merged.intensity[forbidden], merged.sigma[forbidden]
    strong = intensity.mean() > _THERE * merged.intensity.mean()
    return bool(strong and (intensity > 3 * sigma).mean() > _MANY)


def not_forbidden(operations: gemmi.GroupOps, hkl: np.ndarray) -> np.ndarray:
    """Which reflections (n,) bool the centring of a group allows."""
    return np.asarray((hkl @ np.array(operations.cen_ops).T % gemmi.Op.DEN == 0).all(1))


def find_laue(data: Intensities, groups: list[Any]) -> list[Merged]:
    """Laue classes that may be the crystal's: the highest whose equivalents agree, and a lower one if that is unsure.

    Noise and multiple scattering make even Friedel mates differ, so a class is held against two marks: their Rint, and
    the one that reflections of like resolution which have nothing to do with each other would have in that class. Data
    that hold no equivalents in a class were merged in it, or in another of as many operations (4/m and mmm): all of
    these may be. The lower class is the next highest in which equivalents agree clearly better.
    """
    classes = {laue_rotations(g.operations()).tobytes(): laue_rotations(g.operations()) for g in groups}
    merged = [merge(data, r) for r in classes.values()]
    lowest = min(merged, key=lambda m: len(m.rotations))
    ground = float(np.nan_to_num(lowest.rint)) if lowest.repeated >= _REPEATED else 0.0

    def fits(m: Merged) -> bool:
        strangers = _strangers(data, m)
        return m.repeated < _REPEATED or m.rint - ground <= _TRUE * max(strangers - ground, 0)

    fitting = [m for m in merged if m is lowest or fits(m)]
    fitting.sort(key=lambda m: (-len(m.rotations), np.nan_to_num(m.rint)))
    first, *others = fitting
    least, own = _for_many(data, lowest) if lowest.repeated >= _REPEATED else 0.0, _for_many(data, first)
    sure = min(least + _CLEARLY * (own - least), _CHANCE * own)
    lower = [m for m in others if _for_many(data, m) < sure][:1]
    alike = [m for m in others if len(m.rotations) == len(first.rotations) and m.repeated < _REPEATED]
    if first.repeated >= _REPEATED:
        return [first, *lower]
    return [first, *alike, *(m for m in lower if m not in alike)]


def _for_many(data: Intensities, merged: Merged) -> float:
    """R_meas = Σ √(n/(n−1)) |I − ⟨I⟩| / ΣI, that few equivalents do not make small; 0 without any."""
    counts = np.bincount(merged.index)
    many = counts[merged.index] > 1
    n = counts[merged.index][many]
    mean = np.bincount(merged.index, data.intensity) / counts
    away = np.sqrt(n / (n - 1)) * np.abs(data.intensity - mean[merged.index])[many]
    return float(away.sum() / max(float(data.intensity[many].sum()), 1e-30))


def _strangers(data: Intensities, merged: Merged) -> float:
    """Rint that reflections would have if those of like resolution had changed places."""
    moved = strangers(data.intensity, ((data.hkl @ data.reciprocal) ** 2).sum(1))
    counts = np.bincount(merged.index)
    many = counts[merged.index] > 1
    mean = np.bincount(merged.index, moved) / counts
    return float(np.abs(moved - mean[merged.index])[many].sum() / max(float(moved[many].sum()), 1e-30))


def expand(merged: Merged, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reflections (n, 3) of P1, each once, with the values that belong to them."""
    hkl = np.concatenate([merged.hkl @ r for r in merged.rotations])
    hkl, index = np.unique(hkl, axis=0, return_index=True)
    return hkl, np.tile(value, len(merged.rotations))[index]
