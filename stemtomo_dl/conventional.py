"""Intensities given in a reduced or primitive cell, brought to the conventional one of their lattice."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import gemmi
import numpy as np

from stemtomo_dl.crystal.bravais import Lattice, settings
from stemtomo_dl.crystal.cells import PRIMITIVE, cell_of
from stemtomo_dl.crystal.phase import operator_text
from stemtomo_dl.crystal.settings import direct_basis, reindexed
from stemtomo_dl.solve.esds import cell_covariance, metric_derivatives
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.symmetry import compatible_groups, find_laue, is_centred

_REVERSE = PRIMITIVE["R"] * [-1, -1, 1]
# What a cell's axes may hold more points by, most first; all but the last of these are in the tables of space groups.
_CENTRINGS = {**{c: PRIMITIVE[c] for c in "FRIABC"}, "R reverse": _REVERSE}
_HOLOHEDRY = {"c": 48, "h": 24, "t": 16, "o": 8, "m": 4, "a": 2}


class Setting(NamedTuple):
    """Axes that reflections are given in.

    Attributes
    ----------
    data : Intensities
    matrix : (3, 3) f8
        h' = matrix · h leads to them from those of the file.
    centring : str
        Its letter; empty of the file's own axes, where nothing is said of it.
    rotations : (operation, 3, 3) int
        Of the highest Laue class that the intensities show in these axes; none where no table has such axes.
    """

    data: Intensities
    matrix: np.ndarray
    centring: str
    rotations: np.ndarray

    @property
    def order(self) -> int:
        """Operations of the class."""
        return len(self.rotations)


def conventional(data: Intensities) -> Intensities:
    """Intensities in axes in which their symmetry can be told, with a note where these are not the ones given.

    Tables of space groups have conventional axes, so a rhombohedral crystal on primitive axes, or a cubic one in its
    reduced cell, shows no symmetry but the inversion there. Of the conventional settings that the lattice has within
    tolerances (`crystal.bravais`), the one counts in which the intensities show the highest Laue class, if that is
    higher than in the axes given; else these stay. Where the space group is stated they stay, too.

    Parameters
    ----------
    data : Intensities

    Returns
    -------
    Intensities
    """
    if data.operations is not None:
        return data
    points, told = _lattice_points(data)
    given = Setting(data, np.eye(3), "", _laue(data) if told else np.zeros((0, 3, 3)))
    own = direct_basis(np.array(data.cell))
    found = [given]
    for lattice in settings(points @ own)[:-1]:
        if _HOLOHEDRY[lattice.name[0]] > max(f.order for f in found):
            found.append(_in(lattice, data, lattice.basis @ np.linalg.inv(own)))
    best = max(found, key=lambda f: f.order)  # of equals the first
    return data if best is given else _noted(best)


def _lattice_points(data: Intensities) -> tuple[np.ndarray, bool]:
    """Primitive vectors (rows, cell edges) of the lattice by what is absent; whether tables have its centring."""
    centred = {name: rows for name, rows in _CENTRINGS.items() if is_centred(_translations(rows), data)}
    if not centred:
        return PRIMITIVE["P"], True
    name = min(centred, key=lambda c: abs(np.linalg.det(centred[c])))
    return centred[name], name in PRIMITIVE


def _translations(rows: np.ndarray) -> gemmi.GroupOps:
    """The group of a lattice's translations alone, by its primitive vectors."""
    group = gemmi.GroupOps([gemmi.Op("x,y,z")])
    steps = np.rint(rows * gemmi.Op.DEN).astype(int)
    sums = np.indices((3, 3, 3)).reshape(3, -1).T @ steps % gemmi.Op.DEN
    group.cen_ops = sorted(set(map(tuple, sums.tolist())))
    return group


def _laue(data: Intensities) -> np.ndarray:
    """Rotations of the highest Laue class that the intensities show."""
    return find_laue(data, compatible_groups(data))[0].rotations


def _in(lattice: Lattice, data: Intensities, matrix: np.ndarray) -> Setting:
    """Intensities in the axes of a lattice; what has no whole indices there is what its centring forbids."""
    matrix = np.rint(matrix * gemmi.Op.DEN) / gemmi.Op.DEN
    hkl, whole = reindexed(data.hkl, matrix)
    cells = abs(np.linalg.det(matrix)) if data.per_cell else 1.0
    moved = replace(
        data,
        cell=tuple(float(v) for v in cell_of(lattice.basis)),
        composition=tuple((e, n * cells) for e, n in data.composition),
        hkl=hkl[whole],
        intensity=data.intensity[whole],
        sigma=data.sigma[whole],
    )
    rotations = _laue(moved)
    esds = _changed_esds(data, moved.cell, matrix, rotations)
    return Setting(replace(moved, cell_esd=esds), matrix, lattice.name[1], rotations)


def _changed_esds(
    data: Intensities, cell: tuple[float, ...], matrix: np.ndarray, rotations: np.ndarray
) -> tuple[float, ...]:
    """Standard deviations of a cell whose edges are ``matrix`` times those of the data: G' = M G Mᵀ.

    ``rotations``, in the new axes, tell which parameters of the old cell vary as one.
    """
    before = np.einsum("ij,ojk,kl->oil", matrix.T, rotations, np.linalg.inv(matrix.T))
    covariance = cell_covariance(data.cell, data.cell_esd, before)
    by_old = (matrix @ metric_derivatives(data.cell) @ matrix.T).reshape(6, 9)
    slope = np.linalg.lstsq(metric_derivatives(cell).reshape(6, 9).T, by_old.T, rcond=None)[0]
    return tuple(np.sqrt(np.maximum(np.diag(slope @ covariance @ slope.T), 0)).tolist())


def _noted(best: Setting) -> Intensities:
    edges = " ".join(f"{v:.4g}" for v in best.data.cell)
    note = (
        f"the cell that was given is not the conventional one of its lattice: solved in {edges} ({best.centring}), "
        f"with h,k,l = {operator_text(best.matrix)} of the indices given"
    )
    return replace(best.data, notes=(*best.data.notes, note))
