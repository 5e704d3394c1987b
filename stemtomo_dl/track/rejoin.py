"""Parts of divided outlines that are particles already followed by themselves: one track instead of two."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stemtomo_dl.records import SOURCES, Masks, Tracks
from stemtomo_dl.track.outline import Outline
from stemtomo_dl.track.parts import joined
from stemtomo_dl.track.tracked import Tracked

_SPLIT = SOURCES.index("split")
_SAME_PLACE = 0.5  # of the smaller one's radius: rms distance of the predicted places of two tracks of one particle
_WITHIN = 0.6  # of the smaller outline, in the other one: two tracks of one particle, at the tilts that show both

Differ = Callable[[Tracked, int, int], bool]
"""Whether two tracks surely show different crystals, by the probes that only one of them has."""


def rejoined(tracked: Tracked, differ: Differ) -> Tracked:
    """Tracks in which each part that is another track's particle has become that track's, the nearest first.

    An outline that is fused at some tilts only is one track, and its particles are followed by themselves at the
    other tilts: after the division they are followed twice. Tracks are numbered anew, in the same order.

    Parameters
    ----------
    tracked : Tracked
    differ : callable
    """
    while True:
        pairs = sorted(_pairs(tracked))
        same = next(((part, whole) for _, part, whole in pairs if not differ(tracked, part, whole)), None)
        if same is None:
            return tracked
        tracked = joined(tracked, *same)


def _pairs(tracked: Tracked) -> list[tuple[float, int, int]]:
    """Parts and tracks at the same place in 3-D, after how far they are apart in radii."""
    tracks, masks = tracked
    rows = {int(k): np.flatnonzero(tracks.track == k) for k in tracks.particle}
    cut = {k: set(tracks.detected[r[tracks.source[r] == _SPLIT]].tolist()) - {-1} for k, r in rows.items()}
    parts = [k for k, r in rows.items() if len(r) and (tracks.source[r] == _SPLIT).all()]
    out = []
    for part in parts:
        for other, its in rows.items():
            # what was cut from one outline is not one crystal
            if other == part or not len(its) or cut[part] & cut[other]:
                continue
            apart = _apart(tracks, rows[part], its)
            if apart < _SAME_PLACE and _within(masks, tracks, rows[part], its):
                out.append((apart, part, other))
    return out


def _apart(tracks: Tracks, first: np.ndarray, second: np.ndarray) -> float:
    """Rms distance of two tracks' predicted places, where either was seen, in radii of the smaller one."""
    tilts = np.union1d(tracks.tilt[first], tracks.tilt[second])
    a, b = (tracks.predicted_px[np.searchsorted(tracks.particle, tracks.track[r[0]])] for r in (first, second))
    radius = np.sqrt(min(np.median(tracks.area_px[r]) for r in (first, second)) / np.pi)
    return float(np.sqrt(((a - b)[tilts] ** 2).sum(1).mean()) / max(radius, 1e-9))


def _within(masks: Masks, tracks: Tracks, first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the smaller of two outlines lies in the other one, at half the tilts that show both, or none does."""
    _, i, j = np.intersect1d(tracks.tilt[first], tracks.tilt[second], return_indices=True)
    pairs = zip(tracks.instance[first[i]].tolist(), tracks.instance[second[j]].tolist(), strict=True)
    outlines = [(Outline.of(masks, a), Outline.of(masks, b)) for a, b in pairs]
    shares = [a.cut(b).area / max(min(a.area, b.area), 1) for a, b in outlines]
    return not shares or float(np.median(shares)) > _WITHIN
