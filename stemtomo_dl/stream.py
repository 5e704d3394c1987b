"""Reading a scan while computing on it: the next tile is read on a thread while the last is worked on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from stemtomo_dl.records import Scan, Tile

_SAMPLE_TILES, _SAMPLE_BYTES = 13, 2 << 20  # odd, so that even row lengths in tiles do not repeat the same columns
_GROUPS = 6  # of columns in a sampled tile


def stream(scan: Scan, tiles: Iterable[Tile]) -> Iterator[tuple[Tile, np.ndarray]]:
    """Tiles of a scan with their patterns (y, x, qy, qx); at most two tiles are in memory."""
    todo = iter(tiles)
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        tile = next(todo, None)
        pending = reader.submit(scan.read, tile) if tile else None
        while tile and pending:
            patterns = pending.result()
            following = next(todo, None)
            pending = reader.submit(scan.read, following) if following else None
            yield tile, patterns
            tile = following


def sample_blocks(scan: Scan) -> Iterator[tuple[float, float, np.ndarray]]:
    """Mean patterns of small groups of probes spread evenly over a scan.

    Yields
    ------
    x, y : float
        Mean probe position (column, row) of the group.
    pattern : (qy, qx) f8 array
        NaN where a pixel has no finite value.
    """
    for tile, patterns in _sample(scan):
        columns = np.arange(tile.x0, tile.x1)
        for part in np.array_split(np.arange(len(columns)), min(_GROUPS, len(columns))):
            yield float(columns[part].mean()), (tile.y0 + tile.y1 - 1) / 2, finite_mean(patterns[:, part])


def sample(scan: Scan) -> np.ndarray:
    """Patterns (n, qy, qx) of the same probes."""
    return np.concatenate([patterns.reshape(-1, *scan.shape[2:]) for _, patterns in _sample(scan)])


def finite_mean(patterns: np.ndarray) -> np.ndarray:
    """Mean (qy, qx) over all other axes of what is finite; NaN where nothing is."""
    flat = patterns.reshape(-1, *patterns.shape[-2:])
    if flat.dtype.kind != "f":
        return np.asarray(flat.mean(0, dtype="f8"))
    known = np.isfinite(flat)
    total, n = np.where(known, flat, 0).sum(0, dtype="f8"), known.sum(0)
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


def _sample(scan: Scan) -> Iterator[tuple[Tile, np.ndarray]]:
    """A few small tiles spread evenly over a scan, with their patterns."""
    tiles = scan.tiles(_SAMPLE_BYTES)
    for i in np.unique(np.linspace(0, len(tiles) - 1, _SAMPLE_TILES).round().astype(int)):
        yield tiles[i], scan.read(tiles[i])
