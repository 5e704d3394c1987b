"""Symmetry that intensities have and their cell has not: the cell, or the order of its axes, is then wrong."""

from __future__ import annotations

from functools import cache
from itertools import permutations, product

import gemmi
import numpy as np

from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.symmetry import merge, rotations_of
from stemtomo_dl.solve.wilson import shells_of, strangers

_APART = 0.06  # of the metric tensor, that a rotation changes; cells that are nearly of higher symmetry are that often
_PAIRS = 60  # reflections with an image that was measured, at least
_LIKE = 0.35  # of the Rint of strangers; 0.05 to 0.23 in ten wrong cells, 0.48 and more in right ones
_BETTER = 0.95  # of the misfit that is left when images are put on the fall-off of their own lengths
_FRIEDEL = np.array([np.eye(3, dtype=int), -np.eye(3, dtype=int)])


def symmetry_beyond(data: Intensities) -> str | None:
    """A rotation, as -x,z,y, under which intensities are alike though the cell has no such symmetry; None if none.

    Every structure of highly symmetric places has nearly such rotations. But where the cell is right, an image that is
    longer than its reflection is weaker by as much as all reflections fall off; where it is not, both are equal.
    """
    merged = merge(data, _FRIEDEL)
    hkl, intensity = np.concatenate([merged.hkl, -merged.hkl]), np.tile(merged.intensity, 2)
    s2 = ((hkl @ data.reciprocal) ** 2).sum(1) / 4
    shells = [s for s in shells_of(s2) if intensity[s].mean() > 0]
    if len(shells) < 2:
        return None
    slope = np.polyfit([s2[s].mean() for s in shells], [np.log(intensity[s].mean()) for s in shells], 1)[0]
    moved = strangers(intensity, s2)
    order = np.argsort(codes := _codes(hkl))
    own = np.max([_codes(hkl @ r) for r in _rotations() if not _changes(r, data.metric)], 0)  # one for all equivalents
    found: list[tuple[float, str]] = []
    for rotation in (r for r in _rotations() if _changes(r, data.metric)):
        at = order[np.searchsorted(codes[order], image := _codes(hkl @ rotation)).clip(max=len(order) - 1)]
        kept = np.flatnonzero((codes[at] == image) & (own[at] != own))
        here, there = intensity[kept], intensity[at[kept]]
        if len(kept) < _PAIRS or here.mean() < 0.5 * intensity.mean():  # what is absent is alike anyhow
            continue
        raw, fallen = _misfit(here, there), _misfit(here * np.exp(slope * (s2[at[kept]] - s2[kept])), there)
        if raw < _LIKE * _misfit(moved[kept], moved[at[kept]]) and raw < _BETTER * fallen:
            found.append((raw, _triplet(rotation)))
    return min(found)[1] if found else None


@cache
def _rotations() -> list[np.ndarray]:
    """Rotations (3, 3) of a cubic lattice, and of hexagonal ones with their axis along any edge."""
    hexagonal = rotations_of(gemmi.SpaceGroup("P 6/m m m").operations())
    found = set()
    for order in permutations(range(3)):
        turn = np.eye(3, dtype=int)[list(order)]
        every = [turn * np.array(signs) for signs in product((1, -1), repeat=3)] + [
            turn.T @ r @ turn for r in hexagonal
        ]
        found |= {tuple(r.ravel().tolist()) for r in every}
    return [np.array(r).reshape(3, 3) for r in sorted(found)]


def _changes(rotation: np.ndarray, metric: np.ndarray) -> bool:
    lengths = np.sqrt(np.diag(metric))
    return bool((np.abs(rotation.T @ metric @ rotation - metric) > _APART * np.outer(lengths, lengths)).any())


def _codes(hkl: np.ndarray) -> np.ndarray:
    return np.asarray(hkl.astype(int) @ np.array([1 << 40, 1 << 20, 1]))


def _misfit(first: np.ndarray, second: np.ndarray) -> float:
    """Σ|a − b| / Σ(a + b)."""
    return float(np.abs(first - second).sum() / max(float((first + second).sum()), 1e-30))


def _triplet(rotation: np.ndarray) -> str:
    op = gemmi.Op("x,y,z")
    op.rot = (rotation * gemmi.Op.DEN).tolist()
    return str(op.triplet())
