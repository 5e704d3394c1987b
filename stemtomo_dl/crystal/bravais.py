"""A primitive basis -> the conventional cell of the highest metric symmetry that it has within tolerances."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import gemmi
import numpy as np

from stemtomo_dl.crystal.cells import cell_of

LENGTH_TOLERANCE = 0.015  # relative
ANGLE_TOLERANCE_DEG = 1.0
# Which lengths are equal, and the angles (NaN: free), of each system; the highest symmetry first.
_FREE = np.nan
_SYSTEMS: dict[str, tuple[str, tuple[float, float, float]]] = {
    "c": ("aaa", (90, 90, 90)),
    "h": ("aac", (90, 90, 120)),
    "t": ("aac", (90, 90, 90)),
    "o": ("abc", (90, 90, 90)),
    "m": ("abc", (90, _FREE, 90)),
}
_HALVES = {"A": (0, 1, 1), "B": (1, 0, 1), "C": (1, 1, 0), "I": (1, 1, 1)}
_CENTRINGS = {"c": "PIF", "h": "PR", "t": "PI", "o": "PCIF", "m": "PC"}


class Lattice(NamedTuple):
    """A conventional basis (rows a, b, c in Å), its Bravais type, and how far its metric is from that type's."""

    basis: np.ndarray
    name: str
    length_deviation: float
    angle_deviation_deg: float


def reduced(basis: np.ndarray) -> np.ndarray:
    """A right-handed basis of the same lattice that is Niggli's (gemmi: Křivý & Gruber 1976)."""
    basis = basis if np.linalg.det(basis) > 0 else -basis
    vector = gemmi.GruberVector(gemmi.UnitCell(*cell_of(basis)), "P", track_change_of_basis=True)
    vector.niggli_reduce()
    return np.asarray(np.array(vector.change_of_basis.rot).T / gemmi.Op.DEN @ basis)


def conventional(basis: np.ndarray) -> Lattice:
    """The conventional setting of a lattice: the highest symmetry within the tolerances, see `settings`."""
    return settings(basis)[0]


def settings(basis: np.ndarray) -> list[Lattice]:
    """The conventional settings that a lattice has within the tolerances, one a system, the highest symmetry first.

    Parameters
    ----------
    basis : (3, 3) array
        A primitive basis, rows a, b, c in Å.

    Returns
    -------
    list of Lattice
        Right-handed; monoclinic cells have b unique and β ≥ 90°; orthorhombic P cells have a ≤ b ≤ c. The last is the
        triclinic one.
    """
    primitive = reduced(basis)
    coefficients = _worth_trying(primitive)
    triples = _right_handed(coefficients @ primitive)
    found = [
        _of_system(primitive, coefficients, triples, system, equal, np.array(angles))
        for system, (equal, angles) in _SYSTEMS.items()
    ]
    return [*(f for f in found if f is not None), Lattice(primitive, "aP", 0.0, 0.0)]


def _worth_trying(primitive: np.ndarray) -> np.ndarray:
    """Coefficients up to 2, and those up to 3 of vectors across a net plane, as the long axis of rhombohedral cells."""
    wide = np.array([c for c in product(range(-3, 4), repeat=3) if np.gcd.reduce(c) == 1])
    unit = wide @ primitive
    unit = unit / np.linalg.norm(unit, axis=1)[:, None]
    short = np.abs(wide).max(1) == 1
    across = (np.abs(unit @ unit[short].T) < np.sin(np.radians(ANGLE_TOLERANCE_DEG))).sum(1) >= 4
    return np.asarray(wide[(np.abs(wide).max(1) <= 2) | across])


def _right_handed(vectors: np.ndarray) -> np.ndarray:
    """Right-handed triples (n, 3) of vectors, no two nearer than 45° to one line."""
    short = np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")
    unit = vectors[short] / np.linalg.norm(vectors[short], axis=1)[:, None]
    apart = np.abs(unit @ unit.T) < 0.72
    i, j, k = np.nonzero(apart[:, :, None] & apart[:, None, :] & apart[None])
    volume = np.einsum("nx,nx->n", np.cross(vectors[short[i]], vectors[short[j]]), vectors[short[k]])
    return np.asarray(np.stack([short[i], short[j], short[k]], 1)[volume > 0])


def _of_system(
    primitive: np.ndarray,
    coefficients: np.ndarray,
    triples: np.ndarray,
    system: str,
    equal: str,
    angles: np.ndarray,
) -> Lattice | None:
    """The smallest cell of a system, None where the lattice has none within the tolerances."""
    cells = cell_of(coefficients[triples] @ primitive)
    lengths, off = cells[:, :3], np.abs(cells[:, 3:] - angles)
    off = np.where(np.isnan(off), 0, off).max(1)
    groups = [[i for i in range(3) if equal[i] == c] for c in dict.fromkeys(equal)]
    spread = np.max([np.ptp(lengths[:, g], axis=1) / lengths[:, g].mean(1) for g in groups], 0)
    fits = (off < ANGLE_TOLERANCE_DEG) & (spread < LENGTH_TOLERANCE)
    if system == "m":
        fits &= cells[:, 4] >= 90
    if system in "om":
        fits &= (lengths[:, 0] <= lengths[:, 2]) | (system == "m")
    order = np.lexsort((np.round(off + 50 * spread, 1), np.round(lengths.sum(1), 2)))
    order = order[fits[order]]
    best: tuple[tuple[float, ...], Lattice] | None = None
    for n in order[:60]:
        change = coefficients[triples[n]]
        kind = centring(change)
        if kind is None or kind not in _CENTRINGS[system]:
            continue
        ascending = system != "o" or kind == "C" or bool(np.all(np.diff(lengths[n]) >= 0))
        rank = (abs(np.linalg.det(change)), not ascending, round(float(lengths[n].sum()), 2), off[n] + 50 * spread[n])
        if best is None or rank < best[0]:
            best = rank, Lattice(change @ primitive, system + kind, float(spread[n]), float(off[n]))
    return best[1] if best else None


def centring(change: np.ndarray) -> str | None:
    """Letter of the centring that a cell of integer coefficients ``change`` (rows) has; None for an unusual one."""
    n = abs(round(float(np.linalg.det(change))))
    points = np.linalg.inv(change)  # the primitive vectors in fractions of the cell
    if n == 1:
        return "P"
    if n in (2, 4):
        halves = np.rint(2 * points) % 2
        if np.abs(2 * points - np.rint(2 * points)).max() > 1e-6:
            return None
        sums = {tuple((np.array(c) @ halves % 2).astype(int).tolist()) for c in product((0, 1), repeat=3)} - {(0, 0, 0)}
        if n == 4:
            return "F" if sums == {(0, 1, 1), (1, 0, 1), (1, 1, 0)} else None
        return next((k for k, v in _HALVES.items() if sums == {v}), None)
    if n == 3 and np.abs(3 * points - np.rint(3 * points)).max() < 1e-6:
        thirds = {tuple(t) for t in (np.rint(3 * points).astype(int) % 3).tolist()} - {(0, 0, 0)}
        return "R" if thirds <= {(2, 1, 1), (1, 2, 2)} else None
    return None
