"""Atoms under a space group: special positions, structure factors and their derivatives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gemmi
import numpy as np

from stemtomo_dl.scattering import scattering_factor

U_START = 0.015  # Å²
_EXACT = 1e-9  # of the metric tensor; what it departs by is rounding
SNAP_A = 0.6  # an atom closer than this to its own image belongs on the special position between


class Symmetry:
    """A space group in a cell, as arrays.

    Parameters
    ----------
    operations : gemmi.GroupOps
    cell : tuple of float
        a, b, c in Å, α, β, γ in degrees, as measured: its metric tensor is averaged over the operations.
    cell_esd : tuple of float
        Standard deviations of ``cell``.
    """

    def __init__(
        self, operations: gemmi.GroupOps, cell: tuple[float, ...], cell_esd: tuple[float, ...] = (0.0,) * 6
    ) -> None:
        self.operations = operations
        self.cell_esd = cell_esd
        self.rotations = np.array([op.rot for op in operations]) // gemmi.Op.DEN
        self.cell = _symmetric(gemmi.UnitCell(*cell), self.rotations)
        self.direct = np.array(self.cell.orth.mat.tolist())  # columns a, b, c
        self.reciprocal = np.array(self.cell.frac.mat.tolist())  # rows a*, b*, c*
        self.shifts = np.array([op.tran for op in operations]) / gemmi.Op.DEN

    @property
    def is_centric(self) -> bool:
        """Whether it holds an inversion."""
        return bool((self.rotations == -np.eye(3, dtype=int)).all((1, 2)).any())

    @property
    def is_chiral(self) -> bool:
        """Whether all its operations keep a hand a hand."""
        return bool((np.linalg.det(self.rotations) > 0).all())

    def images(self, site: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (operation, 3), cell edges, from a site to the nearest image of another; their lengths, Å."""
        away = self.rotations @ other + self.shifts - site
        away -= np.round(away)
        return away, np.linalg.norm(away @ self.direct.T, axis=1)

    def apart(self, site: np.ndarray, other: np.ndarray) -> float:
        """Shortest distance, Å, between a site and any image of another."""
        return float(self.images(site, other)[1].min())

    def snap(self, site: np.ndarray) -> np.ndarray:
        """The special position near a site, else the site itself."""
        for _ in range(3):  # the mean of images about a corner settles in steps
            away, length = self.images(site, site)
            site = site + away[length < SNAP_A].mean(0)
        return np.asarray(site % 1)

    def stabiliser(self, site: np.ndarray) -> np.ndarray:
        """Rotations (n, 3, 3) of the operations that leave a site where it is."""
        return np.asarray(self.rotations[self.images(site, site)[1] < 0.05])


def _symmetric(cell: gemmi.UnitCell, rotations: np.ndarray) -> gemmi.UnitCell:
    """The cell that rotations (operation, 3, 3) map onto itself, by the mean metric tensor over them."""
    direct = np.array(cell.orth.mat.tolist())
    metric = direct.T @ direct
    mean = np.einsum("oji,jk,okl->il", rotations, metric, rotations) / len(rotations)
    if np.abs(mean - metric).max() < _EXACT * metric.max():
        return cell
    lengths = np.sqrt(np.diag(mean))
    angles = np.degrees(np.arccos(np.clip(mean / np.outer(lengths, lengths), -1, 1)))
    edges = *lengths.tolist(), *(float(angles[i]) for i in ((1, 2), (0, 2), (0, 1)))
    return gemmi.UnitCell(*edges)


