"""Diffraction patterns -> spots: disks of a known radius on a peaked background, few counts."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, signal

from stemtomo_dl.crystal.nouns import Spots
from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.records import DiffractionSeries

_LEAST_RADIUS = 1.5  # px: of a parallel beam's spots
_SIGNIFICANT = 6.0  # standard deviations of the background that a spot must stand out by
_RARE = 5.0  # standard deviations that counts must stand out by: hardly one chance spot in a whole series
_RING_PX = 4  # width of the rings in which the noise is taken to be the same
_CLIP = 4.0
_SWEEPS = 3
_STRONG = 18.0  # standard deviations of white noise; such spots are kept from what is taken to be noise
_REACH = 4.5  # px beyond two radii, to which a spot changes the net values about it
_TAIL = 0.05  # of the strongest spot in that reach: less is what its own tail shows
_LEAST_RING = 60  # pixels beside strong spots that tell the noise of a ring


def find_spots(series: DiffractionSeries) -> Spots:
    """Find the disks of every pattern.

    A disk's counts less those of the ring about it are held against how this net value scatters at the same distance
    from the beam, which needs neither the camera's gain nor what was subtracted before. Where there is less than an
    electron in most disks no scatter tells how rare a few are: they must also be as unlikely by Poisson's law. A camera
    that counts more than 1 for an electron makes this the weaker of the two.

    Parameters
    ----------
    series : DiffractionSeries

    Returns
    -------
    Spots
        With the series' own centre in every frame.
    """
    m = series.instrument
    disk = disk_radius_px(m.convergence_mrad, wavelength(m.voltage_kv), m.pixel_inv_angstrom)
    radius = max(disk, _LEAST_RADIUS)
    rows, columns = np.indices(series.patterns.shape[1:])
    distance = np.hypot(columns - series.center_px[0], rows - series.center_px[1])
    expected = series.patterns if series.variance is None else series.variance * series.n_probes[:, None, None]
    found = [
        _in_pattern(p, ok, distance, radius, np.maximum(np.nan_to_num(e), 0) * n, float(n))
        for p, ok, e, n in zip(series.patterns, series.measured, expected, np.maximum(series.n_probes, 1), strict=True)
    ]
    frame = np.repeat(np.arange(len(found), dtype="i4"), [len(f) for f in found])
    table = np.concatenate([*found, np.zeros((0, 4))])
    center = np.tile(series.center_px, (len(found), 1))
    return Spots(radius, frame, table[:, :2].copy(), table[:, 2].copy(), table[:, 3].copy(), center)


def disk_and_ring(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A disk of this radius with a soft edge, and the ring that tells its background; both of one odd size."""
    half = int(np.ceil(radius + 5))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    r = np.hypot(x, y)
    return np.clip(radius + 0.5 - r, 0, 1), ((r > radius + 1.5) & (r <= radius + 4.5)).astype(float)


def _in_pattern(
    pattern: np.ndarray,
    measured: np.ndarray,
    distance: np.ndarray,
    radius: float,
    electrons: np.ndarray,
    n_probes: float,
) -> np.ndarray:
    """Column, row, net counts and their noise of the spots of one pattern, (spot, 4).

    ``electrons`` (y, x) are those that fell on each pixel, background and all.
    """
    values = np.where(np.isfinite(pattern), pattern, 0).astype(float)
    disk, ring = disk_and_ring(radius)
    level = signal.fftconvolve(values, ring / ring.sum(), mode="same")
    net = signal.fftconvolve(values, disk, mode="same") - disk.sum() * level
    bins = (distance / _RING_PX).astype(int)
    margin = int(np.ceil(radius))
    inside = np.zeros(net.shape, bool)
    inside[margin : net.shape[0] - margin, margin : net.shape[1] - margin] = True
    clear = distance > 2 * radius + 4  # of the direct beam, or of the hole that its subtraction leaves
    middle, noise = _scatter(net, bins, measured)
    white = _white(values, bins, measured) * np.sqrt(disk.sum() + disk.sum() ** 2 / ring.sum())
    strong = _tops(net, radius) & inside & clear & measured & (net > _STRONG * white) & (white > 0)
    if strong.any():
        middle, noise = _beside(strong, net, bins, measured, white, 2 * radius + _REACH, (middle, noise))
    wide = 2 * int(np.ceil(2 * radius + _REACH)) + 1
    top = _tops(net - middle, radius) & (net - middle > _TAIL * ndimage.maximum_filter(net - middle, size=wide))
    net = net - middle
    few = (np.maximum(signal.fftconvolve(electrons, ring, mode="same"), 0) + 1) * disk.sum() / ring.sum()
    rare = poisson_deviations(few + np.maximum(net, 0) * n_probes, few) > _RARE
    y, x = np.nonzero(top & inside & clear & measured & (net > _SIGNIFICANT * noise) & (noise > 0) & rare)
    out = np.zeros((len(x), 4))
    for i, (cx, cy) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        out[i] = *_centroid(values - level[cy, cx], cx, cy, radius + 1), net[cy, cx], noise[cy, cx]
    return out


