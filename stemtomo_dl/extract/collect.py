"""One pass over the scan of a tilt: every pattern is added to the sums it takes part in, as it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from stemtomo_dl.config import ExtractConfig
from stemtomo_dl.extract.adding import KINDS, add_gauge, add_patterns
from stemtomo_dl.extract.separate import Combination
from stemtomo_dl.records import Scan, Tile
from stemtomo_dl.stream import shared_out, stream

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

    The detector's rows are shared out between threads, so that every pixel is added up in the scan's order however
    many there are.

    Raises
    ------
    BadScan
        If a tile cannot be read.
    """
    rows, cols = scan.shape[2:]
    good = (~bad).astype(_strip_type(scan.dtype))
    sums = np.zeros((particles * KINDS, rows, cols), "f4")
    lost, squares = _lost(todo, particles, bad), np.zeros((particles, rows, cols), "f4")
    gauge = np.zeros((2, rows, cols))  # squares of a camera's offset would leave no digits for the scatter about it
    used = ((np.diff(todo.start) > 0) | todo.gauged).reshape(scan.shape[:2])
    index = np.arange(used.size).reshape(used.shape)
    tiles = [_around(t, used) for t in scan.tiles(int(config.block_mb * 2**20)) if used[t.window].any()]
    with shared_out(rows) as each_part:
        for tile, patterns in stream(scan, tiles):
            flat, probe = np.ascontiguousarray(patterns).reshape(-1, rows, cols), index[tile.window].ravel()
            work = _work(todo, probe)

            def add(part: slice, flat: np.ndarray = flat, probe: np.ndarray = probe, work: _Work = work) -> None:
                add_patterns(flat, *work, good, part.start, part.stop, sums, squares, lost)
                add_gauge(flat, np.flatnonzero(todo.gauged[probe]), good, part.start, part.stop, gauge)

            each_part(add)
    shape = (rows, cols)
    return Sums(
        sums.reshape(particles, KINDS, *shape), lost.reshape(particles, 2, *shape), squares, gauge, todo.gauged.sum()
    )


def _around(tile: Tile, used: np.ndarray) -> Tile:
    """The part of a tile that holds all of its probes in use (y, x), so that no more is read."""
    y, x = np.nonzero(used[tile.window])
    return Tile(tile.y0 + y.min(), tile.y0 + y.max() + 1, tile.x0 + x.min(), tile.x0 + x.max() + 1)


def _strip_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type in which patterns are moved: their own where it is no wider than a float."""
    return dtype if dtype.kind == "u" and dtype.itemsize < 4 else np.dtype("f4")


class _Work(NamedTuple):
    """What to do with the patterns of a tile: which of them to move where, and what to add of each to which sum."""

    pattern: np.ndarray  # (moved) number in the tile
    displaced: np.ndarray  # (moved, 2) whole pixels (column, row)
    moved: np.ndarray  # (entry) which of the above
    sum_of: np.ndarray  # (entry), rising
    coefficient: np.ndarray  # (entry)


def _work(todo: Plan, probe: np.ndarray) -> _Work:
    """The entries of some probes, sum by sum and in each in the probes' order."""
    n = todo.start[probe + 1] - todo.start[probe]
    pattern = np.repeat(np.arange(len(probe)), n)
    entry = np.arange(n.sum()) + np.repeat(todo.start[probe] - (np.cumsum(n) - n), n)
    order = np.argsort(todo.sums[entry], kind="stable")
    entry, pattern = entry[order], pattern[order]
    by = todo.displaced[entry]
    key = _numbered(pattern, by)
    _, first, moved = np.unique(key, return_index=True, return_inverse=True)
    return _Work(pattern[first], by[first], moved.ravel(), todo.sums[entry], todo.coefficient[entry])


def _numbered(first: np.ndarray, by: np.ndarray) -> np.ndarray:
    """One number for each (first, column, row), in their order, of displacements ``by`` (n, 2): sorted far sooner."""
    least, span = by.min(0, initial=0), np.ptp(by, 0) + 1 if len(by) else np.ones(2, int)
    return np.asarray((first * span[0] + by[:, 0] - least[0]) * span[1] + by[:, 1] - least[1])


def _lost(todo: Plan, particles: int, bad: np.ndarray) -> np.ndarray:
    """Σ|c| (2 · particle, qy, qx) of what a bad pixel or the detector's edge has taken from own and rest."""
    rows, cols = bad.shape
    lost = np.zeros((particles * 2, rows, cols), "f4")
    kind = todo.sums % KINDS
    own = kind < 2
    goal, by = (2 * (todo.sums // KINDS) + kind)[own], todo.displaced.clip((-cols, -rows), (cols, rows))[own]
    _, first, which = np.unique(_numbered(goal, by), return_index=True, return_inverse=True)
    apart = np.column_stack([goal, by])[first]
    weight = np.bincount(which.ravel(), np.abs(todo.coefficient[own]), len(apart))
    dx, dy = np.abs(apart[:, 1:]).max(0, initial=0)
    gone = np.pad(bad, ((dy, dy), (dx, dx)), constant_values=True).astype("f4")
    for (k, x, y), w in zip(apart, weight.astype("f4"), strict=True):
        lost[k] += w * gone[dy + y : dy + y + rows, dx + x : dx + x + cols]
    return lost