@dataclass(frozen=True, eq=False)
class Model:
    """Atoms of the asymmetric unit.

    Attributes
    ----------
    symmetry : Symmetry
    elements : tuple of str
    sites : (atom, 3) f8
        Cell edges, on their special positions.
    tensors : (atom, 3, 3) f8
        Displacements M of T = exp(−2π² hᵀMh), 1 in units of cell edges squared; M = U G* where isotropic.
    anisotropic : bool
    """

    symmetry: Symmetry
    elements: tuple[str, ...]
    sites: np.ndarray
    tensors: np.ndarray
    anisotropic: bool = False

    @classmethod
    def of(cls, symmetry: Symmetry, elements: tuple[str, ...], sites: Any, u: Any) -> Model:
        """Isotropic atoms; sites are moved to special positions that are near."""
        snapped = np.array([symmetry.snap(np.asarray(s, float)) for s in sites]).reshape(-1, 3)
        metric = symmetry.reciprocal @ symmetry.reciprocal.T
        return cls(symmetry, elements, snapped, np.multiply.outer(np.broadcast_to(u, len(elements)), metric))

    @property
    def u(self) -> np.ndarray:
        """Equivalent isotropic displacements (atom,), Å²."""
        d = self.symmetry.direct
        return np.asarray(np.einsum("ij,ajk,ik->a", d, self.tensors, d) / 3)

    @property
    def labels(self) -> list[str]:
        """Ti1, O1, O2 …"""
        return [f"{e}{self.elements[: i + 1].count(e)}" for i, e in enumerate(self.elements)]

    @property
    def principal(self) -> np.ndarray:
        """Mean square displacements along principal axes (atom, 3), Å², ascending."""
        return np.linalg.eigvalsh(self.symmetry.direct @ self.tensors @ self.symmetry.direct.T)

    @property
    def multiplicities(self) -> np.ndarray:
        """Places (atom,) of each atom in the cell."""
        return np.array([len(self.symmetry.rotations) / len(self.symmetry.stabiliser(s)) for s in self.sites])

    def some(self, keep: np.ndarray) -> Model:
        """The atoms of a mask (atom,)."""
        kept = tuple(e for e, k in zip(self.elements, keep, strict=True) if k)
        return replace(self, elements=kept, sites=self.sites[keep], tensors=self.tensors[keep])

    def site_basis(self, atom: int) -> np.ndarray:
        """Orthonormal shifts (n, 3), cell edges, that keep an atom on its special position."""
        mean = self.symmetry.stabiliser(self.sites[atom]).mean(0)
        u, s, _ = np.linalg.svd(mean)
        return np.asarray(u[:, s > 0.5].T)

    def tensor_basis(self, atom: int) -> np.ndarray:
        """Tensors (n, 3, 3) that the displacement of an atom is a sum of."""
        if not self.anisotropic:
            return (self.symmetry.reciprocal @ self.symmetry.reciprocal.T)[None]
        r = self.symmetry.stabiliser(self.sites[atom])
        six = np.zeros((6, 3, 3))
        for k, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]):
            six[k, i, j] = six[k, j, i] = 1
        mean = np.einsum("rij,kjl,rml->kim", r, six, r) / len(r)
        _, s, v = np.linalg.svd(mean.reshape(6, 9))
        return np.asarray(v[: int((s > 1e-6).sum())].reshape(-1, 3, 3))


class Factors:
    """Structure factors of models in one symmetry, for one set of reflections."""

    def __init__(self, symmetry: Symmetry, hkl: np.ndarray) -> None:
        primitive = symmetry.operations.sym_ops
        self.turned = np.array([hkl @ (np.array(op.rot) // gemmi.Op.DEN) for op in primitive]).astype(float)
        self.squares = (self.turned[..., :, None] * self.turned[..., None, :]).reshape(*self.turned.shape[:2], 9)
        phase = np.array([hkl @ (np.array(op.tran) / gemmi.Op.DEN) for op in primitive])
        self.phase = np.exp(2j * np.pi * phase)
        self.centring = len(symmetry.operations.cen_ops)  # each only repeats the sum
        self.s2 = ((hkl @ symmetry.reciprocal) ** 2).sum(1) / 4
        self.table: dict[str, np.ndarray] = {}

    def form(self, element: str) -> np.ndarray:
        """Scattering factor (reflection,), Å."""
        if element not in self.table:
            self.table[element] = scattering_factor(element, self.s2)
        return self.table[element]

    def waves(self, model: Model, atom: int) -> np.ndarray:
        """Contribution (operation, reflection) of one atom."""
        order = len(model.symmetry.stabiliser(model.sites[atom]))
        exponent = self.squares @ model.tensors[atom].ravel()
        wave = np.exp(2j * np.pi * (self.turned @ model.sites[atom]) - 2 * np.pi**2 * exponent) * self.phase
        return np.asarray(wave * self.form(model.elements[atom]) * (self.centring / order))

    def of(self, model: Model) -> np.ndarray:
        """F(h) = Σ f T exp 2πi h·x over all atoms of the cell, (reflection,) c16, Å."""
        total = np.zeros(len(self.s2), complex)
        for atom in range(len(model.elements)):
            total += self.waves(model, atom).sum(0)
        return total

    def with_derivatives(self, model: Model) -> tuple[np.ndarray, np.ndarray]:
        """F (reflection,) and ∂F/∂p (parameter, reflection): for each atom shifts, then displacements, by its bases."""
        total, rows = np.zeros(len(self.s2), complex), []
        for atom in range(len(model.elements)):
            wave = self.waves(model, atom)
            total += wave.sum(0)
            for shift in model.site_basis(atom):
                rows.append((2j * np.pi * (self.turned @ shift) * wave).sum(0))
            for tensor in model.tensor_basis(atom):
                rows.append((-2 * np.pi**2 * (self.squares @ tensor.ravel()) * wave).sum(0))
        return total, np.array(rows)
