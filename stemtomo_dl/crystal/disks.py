"""What the disks at predicted places hold: sums less a local background, with their variance.

The level under a disk is that of the rings about the beam, from pixels that no disk covers, and what a ring about the
disk differs from it: the first follows a peaked background, the second what is not round. Disks that reach into each
other's are parted by solving for all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stemtomo_dl.crystal.overlap import Places
from stemtomo_dl.crystal.predict import Predicted
from stemtomo_dl.records import DiffractionSeries

MARGIN_PX = 1.0  # of the apertures beyond the disks: errors of the geometry, the camera's spread
_RING_PX = (1.5, 4.5)  # from the disk's rim
_BEAM_PX = 1.0  # about the direct beam's disk: not measured
_CLIP = 4.0  # standard deviations: a ring's pixels beyond are something else's
_LEAST_RING = 8  # pixels
_LEAST_SEEN = 0.5  # of an aperture that a neighbour's disk must leave to itself
_FOREIGN_PX = 1.5  # and half a radius: a spot further off than that is not this reflection's


@dataclass(frozen=True, eq=False)
class Sums:
    """Disk sums, one row a prediction.

    Attributes
    ----------
    net : (n,) array
        Counts per probe above the background.
    noise : (n,) array
        Variance that the disk has without the reflection.
    per_count : (n,) array
        Variance that each net count adds.
    whole : (n,) array of bool
        Whether all of the aperture was measured, inside the detector, off the beam and apart from other spots.
    """

    net: np.ndarray
    noise: np.ndarray
    per_count: np.ndarray
    whole: np.ndarray

    def some(self, rows: np.ndarray) -> Sums:
        """These rows."""
        return Sums(*(c[rows] for c in (self.net, self.noise, self.per_count, self.whole)))


def measure(
    series: DiffractionSeries,
    at: Predicted,
    strong: np.ndarray,
    radius_px: float,
    center_px: np.ndarray,
    foreign: Places,
    others: Places,
) -> Sums:
    """Measure every predicted disk.

    Parameters
    ----------
    series : DiffractionSeries
    at : Predicted
        Sorted by frame.
    strong : (n,) array of bool
        Which of them are near enough to the sphere to be seen in others' backgrounds and apertures.
    radius_px : float
        Of the disks.
    center_px : (frame, 2) array
        Column, row of the beam.
    foreign : Places
        Of spots that were found and are not this crystal's; one upon a place is taken for its own.
    others : Places
        Where other lattices' reflections are: what they reach into is not measured.
    """
    n = len(at.row)
    out = Sums(np.zeros(n), np.ones(n), np.zeros(n), np.zeros(n, bool))
    edges = np.searchsorted(at.frame, np.arange(len(series.patterns) + 1))
    for f, (a, b) in enumerate(pairwise(edges.tolist())):
        if a == b:
            continue
        here = slice(a, b)
        near, upon = foreign.at(f), others.at(f)
        view = _View.of(series, f, radius_px, center_px[f], np.concatenate([at.px[here][strong[here]], near, upon]))
        net, noise, whole = view.sums(at.px[here])
        net, noise, parted = _parted(net, noise, at.px[here], strong[here], radius_px)
        out.net[here], out.noise[here] = net, noise
        out.per_count[here] = view.per_count
        out.whole[here] = (
            whole & parted & _alone(at.px[here], near, radius_px) & _alone(at.px[here], upon, radius_px, own_px=0.0)
        )
    return out


@dataclass(frozen=True, eq=False)
class _View:
    """A frame with the round part of its background taken off."""

    value: np.ndarray
    spread: np.ndarray  # variance of a pixel without reflections, a function of the distance from the beam
    good: np.ndarray
    free: np.ndarray  # of every disk
    radius: float
    center: np.ndarray
    per_count: float

    @classmethod
    def of(cls, series: DiffractionSeries, frame: int, radius: float, center: np.ndarray, disks: np.ndarray) -> _View:
        pattern, good = np.nan_to_num(series.patterns[frame].astype(float)), series.measured[frame]
        rows, columns = np.indices(pattern.shape)
        distance = np.hypot(columns - center[0], rows - center[1])
        free = good & ~_covered(pattern.shape, disks, radius + MARGIN_PX) & (distance > radius + _BEAM_PX)
        value = pattern - _rings(pattern, distance, free)
        per_count = 1 / max(int(series.n_probes[frame]), 1)
        if series.variance is not None:  # carried variances know the camera's gain
            carried = series.variance[frame].astype(float)
            lit = good & (distance > radius + _BEAM_PX) & (pattern > 5 * np.sqrt(np.maximum(carried, 0)))
            per_count = float(np.median(carried[lit] / pattern[lit])) if lit.sum() > _LEAST_RING else per_count
        # where nothing was counted the next count might yet have come: no variance is 0
        spread = _rings(value**2, distance, free, per_count**2)
        if series.variance is not None:
            spread = np.maximum(spread, _rings(carried, distance, free))
        return cls(value, spread, good, free, radius, center, per_count)

    def sums(self, px: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Net counts, their variance without reflection, and which apertures are whole."""
        aperture = self.radius + MARGIN_PX
        half = int(np.ceil(self.radius + _RING_PX[1])) + 1
        whole = np.rint(px).astype(int)
        offset = np.arange(-half, half + 1)
        y, x = whole[:, 1, None, None] + offset[:, None], whole[:, 0, None, None] + offset[None]
        rows, columns = self.value.shape
        inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        window = np.clip(y, 0, rows - 1), np.clip(x, 0, columns - 1)
        far = np.hypot(x - px[:, 0, None, None], y - px[:, 1, None, None])
        disk = np.clip(aperture + 0.5 - far, 0, 1)
        ring = (far > self.radius + _RING_PX[0]) & (far <= self.radius + _RING_PX[1]) & inside & self.free[window]
        value = self.value[window]
        level, spread, count = _level(value, ring, self.per_count)
        middle = self.spread[np.clip(whole[:, 1], 0, rows - 1), np.clip(whole[:, 0], 0, columns - 1)]
        spread = np.maximum(spread, middle)
        area = disk.sum((1, 2))
        net = ((value - level[:, None, None]) * disk).sum((1, 2))
        noise = spread * ((disk**2).sum((1, 2)) + area**2 / np.maximum(count, 1))
        ok = ((inside & self.good[window]) | (disk == 0)).all((1, 2)) & (count >= _LEAST_RING)
        clear = np.linalg.norm(px - self.center, axis=1) > aperture + self.radius + _BEAM_PX
        return net, np.maximum(noise, 1e-12), ok & clear


