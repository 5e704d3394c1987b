"""Tracks of outlines that show a particle which another track follows: halves of it, or outlines drawn twice."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.track.rigid import Fit
from stemtomo_dl.track.series import Series

_FEWER = 0.5  # of the particle's own sightings: a companion has no more
_TURNS = 0.3  # of a companion's tilts that show the particle's own outline, too: below, it takes turns with that
_INSIDE = 0.8  # of the particle's half width, within which a companion lies that is seen beside it
_NEAR = 3.0  # half widths, at a few of the tilts: farther tracks are not looked at
_FEW = 5  # of these tilts


def absorbed(series: Series, index: np.ndarray, fitted: Fit) -> np.ndarray:
    """Tracks (track, rank) without those that lie within another one, which takes over what fills its gaps.

    Two particles cannot be nearer to each other than half their widths together. A track that is predicted within half
    of that about another one, wherever it was seen, and was seen at half as many tilts or fewer, is made of outlines
    that show parts of that one's particle, where it takes turns with that one's own outlines; and shows it twice,
    where it lies inside of them. Of particles that are fused, outlines are too large for the first to say so of tilts
    that show both.

    Parameters
    ----------
    series : Series
    index : (track, rank) int array
    fitted : Fit
        Of these tracks.
    """
    seen = index >= 0
    count, place = seen.sum(1), fitted.predict()[0]
    narrow = np.array([np.median(series.narrow[row[row >= 0]]) for row in index])
    out, gone = index.copy(), np.zeros(len(index), bool)
    for k in np.argsort(count, kind="stable"):
        mine = np.flatnonzero(seen[k])
        some = mine[np.linspace(0, len(mine) - 1, min(_FEW, len(mine))).astype(int)]
        rivals = np.flatnonzero(~gone & (count[k] <= _FEWER * count))
        rivals = rivals[_distance(place, k, rivals, some) < _NEAR * (narrow[rivals] + narrow[k])]
        apart = _distance(place, k, rivals, mine)
        in_turn = seen[np.ix_(rivals, mine)].mean(1) < _TURNS
        limit = np.where(in_turn, narrow[rivals] + narrow[k], 2 * (_INSIDE * narrow[rivals] - narrow[k]))
        rivals, apart = rivals[apart < limit], apart[apart < limit]
        if len(rivals):
            whole = rivals[apart.argmin()]
            free = mine[out[whole, mine] < 0]
            out[whole, free] = index[k, free]
            gone[k] = True
    return out[~gone]


def _distance(place: np.ndarray, track: int, others: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Root mean square distance of a track's predicted places (track, rank, 2) from others' at some ranks, px."""
    off = place[others[:, None], ranks] - place[track, ranks]
    return np.asarray(np.sqrt((off**2).sum(2).mean(1)))
