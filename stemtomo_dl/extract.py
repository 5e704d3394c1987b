"""Tracks + raw scans -> one diffraction pattern per particle and tilt."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from scipy import ndimage

from stemtomo_dl.config import ExtractConfig
from stemtomo_dl.records import Masks, Scan, TiltPatterns
from stemtomo_dl.stream import stream

_LEAST_SUPPORT = 0.1  # of a particle's own probes


@dataclass(frozen=True)
class Probes:
    """Which probes give which sum: two sums a particle, its own probes (2 k) and the support's (2 k + 1)."""

    track: np.ndarray  # (particle)
    n: np.ndarray  # (2 particle) probes in each sum
    start: np.ndarray  # (probes + 1) CSR row starts over the scan's probes
    sums: np.ndarray  # sums that each probe belongs to
    shape: tuple[int, int]

    @property
    def probe(self) -> np.ndarray:
        """The probe of each entry of ``sums``."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    def some(self, first: int, last: int) -> Probes:
        """The same for particles first … last − 1 only."""
        keep = (self.sums >= 2 * first) & (self.sums < 2 * last)
        start = np.searchsorted(self.probe[keep], np.arange(len(self.start)))
        return Probes(
            self.track[first:last], self.n[2 * first : 2 * last], start, self.sums[keep] - 2 * first, self.shape
        )


def choose_probes(
    masks: Masks, instances: np.ndarray, track: np.ndarray, obstacles: np.ndarray, config: ExtractConfig
) -> Probes:
    """Probes of the particles seen at one tilt, and of the support about each.

    Where outlines overlap both particles are in the beam: such probes are left out as long as enough others
    remain. The support is taken from a ring about the outline that meets no other outline, or from the nearest
    such probes where the surroundings are crowded.

    Parameters
    ----------
    masks : Masks
    instances, track : (particle) int arrays
        Mask and track of each particle seen at this tilt.
    obstacles : (n) int array
        All masks of this tilt that show a particle each, also those without a track.
    """
    outlines = np.zeros(masks.shape, "i4")  # how many particles each probe meets
    for i in obstacles:
        outlines[masks.window(i)] += masks.crops[i]
    clearance = ndimage.distance_transform_edt(np.pad(outlines == 0, 1, constant_values=True))[1:-1, 1:-1]
    free = clearance >= config.ring_px[0]
    members: list[np.ndarray] = []
    for i in instances:
        mask = masks.full(i)
        alone = mask & (outlines == 1)
        members.append(np.flatnonzero(alone if alone.sum() >= max(config.min_probes, 0.2 * mask.sum()) else mask))
        members.append(_support(masks, int(i), free, config))
    n = np.array([len(m) for m in members], int)
    probe = np.concatenate([*members, np.zeros(0, int)]).astype(int)
    order = np.argsort(probe, kind="stable")
    start = np.searchsorted(probe[order], np.arange(outlines.size + 1))
    return Probes(track.astype("i4"), n, start, np.repeat(np.arange(len(n)), n)[order], masks.shape)


def _support(masks: Masks, instance: int, free: np.ndarray, config: ExtractConfig) -> np.ndarray:
    """Particle-free probes about an outline, at least as many as it has probes where the scan offers them.

    None where the scan offers hardly any: the noise of a few probes is worse than a background that is left in.

    They are looked for in growing windows about the outline, since a distance map of the whole scan for every
    particle would cost more than reading its patterns.
    """
    wanted = int(masks.crops[instance].sum())
    index = np.arange(free.size).reshape(free.shape)
    rows, columns = masks.window(instance)
    margin = config.ring_px[1] + 1
    while True:
        window = _grown(rows, margin, free.shape[0]), _grown(columns, margin, free.shape[1])
        distance = ndimage.distance_transform_edt(~masks.full(instance)[window])
        # beyond the margin the window's corners are nearer to the outline than what it leaves out
        candidate = free[window] & (distance >= config.ring_px[0]) & (distance <= margin)
        whole = distance.shape == free.shape
        if whole:
            candidate |= free[window] & (distance > margin)
        near = int((candidate & (distance <= config.ring_px[1])).sum())
        if whole or candidate.sum() >= max(near, wanted):
            if candidate.sum() < max(config.min_probes, _LEAST_SUPPORT * wanted):
                return np.zeros(0, int)
            order = np.argsort(distance[candidate], kind="stable")
            return np.asarray(index[window][candidate][order[: max(near, wanted)]])
        margin *= 2


def _grown(part: slice, margin: int, size: int) -> slice:
    return slice(max(0, part.start - margin), min(size, part.stop + margin))


def extract_tilt(
    scan: Scan, probes: Probes, beam_px: np.ndarray, bad: np.ndarray, center_px: np.ndarray, config: ExtractConfig
) -> TiltPatterns:
    """Mean pattern of every particle at one tilt, minus its support's, the beam moved to one centre.

    Patterns are added with the whole-pixel part of each probe's beam displacement; what is left of it on average
    is taken out of the mean by linear interpolation, which keeps the counts.

    Parameters
    ----------
    scan : Scan
        Only tiles that hold chosen probes are read.
    probes : Probes
    beam_px : (y, x, 2) array
        Beam position (column, row) at every probe.
    bad : (qy, qx) bool array
    center_px : (2,) array
        Where the beam shall be (column, row).

    Returns
    -------
    TiltPatterns

    Raises
    ------
    BadScan
        If a tile cannot be read.
    """
    per_particle = 2 * 8 * scan.shape[2] * scan.shape[3]  # two sums and their counts, 4 bytes each
    size = max(1, int(config.memory_mb * 2**20 / per_particle))
    cuts = range(0, max(len(probes.track), 1), size)
    parts = [_extract_some(scan, probes.some(i, i + size), beam_px, bad, center_px, config) for i in cuts]
    names = ("track", "patterns", "measured", "n_probes", "n_support")
    return TiltPatterns(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))


def _extract_some(
    scan: Scan, probes: Probes, beam_px: np.ndarray, bad: np.ndarray, center_px: np.ndarray, config: ExtractConfig
) -> TiltPatterns:
    """`extract_tilt` for as many particles as memory allows at once."""
    qy, qx = scan.shape[2:]
    displacement = (beam_px - center_px).reshape(-1, 2)
    whole = np.round(displacement).astype(int)
    sums, seen = (np.zeros((len(probes.n), qy, qx), "f4") for _ in range(2))
    used = np.diff(probes.start).reshape(probes.shape) > 0
    tiles = [t for t in scan.tiles(int(config.block_mb * 2**20)) if used[t.window].any()]
    good = (~bad).astype("f4")
    index = np.arange(used.size).reshape(probes.shape)
    for tile, patterns in stream(scan, tiles):
        flat, probe = patterns.reshape(-1, qy, qx), index[tile.window].ravel()
        add_patterns(flat, probe, probes.start, probes.sums, whole, good, sums, seen)
    fraction = np.zeros((len(probes.n), 2))
    np.add.at(fraction, probes.sums, (displacement - whole)[probes.probe])
    fraction /= np.maximum(probes.n, 1)[:, None]
    return _finish(probes, sums, seen, fraction)


@numba.njit(nogil=True, cache=True)
def add_patterns(
    patterns: np.ndarray,
    probe: np.ndarray,
    start: np.ndarray,
    sums_of: np.ndarray,
    whole: np.ndarray,
    good: np.ndarray,
    sums: np.ndarray,
    seen: np.ndarray,
) -> None:
    """Add each pattern, displaced, to the sums its probe belongs to; ``seen`` counts the good, finite pixels added."""
    rows, cols = patterns.shape[1:]
    for i in range(len(patterns)):
        p = probe[i]
        dx, dy = whole[p, 0], whole[p, 1]
        x0, x1 = max(0, -dx), min(cols, cols - dx)
        for k in range(start[p], start[p + 1]):
            out, count = sums[sums_of[k]], seen[sums_of[k]]
            for y in range(max(0, -dy), min(rows, rows - dy)):
                for x in range(x0, x1):
                    value = patterns[i, y + dy, x + dx]
                    if good[y + dy, x + dx] > 0 and np.isfinite(value):
                        out[y, x] += value
                        count[y, x] += 1


def _finish(probes: Probes, sums: np.ndarray, seen: np.ndarray, fraction: np.ndarray) -> TiltPatterns:
    """Means, minus the support, moved by the remaining fraction of a pixel, gaps filled and flagged."""
    patterns = np.zeros((len(probes.track), *sums.shape[1:]), "f4")
    measured = np.zeros(patterns.shape, bool)
    for k in range(len(probes.track)):
        moved = [
            _shifted(sums[j] / np.maximum(seen[j], 1.0), seen[j] >= 0.5 * probes.n[j], fraction[j])
            for j in (2 * k, 2 * k + 1)
        ]
        (own, own_measured), (support, support_measured) = moved
        measured[k] = own_measured & support_measured if probes.n[2 * k + 1] else own_measured
        patterns[k] = _fill(own - support if probes.n[2 * k + 1] else own, measured[k])
    return TiltPatterns(probes.track, patterns, measured, probes.n[::2].astype("i4"), probes.n[1::2].astype("i4"))


def _shifted(mean: np.ndarray, measured: np.ndarray, by: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A pattern moved by a fraction of a pixel (column, row); pixels whose sources are not all measured drop out."""
    dx, dy = by
    value = ndimage.shift(_fill(mean, measured), (-dy, -dx), order=1, mode="nearest")
    gap = ndimage.shift((~measured).astype(float), (-dy, -dx), order=1, mode="nearest")
    return value, gap < 0.01


def _fill(pattern: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Values for what was not measured, from the measured pixels nearby (zero where there are none)."""
    if measured.all():
        return pattern
    weight = ndimage.gaussian_filter(measured.astype(float), 1.5)
    value = ndimage.gaussian_filter(np.where(measured, pattern, 0.0), 1.5)
    near = np.divide(value, weight, out=np.zeros_like(value), where=weight > 1e-3)
    return np.where(measured, pattern, near)
