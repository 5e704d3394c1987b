"""One pass over the scan of a tilt: every pattern is added to the sums it takes part in, as it is read."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from stemtomo_dl.config import ExtractConfig
from stemtomo_dl.extract.separate import Combination
from stemtomo_dl.records import Scan
from stemtomo_dl.stream import stream

KINDS = 6  # of sums a particle: own, rest, and the parts of its outline
PARTS = KINDS - 2
_GAUGED = 256  # support probes whose scatter tells the noise of the camera


@dataclass(frozen=True)
class Plan:
    """Which probe enters which sum, by how much, and displaced by how much; a sparse matrix by rows of probes."""

    start: np.ndarray  # (probe + 1)
    sums: np.ndarray  # (entry) KINDS · particle + kind
    coefficient: np.ndarray  # (entry) f4
    displaced: np.ndarray  # (entry, 2) whole pixels (column, row) that the pattern is moved back by
    remaining: np.ndarray  # (particle, 2, 2) what is left of the displacement on average, own and rest
    total: np.ndarray  # (particle, 2) Σ|c|, own and rest
    gauged: np.ndarray  # (probe) bool


@dataclass(frozen=True)
class Sums:
    """What the pass leaves, on the grid of the common beam centre.

    ``lost`` is the Σ|c| of probes that had no value at a pixel, ``squares`` Σ c² d; ``gauge`` are the sum and the sum
    of squares of ``n_gauge`` support patterns on the detector's own grid.
    """

    sums: np.ndarray  # (particle, KINDS, qy, qx)
    lost: np.ndarray  # (particle, 2, qy, qx)
    squares: np.ndarray  # (particle, qy, qx)
    gauge: np.ndarray  # (2, qy, qx)
    n_gauge: int


def plan(combinations: list[Combination], beam_px: np.ndarray, center_px: np.ndarray, gauged: np.ndarray) -> Plan:
    """Turn combinations into one sparse matrix over the scan's probes.

    Parameters
    ----------
    combinations : list of Combination
    beam_px : (y, x, 2) array
        Beam position (column, row) at every probe.
    center_px : (2,) array
        Where the beam shall be (column, row).
    gauged : (n) int array
        Probes whose scatter tells the noise of the camera.
    """
    displacement = (beam_px - center_px).reshape(-1, 2)
    probe, sums, coefficient, moved = [], [], [], []
    remaining, total = np.zeros((len(combinations), 2, 2)), np.zeros((len(combinations), 2))
    for k, c in enumerate(combinations):
        for kind, probes, share in ((0, c.own, c.own_coefficient), (1, c.rest, c.rest_coefficient)):
            weight = np.abs(share)
            total[k, kind] = weight.sum()
            whole, remaining[k, kind] = whole_pixels(displacement[probes], weight)
            probe.append(probes)
            sums.append(np.full(len(probes), KINDS * k + kind))
            coefficient.append(share)
            moved.append(whole)
        parts, mine = parts_of(c, beam_px.shape[1])
        probe.append(mine)
        sums.append(KINDS * k + 2 + parts)
        coefficient.append(1 / np.bincount(parts, minlength=PARTS)[parts])
        moved.append(moved[-2][np.searchsorted(c.own, mine)])
    every = np.concatenate([*probe, np.zeros(0, int)]).astype(int)
    order = np.argsort(every, kind="stable")
    return Plan(
        np.searchsorted(every[order], np.arange(len(displacement) + 1)),
        np.concatenate([*sums, np.zeros(0, int)]).astype(int)[order],
        np.concatenate([*coefficient, np.zeros(0)]).astype("f4")[order],
        np.concatenate([*moved, np.zeros((0, 2))]).astype(int)[order],
        remaining,
        total,
        np.isin(np.arange(len(displacement)), gauged),
    )


def whole_pixels(displacement: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole pixels (n, 2) to move patterns by, and what then remains for all of them on average (2,).

    Rounding is about the circular mean of the displacements' fractions, so that what is rounded off is small where
    they hardly differ, as within an outline, and next to nothing is blurred.
    """
    if not weight.sum():
        return np.zeros((0, 2)), np.zeros(2)
    middle = np.angle(weight @ np.exp(2j * np.pi * displacement)) / (2 * np.pi)
    whole = np.round(displacement - middle)
    mean = weight @ (displacement - whole) / weight.sum()
    return whole + np.round(mean), mean - np.round(mean)


