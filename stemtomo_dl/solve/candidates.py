"""Candidate space groups: from absences, statistics and the phased density."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gemmi
import numpy as np
from scipy import fft

from stemtomo_dl.solve.flip import Amplitudes
from stemtomo_dl.solve.symmetry import Merged, is_primitive, laue_rotations

_ABSENT = 0.05  # of the mean intensity, what multiple scattering leaves in an absent reflection
_PRESENT = 0.15  # of the mean intensity; reflections that are stronger in the mean are not absent


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


def absences(operations: gemmi.GroupOps, hkl: np.ndarray) -> np.ndarray:
    """Mask (reflection,) of those that a space group forbids."""
    return np.asarray(operations.systematic_absences(np.ascontiguousarray(hkl, "i4")), bool)


def absence_likelihood(merged: Merged, absent: np.ndarray) -> float:
    """How much likelier the absences of a group are than chance, as a logarithm; reflections are Wilson-distributed."""
    mean = float(merged.intensity.mean())
    intensity, left = np.maximum(merged.intensity[absent], 0), _ABSENT * mean + merged.sigma[absent]
    return float((np.log(mean / left) - intensity / left + intensity / mean).sum())


def are_present(merged: Merged, operations: gemmi.GroupOps, absent: np.ndarray) -> bool:
    """Whether reflections that a group forbids, ``absent`` (reflection,), are there, so that it is none."""
    if is_primitive(operations, merged):
        return True
    allowed = _PRESENT + 1 / np.sqrt(max(absent.sum(), 1))  # few may all be filled by multiple scattering
    return bool(absent.any() and merged.intensity[absent].mean() > allowed * merged.intensity.mean())


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
        if are_present(merged, operations, absent):
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
