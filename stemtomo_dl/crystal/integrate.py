"""Spot intensities at predicted places, frame by frame, and over the rocking curve of every reflection.

For stills at tilt angles α_f a passage's integral over the excitation error is Σ I_f |ds/dα| Δα (the Lorentz factor
turns steps of angle into steps of s). Where steps are wider than the rocking curve, a Gaussian of s is fitted instead:
I = Σ w P I / Σ w P². Both are computed; the one whose Friedel mates and repeated passages agree better is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Crystal, Reflections, Spots
from stemtomo_dl.crystal.refine import indices
from stemtomo_dl.crystal.spots import disk_and_ring
from stemtomo_dl.records import DiffractionSeries

_WIDTHS = 3.0  # rocking widths from the sphere that are measured
_LEAST_PROFILE = 0.3  # of the peak of P², summed over a passage's frames: less tells too little
_GAP = 3  # frames without measurement that part two passages
_MODEL_ERROR = 0.04  # of an intensity: what no counting statistics tells
_LEAST_WIDTH = 0.0012  # 1/Å
_LEAST_PAIRS = 20
_LEAST_SUMMED = 0.7  # of the passages that can be fitted
_CENTRED = {"C": (1, 1, 0), "A": (0, 1, 1), "B": (1, 0, 1), "I": (1, 1, 1)}


class Frames(NamedTuple):
    """Intensities frame by frame: one row a reflection and a frame."""

    row: np.ndarray  # of the list of reflections
    frame: np.ndarray
    s: np.ndarray  # excitation error, 1/Å
    slope: np.ndarray  # |ds/dα|, 1/Å per radian
    net: np.ndarray  # counts per probe
    variance: np.ndarray


def present(hkl: np.ndarray, lattice: str) -> np.ndarray:
    """Which indices (n, 3) the centring of a lattice allows; R in the obverse setting."""
    kind = lattice[1]
    if kind == "F":
        return np.asarray(np.ptp(hkl % 2, axis=1) == 0)
    if kind == "R":
        return np.asarray((-hkl[:, 0] + hkl[:, 1] + hkl[:, 2]) % 3 == 0)
    return np.asarray(hkl @ np.array(_CENTRED.get(kind, (0, 0, 0))) % 2 == 0)


def rocking_width(spots: Spots, geometry: Geometry, crystal: Crystal) -> tuple[float, float]:
    """σ₀ (1/Å) and κ (radians) of the rocking curve's width σ² = σ₀² + (κ g)², from when spots were seen."""
    hkl, fits = indices(spots, geometry, crystal)
    g = np.einsum("nij,nj->ni", geometry.of(crystal).turns()[spots.frame], hkl @ crystal.ub.T)[fits]
    s, length = geometry.excitation(g), np.linalg.norm(g, axis=1)
    least = geometry.instrument.convergence_mrad * 1e-3 / 2  # rms of a filled cone along g
    weight = spots.intensity[fits]
    keep = np.abs(s) < 3 * np.sqrt(np.average(s**2, weights=weight))
    a, b = np.polyfit(length[keep] ** 2, s[keep] ** 2, 1, w=np.sqrt(weight[keep]))
    return max(np.sqrt(max(b, 0.0)), _LEAST_WIDTH), max(np.sqrt(max(a, 0.0)), least)


def integrate(series: DiffractionSeries, spots: Spots, geometry: Geometry, crystal: Crystal) -> Reflections:
    """Measure every reflection of a crystal that the series passes.

    Parameters
    ----------
    series : DiffractionSeries
    spots : Spots
        Of the series; their centres and disks are used.
    geometry : Geometry
    crystal : Crystal

    Returns
    -------
    Reflections
        One row a passage through the Ewald sphere, unmerged.
    """
    width = rocking_width(spots, geometry, crystal)
    geometry = geometry.of(crystal)
    hkl = predicted_indices(series, geometry, crystal)
    table = measure(series, spots, geometry, crystal, hkl, width)
    summed, fitted = (f(table, hkl, crystal, geometry, width) for f in (_summed, _fitted))
    # where steps are wide only a few passages, near the axis, can be summed: they agree well and tell little
    enough = len(summed.hkl) >= _LEAST_SUMMED * len(fitted.hkl)
    return summed if enough and disagreement(summed) < disagreement(fitted) else fitted


def predicted_indices(series: DiffractionSeries, geometry: Geometry, crystal: Crystal) -> np.ndarray:
    """Indices (n, 3) of all reflections that could fall on the detector."""
    rows, columns = series.patterns.shape[1:]
    corners = np.array([[0, 0], [columns, 0], [0, rows], [columns, rows]]) - series.center_px
    g_max = float(np.linalg.norm(corners, axis=1).max()) * geometry.pixel
    most = np.ceil(g_max * np.linalg.norm(np.linalg.inv(crystal.ub), axis=1)).astype(int)
    hkl = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in most], indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ crystal.ub.T, axis=1)
    return np.asarray(hkl[(length > 0) & (length < g_max) & present(hkl, crystal.lattice)])


