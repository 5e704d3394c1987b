"""Reflections that must be equally strong as far as the lattice alone tells, and how well one particle's agree."""

from __future__ import annotations

import gemmi
import numpy as np

from stemtomo_dl.crystal import statistics
from stemtomo_dl.crystal.laue import LaueClass, possible_reflections, rotations_of, unique_codes
from stemtomo_dl.crystal.nouns import Crystal, Reflections

# The least symmetric Laue class of each crystal system: true whatever the crystal is, as long as its lattice is right.
_LEAST = {"a": "P -1", "m": "P 1 2/m 1", "o": "P m m m", "t": "P 4/m", "h": "P -3", "c": "P m -3"}


def least_class(lattice: str) -> LaueClass:
    """The least symmetric Laue class of a lattice's crystal system; an hR lattice has hexagonal axes."""
    group = gemmi.SpaceGroup(_LEAST[lattice[0]])
    return LaueClass(group.laue_str(), group.hm, rotations_of(group))


def equivalents(hkl: np.ndarray, lattice: str) -> np.ndarray:
    """Numbers (reflection,) that equivalent reflections share.

    Parameters
    ----------
    hkl : (reflection, 3) array of int
    lattice : str
        Pearson's letters; "aP" joins Friedel mates only. An hR lattice has hexagonal axes.
    """
    return np.asarray(np.unique(unique_codes(hkl, least_class(lattice).rotations), return_inverse=True)[1]).ravel()


def own_shells(crystal: Crystal, reflections: Reflections) -> list[statistics.Shell]:
    """Figures of one particle by itself, shell by shell, then over all of them; none without a reflection.

    Parameters
    ----------
    crystal : Crystal
    reflections : Reflections
        Rows without a finite intensity and a positive sigma are passed over.
    """
    good = np.isfinite(reflections.intensity) & (reflections.sigma > 0) & reflections.hkl.any(1)
    if not good.any():
        return []
    hkl, intensity, sigma = reflections.hkl[good], reflections.intensity[good], reflections.sigma[good]
    laue = least_class(crystal.lattice)
    _, first, group = np.unique(unique_codes(hkl, laue.rotations), return_index=True, return_inverse=True)
    inverse_d, weight = np.linalg.norm(hkl[first] @ crystal.ub.T, axis=1), np.bincount(group, sigma**-2)
    merged = np.bincount(group, intensity / sigma**2) / weight, weight**-0.5
    observed = statistics.Observations(group, intensity, sigma)
    possible = possible_reflections(crystal.cell, crystal.lattice, laue, float(inverse_d.max()))
    edges = statistics.shell_edges(inverse_d)
    edges[0] = min(edges[0], possible.min())
    every = (edges, edges[[0, -1]]) if len(edges) > 2 else (edges,)
    rng = np.random.default_rng(0)  # for the halves, the same at every call
    return [s for cut in every for s in statistics.shells(observed, merged, inverse_d, possible, cut, rng)]


def disagreement(group: np.ndarray, intensity: np.ndarray, least: int = 20) -> float:
    """R_int of intensities in groups of equals; infinite where fewer than ``least`` have a partner."""
    count = np.bincount(group)
    mean = np.bincount(group, intensity) / np.maximum(count, 1)
    several = count[group] > 1
    if several.sum() < least:
        return np.inf
    total = np.abs(intensity[several]).sum()
    return float(np.abs(intensity - mean[group])[several].sum() / max(total, 1e-12))
