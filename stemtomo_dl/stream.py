"""Reading a scan while computing on it: the next tile is read on a thread while the last is worked on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from stemtomo_dl.records import Scan, Tile


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


def sample(scan: Scan, n_tiles: int, budget: int) -> np.ndarray:
    """Patterns (n, qy, qx) of a few small tiles spread evenly over a scan."""
    tiles = scan.tiles(budget)
    chosen = np.unique(np.linspace(0, len(tiles) - 1, n_tiles).round().astype(int))
    parts = (scan.read(tiles[i]) for i in chosen)
    return np.concatenate([p.reshape(-1, *scan.shape[2:]) for p in parts])
