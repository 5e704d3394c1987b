"""Counts, pixel by pixel: what is expected is rendered and every pixel drawn. The same law as in `simulate.counts`.

Rendering happens on a canvas with a margin round the detector, from which the camera's point spread reaches in.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from stemtomo_dl.simulate import cone
from stemtomo_dl.simulate.counts import Mixture, Row, Stack, meet, room, scatter
from stemtomo_dl.simulate.detector import Sensor, blurred, read_out
from stemtomo_dl.simulate.diffuse import FINE, fine_template

EVENT_NS = 70.0  # what an electron costs, measured
PIXEL_NS, SPREAD_PIXEL_NS = 40.0, 180.0  # what a pixel costs where expected patterns are rendered, measured
DIRECT_POINTS, BRAGG_POINTS = 200.0, 30.0  # per px², that fill a rendered disk: to 0.4 and 1 % of its height
SPREAD_POINTS = 40.0, 6.0  # the same where the point spread's core smooths them
_SMOOTH = 0.3  # px, sigma from which on it does
_REACH = 4.0  # sigmas after which a point spread ends
_STEPS = 64  # of the table of the spread's integral, per px
_NOTHING = 1e-7  # electrons that are not worth a disk


class Canvas(NamedTuple):
    """What the patterns of one tilt are rendered with; everything but the places of disks."""

    pad: int  # px round the detector
    margin: int  # px round the canvas, from which descan moves templates in
    templates: np.ndarray  # (material, row, column) share of diffuse electrons, without descan
    within: np.ndarray  # (material, fine row, fine column) the same summed from the corner; empty without descan
    direct: np.ndarray  # (cell, point, 2) px: places that fill every cell of the direct beam's disk
    bragg: np.ndarray  # (cell, point, 2) px: of any other disk
    rise: np.ndarray  # integral of the point spread's core across an edge, from −reach to reach; empty without
    tail: np.ndarray  # (2·n + 1,) weights of what the tail adds to the core


def dense_is_cheaper(electrons: float, detector: tuple[int, int], sensor: Sensor) -> bool:
    """Whether rendering a pattern costs less than drawing its electrons."""
    each = SPREAD_PIXEL_NS if sensor.core > 0 or sensor.tail_share > 0 else PIXEL_NS
    return electrons * EVENT_NS > detector[0] * detector[1] * each


def make_canvas(mix: Mixture, sensor: Sensor, detector: tuple[int, int], shifts: np.ndarray) -> Canvas:
    """Prepare the rendering of a tilt.

    Parameters
    ----------
    detector : (int, int)
        Rows and columns.
    shifts : (…, 2) array
        Descan at every probe, px.
    """
    widest = max(sensor.core, sensor.tail if sensor.tail_share > 0 else 0)
    pad, margin = int(np.ceil(_REACH * widest)), int(np.ceil(np.abs(shifts).max(initial=0)))
    shape = (detector[0] + 2 * (pad + margin), detector[1] + 2 * (pad + margin))
    fine = [fine_template(table, mix.center + pad + margin, shape, mix.ellipse) for table in mix.radii]
    if sensor.core > 0:
        fine = [gaussian_filter(f, sensor.core * FINE, mode="nearest") for f in fine]
    coarse = np.stack([f.reshape(shape[0], FINE, shape[1], FINE).sum((1, 3)) for f in fine])
    inner = slice(margin, shape[0] - margin), slice(margin, shape[1] - margin)
    within = np.stack([np.pad(f.cumsum(0).cumsum(1), ((1, 0), (1, 0))) for f in fine]) if margin else coarse[:, :0]
    per_area = SPREAD_POINTS if sensor.core >= _SMOOTH else (DIRECT_POINTS, BRAGG_POINTS)
    direct, bragg = (cone.points(mix.rings, mix.disk_px, n) @ mix.ellipse.T for n in per_area)
    rise = np.zeros(0)
    if sensor.core > 0:
        reach = int(np.ceil(_REACH * sensor.core))
        rise = ndtr(np.arange(-reach * _STEPS, reach * _STEPS + 1) / (_STEPS * sensor.core))
    return Canvas(pad, margin, np.ascontiguousarray(coarse[:, *inner]), within, direct, bragg, rise, _tail(sensor))


def _tail(sensor: Sensor) -> np.ndarray:
    """Weights of the Gaussian that makes the tail of a picture that the core has blurred already."""
    sigma = np.sqrt(max(sensor.tail**2 - sensor.core**2, 1e-4))
    reach = int(np.ceil(_REACH * sigma)) if sensor.tail_share > 0 else 0
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum())


@njit(cache=True, nogil=True)
def draw_patterns(
    rng: np.random.Generator,
    electrons: float,
    mix: Mixture,
    row: Row,
    sensor: Sensor,
    canvas: Canvas,
    out: np.ndarray,
) -> None:
    """Fill one scan row of patterns by rendering what is expected and drawing every pixel; as `draw_electrons`.

    Where an electron may be scattered several times, it is drawn by itself: all ways through a stack are too many.
    """
    stack, pad = room(len(row.thickness)), canvas.pad
    rows, columns = out.shape[1], out.shape[2]
    pattern = np.zeros((rows, columns), np.uint32)
    for x in range(len(out)):
        pattern[:] = 0
        met = meet(row.thickness[:, x], mix, stack)
        if mix.sequential and met > 1:
            scatter(rng, electrons, mix, stack, met, row.film[x], row.shift[x], sensor, pattern)
        else:
            mean = expected(electrons, mix, stack, met, row.film[x], row.shift[x], canvas)
            if sensor.tail_share > 0:
                mean = (1 - sensor.tail_share) * mean + sensor.tail_share * blurred(mean, canvas.tail)
            for i in range(rows):
                for j in range(columns):
                    a, b = sensor.row_at[i], sensor.column_at[j]
                    if a >= 0 and b >= 0:
                        pattern[a, b] += rng.poisson(mean[i + pad, j + pad])
        read_out(rng, pattern, sensor, out[x])


@njit(cache=True, nogil=True)
def expected(
    electrons: float, mix: Mixture, stack: Stack, met: int, film: float, shift: np.ndarray, canvas: Canvas
) -> np.ndarray:
    """Mean pattern on the canvas (row, column) behind what a probe meets, spread by the core alone."""
    cells = len(canvas.direct)
    templates = canvas.templates if len(canvas.within[0]) == 0 else _moved(shift, canvas)
    image, moved = electrons * film * templates[0], shift + canvas.pad
    diffuse = np.zeros(met)
    for c in range(cells):
        left = electrons * (1 - film) / cells
        for k in range(met):
            p = stack.particle[k]
            diffuse[k] += left * stack.diffuse[k]
            left *= 1 - stack.diffuse[k]
            count, taken = mix.first[p + 1] - mix.first[p], 0.0
            lower = mix.table[p] + (stack.below[k] * cells + c) * count
            upper = lower + cells * count
            for r in range(count):
                total = (1 - stack.above[k]) * mix.shares[lower + r] + stack.above[k] * mix.shares[upper + r]
                at = mix.place[mix.first[p] + r] + moved
                _disk(image, at, canvas.bragg[c], mix.disk_px, cells, left * (total - taken), canvas.rise)
                taken = total
            left *= 1 - taken
        _disk(image, mix.center + moved, canvas.direct[c], mix.disk_px, cells, left, canvas.rise)
    for k in range(met):
        image += diffuse[k] * templates[mix.material[stack.particle[k]]]
    return image


@njit(cache=True, nogil=True)
def _moved(shift: np.ndarray, canvas: Canvas) -> np.ndarray:
    """All templates moved by descan, exactly up to the size of their fine parts."""
    out = np.empty_like(canvas.templates)
    rows, columns = out.shape[1], out.shape[2]
    top, left = FINE * (canvas.margin - shift[1]), FINE * (canvas.margin - shift[0])
    i0, j0 = int(np.floor(top)), int(np.floor(left))
    v, u = top - i0, left - j0
    corner = np.empty((rows + 1, columns + 1))
    for m in range(len(out)):
        within = canvas.within[m]
        last = np.array([within.shape[0] - 1, within.shape[1] - 1])
        for i in range(rows + 1):
            a = i0 + FINE * i
            b = min(a + 1, last[0])
            for j in range(columns + 1):
                c = j0 + FINE * j
                d = min(c + 1, last[1])
                corner[i, j] = (1 - v) * ((1 - u) * within[a, c] + u * within[a, d]) + v * (
                    (1 - u) * within[b, c] + u * within[b, d]
                )
        for i in range(rows):
            for j in range(columns):
                out[m, i, j] = corner[i + 1, j + 1] - corner[i, j + 1] - corner[i + 1, j] + corner[i, j]
    return out


@njit(cache=True, nogil=True)
def _disk(
    image: np.ndarray,
    center: np.ndarray,
    points: np.ndarray,
    disk_px: float,
    cells: int,
    amount: float,
    rise: np.ndarray,
) -> None:
    """Add an amount, evenly over a cell of a disk."""
    if amount < _NOTHING:
        return
    if len(rise) > 0:
        for n in range(len(points)):
            _spot(image, center[0] + points[n, 0], center[1] + points[n, 1], amount / len(points), rise)
        return
    side = np.sqrt(np.pi * disk_px * disk_px / (cells * len(points)))  # every point is a square of its area
    for n in range(len(points)):
        x, y = center[0] + points[n, 0] + 0.5, center[1] + points[n, 1] + 0.5
        j, i = int(np.floor(x + side / 2)), int(np.floor(y + side / 2))
        # the share of the square that lies beyond the pixel border it may straddle
        right, down = min(1.0, (x + side / 2 - j) / side), min(1.0, (y + side / 2 - i) / side)
        for a in range(2):
            for b in range(2):
                weight = (down if a == 0 else 1 - down) * (right if b == 0 else 1 - right)
                if weight > 0 and 0 <= i - a < image.shape[0] and 0 <= j - b < image.shape[1]:
                    image[i - a, j - b] += amount / len(points) * weight


@njit(cache=True, nogil=True)
def _spot(image: np.ndarray, x: float, y: float, amount: float, rise: np.ndarray) -> None:
    """Add the point spread's core at a place."""
    reach = len(rise) // (2 * _STEPS)
    for i in range(max(0, int(np.floor(y + 0.5)) - reach), min(image.shape[0], int(np.floor(y + 0.5)) + reach + 1)):
        down = amount * (_risen(i + 0.5 - y, rise) - _risen(i - 0.5 - y, rise))
        for j in range(max(0, int(np.floor(x + 0.5)) - reach), min(image.shape[1], int(np.floor(x + 0.5)) + reach + 1)):
            image[i, j] += down * (_risen(j + 0.5 - x, rise) - _risen(j - 0.5 - x, rise))


@njit(cache=True, nogil=True)
def _risen(t: float, rise: np.ndarray) -> float:
    """Share of the core that lies before an edge at a distance t in px."""
    at = t * _STEPS + len(rise) // 2
    n = min(max(int(np.floor(at)), 0), len(rise) - 2)
    return float(rise[n] + min(max(at - n, 0.0), 1.0) * (rise[n + 1] - rise[n]))
