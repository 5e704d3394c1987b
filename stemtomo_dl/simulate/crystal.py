"""Crystal structures: a CIF in; reciprocal lattice, structure factors and crystal forms out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import gemmi
import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Record, array
from stemtomo_dl.scattering import scattering_factor
from stemtomo_dl.simulate.cif import Contents, read_contents, rotations, stabiliser

DEFAULT_U = 0.5 / (8 * np.pi**2)  # Å²; B = 0.5 Å² where a CIF has no displacement parameters
_FITTED = 4.0  # 1/Å; the Gaussians of the scattering factors were fitted to sin θ/λ = 2/Å
_MOST_REFLECTIONS = 2_000_000


class Species(NamedTuple):
    """All atoms of one element in a material, with their mean square displacement."""

    element: str
    density: float  # atoms per Å³
    u_iso: float  # Å²


@dataclass(frozen=True, eq=False)
class Structure(Record):
    """A crystal structure with its reflections to a resolution limit, both Friedel mates, absences left out."""

    name: str
    volume: float  # Å³
    species: tuple[Species, ...]
    direct: np.ndarray = array("f8", "3 3", "Å")  # columns a, b, c
    b: np.ndarray = array("f8", "3 3", "1/Å")  # columns a*, b*, c*: g = b·h
    point_group: np.ndarray = array("i8", "operation 3 3")  # h' = h·operation
    hkl: np.ndarray = array("i4", "reflection 3")
    structure_factor: np.ndarray = array("c16", "reflection", "Å")  # electron scattering, with Debye–Waller factors

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols, sorted."""
        return tuple(s.element for s in self.species)

    @property
    def intensity(self) -> np.ndarray:
        """|F|², (reflection,) in Å²."""
        return np.abs(self.structure_factor) ** 2

    @property
    def g_length(self) -> np.ndarray:
        """|g| = 1/d, (reflection,) in 1/Å."""
        return np.linalg.norm(self.hkl @ self.b.T, axis=1)

    def form(self, hkl: tuple[int, int, int]) -> np.ndarray:
        """Unit normals (face, 3), crystal frame, of a face and all its equivalents."""
        faces = np.unique(np.array(hkl) @ self.point_group, axis=0)
        normals = faces @ self.b.T
        return np.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True))


def read_structure(name: str, cif: str, d_min: float, limit: str = "d_min") -> Structure:
    """Structure and reflections of a CIF.

    Parameters
    ----------
    name : str
        What the phase is called, and the file in messages.
    cif : str
        Text of the CIF.
    d_min : float
        Resolution limit, Å.
    limit : str
        What the user gave to set that limit, for messages.

    Raises
    ------
    InputError
        If the CIF has no cell, space group or atoms that can be understood, or the limit is out of proportion.
    """
    contents = read_contents(name, cif)
    cell = contents.cell
    if 4 / 3 * np.pi * cell.volume / d_min**3 > _MOST_REFLECTIONS:
        raise InputError(
            f"{limit}: too many reflections of {name}, whose cell has {cell.volume:.0f} Å³, to {d_min:.2g} Å; "
            "set a coarser limit with d_min"
        )
    half = _half_sphere(contents, d_min)
    if not len(half):
        raise InputError(f"{limit}: {name} has no reflection to {d_min:.4g} Å; set a finer limit")
    factors = structure_factors(contents, half)
    return Structure(
        name=name,
        volume=cell.volume,
        species=_species(contents),
        direct=contents.matrix(),
        b=np.array(cell.frac.mat.tolist()).T.copy(),
        point_group=np.unique(rotations(contents.operations), axis=0).astype("i8"),
        hkl=np.concatenate([half, -half]),
        structure_factor=np.concatenate([factors, factors.conj()]),
    )


