"""What a particle's diffraction looks like, in few numbers: near tilts are alike, so that it tells who is who."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.stats import rankdata

from stemtomo_dl.records import Masks
from stemtomo_dl.virtual.sectors import AZIMUTHS

_ENOUGH = 4  # probes: with fewer that belong to no other outline, all of an outline's count
_AROUND_PX = 3  # how far the surroundings reach from an outline
_SIGNIFICANT = 4.0  # standard deviations by which a pattern must exceed counting noise
_COMMON = 4  # particles from which on what they have in common is taken out
_SQUARE = np.ones((3, 3), bool)


def describe(sectors: np.ndarray, masks: Masks, tilt_axis_deg: float) -> np.ndarray:
    """Diffraction of each particle of one tilt, as a row that can be compared with another tilt's.

    The mean counts of an outline's probes that are in no other, less those of its surroundings, in units of their
    counting noise. They are replaced by their ranks, so that one bright reflection does not stand for all (rows
    correlate as in Spearman 1904), and what all particles of a tilt have in common, the rings of their phase, is
    taken out. Sectors count by how near they are to the tilt axis, since reflections there stay longest.

    Parameters
    ----------
    sectors : (y, x, sector) array
        Of `VirtualImages`.
    masks : Masks
        The outlines at this tilt.
    tilt_axis_deg : float
        On the detector: of the stage, and the detector's rotation.

    Returns
    -------
    (instance, sector) f4 array
        Rows have mean 0 and variance 1; NaN where no pattern stands out of the noise.
    """
    signals = _signals(sectors, masks)
    found = np.isfinite(signals[:, 0])
    rows = rankdata(signals[found], axis=1) - (signals.shape[1] + 1) / 2
    if len(rows) >= _COMMON:
        rows -= rows.mean(0)
    azimuth = (np.arange(signals.shape[1]) % AZIMUTHS + 0.5) * 360 / AZIMUTHS
    rows *= np.sqrt(np.abs(np.cos(np.radians(azimuth - tilt_axis_deg))))
    rows -= rows.mean(1, keepdims=True)
    out = np.full(signals.shape, np.nan, np.float32)
    out[found] = rows / np.maximum(rows.std(1, keepdims=True), 1e-30)
    return out


def identity_check(rows: np.ndarray, track: np.ndarray, tilt: np.ndarray, reach: int = 3) -> np.ndarray:
    """Whether each sighting looks like its own track at neighbouring tilts rather than like another.

    Parameters
    ----------
    rows : (sighting, sector) array
        Of `describe`, for the sightings of all tilts.
    track, tilt : (sighting,) int arrays
    reach : int
        Up to so many tilts away its track is looked for; the nearest sighting on either side counts.

    Returns
    -------
    (sighting,) f8 array
        Share of the other tracks' sightings at those tilts that it resembles less than its own: 1 where its own is
        the most alike, about ½ where patterns tell nothing; NaN where there is nothing to compare.
    """
    known = np.isfinite(rows[:, 0])
    at = {int(t): np.flatnonzero(known & (tilt == t)) for t in np.unique(tilt)}
    total, count = np.zeros(len(rows)), np.zeros(len(rows))
    for here in at.values():
        for side in (-1, 1):
            waiting = here
            for step in range(1, reach + 1):
                there = at.get(int(tilt[here[0]]) + side * step if len(here) else -1, np.empty(0, int))
                share, met = _beaten(rows[waiting], rows[there], track[waiting][:, None] == track[there])
                use = waiting[np.isfinite(share)]
                total[use] += share[np.isfinite(share)]
                count[use] += 1
                waiting = waiting[~met]
    return np.divide(total, count, out=np.full(len(rows), np.nan), where=count > 0)


def _beaten(rows: np.ndarray, others: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of other tracks' rows that each row resembles less than its own track's, and whether that is there.

    ``same`` (row, other) bool says which belong to its track; NaN where there are not both.
    """
    alike = rows @ others.T
    own = np.max(alike, 1, where=same, initial=-np.inf, keepdims=True)
    beaten = (((alike < own) + 0.5 * (alike == own)) * ~same).sum(1)
    rivals, met = (~same).sum(1), np.asarray(same.any(1))
    return np.divide(beaten, rivals, out=np.full(len(rows), np.nan), where=met & (rivals > 0)), met


def _signals(sectors: np.ndarray, masks: Masks) -> np.ndarray:
    """Mean counts (instance, sector) above the surroundings in units of their noise; NaN rows where they are noise."""
    rows, columns, bins = sectors.shape
    out = np.full((len(masks), bins), np.nan)
    places = [_probes(masks, i, (rows, columns)) for i in range(len(masks))]
    depth = np.zeros((rows, columns), np.int32)
    for y, x in places:
        depth[y, x] += 1
    free = sectors[depth == 0]
    gain = _gain(free if len(free) > 1 else sectors.reshape(-1, bins))
    for i, (y, x) in enumerate(places):
        if not len(y):
            continue
        alone = depth[y, x] == 1
        chosen = alone if alone.sum() >= _ENOUGH else np.ones(len(y), bool)
        own = sectors[y[chosen], x[chosen]]
        around = _surroundings(sectors, depth, y, x)
        out[i] = _row(own, around if len(around) else free, gain)
    return out


def _probes(masks: Masks, i: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the reduced patterns that an outline covers."""
    together = -(-masks.shape[0] // shape[0])
    y, x = np.nonzero(masks.crops[i])
    places = np.unique((np.stack([y, x], 1) + masks.origin[i]) // together, axis=0)
    return places[:, 0], places[:, 1]


def _surroundings(sectors: np.ndarray, depth: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Patterns (n, sector) near an outline that are in none."""
    corner = np.maximum([y.min() - _AROUND_PX, x.min() - _AROUND_PX], 0)
    window = tuple(slice(c, int(v.max()) + _AROUND_PX + 1) for c, v in zip(corner, (y, x), strict=True))
    mine = np.zeros(depth[window].shape, bool)
    mine[y - corner[0], x - corner[1]] = True
    near = ndimage.binary_dilation(mine, _SQUARE, _AROUND_PX)
    return np.asarray(sectors[window][near & (depth[window] == 0)])


def _gain(patterns: np.ndarray) -> float:
    """Variance over mean of patterns (n, sector) that are all alike: the counts of an electron."""
    return float(patterns.var(0).sum() / max(float(patterns.mean(0).sum()), 1e-30))


def _row(own: np.ndarray, around: np.ndarray, gain: float) -> np.ndarray | float:
    """Row of `_signals` from patterns (n, sector) of a particle and around it."""
    mean = own.mean(0, dtype=float)
    base = around.mean(0, dtype=float) if len(around) else np.zeros_like(mean)
    least = (mean.mean() + base.mean()) / 20  # sectors that hardly count are no measure of their own noise
    noise = np.sqrt(gain * (np.maximum(mean, least) / len(own) + np.maximum(base, least) / max(len(around), 1)))
    signal = (mean - base) / np.maximum(noise, 1e-30)
    stands_out = signal.var() >= 1 + _SIGNIFICANT * np.sqrt(2 / len(signal))
    return np.asarray(signal) if stands_out else np.nan
