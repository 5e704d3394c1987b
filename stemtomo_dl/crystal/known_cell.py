"""Reciprocal vectors and a known cell -> the bases that have it.

Direct-lattice vectors of the known lengths are taken from the maxima of Σ cos(2π q·v), and triples of them with the
known angles (Gildea et al. 2014). Far fewer lattices are tried than without a cell, so fewer points are enough.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from stemtomo_dl.crystal.bravais import centring
from stemtomo_dl.crystal.search import explained, peaks, polished

_LENGTH, _ANGLE_DEG = 0.04, 2.0  # by which a crystal may differ from the cell
_LOOSE, _LOOSE_DEG = 0.08, 5.0  # by which vectors may that are not refined yet: along the beam they are known badly
_TRIED = 30  # triples that are fitted
_PER_AXIS = 40  # vectors of one length
_SAME = 1e-3  # Å, degrees: of a cell's own values, for its system


def bases_of(q: np.ndarray, cell: np.ndarray, most: int) -> list[np.ndarray]:
    """Bases (rows a, b, c in Å) of a known cell (6,), Å and degrees, on which most points q (n, 3) lie.

    Right-handed; the most telling first, empty where the points have no such triple of vectors.
    """
    vectors = peaks(q, cell[:3])
    lengths = np.linalg.norm(vectors, axis=1)
    axes = [vectors[np.abs(lengths / a - 1) < _LOOSE][:_PER_AXIS] for a in cell[:3]]
    some = [(explained(q, b) - 1e-6 * n, b) for n, b in _triples(axes, cell)]
    some.sort(key=lambda b: -b[0])
    told = sorted(
        ((explained(q, b), n, b) for n, b in enumerate(polished(q, b) for _, b in some[:_TRIED])), reverse=True
    )
    return [b for _, _, b in told[:most]]


def _triples(axes: list[np.ndarray], cell: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Right-handed bases of vectors ±a, ±b, ±c (n, 3) each that have a cell's angles, with the place of a.

    Where vectors form only left-handed ones, these are turned inside out, which keeps their angles.
    """
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in axes]
    angle = [np.degrees(np.arccos(np.clip(unit[i] @ unit[j].T, -1, 1))) for i, j in ((1, 2), (0, 2), (0, 1))]
    hand = np.einsum("ai,bci->abc", axes[0], np.cross(axes[1][:, None], axes[2][None]))
    signs = list(product((1, -1), (1, -1)))  # of b and c
    near = []
    for b, c in signs:
        good = [np.abs(np.where(s > 0, v, 180 - v) - w) < _LOOSE_DEG
                for v, w, s in zip(angle, cell[3:], (b * c, c, b), strict=True)]  # fmt: skip
        near.append(good[0][None] & good[1][:, None] & good[2][:, :, None])
    right = [n & (hand * b * c > 0) for n, (b, c) in zip(near, signs, strict=True)]
    left = [n & (hand * b * c < 0) & ~np.any(right, 0) for n, (b, c) in zip(near, signs, strict=True)]
    out = []
    for which, turn in ((right, 1), (left, -1)):
        for made, (b, c) in zip(which, signs, strict=True):
            for i, j, k in np.argwhere(made).tolist():
                out.append((i, turn * np.array([axes[0][i], b * axes[1][j], c * axes[2][k]])))
    return out


def lattice_of(cell: np.ndarray, change: np.ndarray) -> str | None:
    """Pearson's letters of a known cell that is ``change`` (integer, rows) times a primitive basis; None: of none.

    Its system is the highest that its values are those of, exactly: what is stated equal is taken to be so.
    """
    whole = np.rint(change).astype(int)
    letter = centring(whole) if np.rint(np.linalg.det(whole)) else None
    equal = np.abs(np.diff(cell[:3])) < _SAME
    right = np.abs(cell[3:] - 90) < _SAME
    system = "a"
    if right.all():
        system = "c" if equal.all() else "t" if equal[0] else "o"
    elif right[0] and right[1] and equal[0] and abs(cell[5] - 120) < _SAME:
        system = "h"
    elif right[0] and right[2]:
        system = "m"
    return None if letter is None else system + letter


def alike(found: np.ndarray, cell: np.ndarray) -> bool:
    """Whether a cell (6,) is the known one within the tolerances of the search."""
    lengths, angles = np.abs(found[:3] / cell[:3] - 1), np.abs(found[3:] - cell[3:])
    return bool(lengths.max() < _LENGTH and angles.max() < _ANGLE_DEG)