def _covered(shape: tuple[int, ...], disks: np.ndarray, radius: float) -> np.ndarray:
    """Pixels (y, x) within ``radius`` of any of the places (n, 2)."""
    out, half = np.zeros(shape, bool), int(np.ceil(radius)) + 1
    for cx, cy in disks:
        x, y = np.arange(round(cx) - half, round(cx) + half + 1), np.arange(round(cy) - half, round(cy) + half + 1)
        x, y = x[(x >= 0) & (x < shape[1])], y[(y >= 0) & (y < shape[0])]
        out[np.ix_(y, x)] |= np.hypot(x[None] - cx, y[:, None] - cy) <= radius
    return out


def _rings(pattern: np.ndarray, distance: np.ndarray, free: np.ndarray, extra: float = 0.0) -> np.ndarray:
    """The background as a function of the distance from the beam: means of rings, linear between them.

    ``extra`` is added to the sum of every ring.
    """
    bins = distance.astype(int)
    n = int(bins.max()) + 1
    count = np.bincount(bins[free], minlength=n)
    known = count >= _LEAST_RING
    if not known.any():
        return np.zeros_like(pattern)
    mean = (np.bincount(bins[free], pattern[free], n)[known] + extra) / count[known]
    at = np.bincount(bins[free], distance[free], n)[known] / count[known]
    return np.interp(distance, at, mean)


def _level(value: np.ndarray, ring: np.ndarray, per_count: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and number of the pixels of rings (n, y, x), what stands far out of them left aside.

    Few counts are skew: the limit above is that of Poisson's distribution, μ + zσ + (z² − 1)/6 counts (Cornish & Fisher
    1938), or the rare counts that make up the mean would be left aside and every disk come out too high.
    """
    use, skew = ring, per_count * (_CLIP**2 - 1) / 6
    for _ in range(3):
        count = use.sum((1, 2))
        mean = np.where(use, value, 0).sum((1, 2)) / np.maximum(count, 1)
        off = value - mean[:, None, None]
        variance = np.where(use, off**2, 0).sum((1, 2)) / np.maximum(count - 1, 1)
        limit = _CLIP * np.sqrt(variance)[:, None, None]
        use = ring & (off >= -limit) & (off <= limit + skew)
    return mean, variance, count


def _lens(distance: np.ndarray, a: float, b: float) -> np.ndarray:
    """Area that two circles of radii a and b share, their centres ``distance`` apart."""
    d = np.clip(distance, abs(a - b) + 1e-9, a + b - 1e-9)
    one = np.arccos(np.clip((d**2 + a**2 - b**2) / (2 * d * a), -1, 1))
    two = np.arccos(np.clip((d**2 + b**2 - a**2) / (2 * d * b), -1, 1))
    kite = np.sqrt(np.maximum((-d + a + b) * (d + a - b) * (d - a + b) * (d + a + b), 0)) / 2
    return np.where(distance >= a + b, 0, a * a * one + b * b * two - kite)


def _parted(
    net: np.ndarray, noise: np.ndarray, px: np.ndarray, strong: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums and variances of disks that reach into each other's apertures, and which could be told apart.

    Aperture i holds Σ_j F_ij I_j, F_ij being the share of disk j that lies in it; only disks that are excited count.
    """
    distance = np.linalg.norm(px[:, None] - px[None], axis=2)
    touch = (distance < 2 * radius + MARGIN_PX) & strong[None] & ~np.eye(len(px), dtype=bool)
    if not touch.any():
        return net, noise, np.ones(len(px), bool)
    share = np.where(touch, _lens(distance, radius + MARGIN_PX, radius) / (np.pi * radius**2), 0)
    apart = (share + share.T).max(1) / 2 < 1 - _LEAST_SEEN
    use = np.outer(apart, apart)
    solve = np.linalg.inv(np.eye(len(px)) + np.where(use, share, 0))
    # a neighbour that cannot be told apart spoils those that it touches
    return solve @ net, solve**2 @ noise, apart & ~(share[:, ~apart] > 0).any(1)


def _alone(px: np.ndarray, others: np.ndarray, radius: float, own_px: float | None = None) -> np.ndarray:
    """Which places (n, 2) no foreign spot (m, 2) reaches into; one nearer than ``own_px`` is taken for its own."""
    if not len(others):
        return np.ones(len(px), bool)
    distance = np.linalg.norm(px[:, None] - others[None], axis=2)
    near = distance < 2 * radius + MARGIN_PX / 2
    return ~(near & (distance >= (_FOREIGN_PX + radius / 2 if own_px is None else own_px))).any(1)