def gauge_probes(combinations: list[Combination]) -> np.ndarray:
    """Support probes, evenly chosen, whose scatter tells the noise of the camera."""
    every = np.unique(np.concatenate([np.zeros(0, int), *(c.support for c in combinations)]))
    return np.asarray(every[:: max(1, -(-len(every) // _GAUGED))])


def parts_of(combination: Combination, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An outline's unshared probes, and which of PARTS parts along its longest axis each belongs to."""
    mine = combination.own[combination.alone]
    if len(mine) < 4 * PARTS:
        return np.zeros(0, int), mine[:0]
    y, x = np.divmod(mine, width)
    place = np.stack([x - x.mean(), y - y.mean()], 1)
    along = place @ np.linalg.eigh(place.T @ place)[1][:, 1]
    rank = np.argsort(np.argsort(along, kind="stable"), kind="stable")
    return rank * PARTS // len(mine), mine


def collect(scan: Scan, todo: Plan, particles: int, bad: np.ndarray, config: ExtractConfig) -> Sums:
    """Read the tiles of a scan that hold probes of a plan, once, and add them up.

    Raises
    ------
    BadScan
        If a tile cannot be read.
    """
    qy, qx = scan.shape[2:]
    sums = np.zeros((particles * KINDS, qy, qx), "f4")
    lost, squares = np.zeros((particles * 2, qy, qx), "f4"), np.zeros((particles, qy, qx), "f4")
    gauge = np.zeros((2, qy, qx), "f4")
    used = ((np.diff(todo.start) > 0) | todo.gauged).reshape(scan.shape[:2])
    index = np.arange(used.size).reshape(used.shape)
    for tile, patterns in stream(scan, [t for t in scan.tiles(int(config.block_mb * 2**20)) if used[t.window].any()]):
        add_patterns(
            patterns.reshape(-1, qy, qx),
            index[tile.window].ravel(),
            todo.start,
            todo.sums,
            todo.coefficient,
            todo.displaced,
            todo.gauged,
            bad,
            (sums, lost, squares, gauge),
        )
    return Sums(
        sums.reshape(particles, KINDS, qy, qx),
        lost.reshape(particles, 2, qy, qx),
        squares,
        gauge,
        int(todo.gauged.sum()),
    )


@numba.njit(nogil=True, cache=True)
def add_patterns(
    patterns: np.ndarray,
    probe: np.ndarray,
    start: np.ndarray,
    sum_of: np.ndarray,
    coefficient: np.ndarray,
    displaced: np.ndarray,
    gauged: np.ndarray,
    bad: np.ndarray,
    out: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Add patterns to the sums, squares and gauge, and the weight of what has no value to ``lost``."""
    sums, lost, squares, gauge = out
    rows, cols = patterns.shape[1:]
    clean = np.empty((rows, cols), np.float32)
    gone = np.empty((rows * cols, 2), np.int64)
    for i in range(len(patterns)):
        p = probe[i]
        if start[p] == start[p + 1] and not gauged[p]:
            continue
        n_gone = _clean(patterns[i], bad, clean, gone)
        if gauged[p]:
            gauge[0] += clean
            gauge[1] += clean * clean
        for k in range(start[p], start[p + 1]):
            particle, kind = sum_of[k] // 6, sum_of[k] % 6
            c, dx, dy = coefficient[k], displaced[k, 0], displaced[k, 1]
            y0, y1, x0, x1 = max(0, -dy), min(rows, rows - dy), max(0, -dx), min(cols, cols - dx)
            if kind > 1:
                _add(clean, c, dy, dx, y0, y1, x0, x1, sums[sum_of[k]])
                continue
            _add_both(clean, c, dy, dx, y0, y1, x0, x1, sums[sum_of[k]], squares[particle])
            missing = lost[2 * particle + kind]
            for n in range(n_gone):
                y, x = gone[n, 0] - dy, gone[n, 1] - dx
                if 0 <= y < rows and 0 <= x < cols:
                    missing[y, x] += abs(c)
            if dx or dy:
                _beyond(missing, abs(c), y0, y1, x0, x1)


@numba.njit(nogil=True, cache=True)
def _clean(pattern: np.ndarray, bad: np.ndarray, clean: np.ndarray, gone: np.ndarray) -> int:
    """A pattern as floats, zero where it has no value; the places without are listed, and their number returned."""
    n = 0
    rows, cols = pattern.shape
    for y in range(rows):
        for x in range(cols):
            value = np.float32(pattern[y, x])
            if bad[y, x] or not np.isfinite(value):
                gone[n, 0], gone[n, 1] = y, x
                n += 1
                value = np.float32(0)
            clean[y, x] = value
    return n


@numba.njit(nogil=True, cache=True)
def _add(clean: np.ndarray, c: float, dy: int, dx: int, y0: int, y1: int, x0: int, x1: int, total: np.ndarray) -> None:
    for y in range(y0, y1):
        line, source = total[y, x0:x1], clean[y + dy, x0 + dx : x1 + dx]
        for x in range(x1 - x0):
            line[x] += c * source[x]


@numba.njit(nogil=True, cache=True)
def _add_both(
    clean: np.ndarray,
    c: float,
    dy: int,
    dx: int,
    y0: int,
    y1: int,
    x0: int,
    x1: int,
    total: np.ndarray,
    squares: np.ndarray,
) -> None:
    for y in range(y0, y1):
        line, source, square = total[y, x0:x1], clean[y + dy, x0 + dx : x1 + dx], squares[y, x0:x1]
        for x in range(x1 - x0):
            line[x] += c * source[x]
            square[x] += c * c * source[x]


@numba.njit(nogil=True, cache=True)
def _beyond(missing: np.ndarray, weight: float, y0: int, y1: int, x0: int, x1: int) -> None:
    """Enter the edges that a displaced pattern does not reach."""
    rows, cols = missing.shape
    for y in range(rows):
        for x in range(cols if y < y0 or y >= y1 else x0):
            missing[y, x] += weight
        if y0 <= y < y1:
            for x in range(x1, cols):
                missing[y, x] += weight
