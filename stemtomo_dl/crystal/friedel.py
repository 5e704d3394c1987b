"""Where the beam is, from the spots alone: Friedel mates in one pattern lie opposite each other about it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from stemtomo_dl.crystal.nouns import Spots

_REACH_PX = 8.0  # how far the stated centre may be off
_GRID = 4  # bins a pixel
_WIDTH_PX = 0.7
_LIKELY_PX = 4.0  # by how much it usually is, at most
_NEAR_PX = 1.0  # of the stated centre: hardly another place
_LEAST_MATES = 8
_SECOND = 0.7  # of the highest gathering of midpoints, at most, for the next one
_STRONGEST = 60  # spots of a frame


def center_shifts(spots: Spots) -> list[np.ndarray]:
    """What is perhaps to be added (2,) px to the centres of all frames, the likeliest first.

    The midpoints of all pairs of spots of a frame are counted about its stated centre: those of mates gather where the
    beam is in every frame, but where a lattice is nearly centred, on other nodes' midpoints too. So one candidate is
    given only where they gather clearly at one place and that is near the stated centre, which is one itself if not.
    """
    middle = []
    for f in np.unique(spots.frame):
        here = np.flatnonzero(spots.frame == f)
        here = here[np.argsort(-spots.intensity[here], kind="stable")[:_STRONGEST]]
        i, j = np.triu_indices(len(here), 1)
        at = (spots.px[here[i]] + spots.px[here[j]]) / 2 - spots.center_px[f]
        middle.append(at[np.abs(at).max(1) < _REACH_PX])
    points = np.concatenate([*middle, np.zeros((0, 2))])
    edges = np.arange(-_REACH_PX, _REACH_PX + 0.5 / _GRID, 1 / _GRID)
    count = np.histogram2d(points[:, 0], points[:, 1], bins=(edges, edges))[0]
    smooth = ndimage.gaussian_filter(count, _WIDTH_PX * _GRID, mode="constant")
    away = np.hypot(*np.meshgrid(edges[:-1], edges[:-1], indexing="ij"))
    smooth = (smooth - np.median(smooth)) * np.exp(-0.5 * (away / _LIKELY_PX) ** 2)
    out = [np.zeros(2)]
    x, y = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
    highest = smooth[x, y]
    for k in range(2):
        if highest * 4 * np.pi * (_WIDTH_PX * _GRID) ** 2 < _LEAST_MATES:
            break
        out.insert(k, _climbed(points, np.array([edges[x], edges[y]]) + 0.5 / _GRID))
        near = np.hypot(edges[:-1, None] - edges[x], edges[None, :-1] - edges[y]) < 3 * _WIDTH_PX
        smooth[near] = 0
        x, y = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
        if smooth[x, y] < _SECOND * highest:
            return out[:1] if k == 0 and np.linalg.norm(out[0]) < _NEAR_PX else out
    return out


def _climbed(points: np.ndarray, about: np.ndarray) -> np.ndarray:
    """The nearest place where points gather (mean shift)."""
    for _ in range(4):
        near = np.exp(-0.5 * (((points - about) / _WIDTH_PX) ** 2).sum(1))
        about = (points * near[:, None]).sum(0) / near.sum()
    return np.asarray(about)
