"""Reading a scan while computing on it: the next tiles are read on threads while the last is worked on by others."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice, pairwise
from threading import Event
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from stemtomo_dl.records import Scan, Tile

THREADS = min(4, os.cpu_count() or 1)  # more would wait for the disk or the memory
_SAMPLE_TILES, _SAMPLE_BYTES = 13, 2 << 20  # odd, so that even row lengths in tiles do not repeat the same columns
_GROUPS = 6  # of columns in a sampled tile


def stream(scan: Scan, tiles: Iterable[Tile]) -> Iterator[tuple[Tile, np.ndarray]]:
    """Tiles of a scan in their order, with their patterns (y, x, qy, qx); at most THREADS + 1 are in memory."""
    todo = iter(tiles)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="read") as readers:
        ahead = deque((tile, readers.submit(scan.read, tile)) for tile in islice(todo, THREADS))
        try:
            while ahead:
                tile, pending = ahead.popleft()
                patterns = pending.result()
                ahead.extend((following, readers.submit(scan.read, following)) for following in islice(todo, 1))
                yield tile, patterns
        finally:
            for _, pending in ahead:
                pending.cancel()


def each_tile(scan: Scan, tiles: list[Tile], work: Callable[[int, Tile, np.ndarray], None]) -> None:
    """Read tiles and work on them, on threads that each take every so-manieth: while one reads, others compute.

    Parameters
    ----------
    scan : Scan
    tiles : list of Tile
    work : callable
        Takes the thread's number, a tile and its patterns (y, x, qy, qx).

    Raises
    ------
    BadScan
        If a tile cannot be read.
    """
    failed = Event()

    def run(thread: int) -> None:
        try:
            for tile in tiles[thread :: THREADS + 1]:
                if failed.is_set():
                    return
                work(thread, tile, scan.read(tile))
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(THREADS + 1, thread_name_prefix="tiles") as pool:
        for _ in pool.map(run, range(THREADS + 1)):
            pass  # raises what a thread has raised


@contextmanager
def shared_out(n: int) -> Iterator[Callable[[Callable[[slice], None]], None]]:
    """Threads that share out n things: gives a function that lets each thread work on its part of them."""
    cuts = [n * t // THREADS for t in range(THREADS + 1)]
    parts = [slice(a, b) for a, b in pairwise(cuts) if a < b]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="work") as pool:

        def each_part(work: Callable[[slice], None]) -> None:
            for _ in pool.map(work, parts):
                pass  # raises what a thread has raised

        yield each_part


def is_finite(value: Any) -> bool:
    """Whether a value is a number, in compiled loops; of integers that is known when they are compiled."""
    return bool(np.isfinite(value))


@overload(is_finite, strict=False)
def _compile_is_finite(value: Any) -> Any:
    if isinstance(value, types.Integer):
        return lambda value: True
    return lambda value: np.isfinite(value)


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
    """A few small tiles spread evenly over a scan, with their patterns; the same whatever the layout of its file."""
    (rows, columns), each = scan.shape[:2], scan.dtype.itemsize * scan.shape[2] * scan.shape[3]
    patterns = max(1, _SAMPLE_BYTES // each)
    w, h = min(columns, patterns), max(1, min(patterns // columns, rows // _SAMPLE_TILES))
    tiles = [Tile(y, min(y + h, rows), x, min(x + w, columns)) for y in range(0, rows, h) for x in range(0, columns, w)]
    for i in np.unique(np.linspace(0, len(tiles) - 1, _SAMPLE_TILES).round().astype(int)):
        yield tiles[i], scan.read(tiles[i])
