"""Laue class from equivalent intensities; space groups from absences, statistics and the phased density."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gemmi
import numpy as np
from scipy import fft

from stemtomo_dl.solve.flip import Amplitudes
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.wilson import strangers

_METRIC = 0.015  # by so much, of its size, symmetry may change the metric tensor of a measured cell
_REPEATED = 0.1  # with fewer equivalents than this share of the reflections, data were merged already
_TRUE = 0.45  # of the way from the Rint of Friedel mates to that of strangers; a true class stays below
_CLEARLY = 0.7  # of what a class's R_meas is above that of Friedel mates; a lower class below it is tried besides
_CHANCE = 0.9  # of R_meas of a class, what that of another must be below to be more than chance
_ABSENT = 0.05  # of the mean intensity, what multiple scattering leaves in an absent reflection
_PRESENT = 0.15  # of the mean intensity; reflections that are stronger in the mean are not absent
_NONE = 0.02  # of the mean intensity; no more is left where a lattice's centring forbids: scattering twice adds nothing
_SEEN = 0.1  # share of those reflections that are above 3σ, at most, by noise and by neighbours' tails
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


@dataclass(frozen=True, eq=False)
class Candidate:
    """A space group, and how well it suits the data.

    Attributes
    ----------
    group : gemmi.SpaceGroup
    agreement : float
        Mean over the operations of the correlation of the phased density with its image; 1 is perfect.
    weakest : float
        That of the worst operation.
    absences : float
        Log-likelihood that its absent reflections are absent rather than weak by chance; 0 where it has none but those
        that all groups in question have.
    origin : (3,) f8
        Where in the phased density the group's origin is, in cell edges.
    statistics : float
        Log-likelihood of the intensities' distribution with an inversion centre, where the group has one, over that
        without; the other way round where it has none.
    """

    group: Any
    agreement: float
    weakest: float
    absences: float
    origin: np.ndarray
    statistics: float = 0.0

    @property
    def score(self) -> float:
        """What candidates are ranked by: agreement, absences, statistics, and a preference for symmetry.

        A subgroup always agrees at least as well; phases of noisy data agree to 0.6 under operations that are true,
        to 0.4 under others.
        """
        order = len(self.group.operations().sym_ops)
        told = 0.1 * float(np.tanh(self.absences / 10)) + 0.05 * float(np.tanh(self.statistics / 3))
        return (self.weakest + self.agreement) / 2 + told + 0.15 * np.log2(order)


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

    Of two choices of origin, the one at an inversion centre is kept. Where all reflections but noise are those of a
    centred lattice, the groups are centred.
    """
    lengths = np.sqrt(np.diag(data.metric))
    allowed = _METRIC * np.outer(lengths, lengths)
    groups = []
    for group in gemmi.spacegroup_table():
        if group.ext == "1" or group.ext == "R":
            continue
        r = rotations_of(group.operations())
        if (np.abs(np.swapaxes(r, 1, 2) @ data.metric @ r - data.metric) <= allowed).all():
            groups.append(group)
    points = [len(g.operations().cen_ops) for g in groups]
    sure = [n * is_centred(g.operations(), data) for g, n in zip(groups, points, strict=True)]
    kept = [n > max(sure) or m == max(sure) for n, m in zip(points, sure, strict=True)]
    return [g for g, keep in zip(groups, kept, strict=True) if keep]


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


def absences(operations: gemmi.GroupOps, hkl: np.ndarray) -> np.ndarray:
    """Mask (reflection,) of those that a space group forbids."""
    return np.asarray(operations.systematic_absences(np.ascontiguousarray(hkl, "i4")), bool)


def absence_likelihood(merged: Merged, absent: np.ndarray) -> float:
    """How much likelier the absences of a group are than chance, as a logarithm; reflections are Wilson-distributed."""
    mean = float(merged.intensity.mean())
    intensity, left = np.maximum(merged.intensity[absent], 0), _ABSENT * mean + merged.sigma[absent]
    return float((np.log(mean / left) - intensity / left + intensity / mean).sum())


