"""Which changes of basis bring one lattice onto another, or onto itself, within the errors of the cells.

Two particles of one phase may be given different conventional cells: axes of near lengths change places, another
monoclinic cell is chosen, one is taken for centred and the other for primitive. All primitive bases that agree in
metric are found, so that no reduction has to come out the same twice.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import gemmi
import numpy as np

from stemtomo_dl.crystal.bravais import cell_of, reduced

LENGTH_TOLERANCE = 0.025  # relative
ANGLE_TOLERANCE_DEG = 2.0
_COEFFICIENTS = np.array([c for c in product(range(-2, 3), repeat=3) if any(c)])


class Change(NamedTuple):
    """A change of basis: rows a, b, c of one cell are ``matrix`` times those of another, and so are the indices.

    Attributes
    ----------
    matrix : (3, 3) f8
        h' = matrix · h.
    misfit : float
        Largest difference of the primitive cells' lengths or angles, in units of the tolerances.
    """

    matrix: np.ndarray
    misfit: float


def direct_basis(cell: np.ndarray) -> np.ndarray:
    """Rows a, b, c (3, 3), Å, Cartesian, of a cell (6,)."""
    return np.array(gemmi.UnitCell(*cell).orth.mat.tolist()).T


def primitive_basis(cell: np.ndarray, lattice: str) -> np.ndarray:
    """A reduced primitive basis, rows in Å, of a cell in the setting that its Pearson letters name."""
    rows = np.array(gemmi.UnitCell(*cell).primitive_orth_matrix(lattice[1]).tolist()).T
    return reduced(rows)


def changes(
    cell: np.ndarray, lattice: str, other_cell: np.ndarray, other_lattice: str, slack: float = 1.0
) -> list[Change]:
    """All right-handed changes of basis from another cell to this one, the best fit first.

    Parameters
    ----------
    cell, other_cell : (6,) array
        Å and degrees.
    lattice, other_lattice : str
        Pearson's letters; their centring is used.
    slack : float
        What the tolerances, 2.5 % of lengths and 2° of angles, are multiplied by.

    Returns
    -------
    list of Change
        Empty where the lattices differ. One for each rotation of the lattice's (pseudo-)symmetry.
    """
    mine, theirs = primitive_basis(cell, lattice), primitive_basis(other_cell, other_lattice)
    bases, misfit = _alike(mine, theirs)
    left = direct_basis(cell) @ np.linalg.inv(mine)
    right = theirs @ np.linalg.inv(direct_basis(other_cell))
    found = [Change(left @ m @ right, float(e)) for m, e in zip(bases, misfit, strict=True) if e <= slack]
    return sorted(found, key=lambda c: c.misfit)


def rotations(basis: np.ndarray, slack: float = 1.0) -> list[np.ndarray]:
    """Integer matrices (3, 3) by which rotations that a lattice (rows, Å, primitive) bears change its indices.

    ``slack`` is what the tolerances of `changes` are multiplied by; the identity is among them.
    """
    short = reduced(basis)
    there = np.rint(short @ np.linalg.inv(basis))
    matrices, misfit = _alike(short, short)
    back = np.rint(np.linalg.inv(there))
    return [np.rint(back @ m @ there).astype(int) for m, e in zip(matrices, misfit, strict=True) if e <= slack]


def _alike(mine: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integer matrices (n, 3, 3) of determinant 1 that give ``theirs`` a metric like that of ``mine``; the misfits."""
    wanted = cell_of(mine)
    lengths = np.linalg.norm(_COEFFICIENTS @ theirs, axis=1)
    near = [_COEFFICIENTS[np.abs(lengths / w - 1) < 2 * LENGTH_TOLERANCE] for w in wanted[:3]]
    i, j, k = np.meshgrid(*[np.arange(len(n)) for n in near], indexing="ij")
    triples = np.stack([near[0][i.ravel()], near[1][j.ravel()], near[2][k.ravel()]], 1)
    triples = triples[np.rint(np.linalg.det(triples)) == 1] if len(triples) else triples.reshape(0, 3, 3)
    if not len(triples):
        return triples, np.empty(0)
    off = np.abs(cell_of(triples @ theirs) - wanted)
    return triples, np.maximum(
        (off[:, :3] / wanted[:3]).max(1) / LENGTH_TOLERANCE, off[:, 3:].max(1) / ANGLE_TOLERANCE_DEG
    )


def reindexed(hkl: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices (n, 3) after a change of basis, and which of them are whole (n,)."""
    new = hkl @ matrix.T
    whole = np.rint(new)
    return whole.astype("i4"), np.abs(new - whole).max(1) < 1e-3


def changed_cell(cell: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The cell (6,) after a change of basis."""
    return cell_of(matrix @ direct_basis(cell))
