"""A solved structure held against a known one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.solve.model import Model, Symmetry


@dataclass(frozen=True)
class Match:
    """How far a structure is from a known one, at the best choice of origin and hand.

    Attributes
    ----------
    worst : float
        Å, of the known atoms, from each to the nearest atom of its element that was found; inf where there is none.
    extra : int
        Found atoms that are near no known atom of their element.
    share : float
        Of the known atoms that are near one of any element.
    """

    worst: float
    extra: int
    share: float


def compare(model: Model, elements: tuple[str, ...], sites: np.ndarray, near: float = 0.5) -> Match:
    """Compare with known atoms of the asymmetric unit, given in the same cell.

    Origins that lay some found atom of the element with fewest atoms on some known one are tried, with both hands;
    that which leaves the fewest atoms without a partner, and then the least mean distance, counts.

    Parameters
    ----------
    model : Model
    elements : tuple of str
    sites : (atom, 3) f8
        Cell edges.
    near : float
        Å, within which an atom counts as found.
    """
    symmetry = model.symmetry
    shared = [e for e in set(elements) if e in model.elements]
    if not shared:
        return Match(np.inf, len(model.elements), 0.0)
    anchor = min(shared, key=lambda e: (elements.count(e) * model.elements.count(e), e))
    found = np.array(model.elements)
    images = np.concatenate([symmetry.rotations @ s + symmetry.shifts for s in model.sites[found == anchor]])
    best: tuple[tuple[float, float], Match] = ((np.inf, np.inf), Match(np.inf, len(found), 0.0))
    for hand in (1, -1):
        for first in sites[np.array(elements) == anchor]:
            for shift in np.unique(np.round((images - hand * first) % 1, 4), axis=0):
                moved = hand * sites + shift
                moved = moved + _drift(symmetry, moved, model.sites, near)
                key, match = _at(model, elements, moved, near)
                if key < best[0]:
                    best = key, match
    return best[1]


def _drift(symmetry: Symmetry, sites: np.ndarray, found: np.ndarray, near: float) -> np.ndarray:
    """Mean shift (3,), cell edges, of sites to the nearest found atoms that are within twice ``near``."""
    away = [min((symmetry.images(s, f) for f in found), key=lambda p: p[1].min()) for s in sites]
    vectors = np.array([v[d.argmin()] for v, d in away if d.min() < 2 * near])
    return vectors.mean(0) if len(vectors) else np.zeros(3)


def _at(model: Model, elements: tuple[str, ...], sites: np.ndarray, near: float) -> tuple[tuple[float, float], Match]:
    far = np.array([[model.symmetry.apart(s, f) for f in model.sites] for s in sites])
    same = np.where(np.array(elements)[:, None] == np.array(model.elements), far, np.inf)
    share, extra = float((far.min(1) < near).mean()), int((same.min(0) >= near).sum())
    lonely = (same.min(1) >= near).sum() + extra + (far.min(1) >= near).sum()
    return (float(lonely), float(np.minimum(far.min(1), 2 * near).mean())), Match(float(same.min(1).max()), extra, share)
