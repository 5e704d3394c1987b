"""Standard deviations of what a refinement gives: coordinates, displacements, lengths, angles, the volume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stemtomo_dl.solve.model import Model, Symmetry

_FIXED = 1e-9  # of a parameter's freedom
_UNTOLD = 1e-9  # of the largest eigenvalue of a normal matrix; where rounding alone tells something


def metric_derivatives(cell: tuple[float, ...]) -> np.ndarray:
    """∂G/∂p (6, 3, 3) of the metric tensor by a, b, c in Å and α, β, γ in degrees."""
    lengths, angles = np.array(cell[:3]), np.radians(cell[3:])
    cosine = np.eye(3)
    out = np.zeros((6, 3, 3))
    for k, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        cosine[i, j] = cosine[j, i] = np.cos(angles[k])
        out[3 + k, i, j] = out[3 + k, j, i] = -lengths[i] * lengths[j] * np.sin(angles[k]) * np.pi / 180
    for k in range(3):
        edge = np.eye(3)[k]
        out[k] = cosine * (np.outer(edge, lengths) + np.outer(lengths, edge))
    return out


def cell_covariance(cell: tuple[float, ...], esds: tuple[float, ...], rotations: np.ndarray) -> np.ndarray:
    """Covariances (6, 6) of a, b, c, α, β, γ, Å and degrees, of a cell whose standard deviations alone are known.

    Parameters that symmetry makes equal vary as one, those that it fixes do not, others vary independently: P projects
    on the changes of the six that leave the metric tensor to the rotations, and Cᵢⱼ = σᵢ σⱼ Pᵢⱼ / √(Pᵢᵢ Pⱼⱼ).

    Parameters
    ----------
    cell : tuple of float
    esds : tuple of float
    rotations : (operation, 3, 3) int
        Of the space group; columns are the images of the axes.
    """
    change = metric_derivatives(cell)
    change /= np.linalg.norm(change, axis=(1, 2))[:, None, None]  # edges and angles alike
    broken = (np.einsum("oji,pjk,okl->poil", rotations, change, rotations) - change[:, None]).reshape(6, -1)
    values, axes = np.linalg.eigh(broken @ broken.T)
    kept = axes[:, values < _FIXED]
    project = kept @ kept.T
    freedom = np.sqrt(np.diag(project))
    share = np.where(freedom > _FIXED, np.array(esds) / np.maximum(freedom, _FIXED), 0.0)
    return np.asarray(np.outer(share, share) * project)


def inverse_normal(normal: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Inverse of a normal matrix (n, n) whose parameters are scaled by sizes (n,).

    What data do not tell, as the origin along a polar axis, stays where it is.
    """
    scaled = np.linalg.pinv(normal / np.outer(size, size), rcond=_UNTOLD, hermitian=True)
    return np.asarray(scaled / np.outer(size, size))


