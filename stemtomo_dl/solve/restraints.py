"""Restraints: what chemistry expects of bonds and displacements, as observations beside the intensities."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from stemtomo_dl.solve.model import Model

# SHELXL's own standard deviations (Sheldrick, Acta Cryst. C71 (2015) 3, and its manual)
ALIKE_A = 0.02  # Å, of the difference of two like bonds; SADI
ALONG_A2 = 0.01  # Å², of the difference of the displacements of bonded atoms along their bond; DELU
SIMILAR_A2 = 0.04  # Å², of that of each component of anisotropic ones; SIMU


@dataclass(frozen=True, eq=False)
class Restraints:
    """Bonds of a model, and which of them ought to be as long as each other.

    Attributes
    ----------
    first, second : (bond,) i8
        Atoms, by their places in the model.
    rotations, shifts : (bond, 3, 3), (bond, 3) f8
        Of the second to where it is bonded, in cell edges.
    contrasts : (difference, bond) f8
        Differences of lengths that ought to be 0, in units of one bond's standard deviation: orthonormal.
    """

    first: np.ndarray
    second: np.ndarray
    rotations: np.ndarray
    shifts: np.ndarray
    contrasts: np.ndarray

    def departures(self, model: Model) -> np.ndarray:
        """How far a model is off each restraint (restraint,), in standard deviations."""
        vectors = self._vectors(model)
        lengths = np.linalg.norm(vectors, axis=1)
        sums = np.einsum("kij,bij->bk", _directions(model), self._apart(model)) / SIMILAR_A2
        units = vectors / lengths[:, None]
        along = np.einsum("bi,bij,bj->b", units, self._apart(model), units) / ALONG_A2
        return np.concatenate([self.contrasts @ lengths * np.sqrt(2) / ALIKE_A, along, sums.ravel()])

    def derivatives(self, model: Model) -> np.ndarray:
        """∂ departures / ∂ parameters of a model (parameter, restraint): for each atom shifts, then displacements.

        Along a bond, displacements are compared in the direction that it has now.
        """
        by_site, by_tensor = self._by_site(model), self._by_tensor(model)
        rows = []
        for atom in range(len(model.elements)):
            rows.append(model.site_basis(atom).reshape(-1, 3) @ by_site[:, atom].T)
            rows.append(np.einsum("pij,rij->pr", model.tensor_basis(atom), by_tensor[:, atom]))
        return np.concatenate(rows)

    def _vectors(self, model: Model) -> np.ndarray:
        """From the first to the second atom (bond, 3), Å."""
        ends = np.einsum("bij,bj->bi", self.rotations, model.sites[self.second]) + self.shifts
        return np.asarray((ends - model.sites[self.first]) @ model.symmetry.direct.T)

    def _apart(self, model: Model) -> np.ndarray:
        """Displacement of the first less that of the second atom (bond, 3, 3), Å²."""
        images = self.rotations @ model.tensors[self.second] @ np.swapaxes(self.rotations, 1, 2)
        return np.asarray(model.symmetry.direct @ (model.tensors[self.first] - images) @ model.symmetry.direct.T)

    def _by_site(self, model: Model) -> np.ndarray:
        """∂ departures / ∂ sites (restraint, atom, 3)."""
        vectors, bonds = self._vectors(model), np.arange(len(self.first))
        units = vectors / np.linalg.norm(vectors, axis=1)[:, None] @ model.symmetry.direct
        lengths = np.zeros((len(bonds), len(model.elements), 3))
        np.add.at(lengths, (bonds, self.first), -units)
        np.add.at(lengths, (bonds, self.second), np.einsum("bi,bij->bj", units, self.rotations))
        alike = np.tensordot(self.contrasts, lengths, 1) * np.sqrt(2) / ALIKE_A
        rest = len(bonds) * (1 + len(_directions(model)))
        return np.concatenate([alike, np.zeros((rest, *alike.shape[1:]))])

    def _by_tensor(self, model: Model) -> np.ndarray:
        """∂ departures / ∂ tensors (restraint, atom, 3, 3)."""
        vectors, direct = self._vectors(model), model.symmetry.direct
        units = vectors / np.linalg.norm(vectors, axis=1)[:, None]
        forms = [(np.einsum("bi,bj->bij", units, units) / ALONG_A2)[:, None]]
        if len(_directions(model)):
            forms.append(np.broadcast_to(_directions(model) / SIMILAR_A2, (len(units), 6, 3, 3)))
        out = [np.zeros((len(self.contrasts), len(model.elements), 3, 3))]
        for form in forms:  # (bond, component, 3, 3), Cartesian
            own = direct.T @ form @ direct
            other = np.swapaxes(self.rotations, 1, 2)[:, None] @ own @ self.rotations[:, None]
            rows = np.zeros((*form.shape[:2], len(model.elements), 3, 3))
            for bond, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
                rows[bond, :, first] += own[bond]
                rows[bond, :, second] -= other[bond]
            out.append(rows.reshape(-1, *rows.shape[2:]))
        return np.concatenate(out)


def _directions(model: Model) -> np.ndarray:
    """The six components (6, 3, 3) of an anisotropic displacement; of isotropic ones none, for they have one value."""
    found = np.zeros((6 * model.anisotropic, 3, 3))
    for form, (i, j) in zip(found, combinations_with_replacement(range(3), 2), strict=False):
        form[i, j] = form[j, i] = 0.5 if i != j else 1.0
    return found