def measure(
    series: DiffractionSeries,
    spots: Spots,
    geometry: Geometry,
    crystal: Crystal,
    hkl: np.ndarray,
    width: tuple[float, float],
) -> Frames:
    """Disk sums less the level of the ring about them, wherever a reflection is near the sphere."""
    disk, ring = disk_and_ring(spots.radius_px + 0.7)
    half = len(disk) // 2
    g0 = hkl @ crystal.ub.T
    reach = _WIDTHS * np.hypot(width[0], width[1] * np.linalg.norm(g0, axis=1))
    parts, turns, centers = [], geometry.turns(), geometry.centers(spots)
    edge = np.array(series.patterns.shape[:0:-1]) - 1 - half
    beam = 2 * spots.radius_px + 2
    for f, pattern in enumerate(series.patterns):
        g = g0 @ turns[f].T
        s = geometry.excitation(g)
        near = np.flatnonzero(np.abs(s) < reach)
        px = geometry.to_detector(g[near], centers[f])
        inside = np.all((px >= half) & (px <= edge), axis=1) & (np.linalg.norm(px - centers[f], axis=1) > beam)
        near, px = near[inside], px[inside]
        slope = geometry.passing(g[near])
        whole = np.rint(px).astype(int)
        offset = np.arange(-half, half + 1)
        window = whole[:, 1, None, None] + offset[:, None], whole[:, 0, None, None] + offset[None]
        value, good = pattern[window].astype(float), series.measured[f][window]
        level, noise = _level(value, ring * good)
        net = ((value - level[:, None, None]) * disk).sum((1, 2))
        spread = disk.sum() * (1 + disk.sum() / ring.sum()) * noise
        variance = spread + np.maximum(net, 0) / max(int(series.n_probes[f]), 1)
        full = (good | (disk == 0)).all((1, 2)) & np.isfinite(net)
        n = np.full(len(near), f)
        parts.append([c[full] for c in (near, n, s[near], slope, net, variance)])
    return Frames(*(np.concatenate(c) for c in zip(*parts, strict=True)))


def _level(value: np.ndarray, ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (spot,) of the pixels of a ring (spot, y, x), neighbours' disks clipped away."""
    weight = ring.astype(float)
    for _ in range(2):
        total = np.maximum(weight.sum((1, 2)), 1)
        mean = (weight * value).sum((1, 2)) / total
        variance = (weight * (value - mean[:, None, None]) ** 2).sum((1, 2)) / total
        limit = 2.5 * np.sqrt(variance)[:, None, None]
        weight = np.where(np.abs(value - mean[:, None, None]) <= limit, ring, 0)
    return mean, np.maximum(variance, 1e-12)


def _passages(table: Frames) -> tuple[np.ndarray, np.ndarray, int]:
    """Order of the rows by reflection and frame, the passage of each ordered row, and their number."""
    order = np.lexsort((table.frame, table.row))
    new = (np.diff(table.row[order], prepend=-1) != 0) | (np.diff(table.frame[order], prepend=-99) > _GAP)
    return order, np.cumsum(new) - 1, int(new.sum())


def _summed(
    table: Frames, hkl: np.ndarray, crystal: Crystal, geometry: Geometry, width: tuple[float, float]
) -> Reflections:
    """Sums over passages of which both sides of the rocking curve were seen."""
    order, passage, n = _passages(table)
    t = Frames(*(c[order] for c in table))
    step = t.slope * np.abs(np.radians(np.gradient(geometry.alpha_deg)))[t.frame]
    sigma = np.hypot(width[0], width[1] * np.linalg.norm(hkl[t.row] @ crystal.ub.T, axis=1))
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(low, passage, t.s / sigma)
    np.maximum.at(high, passage, t.s / sigma)
    total = np.bincount(passage, t.net * step, n)
    variance = np.bincount(passage, t.variance * step**2, n)
    return _reflections(t, hkl, geometry, passage, total, variance, (low < -1.5) & (high > 1.5))


def _fitted(
    table: Frames, hkl: np.ndarray, crystal: Crystal, geometry: Geometry, width: tuple[float, float]
) -> Reflections:
    """Gaussians of the excitation error fitted to passages that come near enough to the sphere."""
    order, passage, n = _passages(table)
    t = Frames(*(c[order] for c in table))
    sigma = np.hypot(width[0], width[1] * np.linalg.norm(hkl[t.row] @ crystal.ub.T, axis=1))
    shape = np.exp(-((t.s / sigma) ** 2) / 2)
    profile, weight = shape / (sigma * np.sqrt(2 * np.pi)), 1 / np.median(t.variance)
    norm = np.maximum(np.bincount(passage, weight * profile**2, n), 1e-12)
    total = np.bincount(passage, weight * profile * t.net, n) / norm
    variance = np.bincount(passage, (weight * profile) ** 2 * t.variance, n) / norm**2
    return _reflections(t, hkl, geometry, passage, total, variance, np.bincount(passage, shape**2, n) > _LEAST_PROFILE)


def _reflections(
    t: Frames,
    hkl: np.ndarray,
    geometry: Geometry,
    passage: np.ndarray,
    total: np.ndarray,
    variance: np.ndarray,
    keep: np.ndarray,
) -> Reflections:
    """Passages as a record; the frame nearest to the sphere gives the angle."""
    first = np.unique(passage, return_index=True)[1]
    nearest = np.lexsort((np.abs(t.s), passage))[first]
    sigma = np.sqrt(variance + (_MODEL_ERROR * total) ** 2)
    index = hkl[t.row[first]].astype("i4")
    return Reflections(index[keep], total[keep], sigma[keep], geometry.alpha_deg[t.frame[nearest]][keep])


def disagreement(r: Reflections) -> float:
    """R_int over Friedel mates and repeated passages; infinite where there are hardly any."""
    sign = np.where(
        (r.hkl[:, 0] > 0) | ((r.hkl[:, 0] == 0) & ((r.hkl[:, 1] > 0) | ((r.hkl[:, 1] == 0) & (r.hkl[:, 2] > 0)))), 1, -1
    )
    _, group = np.unique(r.hkl * sign[:, None], axis=0, return_inverse=True)
    count = np.bincount(group)
    mean = np.bincount(group, r.intensity) / np.maximum(count, 1)
    several = count[group] > 1
    if several.sum() < _LEAST_PAIRS:
        return np.inf
    total = np.abs(r.intensity[several]).sum()
    return float(np.abs(r.intensity - mean[group])[several].sum() / max(total, 1e-12))
