"""Cells and the bases that have them."""

from __future__ import annotations

import numpy as np

# Which of a, b, c, α, β, γ are free in each system; the dependent ones follow from them.
FREE = {"a": (0, 1, 2, 3, 4, 5), "m": (0, 1, 2, 4), "o": (0, 1, 2), "t": (0, 2), "h": (0, 2), "c": (0,)}

# Primitive vectors (rows) in fractions of the conventional cell, by centring (ITA 1.5.1; R obverse).
PRIMITIVE = {
    letter: np.array(rows, float) / whole
    for letter, whole, rows in (
        ("P", 1, ((1, 0, 0), (0, 1, 0), (0, 0, 1))),
        ("A", 2, ((2, 0, 0), (0, 1, -1), (0, 1, 1))),
        ("B", 2, ((1, 0, 1), (0, 2, 0), (-1, 0, 1))),
        ("C", 2, ((1, -1, 0), (1, 1, 0), (0, 0, 2))),
        ("I", 2, ((-1, 1, 1), (1, -1, 1), (1, 1, -1))),
        ("F", 2, ((0, 1, 1), (1, 0, 1), (1, 1, 0))),
        ("R", 3, ((2, 1, 1), (-1, 1, 1), (-1, -2, 1))),
    )
}


def cell_of(basis: np.ndarray) -> np.ndarray:
    """Lengths and angles (…, 6), Å and degrees, of bases (…, 3, 3) with rows a, b, c."""
    length = np.linalg.norm(basis, axis=-1)
    unit = basis / length[..., None]
    cosine = np.stack([(unit[..., i, :] * unit[..., j, :]).sum(-1) for i, j in ((1, 2), (0, 2), (0, 1))], -1)
    return np.concatenate([length, np.degrees(np.arccos(np.clip(cosine, -1, 1)))], -1)


def is_cell(cell: np.ndarray) -> bool:
    """Whether values (6,), Å and degrees, are those of a cell: its volume is real and above 0."""
    if not (np.isfinite(cell).all() and (cell[:3] > 1).all() and (cell[3:] > 0).all() and (cell[3:] < 180).all()):
        return False
    ca, cb, cg = np.cos(np.radians(cell[3:]))
    return bool(1 - ca**2 - cb**2 - cg**2 + 2 * ca * cb * cg > 1e-4)


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