def spreads(model: Model, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariances of the sites, and standard deviations of U and of the tensors, from those of the parameters.

    Parameters
    ----------
    model : Model
    covariance : (parameter, parameter) array
        The scale first, then each atom's shifts and displacements by its bases.

    Returns
    -------
    (3 atom, 3 atom) array
        Cell edges squared.
    (atom,) array
        Å².
    (atom, 3, 3) array
        As the model's tensors.
    """
    n, at, d = len(model.elements), 1, model.symmetry.direct
    shifts, u_esd, tensor_esd = np.zeros((len(covariance), n, 3)), np.zeros(n), np.zeros_like(model.tensors)
    for atom in range(n):
        basis = model.site_basis(atom)
        shifts[at : at + len(basis), atom] = basis
        at += len(basis)
        basis = model.tensor_basis(atom)
        own = covariance[at : at + len(basis), at : at + len(basis)]
        tensor_esd[atom] = np.sqrt(np.maximum(np.einsum("kij,kl,lij->ij", basis, own, basis), 0))
        by_u = np.einsum("ij,kjl,il->k", d, basis, d) / 3
        u_esd[atom] = np.sqrt(max(float(by_u @ own @ by_u), 0.0))
        at += len(basis)
    every = shifts.reshape(len(covariance), -1)
    return every.T @ covariance @ every, u_esd, tensor_esd


def cell_spread(symmetry: Symmetry) -> tuple[np.ndarray, float]:
    """Standard deviations (6,) of the cell's parameters as symmetry leaves them, Å and degrees, and of its volume, Å³.

    dV = V tr(G⁻¹ dG) / 2.
    """
    cell = tuple(symmetry.cell.parameters)
    covariance = cell_covariance(cell, symmetry.cell_esd, symmetry.rotations)
    metric = symmetry.direct.T @ symmetry.direct
    by_cell = symmetry.cell.volume / 2 * np.einsum("ij,pji->p", np.linalg.inv(metric), metric_derivatives(cell))
    return np.sqrt(np.diag(covariance)), float(np.sqrt(by_cell @ covariance @ by_cell))


@dataclass(frozen=True, eq=False)
class Spread:
    """What lengths and angles between the atoms of a model vary by.

    σ² = Jₓ Σ Jₓᵀ + Jₚ C Jₚᵀ: Σ of all coordinates together, so that atoms that lean on each other, or are images of
    one, do not count as independent, and C of the cell.

    Attributes
    ----------
    model : Model
    site_covariance : (3 atom, 3 atom) f8
        Cell edges squared.
    """

    model: Model
    site_covariance: np.ndarray

    @cached_property
    def _sites(self) -> np.ndarray:
        """Covariances (atom, atom, 3, 3) of coordinates."""
        n = len(self.model.elements)
        return np.swapaxes(self.site_covariance.reshape(n, 3, n, 3), 1, 2)

    @cached_property
    def _metric(self) -> np.ndarray:
        direct = self.model.symmetry.direct
        return np.asarray(direct.T @ direct)

    @cached_property
    def _cell(self) -> tuple[np.ndarray, np.ndarray]:
        """∂G/∂p and the cell's covariances."""
        symmetry = self.model.symmetry
        cell = tuple(symmetry.cell.parameters)
        return metric_derivatives(cell), cell_covariance(cell, symmetry.cell_esd, symmetry.rotations)

    def of_lengths(self, first: int, second: int, vectors: np.ndarray, operations: np.ndarray) -> np.ndarray:
        """σ (n,), Å, of the lengths of vectors between an atom and images of another.

        Parameters
        ----------
        first, second : int
        vectors : (n, 3) array
            Cell edges, from the first to the image.
        operations : (n,) int
            That lead to the image.
        """
        length = np.sqrt(np.einsum("ni,ij,nj->n", vectors, self._metric, vectors))[:, None]
        pull = vectors @ self._metric / length  # ∂d/∂v
        turned = np.einsum("ni,nij->nj", pull, self.model.symmetry.rotations[operations])
        by_cell, cell = self._cell
        slope = np.einsum("ni,pij,nj->np", vectors, by_cell, vectors) / (2 * length)
        return self._sigma([(first, -pull), (second, turned)], slope, cell)

    def of_angles(
        self, atoms: tuple[int, int, int], arms: tuple[np.ndarray, np.ndarray], operations: tuple[int, int]
    ) -> tuple[float, float]:
        """Angle at an atom, degrees, and its σ.

        Parameters
        ----------
        atoms : tuple of int
            The one at the end of the first arm, the one in the middle, the one at the end of the second.
        arms : two (3,) arrays
            Cell edges, from the middle to the images of the others.
        operations : tuple of int
            That lead to those images.
        """
        g, (v, w) = self._metric, arms
        lengths = np.sqrt([v @ g @ v, w @ g @ w])
        cosine = float(np.clip(v @ g @ w / lengths.prod(), -1, 1))
        angle = float(np.degrees(np.arccos(cosine)))
        if cosine**2 > 1 - _FIXED:  # no angle moves away from 180° to first order
            return angle, 0.0
        scale = -np.degrees(1 / np.sqrt(1 - cosine**2))  # ∂θ/∂cos θ
        pulls = [
            scale * (g @ other / lengths.prod() - cosine * (g @ own) / length**2)
            for own, other, length in ((v, w, lengths[0]), (w, v, lengths[1]))
        ]
        rotations = self.model.symmetry.rotations
        shifts = [
            (atoms[0], (pulls[0] @ rotations[operations[0]])[None]),
            (atoms[2], (pulls[1] @ rotations[operations[1]])[None]),
            (atoms[1], -(pulls[0] + pulls[1])[None]),
        ]
        by_cell, cell = self._cell
        cross = np.einsum("i,pij,j->p", v, by_cell, w) / lengths.prod()
        own = [np.einsum("i,pij,j->p", x, by_cell, x) / length**2 for x, length in ((v, lengths[0]), (w, lengths[1]))]
        slope = scale * (cross - cosine * (own[0] + own[1]) / 2)
        return angle, float(self._sigma(shifts, slope[None], cell)[0])

    def _sigma(self, shifts: list[tuple[int, np.ndarray]], slope: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """σ (n,) from derivatives by the coordinates (n, 3) of atoms, and by the cell's parameters (n, 6)."""
        total = np.einsum("np,pq,nq->n", slope, cell, slope)
        for a, by_a in shifts:
            for b, by_b in shifts:
                total += np.einsum("ni,ij,nj->n", by_a, self._sites[a, b], by_b)
        return np.sqrt(np.maximum(total, 0))