def _half_sphere(contents: Contents, d_min: float) -> np.ndarray:
    """One of every Friedel pair (reflection, 3) i4 with d ≥ d_min that the space group allows."""
    limits = contents.cell.get_hkl_limits(d_min)
    axes = (np.arange(-limits[0], limits[0] + 1), np.arange(-limits[1], limits[1] + 1), np.arange(limits[2] + 1))
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype("i4")
    h, k, m = hkl.T
    hkl = hkl[(m > 0) | (m == 0) & (k > 0) | (m == 0) & (k == 0) & (h > 0)]
    hkl = np.ascontiguousarray(hkl[contents.cell.calculate_1_d2_array(hkl) <= d_min**-2])
    return np.ascontiguousarray(hkl[~np.asarray(contents.operations.systematic_absences(hkl), bool)])


def _species(contents: Contents) -> tuple[Species, ...]:
    atoms: dict[str, list[tuple[float, float]]] = {}
    for site, aniso in zip(contents.sites, contents.aniso, strict=True):
        number = site.occ * contents.multiplicity(site)
        u = contents.cell.calculate_u_eq(gemmi.SMat33d(*_six(aniso))) if aniso is not None else _u_iso(site)
        atoms.setdefault(site.element.name, []).append((number, u))
    volume = contents.cell.volume
    table = {e: np.array(rows) for e, rows in sorted(atoms.items())}
    return tuple(
        Species(e, float(n.sum() / volume), float(np.average(u, weights=n)))
        for e, (n, u) in ((e, rows.T) for e, rows in table.items())
    )


def structure_factors(contents: Contents, hkl: np.ndarray) -> np.ndarray:
    """Electron structure factors (reflection,) in Å, complex, of reflections that are not absent by centring.

    F(h) = Σ_atoms w Σ_ops f(s²) T(hR) exp 2πi(hR·x + h·t), with f the five Gaussians of International Tables C,
    4.3.2.2, T the Debye–Waller factor, and w the occupancy over the order of the site's own symmetry.
    """
    reciprocal = np.array(contents.cell.frac.mat.tolist())
    lengths = np.linalg.norm(reciprocal, axis=1)
    s2 = ((hkl @ reciprocal) ** 2).sum(1) / 4
    turned = [
        (hkl @ (np.array(op.rot) / gemmi.Op.DEN), hkl @ (np.array(op.tran) / gemmi.Op.DEN))
        for op in contents.operations.sym_ops
    ]
    centring = len(contents.operations.cen_ops)  # each only repeats the sum, with phase 0
    total = np.zeros(len(hkl), complex)
    for site, aniso in zip(contents.sites, contents.aniso, strict=True):
        x, waves = np.array(site.fract.tolist()), np.zeros(len(hkl), complex)
        for index, shift in turned:
            wave = np.exp(2j * np.pi * (index @ x + shift))
            waves += wave if aniso is None else wave * _anisotropic(index * lengths, aniso)
        if aniso is None:
            waves *= np.exp(-8 * np.pi**2 * _u_iso(site) * s2)
        total += site.occ * centring / stabiliser(contents, site) * scattering_factor(site.element.name, s2) * waves
    return total


def _anisotropic(h: np.ndarray, u: np.ndarray) -> np.ndarray:
    """exp(−2π² hᵀUh), (reflection,); h in units of a*, b*, c* times their lengths, as U of CIFs is defined."""
    return np.asarray(np.exp(-2 * np.pi**2 * np.einsum("ni,ij,nj->n", h, u, h)))


def _u_iso(site: gemmi.SmallStructure.Site) -> float:
    return float(site.u_iso) if site.u_iso > 0 else DEFAULT_U  # gemmi reads what is absent as 0, too


def _six(u: np.ndarray) -> tuple[float, ...]:
    return u[0, 0], u[1, 1], u[2, 2], u[0, 1], u[0, 2], u[1, 2]


def scattering_power(element: str, q: np.ndarray) -> np.ndarray:
    """|f(q)|² of one atom, Å², q = 1/d in 1/Å; beyond the fitted range it falls as Rutherford's, with q⁻⁴.

    Raises
    ------
    InputError
        If there is no such element.
    """
    inside = np.minimum(q, _FITTED)
    return np.asarray(
        (scattering_factor(element, inside**2 / 4) * np.minimum(1, _FITTED / np.maximum(q, 1e-12)) ** 2) ** 2
    )
