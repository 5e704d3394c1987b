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
    everywhere = np.einsum("oij,aj->aoi", symmetry.rotations, model.sites) + symmetry.shifts
    best: tuple[tuple[float, float], Match] = ((np.inf, np.inf), Match(np.inf, len(found), 0.0))
    for hand in (1, -1):
        for first in sites[np.array(elements) == anchor]:
            for shift in np.unique(np.round((images - hand * first) % 1, 4), axis=0):
                moved = hand * sites + shift
                moved = moved + _drift(symmetry, moved, everywhere, near)
                key, match = _at(model, elements, _away(symmetry, moved, everywhere)[1], near)
                if key < best[0]:
                    best = key, match
    return best[1]


def _away(symmetry: Symmetry, sites: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From sites (site, 3) to the nearest image of each found atom (atom, operation, 3): vectors, and lengths in Å."""
    away = found - sites[:, None, None]
    away -= np.round(away)
    length = np.linalg.norm(away @ symmetry.direct.T, axis=-1)
    nearest = length.argmin(-1)[..., None]
    return np.take_along_axis(away, nearest[..., None], 2)[:, :, 0], np.take_along_axis(length, nearest, 2)[:, :, 0]


def _drift(symmetry: Symmetry, sites: np.ndarray, found: np.ndarray, near: float) -> np.ndarray:
    """Mean shift (3,), cell edges, of sites to the nearest found atoms that are within twice ``near``."""
    away, length = _away(symmetry, sites, found)
    vectors = away[np.arange(len(sites)), length.argmin(1)][length.min(1) < 2 * near]
    return np.asarray(vectors.mean(0)) if len(vectors) else np.zeros(3)


def _at(model: Model, elements: tuple[str, ...], far: np.ndarray, near: float) -> tuple[tuple[float, float], Match]:
    """How many are lonely and the mean distance, and the match, from distances (known, found), Å."""
    same = np.where(np.array(elements)[:, None] == np.array(model.elements), far, np.inf)
    share, extra = float((far.min(1) < near).mean()), int((same.min(0) >= near).sum())
    lonely = (same.min(1) >= near).sum() + extra + (far.min(1) >= near).sum()
    return (float(lonely), float(np.minimum(far.min(1), 2 * near).mean())), Match(
        float(same.min(1).max()), extra, share
    )
