"""Crystal structures: a CIF in; reciprocal lattice, structure factors and crystal forms out."""

from __future__ import annotations

from dataclasses import dataclass

import gemmi
import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Record, array

DEFAULT_U = 0.5 / (8 * np.pi**2)  # Å²; B = 0.5 Å² where a CIF has no displacement parameters


@dataclass(frozen=True, eq=False)
class Structure(Record):
    """A crystal structure with its reflections to a resolution limit, both Friedel mates, absences left out."""

    name: str
    volume: float  # Å³
    elements: tuple[str, ...]
    direct: np.ndarray = array("f8", "3 3", "Å")  # columns a, b, c
    b: np.ndarray = array("f8", "3 3", "1/Å")  # columns a*, b*, c*: g = b·h
    point_group: np.ndarray = array("i8", "operation 3 3")  # h' = h·operation
    hkl: np.ndarray = array("i4", "reflection 3")
    structure_factor: np.ndarray = array("c16", "reflection", "Å")  # electron scattering, with Debye–Waller factors

    @property
    def intensity(self) -> np.ndarray:
        """|F|², (reflection,) in Å²."""
        return np.abs(self.structure_factor) ** 2

    def form(self, hkl: tuple[int, int, int]) -> np.ndarray:
        """Unit normals (face, 3), crystal frame, of a face and all its equivalents."""
        faces = np.unique(np.array(hkl) @ self.point_group, axis=0)
        normals = faces @ self.b.T
        return np.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True))


def read_structure(name: str, cif: str, d_min: float) -> Structure:
    """Structure and reflections of a CIF.

    Parameters
    ----------
    name : str
        What the phase is called, and the file in messages.
    cif : str
        Text of the CIF.
    d_min : float
        Resolution limit, Å.

    Raises
    ------
    InputError
        If the CIF has no cell, space group or atoms that can be understood.
    """
    small = _parse(name, cif)
    to_fractional = np.array(small.cell.frac.mat.tolist())
    operations = list(small.spacegroup.operations())
    rotations = np.array([op.rot for op in operations]) // gemmi.Op.DEN
    hkl = gemmi.make_miller_array(small.cell, small.spacegroup, d_min, unique=False).astype("i4")
    return Structure(
        name=name,
        volume=small.cell.volume,
        elements=tuple(sorted({site.element.name for site in small.sites})),
        direct=np.array(small.cell.orth.mat.tolist()),
        b=to_fractional.T.copy(),
        point_group=np.unique(rotations, axis=0).astype("i8"),
        hkl=hkl,
        structure_factor=structure_factors(small, hkl),
    )


def structure_factors(small: gemmi.SmallStructure, hkl: np.ndarray) -> np.ndarray:
    """Electron structure factors (reflection,) in Å, complex.

    F(h) = Σ_atoms w Σ_ops f(s²) T(hR) exp 2πi(hR·x + h·t), with f the five Gaussians of International Tables C,
    4.3.2.2, T the Debye–Waller factor, and w the occupancy over the order of the site's own symmetry.
    """
    reciprocal = np.array(small.cell.frac.mat.tolist())
    s2 = ((hkl @ reciprocal) ** 2).sum(1) / 4
    total = np.zeros(len(hkl), complex)
    for site in small.sites:
        gaussians = site.element.c4322
        factor = (np.array(gaussians.a) * np.exp(-np.outer(s2, gaussians.b))).sum(1)
        weight = site.occ / (1 + small.cell.is_special_position(site.fract, 0.1))
        x = np.array(site.fract.tolist())
        waves = np.zeros(len(hkl), complex)
        for op in small.spacegroup.operations():
            turned = hkl @ (np.array(op.rot) / op.DEN)
            phase = turned @ x + hkl @ (np.array(op.tran) / op.DEN)
            waves += np.exp(2j * np.pi * phase) * _debye_waller(site, turned @ reciprocal, small.cell, turned)
        total += weight * factor * waves
    return total


def _debye_waller(site: gemmi.SmallStructure.Site, g: np.ndarray, cell: gemmi.UnitCell, hkl: np.ndarray) -> np.ndarray:
    """exp(−2π² gᵀUg), (reflection,); U refers to unit vectors along a*, b*, c* as CIFs give it."""
    if site.aniso.nonzero():
        lengths = np.array(cell.reciprocal().parameters[:3])
        u = np.array(site.aniso.as_mat33().tolist())
        scaled = hkl * lengths
        return np.asarray(np.exp(-2 * np.pi**2 * np.einsum("ni,ij,nj->n", scaled, u, scaled)))
    u_iso = site.u_iso if site.u_iso > 0 else DEFAULT_U
    return np.asarray(np.exp(-2 * np.pi**2 * u_iso * (g**2).sum(1)))


def scattering_power(element: str, q: np.ndarray) -> np.ndarray:
    """|f(q)|² of one atom, Å², q = 1/d in 1/Å.

    Raises
    ------
    InputError
        If there is no such element.
    """
    found = gemmi.Element(element)
    if found.atomic_number == 0:
        raise InputError(f"element '{element}' is unknown; give a chemical symbol")
    gaussians = found.c4322
    factor = (np.array(gaussians.a) * np.exp(-np.multiply.outer(q**2 / 4, gaussians.b))).sum(-1)
    return np.asarray(factor**2)


def _parse(name: str, cif: str) -> gemmi.SmallStructure:
    try:
        block = gemmi.cif.read_string(cif).sole_block()
        small = gemmi.make_small_structure_from_block(block)
    except (ValueError, RuntimeError, IndexError) as e:
        raise InputError(f"{name}: not a CIF of one structure: {e}") from e
    if small.spacegroup is None or not small.sites or not small.cell.is_crystal():
        raise InputError(f"{name}: cell, space group or atoms are missing; give a complete CIF")
    if any(site.element.atomic_number == 0 for site in small.sites):
        raise InputError(f"{name}: an atom has no known element; correct _atom_site_type_symbol")
    return small
