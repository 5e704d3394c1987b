"""Cells and the bases that have them."""

from __future__ import annotations

import numpy as np

# Which of a, b, c, α, β, γ are free in each system; the dependent ones follow from them.
FREE = {"a": (0, 1, 2, 3, 4, 5), "m": (0, 1, 2, 4), "o": (0, 1, 2), "t": (0, 2), "h": (0, 2), "c": (0,)}


def cell_of(basis: np.ndarray) -> np.ndarray:
    """Lengths and angles (…, 6), Å and degrees, of bases (…, 3, 3) with rows a, b, c."""
    length = np.linalg.norm(basis, axis=-1)
    unit = basis / length[..., None]
    cosine = np.stack([(unit[..., i, :] * unit[..., j, :]).sum(-1) for i, j in ((1, 2), (0, 2), (0, 1))], -1)
    return np.concatenate([length, np.degrees(np.arccos(np.clip(cosine, -1, 1)))], -1)


def reciprocal_basis(cell: np.ndarray) -> np.ndarray:
    """Busing & Levy's B (columns a*, b*, c*), 1/Å, of a cell: a along x, b in the xy plane."""
    a, b, c = cell[:3]
    ca, cb, cg = np.cos(np.radians(cell[3:]))
    sg = np.sqrt(1 - cg**2)
    cy = (ca - cb * cg) / sg
    direct = np.array([[a, 0, 0], [b * cg, b * sg, 0], [c * cb, c * cy, c * np.sqrt(max(1 - cb**2 - cy**2, 1e-6))]])
    return np.linalg.inv(direct)


def constrained(cell: np.ndarray, lattice: str, given: bool = False) -> np.ndarray:
    """A cell with the constraints of its system; ``given``: dependent lengths follow a, rather than the mean."""
    out, system = cell.copy(), lattice[0]
    if system in "thc":
        same = [0, 1, 2] if system == "c" else [0, 1]
        out[same] = out[0] if given else out[same].mean()
    if system != "a":
        out[[3, 5]] = 90
        out[4] = out[4] if system == "m" else 90
    if system == "h":
        out[5] = 120
    return out


def turn_between(b: np.ndarray, ub: np.ndarray) -> np.ndarray:
    """The rotation that brings B nearest to UB (Kabsch 1976)."""
    u, _, vt = np.linalg.svd(ub @ np.linalg.inv(b))
    return np.asarray(u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt)
