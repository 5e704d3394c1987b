"""Ab initio phases of light-atom structures: atoms at random, recycled between the map and the amplitudes.

Charge flipping needs peaks that stand out. Where all atoms are alike and data end at 1 Å, it helps to say what the
density is made of: so many atoms, in this space group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from stemtomo_dl.scattering import scattering_factor
from stemtomo_dl.solve.model import Symmetry
from stemtomo_dl.solve.tops import apart, between_points, peaks

_CYCLES = 60  # of one start
_WHOLE = 4  # last cycles, in which no atom is left out
_OMITTED = 0.3  # share of the atoms that each cycle leaves out at random
_FILLED = 0.8  # of the calculated amplitude, given to reflections that were not measured
_SPACING = 0.3  # Å, of the map at most; finer where reflections ask for it
_APART = 1.0  # Å, between atoms
_SHELLS = 12
_MORE = 6  # peaks looked at, for each atom and place


@dataclass(frozen=True, eq=False)
class Normalised:
    """Normalised amplitudes of a space group, and the reflections of its sphere that were not measured.

    Attributes
    ----------
    symmetry : Symmetry
    hkl : (reflection, 3) int
        Unique; measured ones come first.
    e : (measured,) f8
        |E|: |F| over what the composition gives on average, with the fall-off by displacements taken out.
    """

    symmetry: Symmetry
    hkl: np.ndarray
    e: np.ndarray

    @classmethod
    def of(
        cls, symmetry: Symmetry, hkl: np.ndarray, amplitude: np.ndarray, composition: tuple[tuple[str, float], ...]
    ) -> Normalised:
        """Normalise by Wilson's plot: a straight line through the logarithms of the means of shells."""
        s2 = ((hkl @ symmetry.reciprocal) ** 2).sum(1) / 4
        expected = sum(max(n, 1.0) * scattering_factor(e, s2) ** 2 for e, n in composition)
        ratio = amplitude**2 / expected
        shells = [s for s in np.array_split(np.argsort(s2), _SHELLS) if ratio[s].mean() > 0]
        line = np.polyfit([s2[s].mean() for s in shells], [np.log(ratio[s].mean()) for s in shells], 1)
        everything = _unmeasured(symmetry, hkl)
        return cls(symmetry, np.concatenate([hkl, everything]), np.sqrt(ratio / np.exp(np.polyval(line, s2))))


def _unmeasured(symmetry: Symmetry, hkl: np.ndarray) -> np.ndarray:
    """Unique reflections (n, 3) within the sphere of ``hkl`` that are neither in it nor absent."""
    rotations = np.unique(np.concatenate([symmetry.rotations, -symmetry.rotations]), axis=0)
    highest = np.linalg.norm(hkl @ symmetry.reciprocal, axis=1).max() * (1 + 1e-9)
    axes = [np.arange(-n, n + 1) for n in symmetry.cell.get_hkl_limits(1 / highest)]
    sphere = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(sphere @ symmetry.reciprocal, axis=1)
    sphere = sphere[(length > 0) & (length <= highest)]
    code = np.array([1 << 40, 1 << 20, 1])
    images = np.einsum("ni,oij->noj", sphere, rotations)
    unique = np.unique(images[np.arange(len(sphere)), (images @ code).argmax(1)], axis=0)
    unique = unique[~np.asarray(symmetry.operations.systematic_absences(np.ascontiguousarray(unique, "i4")), bool)]
    measured = (np.einsum("ni,oij->noj", hkl, rotations) @ code).max(1)
    return np.asarray(unique[~np.isin(unique @ code, measured)])


