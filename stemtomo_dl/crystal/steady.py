"""Tilt angles of a stage that turned steadily while its readings stood still.

A camera that runs during a continuous rotation often asks the stage for its angle only now and then, so that many
frames carry one reading. Taken as they are, such angles are off by up to a reading's step. Whether the stage stood
still is told by the spots: those of neighbouring frames are alike within a reading and across its change alike where it
turned, and alike at any distance within a reading where it stood.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from stemtomo_dl.crystal.nouns import Spots

RATE = 0.01  # relative: what a rotation through few readings is good to

_LEAST_CHANGES = 5  # of the reading
_LEAST_RUN = 3  # frames of one reading
_MOST_OFF = 1.0  # of a reading's frames: readings further off a line are those of no steady rotation


def steady_angles(alpha_deg: np.ndarray, spots: Spots) -> np.ndarray:
    """Tilt angles with readings that stood still replaced by the steady rotation that they follow.

    Parameters
    ----------
    alpha_deg : (frame,) array
        As stated, in the order of time.
    spots : Spots
        Of the frames.

    Returns
    -------
    (frame,) array
        Degrees: a line through the readings at the frames where they change, not before the first reading, where the
        stage may have rested; ``alpha_deg`` itself where readings do not stand still, or the stage did so too.
    """
    steps = np.diff(alpha_deg)
    change = np.flatnonzero(steps) + 1
    if len(change) < _LEAST_CHANGES or len(np.unique(np.sign(steps[change - 1]))) > 1:
        return alpha_deg
    run = int(np.median(np.diff(change)))
    if run < _LEAST_RUN or not _turned(change, run, spots):
        return alpha_deg
    line = np.polynomial.Polynomial.fit(change, alpha_deg[change], 1)
    rate = float(line.deriv()(0.0))
    if np.abs(line(change) - alpha_deg[change]).max() > _MOST_OFF * run * abs(rate):
        return alpha_deg
    out = line(np.arange(len(alpha_deg)))
    return np.asarray(np.maximum(out, alpha_deg[0]) if rate > 0 else np.minimum(out, alpha_deg[0]))


def _turned(change: np.ndarray, run: int, spots: Spots) -> bool:
    """Whether spots of neighbours across a change are more alike than those of one reading half its frames apart."""
    n = len(spots.center_px)
    trees = [KDTree(spots.px[spots.frame == f]) for f in range(n)]
    reading = np.searchsorted(change, np.arange(n), side="right")

    def alike(first: np.ndarray, lag: int) -> float:
        shares = [
            np.isfinite(trees[f + lag].query(trees[f].data, distance_upper_bound=spots.radius_px)[0]).mean()
            for f in first
            if trees[f].n and trees[f + lag].n
        ]
        return float(np.mean(shares)) if shares else 0.0

    apart = max(run // 2, 2)
    start = np.arange(change[0], n - apart)  # before the first change the stage may have rested
    within = start[reading[start] == reading[start + apart]]
    return alike(change - 1, 1) > alike(within, apart)
