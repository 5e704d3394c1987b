"""How two lattices of one cell lie to each other: the rotation in words, where it is that of a twin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import PRIMITIVE, turn_between
from stemtomo_dl.crystal.nouns import Crystal
from stemtomo_dl.crystal.settings import changes, rotations

_ANGLES_DEG = (180, 120, 90, 60)  # of twins
_OFF_DEG = 1.0  # that angle and axis may be from such a rotation's
_HIGHEST = 4  # index of the axis
_RIGHT = 0.02  # by which a rotation of the metric may change lengths


def twin_laws(crystals: Sequence[Crystal]) -> str:
    """Which further lattices of a series are the first one's twins, in one line; empty where none is.

    Parameters
    ----------
    crystals : sequence of Crystal
        The one with most spots first.
    """
    told = ((n, twin_law(crystals[0], c)) for n, c in enumerate(crystals[1:], 2))
    said = [f"lattice {n} is the first turned by {law}" for n, law in told if law]
    return f"twinned: {', '.join(said)}" if said else ""


def twin_law(first: Crystal, other: Crystal) -> str | None:
    """The simplest rotation by a twin's angle about an axis of low indices that brings one lattice onto another.

    None where they have not one cell, lie alike, or are turned in no such way.
    """
    if first.lattice != other.lattice or not changes(first.cell, first.lattice, other.cell, other.lattice):
        return None
    direct = np.linalg.inv(first.ub)
    turn, best = turn_between(first.ub, other.ub), (99, 99, True, "")
    for own in _own(PRIMITIVE[first.lattice[1]] @ direct):
        vector = Rotation.from_matrix(turn @ own).as_rotvec()
        angle = float(np.degrees(np.linalg.norm(vector)))
        if angle < _OFF_DEG:
            return None
        order = next((k for k, a in enumerate(_ANGLES_DEG) if abs(angle - a) < _OFF_DEG), None)
        if order is None:
            continue
        for text, indices, basis in (
            ("[{} {} {}]", vector @ np.linalg.inv(direct), direct),
            ("the normal of ({} {} {})", direct @ vector, first.ub.T),
        ):
            whole = _small(indices, basis)
            if whole is not None:
                said = f"{_ANGLES_DEG[order]}° about {text.format(*whole)}"
                best = min(best, (order, int(np.abs(whole).sum()), text[0] != "[", said))
    return best[3] or None


def _own(basis: np.ndarray) -> list[np.ndarray]:
    """Rotations (3, 3), of the sample frame, that bring a lattice (rows, Å, primitive) onto itself."""
    made = [basis.T @ m.T @ np.linalg.inv(basis).T for m in rotations(basis)]
    return [turn_between(np.eye(3), m) for m in made if np.abs(m @ m.T - np.eye(3)).max() < _RIGHT]


def _small(indices: np.ndarray, basis: np.ndarray) -> np.ndarray | None:
    """Small whole numbers (3,) in the direction of indices of a basis (rows), the first not negative; None: no such."""
    there = indices @ basis
    for n in range(1, _HIGHEST + 1):
        whole = np.rint(indices * (n / np.abs(indices).max())).astype(int)
        along = whole @ basis
        off = np.linalg.norm(np.cross(along, there)) / (np.linalg.norm(along) * np.linalg.norm(there))
        if off < np.sin(np.radians(_OFF_DEG)):
            return np.asarray(whole * np.sign(whole[np.flatnonzero(whole)[0]]))
    return None