class Recycler:
    """Starts from random atoms in one space group.

    Parameters
    ----------
    data : Normalised
    atoms : float
        In the cell, roughly; hydrogen left out.
    """

    def __init__(self, data: Normalised, atoms: float) -> None:
        symmetry = data.symmetry
        self.symmetry, self.e, self.atoms = symmetry, data.e, atoms
        self.general = max(1, round(atoms / len(symmetry.rotations)))
        self.turned = np.array([data.hkl @ r for r in symmetry.rotations])
        self.highest = np.abs(self.turned).max((0, 1))
        self.waves = np.exp(2j * np.pi * np.array([data.hkl @ t for t in symmetry.shifts]))
        lengths = np.array(symmetry.cell.parameters[:3])
        points = np.maximum(np.ceil(lengths / _SPACING), 2 * np.abs(self.turned).max((0, 1)) + 1)
        self.shape = tuple(fft.next_fast_len(int(n)) for n in points)
        images = np.concatenate([s * self.turned for s in (1, -1)]).reshape(-1, 3)
        mates = np.repeat([False, True], self.turned[..., 0].size)
        source = np.tile(np.arange(len(data.hkl)), 2 * len(symmetry.rotations))
        factor = np.concatenate([self.waves.conj().ravel(), self.waves.ravel()])
        upper = images[:, 2] >= 0
        self.place = tuple((images[upper] % self.shape).T)
        self.source, self.factor, self.mates = source[upper], factor[upper], mates[upper]

    def start(self, rng: np.random.Generator, phases: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """Phases (measured,) from one random start, or from ``phases`` on, rad, and their figure of merit.

        Each cycle leaves out atoms at random, takes the phases of the others and picks as many atoms from the map of
        w|E| with w = tanh(|E||Ec|), where reflections that were not measured have the calculated amplitude: dual-space
        recycling with random omission (Sheldrick et al., International Tables F (2012) 413; Burla et al., Acta Cryst.
        A58 (2002) 456 for weights of this kind). The merit is the correlation of |E| with |Ec|.
        """
        sites, weight = (
            (rng.random((self.general, 3)), np.ones(self.general)) if phases is None else self._sites(phases)
        )
        best = np.zeros(len(self.e)), -1.0
        for cycle in range(_CYCLES):
            whole = cycle == 0 or cycle >= _CYCLES - _WHOLE
            keep = np.ones(len(sites), bool) if whole else rng.random(len(sites)) >= _OMITTED
            if not keep.any():
                keep[rng.integers(len(sites))] = True  # of few atoms often none would be left
            calculated = self._factors(sites[keep], weight[keep])
            measured = calculated[: len(self.e)]
            size = np.abs(measured)
            if cycle >= _CYCLES - _WHOLE:
                best = max(best, (np.angle(measured), float(np.corrcoef(self.e, size)[0, 1])), key=lambda b: b[1])
            scale = (self.e @ size) / (size @ size)
            value = _FILLED * scale * calculated
            value[: len(self.e)] = self.e * np.tanh(scale * size * self.e) * np.exp(1j * np.angle(measured))
            sites, weight = self._peaks(self._map(value))
            if not len(sites):
                return best
        return best

    def _sites(self, phases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Peaks, and what an image of each counts, of the map of |E| with phases (measured,), rad."""
        value = np.zeros(len(self.turned[0]), complex)
        value[: len(self.e)] = self.e * np.exp(1j * phases)
        return self._peaks(self._map(value))

    def _factors(self, sites: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Structure factors (reflection,) of point atoms of which each image counts ``weight`` (atom,).

        exp 2πi h·x is looked up axis by axis.
        """
        x, y, z = (
            np.exp(2j * np.pi * np.multiply.outer(np.arange(-n, n + 1), place)).astype(np.complex64)
            for n, place in zip(self.highest, sites.T, strict=True)
        )
        h, k, m = np.moveaxis(self.turned + self.highest, -1, 0)
        return np.asarray((np.einsum("ona,ona,ona->on", x[h] * weight.astype("f4"), y[k], z[m]) * self.waves).sum(0))

    def _map(self, value: np.ndarray) -> np.ndarray:
        half = np.zeros((*self.shape[:2], self.shape[2] // 2 + 1), complex)
        wave = value[self.source]
        half[self.place] = np.where(self.mates, wave.conj(), wave) * self.factor
        return np.asarray(fft.irfftn(half.conj(), self.shape))

    def _peaks(self, density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The highest peaks (atom, 3), no two the same atom, and 1 over how many images of each (atom,) are one."""
        top, height = peaks(density)
        order = np.argsort(-height, kind="stable")[: _MORE * len(self.symmetry.rotations) * self.general]
        sites = between_points(density, top[order]) / self.shape
        symmetry = self.symmetry
        kept, orders = apart(
            sites, symmetry.rotations.astype(float), symmetry.shifts, symmetry.direct, _APART, self.atoms
        )
        return np.asarray(sites[kept] % 1), 1 / orders