def rank(
    merged: Merged, groups: list[Any], amplitudes: Amplitudes, factors: np.ndarray, centre: float = 0.0
) -> list[Candidate]:
    """Space groups of one Laue class in the order in which they suit data and phases.

    For every operation (R, t) and every origin x₀, Σ F*(h) F(hR) exp 2πi(h·t + (h − hR)·x₀) / Σ|F|² says how well the
    density is mapped onto itself (Palatinus & van der Lee, J. Appl. Cryst. 41 (2008) 975); the sum over the operations
    is taken for all x₀ at once by a Fourier transform. Reflections that all of the groups forbid, as where a lattice is
    centred, do not tell them apart.

    Parameters
    ----------
    merged : Merged
    groups : list of gemmi.SpaceGroup
    amplitudes : Amplitudes
    factors : (a, b, c // 2 + 1) c16
        Phased in P1.
    centre : float
        Log-likelihood of an inversion centre by the intensities' distribution, see `centre_likelihood`.
    """
    images = _Images(amplitudes, factors)
    alike = [g for g in groups if np.array_equal(laue_rotations(g.operations()), merged.rotations)]
    forbidden = np.array([absences(g.operations(), merged.hkl) for g in alike]).reshape(len(alike), -1)
    telling = ~forbidden.all(0) if len(alike) > 1 else np.ones(len(merged.hkl), bool)
    shown = replace(merged, intensity=merged.intensity[telling], sigma=merged.sigma[telling])
    found = []
    for group, absent in zip(alike, forbidden, strict=True):
        operations = group.operations()
        allowed = _PRESENT + 1 / np.sqrt(max(absent.sum(), 1))  # few may all be filled by multiple scattering
        if absent.any() and merged.intensity[absent].mean() > allowed * merged.intensity.mean():
            continue
        likelihood = absence_likelihood(shown, absent[telling]) if absent[telling].any() else 0.0
        agreement, weakest, origin = _agreement(operations, images)
        statistics = centre if operations.is_centrosymmetric() else -centre
        found.append(Candidate(group, agreement, weakest, likelihood, origin, statistics))
    return sorted(found, key=lambda c: -c.score)


class _Images:
    """Agreement of the phased density with its image under one operation, for every origin; each is computed once."""

    def __init__(self, amplitudes: Amplitudes, factors: np.ndarray) -> None:
        self.full = whole_grid(np.where(amplitudes.measured, factors, 0), amplitudes.shape)
        shape = np.array(amplitudes.shape)
        hkl = np.argwhere(np.abs(self.full) > 1e-9 * np.abs(self.full).max())
        self.hkl = (hkl + shape // 2) % shape - shape // 2
        self.values = self.full[tuple(self.hkl.T)]
        self.shape = tuple(fft.next_fast_len(2 * n) for n in amplitudes.shape)  # finer than the phases resolve
        self.known: dict[str, np.ndarray] = {}

    def of(self, op: gemmi.Op) -> np.ndarray:
        """Σ F*(h) F(hR) exp 2πi(h·t + (h − hR)·x₀) / Σ|F|² on a grid of origins x₀ (a, b, c)."""
        if (name := op.triplet()) not in self.known:
            rotation, shift = np.array(op.rot) // gemmi.Op.DEN, np.array(op.tran) / gemmi.Op.DEN
            turned = self.hkl @ rotation
            product = self.values.conj() * self.full[tuple((turned % self.full.shape).T)]
            product *= np.exp(2j * np.pi * self.hkl @ shift) / (np.abs(self.values) ** 2).sum()
            place = np.ravel_multi_index(tuple(((self.hkl - turned) % self.shape).T), self.shape)
            n = int(np.prod(self.shape))
            sums = np.bincount(place, product.real, n) + 1j * np.bincount(place, product.imag, n)
            self.known[name] = fft.ifftn(sums.reshape(self.shape), norm="forward").real.astype("f4")
        return self.known[name]


def _agreement(operations: gemmi.GroupOps, images: _Images) -> tuple[float, float, np.ndarray]:
    """Mean and lowest agreement over the operations, at the origin (3,) where the mean is highest."""
    maps = [images.of(op) for op in operations if op.triplet() != "x,y,z"]
    if not maps:
        return 1.0, 1.0, np.zeros(3)
    mean = sum(maps[1:], maps[0]) / len(maps)
    best = np.unravel_index(int(mean.argmax()), mean.shape)
    return float(mean[best]), float(min(m[best] for m in maps)), np.array(best) / mean.shape


def whole_grid(factors: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Structure factors on the whole grid (a, b, c) from those on its half (a, b, c // 2 + 1)."""
    return np.asarray(fft.ifftn(fft.irfftn(factors.conj(), shape, norm="forward")))


def symmetrise(candidate: Candidate, merged: Merged, factors: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Phases (reflection,) of the unique reflections, rad: the mean over the group's operations at its origin."""
    full = whole_grid(factors, shape)
    total = np.zeros(len(merged.hkl), complex)
    for op in candidate.group.operations():
        turned = merged.hkl @ (np.array(op.rot) // gemmi.Op.DEN)
        phase = merged.hkl @ (np.array(op.tran) / gemmi.Op.DEN) - turned @ candidate.origin
        total += full[tuple((turned % shape).T)] * np.exp(2j * np.pi * phase)
    return np.angle(total)
