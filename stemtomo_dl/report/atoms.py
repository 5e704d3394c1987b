"""Atoms of a solved structure as they are drawn: all of one cell, their bonds and bond valences."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from scipy.spatial import KDTree

from stemtomo_dl.errors import InputError
from stemtomo_dl.report.solid import cell_edges, rounded
from stemtomo_dl.report.text import TRACK_COLOURS
from stemtomo_dl.solve.checks import valence

_LONGER = 0.45  # Å longer than the covalent radii a bond may be
_REACH = 4.0  # Å: of bond valences
_ON_EDGE = 0.02  # of an axis: an atom so near the cell's border is drawn at the other border as well
_DRAWN = 600  # atoms of a cell; more cannot be told apart
_COLOURS = {
    "H": "#f0f0f0", "C": "#5a5a5a", "N": "#3050f8", "O": "#e03c31", "F": "#90c050", "Na": "#ab5cf2", "Mg": "#6fbf3f",
    "Al": "#bfa6a6", "Si": "#d8b878", "P": "#ff8000", "S": "#e6c62c", "Cl": "#1fb51f", "K": "#8f40d4", "Ca": "#59c43d",
    "Ti": "#8a93a0", "Fe": "#e06633", "Cu": "#c88033", "Zn": "#7d80b0", "Br": "#a62929", "Sr": "#3dbf3d",
    "Zr": "#62b8b8", "I": "#940094", "Cs": "#57178f", "Ba": "#2f9f4f", "Ce": "#c9b458", "Pb": "#575961",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Atoms:
    """A model, and all atoms of its cell.

    Attributes
    ----------
    cell : gemmi.UnitCell
    axes : (3, 3) array
        Columns a, b, c, Å, Cartesian.
    labels, elements : tuple of str
        Of the independent atoms.
    texts : tuple
        x, y, z and U as the CIF has them.
    fract : (atom, 3) array
        Of the independent atoms.
    full : (site, 3) array
        Fractional, of all atoms of the cell.
    of : tuple of str
        Label of each of them.
    valences : tuple
        Sum of bond valences and what is expected (0: not tabulated), or None, of the independent atoms.
    """

    cell: gemmi.UnitCell
    axes: np.ndarray
    labels: tuple[str, ...]
    elements: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    fract: np.ndarray
    full: np.ndarray
    of: tuple[str, ...]
    valences: tuple[tuple[float, int] | None, ...]

    @staticmethod
    def bonded(first: str, second: str) -> bool:
        """Whether near atoms of two elements are called bonded: metals are so with nonmetals alone."""
        metal = [gemmi.Element(e).is_metal for e in (first, second)]
        return not all(metal)


def read_atoms(path: Path) -> Atoms:
    """Read solution.cif.

    Raises
    ------
    InputError
        If it holds no structure.
    """
    block = gemmi.cif.read(str(path)).sole_block()
    small = gemmi.make_small_structure_from_block(block)
    if not len(small.sites):
        raise InputError(f"{path}: holds no atom; run 'stemtomo solve' again")
    tags = ["label", "fract_x", "fract_y", "fract_z", "U_iso_or_equiv"]
    texts = tuple(tuple(str(v) for v in row)[1:] for row in block.find("_atom_site_", tags))
    labels = tuple(s.label for s in small.sites)
    elements = tuple(s.element.name for s in small.sites)
    fract = np.array([s.fract.tolist() for s in small.sites])
    every = list(small.get_all_unit_cell_sites())
    full = np.array([s.fract.tolist() for s in every]) % 1
    axes = np.array(small.cell.orth.mat.tolist())
    of = tuple(s.label for s in every)
    kind = [elements[labels.index(name)] for name in of]
    sums = _valences(fract, elements, full, kind, axes)
    return Atoms(small.cell, axes, labels, elements, texts, fract, full, of, sums)


def _valences(
    fract: np.ndarray, elements: tuple[str, ...], full: np.ndarray, kind: list[str], axes: np.ndarray
) -> tuple[tuple[float, int] | None, ...]:
    """Bond valences of the independent atoms summed over their neighbours."""
    steps = np.array(list(product((-1, 0, 1), repeat=3)))
    tree = KDTree((full[:, None] + steps).reshape(-1, 3) @ axes.T)
    out: list[tuple[float, int] | None] = []
    for at, element in zip((fract % 1) @ axes.T, elements, strict=True):
        near = [i for i in tree.query_ball_point(at, _REACH) if np.linalg.norm(tree.data[i] - at) > 0.1]
        others = [(kind[i // len(steps)], float(np.linalg.norm(tree.data[i] - at))) for i in near]
        given = [v for v in (valence(element, other, d) for other, d in others) if v]
        taken = [v for v in (valence(other, element, d) for other, d in others) if v]
        total = sum(v for v, _ in given + taken)
        out.append((total, given[0][1] if given else 0) if given or taken else None)
    return tuple(out)


def structure_view(atoms: Atoms) -> dict[str, Any]:
    """One cell with its bonds for the page's script; see `solid.solid`."""
    place, kind = _one_cell(atoms)
    groups = []
    for element in dict.fromkeys(kind):
        rows = [i for i, k in enumerate(kind) if k == element]
        r = 0.38 * gemmi.Element(element).covalent_r
        xyz = rounded(place[rows])
        groups.append({"name": element, "colour": colour_of(element), "xyz": xyz, "r": rounded(np.array([r]))})
    return {
        "unit": "Å",
        "centred": True,
        "axes": [[n, rounded(atoms.axes[:, i])] for i, n in enumerate("abc")],
        "lines": [["#8b949c", rounded(cell_edges(atoms.axes))]],
        "bonds": _bonds(place, kind),
        "groups": groups,
    }


def colour_of(element: str) -> str:
    """Colour of an element, near what chemists are used to."""
    return _COLOURS.get(element, TRACK_COLOURS[gemmi.Element(element).atomic_number % len(TRACK_COLOURS)])


def _one_cell(atoms: Atoms) -> tuple[np.ndarray, list[str]]:
    """Places (n, 3) Å and elements of the atoms in one cell, those at its border at each border."""
    element = dict(zip(atoms.labels, atoms.elements, strict=True))
    places, kind = [], []
    for at, label in zip(atoms.full[:_DRAWN], atoms.of, strict=False):
        ranges = [(0, 1) if v < _ON_EDGE else (-1, 0) if v > 1 - _ON_EDGE else (0,) for v in at]
        for step in product(*ranges):
            places.append(atoms.axes @ (at + step))
            kind.append(element[label])
    return np.array(places), kind


def _bonds(place: np.ndarray, kind: list[str]) -> list[list[Any]]:
    """Bonds within the drawing, half in each atom's colour: lists [colour, ends]."""
    radius = np.array([gemmi.Element(e).covalent_r for e in kind])
    pairs = KDTree(place).query_pairs(2 * float(radius.max()) + _LONGER, output_type="ndarray")
    length = np.linalg.norm(place[pairs[:, 0]] - place[pairs[:, 1]], axis=1)
    near = (length < radius[pairs].sum(1) + _LONGER) & (length > 0.3)
    halves: dict[str, list[int]] = {}
    for i, j in pairs[near].tolist():
        if Atoms.bonded(kind[i], kind[j]):
            middle = (place[i] + place[j]) / 2
            for a in (i, j):
                halves.setdefault(colour_of(kind[a]), []).extend(rounded(np.array([place[a], middle])))
    return [[colour, ends] for colour, ends in halves.items()]