def _tops(net: np.ndarray, radius: float) -> np.ndarray:
    """Where a value is the highest of those within a disk's radius, (y, x) bool."""
    return np.asarray(net == ndimage.maximum_filter(net, size=2 * int(np.ceil(radius)) + 1))


def _white(values: np.ndarray, bins: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Noise of one pixel at each pixel's distance: of the differences of neighbours, to which disks add rims alone."""
    both = measured[:, 1:] & measured[:, :-1]
    return _scatter(np.diff(values, axis=1) / np.sqrt(2), bins[:, 1:], both, bins)[1]


def _beside(
    strong: np.ndarray,
    net: np.ndarray,
    bins: np.ndarray,
    measured: np.ndarray,
    white: np.ndarray,
    reach: float,
    everywhere: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the net values beside strong spots, which change all within their reach.

    Many disks fill whole rings, and would pass for the noise that they must stand out of. A ring of which too little is
    left has the mean, and the noise over that of single pixels, of its neighbours.
    """
    free = measured & (ndimage.distance_transform_edt(~strong) > reach)
    n = int(bins.max()) + 1
    mean, spread = _scatter(net, bins, free)
    pixel = np.unique(bins, return_index=True)  # of each ring
    ring, mean, spread, unit = pixel[0], *(a.ravel()[pixel[1]] for a in (mean, spread, white))
    # clipping leaves nothing where hardly a pixel has an electron
    known = (np.bincount(bins[free], minlength=n)[ring] >= _LEAST_RING) & (unit > 0) & (spread > 0)
    if not known.any():
        return everywhere
    middle = np.interp(np.arange(n), ring[known], mean[known])[bins]
    noise = np.interp(np.arange(n), ring[known], spread[known] / unit[known])[bins] * white
    told = (white > 0) & (noise < everywhere[1])  # spots only add to the scatter of all
    return np.where(told, middle, everywhere[0]), np.where(told, noise, everywhere[1])


def poisson_deviations(counts: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How unlikely counts above what is expected are, in standard deviations: the root of the deviance."""
    return np.asarray(np.sqrt(2 * np.maximum(counts * np.log(counts / expected) - counts + expected, 0)))


def _scatter(
    net: np.ndarray, bins: np.ndarray, measured: np.ndarray, shown: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the net values at each distance, spots clipped away.

    ``shown`` are the distances for which they are asked, by default those of the values.
    """
    shown = bins if shown is None else shown
    n = int(shown.max()) + 1
    use = measured.copy()
    for _ in range(_SWEEPS):
        count = np.maximum(np.bincount(bins[use], minlength=n), 1)
        mean = np.bincount(bins[use], net[use], n) / count
        spread = np.sqrt(np.bincount(bins[use], (net[use] - mean[bins[use]]) ** 2, n) / count)
        use = measured & (np.abs(net - mean[bins]) <= _CLIP * spread[bins])
    return mean[shown], spread[shown]


def _centroid(values: np.ndarray, x: float, y: float, reach: float) -> tuple[float, float]:
    """Centre of mass of the positive values within ``reach`` of (x, y), iterated; the start where there is no mass."""
    half = int(np.ceil(reach))
    for _ in range(_SWEEPS):
        cx, cy = round(x), round(y)
        rows = np.arange(max(0, cy - half), min(values.shape[0], cy + half + 1))
        columns = np.arange(max(0, cx - half), min(values.shape[1], cx + half + 1))
        near = np.hypot(columns[None] - x, rows[:, None] - y) <= reach
        weight = np.where(near, np.maximum(values[np.ix_(rows, columns)], 0), 0)
        total = weight.sum()
        if total <= 0:
            break
        x, y = float((weight * columns[None]).sum() / total), float((weight * rows[:, None]).sum() / total)
    return x, y
