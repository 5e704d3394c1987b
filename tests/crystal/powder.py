"""Particles of known structures, each seen through a wedge, for the tests of merging."""

from __future__ import annotations

import gemmi
import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.nouns import Crystal, Reflections
from stemtomo_dl.crystal.phase import Member
from stemtomo_dl.crystal.settings import direct_basis

ATOMS = (("Ti", 0.0), ("O", 0.1), ("Si", 0.2), ("O", 0.3))


class Truth:
    """A structure of atoms at random places, and its |F|²."""

    def __init__(self, group: str, cell, seed: int = 0, atoms=ATOMS) -> None:
        rng = np.random.default_rng(seed)
        self.group = gemmi.SpaceGroup(group)
        self.cell = np.array(cell, float)
        self.reciprocal = np.linalg.inv(direct_basis(self.cell))
        structure = gemmi.SmallStructure()
        structure.cell = gemmi.UnitCell(*cell)
        structure.spacegroup = self.group
        structure.setup_cell_images()
        for n, (element, _) in enumerate(atoms):
            site = gemmi.SmallStructure.Site()
            site.label, site.type_symbol, site.element = f"{element}{n}", element, gemmi.Element(element)
            site.fract = gemmi.Fractional(*rng.uniform(0.05, 0.45, 3))
            site.occ, site.u_iso = 1.0, 0.008
            structure.add_site(site)
        self.structure = structure
        self.calculator = gemmi.StructureFactorCalculatorE(structure.cell)

    def all_hkl(self, d_min: float) -> np.ndarray:
        most = np.floor(np.linalg.norm(direct_basis(self.cell), axis=1) / d_min).astype(int)
        hkl = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in most], indexing="ij"), -1).reshape(-1, 3)
        length = np.linalg.norm(hkl @ self.reciprocal.T, axis=1)
        hkl = hkl[(length > 0) & (length <= 1 / d_min)]
        centring = gemmi.SpaceGroup(f"{self.group.hm[0]} 1").operations() if self.group.hm[0] != "R" else None
        if centring is None:
            return hkl[(-hkl[:, 0] + hkl[:, 1] + hkl[:, 2]) % 3 == 0]
        return hkl[~np.asarray(centring.systematic_absences(np.ascontiguousarray(hkl, "i4")), bool)]

    def intensity(self, hkl: np.ndarray) -> np.ndarray:
        """|F|² of any indices; each unique reflection is computed once."""
        operations = self.group.operations()
        asu = gemmi.ReciprocalAsu(self.group)
        known: dict[tuple[int, ...], float] = {}
        out = np.zeros(len(hkl))
        for n, h in enumerate(hkl.tolist()):
            unique = tuple(asu.to_asu(h, operations)[0])
            if unique not in known:
                known[unique] = abs(self.calculator.calculate_sf_from_small_structure(self.structure, unique)) ** 2
            out[n] = known[unique]
        return out


def particle(
    truth: Truth,
    track: int,
    lattice: str,
    rng: np.random.Generator,
    *,
    table=None,
    operator=None,
    wedge_deg: float = 60.0,
    noise: float = 0.05,
    scale: float = 1.0,
    b_factor: float = 0.0,
    course=None,
    cell_error: float = 0.003,
) -> Member:
    """A particle in a random orientation, indexed with h' = operator · h.

    ``table`` holds all hkl with their intensities; ``course`` is a factor of the angle in degrees.
    """
    hkl, intensity = table
    g = hkl @ truth.reciprocal.T @ Rotation.random(rng=rng).as_matrix().T
    alpha = (np.degrees(np.arctan2(g[:, 2], g[:, 1])) + 90) % 180 - 90
    seen = np.abs(alpha) < wedge_deg
    hkl, intensity, alpha, length = hkl[seen], intensity[seen], alpha[seen], np.linalg.norm(g[seen], axis=1)
    factor = scale * np.exp(-b_factor * length**2 / 2) * (course(alpha) if course else 1.0)
    ground = 0.01 * intensity.mean()
    sigma = np.hypot(noise * intensity, ground) * factor
    observed = factor * intensity + sigma * rng.normal(size=len(hkl))
    matrix = np.eye(3) if operator is None else np.array(operator)
    basis = matrix @ direct_basis(truth.cell) * (1 + cell_error * rng.normal(size=(3, 1)))
    lengths = np.linalg.norm(basis, axis=1)
    angles = [np.degrees(np.arccos(basis[i] @ basis[j] / lengths[i] / lengths[j])) for i, j in ((1, 2), (0, 2), (0, 1))]
    crystal = Crystal(
        lattice, 1.0, 200, 0.005, 0.0, 0.0, 0.0, np.linalg.inv(basis), np.r_[lengths, angles], np.zeros(2)
    )
    indices = np.rint(hkl @ matrix.T).astype("i4")
    return Member(track, crystal, Reflections(indices, observed, sigma, alpha))
