"""The direct beam: where it is on the detector, and how it wanders over a scan (descan)."""

from __future__ import annotations

from collections.abc import Iterable

import numba
import numpy as np

from stemtomo_dl.surfaces import quadratic, robust_fit

_TAIL_PX, _MOST_CUT = 1.0, 0.1  # of the beam's disk: what lies about it, and the share that may be missing
_STILL_PX = 0.02
_LOST_PX, _FINE_PX, _GROUND_PX = 3.0, 0.25, 2.0


def coarse_centre(pattern: np.ndarray, good: np.ndarray, disk_px: float) -> np.ndarray:
    """Centre (column, row) of the direct beam in a mean pattern, to about 0.1 px; NaN where there is none.

    The brightest box, not counting the box's own brightest pixel, so that a single hot pixel which escaped the
    bad-pixel search cannot pass for the beam; then the centroid, iterated.
    """
    image = np.nan_to_num(np.where(good, pattern, 0).astype(float))
    size = 2 * int(np.ceil(disk_px)) + 3
    box = _boxes(image, size)
    row, col = np.unravel_index(box.argmax(), box.shape)
    window = tuple(slice(max(0, c - size // 2), c + size // 2 + 1) for c in (row, col))
    inside = image[window] - image[window].min()
    y, x = np.indices(inside.shape)
    start = [(inside * x).sum() + window[1].start * inside.sum(), (inside * y).sum() + window[0].start * inside.sum()]
    centre = np.array([start]) / max(inside.sum(), 1e-30)
    refine_centres(image[None], good.astype("f4"), centre, window_radius(disk_px), 8)
    return centre[0]


@numba.njit(nogil=True, cache=True)
def _boxes(image: np.ndarray, size: int) -> np.ndarray:
    """Sum less maximum of the box of ``size`` (odd) pixels a side about each pixel, cut off at the edges."""
    rows, cols = image.shape
    reach = size // 2
    total, top = np.zeros((rows, cols)), np.zeros((rows, cols))
    for y in range(rows):  # along rows, one shift after another, so that the inner loops are plain
        for d in range(-reach, reach + 1):
            left, right = max(0, -d), max(min(cols, cols - d), 0)
            source, sums, tops = image[y, left + d : right + d], total[y, left:right], top[y, left:right]
            for x in range(right - left):
                sums[x] += source[x]
                tops[x] = source[x] if source[x] > tops[x] else tops[x]
    out = np.empty((rows, cols))
    high = np.empty(cols)
    for y in range(rows):
        out[y], high[:] = 0, 0
        for v in range(max(0, y - reach), min(rows, y + reach + 1)):
            for x in range(cols):
                out[y, x] += total[v, x]
                high[x] = top[v, x] if top[v, x] > high[x] else high[x]
        out[y] -= high
    return out


def window_radius(disk_px: float) -> float:
    """Radius of the window in which the beam's centroid is taken, detector pixels."""
    return 2.0 * disk_px + 1.5


@numba.njit(nogil=True, cache=True)
def refine_centres(patterns: np.ndarray, good: np.ndarray, centres: np.ndarray, radius: float, rounds: int) -> None:
    """Iterated centroids of the direct beam; ``centres`` (n, 2) hold the start and receive the result, NaN where
    nothing stands out of the background.

    The window follows the beam, and what stands on its rim is subtracted as background.
    """
    n, rows, cols = patterns.shape
    reach = radius + 1.5
    for i in range(n):
        for _ in range(rounds):
            cx, cy = centres[i, 0], centres[i, 1]
            inside = inside_n = sx = sy = lx = ly = rim = rim_n = 0.0
            for y in range(max(0, int(cy - reach)), min(rows, int(cy + reach) + 2)):
                for x in range(max(0, int(cx - reach)), min(cols, int(cx + reach) + 2)):
                    d2 = (x - cx) ** 2 + (y - cy) ** 2
                    if good[y, x] == 0 or d2 > reach * reach:
                        continue
                    v = float(patterns[i, y, x])
                    if not np.isfinite(v):
                        continue
                    if d2 <= radius * radius:
                        inside, inside_n = inside + v, inside_n + 1
                        sx, sy = sx + v * (x - cx), sy + v * (y - cy)
                        lx, ly = lx + (x - cx), ly + (y - cy)
                    else:
                        rim, rim_n = rim + v, rim_n + 1
            background = rim / rim_n if rim_n else 0.0
            signal = inside - background * inside_n
            if signal <= 0:
                centres[i, 0] = centres[i, 1] = np.nan
                break
            dx, dy = (sx - background * lx) / signal, (sy - background * ly) / signal
            centres[i, 0], centres[i, 1] = cx + dx, cy + dy
            if dx * dx + dy * dy < _STILL_PX**2:
                break


def cut_by_gap(good: np.ndarray, centre: np.ndarray, disk_px: float) -> bool:
    """Whether pixels that do not count take a part of the direct beam, so that its centroid is not where it is."""
    y, x = np.indices(good.shape)
    beam = np.hypot(x - centre[0], y - centre[1]) <= disk_px + _TAIL_PX
    return bool((beam & ~good).sum() > _MOST_CUT * beam.sum())


def disk_centre(pattern: np.ndarray, good: np.ndarray, near: np.ndarray, disk_px: float, reach_px: float) -> np.ndarray:
    """Centre (column, row) of the disk that describes the known pixels about the beam best, on an even ground.

    Least squares in units of the counting noise over centres a quarter of a pixel apart, then a paraboloid through
    the least and its neighbours. What is missing has no say, unlike in a centroid.

    Parameters
    ----------
    pattern : (qy, qx) array
    good : (qy, qx) bool array
    near : (2,) array
        Where the beam is, to ``reach_px`` (column, row).
    disk_px, reach_px : float
    """
    row, column = np.nonzero(good & np.isfinite(pattern))
    close = np.hypot(column - near[0], row - near[1]) <= disk_px + reach_px + _GROUND_PX
    x, y = column[close], row[close]
    counts = pattern[y, x].astype(float)
    weight = 1 / np.sqrt(np.maximum(counts, max(counts.mean(), 1e-12) / 10))
    steps = np.arange(-reach_px, reach_px + _FINE_PX / 2, _FINE_PX)
    cost = np.empty((len(steps), len(steps)))
    for (i, j), _ in np.ndenumerate(cost):
        disk = np.clip(disk_px + 0.5 - np.hypot(x - near[0] - steps[j], y - near[1] - steps[i]), 0, 1)
        design = np.stack([np.ones_like(disk), disk], 1) * weight[:, None]
        level, height = np.linalg.lstsq(design, counts * weight, rcond=None)[0]
        cost[i, j] = np.sum((weight * (counts - level - max(height, 0) * disk)) ** 2)
    i, j = np.clip(np.unravel_index(cost.argmin(), cost.shape), 1, len(steps) - 2)
    dy, dx = np.indices((3, 3)).reshape(2, -1) - 1
    _, bx, by, cxx, cxy, cyy = np.linalg.lstsq(
        quadratic(dx, dy), cost[i - 1 : i + 2, j - 1 : j + 2].ravel(), rcond=None
    )[0]
    off = np.linalg.lstsq(np.array([[2 * cxx, cxy], [cxy, 2 * cyy]]), -np.array([bx, by]), rcond=1e-3)[0]
    return np.asarray(near + [steps[j], steps[i]] + _FINE_PX * np.clip(off, -1, 1))


def descan_past_gaps(
    blocks: Iterable[tuple[float, float, np.ndarray]], good: np.ndarray, near: np.ndarray, disk_px: float
) -> np.ndarray:
    """Descan (2, 6), as `fit_descan` gives it, by the disks in mean patterns of small groups of probes.

    Parameters
    ----------
    blocks : iterable of (x, y, pattern)
        As `seed_centres` takes them.
    good : (qy, qx) bool array
    near : (2,) array
        Where the beam is, to `_LOST_PX` (column, row).
    disk_px : float
    """
    blocks = list(blocks)
    middle = disk_centre(np.mean([p for _, _, p in blocks], 0), good, near, disk_px, _LOST_PX)
    found = np.array([disk_centre(p, good, middle, disk_px, _LOST_PX / 2) for _, _, p in blocks])
    return fit_descan(np.array([(x, y) for x, y, _ in blocks]), found)


def seed_centres(
    blocks: Iterable[tuple[float, float, np.ndarray]], good: np.ndarray, disk_px: float
) -> tuple[np.ndarray, float]:
    """Descan from mean patterns of small groups of probes: where to look for the beam in each pattern.

    Parameters
    ----------
    blocks : iterable of (x, y, pattern)
        Mean probe position (column, row) and mean pattern (qy, qx) of each group.

    Returns
    -------
    descan : (2, 6) array
        As `fit_descan`'s.
    scatter_px : float
        Median distance of the groups' beams from it; NaN where none has a beam.
    """
    found = [(x, y, *coarse_centre(pattern, good, disk_px)) for x, y, pattern in blocks]
    x, y, column, row = np.array(found).T
    design = quadratic(x, y)
    n_x, n_y = len(np.unique(x)), len(np.unique(y))
    # A slope needs two groups along its side, a bend more; else the fit would extrapolate what it cannot know.
    design[:, np.array([False, n_x < 2, n_y < 2, *[min(n_x, n_y) < 4] * 3])] = 0
    places = np.stack([column, row], 1)
    descan = robust_fit(design, places)
    off = np.hypot(*(places - design @ descan.T).T)
    return descan, float(np.median(off[np.isfinite(off)])) if np.isfinite(off).any() else np.nan


def measured_disk_px(blocks: Iterable[tuple[float, float, np.ndarray]], descan: np.ndarray, good: np.ndarray) -> float:
    """Radius of the direct beam's disk: where its radial profile has fallen to half of its inner level.

    Parameters
    ----------
    blocks : iterable of (x, y, pattern)
        As `seed_centres` takes them.
    descan : (2, 6) array
        Where the beam is in each.
    good : (qy, qx) bool array
    """
    counts, pixels = np.zeros(4 * max(good.shape)), np.zeros(4 * max(good.shape))
    for x, y, pattern in blocks:
        _add_rings(pattern, good, *(quadratic(np.array(x), np.array(y)) @ descan.T), counts, pixels)
    known = np.flatnonzero(pixels)
    profile = counts[known] / pixels[known]
    inner = profile[known <= max(2, known[0])].mean()
    below = np.flatnonzero(profile < inner / 2)
    return float(known[below[0]]) / 2 if len(below) else 0.0


@numba.njit(nogil=True, cache=True)
def _add_rings(
    pattern: np.ndarray, good: np.ndarray, cx: float, cy: float, counts: np.ndarray, pixels: np.ndarray
) -> None:
    """Add a pattern's good pixels, and their number, by the distance from (cx, cy) in half pixels."""
    for y in range(pattern.shape[0]):
        for x in range(pattern.shape[1]):
            ring = int(2 * np.sqrt((x - cx) ** 2 + (y - cy) ** 2) + 0.5)
            if good[y, x] and ring < len(counts):
                counts[ring] += pattern[y, x] if np.isfinite(pattern[y, x]) else 0.0
                pixels[ring] += 1


def fit_descan(probe_xy: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Quadratic surfaces through the beam positions of a scan, robust to probes on thick crystals.

    Parameters
    ----------
    probe_xy : (n, 2) array
        Probe positions (column, row), px.
    centres : (n, 2) array
        Beam centres (column, row) on the detector, px; NaN where none was found.

    Returns
    -------
    (2, 6) array
        Coefficients of 1, x, y, x², xy, y² for the beam's column and row.
    """
    return robust_fit(quadratic(*np.transpose(probe_xy)), centres)


def beam_positions(coef: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Beam position (column, row) at every probe of a scan, (y, x, 2), from `fit_descan`'s coefficients."""
    y, x = np.indices(shape)
    return np.asarray(quadratic(x, y) @ coef.T)
