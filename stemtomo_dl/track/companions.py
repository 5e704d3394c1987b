"""Tracks of outlines that show a particle which another track follows: halves of it, or outlines drawn twice."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.track.rigid import Fit
from stemtomo_dl.track.series import Series

_FEWER = 0.5  # of the particle's own sightings: a companion has no more


def absorbed(series: Series, index: np.ndarray, fitted: Fit) -> np.ndarray:
    """Tracks (track, rank) without those that lie within another one, which takes over what fills its gaps.

    Two particles cannot be nearer to each other than half their widths together. A track that is predicted within half
    of that about another one, wherever it was seen, and was seen at half as many tilts or fewer, is made of outlines
    that show parts of that one's particle, or show it twice.

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
        apart = np.sqrt(((place[:, mine] - place[k, mine]) ** 2).sum(2).mean(1)) / (narrow + narrow[k])
        apart[gone | (count[k] > _FEWER * count)] = np.inf
        whole = int(apart.argmin())
        if apart[whole] < 1:
            free = mine[out[whole, mine] < 0]
            out[whole, free] = index[k, free]
            gone[k] = True
    return out[~gone]
