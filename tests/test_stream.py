"""Reading ahead and sharing out work."""

import threading
from itertools import islice

import numpy as np
import pytest
from memory_scan import MemoryScan

from stemtomo_dl.errors import BadScan
from stemtomo_dl.records import Tile
from stemtomo_dl.stream import THREADS, each_tile, sample_blocks, shared_out, stream


class Watched(MemoryScan):
    """Counts the tiles that have been asked for, and fails at one row."""

    def __init__(self, data: np.ndarray, fails: int = -1) -> None:
        super().__init__(data)
        self.asked, self.fails, self.lock = 0, fails, threading.Lock()

    def read(self, tile: Tile) -> np.ndarray:
        with self.lock:
            self.asked += 1
        if tile.y0 <= self.fails < tile.y1:
            raise BadScan("row cannot be read")
        return super().read(tile)


DATA = np.arange(60 * 2 * 3 * 3).reshape(60, 2, 3, 3)


def test_tiles_come_in_order_and_few_are_read_ahead() -> None:
    scan = Watched(DATA)
    seen = []
    for n, (tile, patterns) in enumerate(stream(scan, scan.tiles(10**6)), 1):
        assert scan.asked <= n + THREADS
        np.testing.assert_array_equal(patterns, DATA[tile.window])
        seen.append(tile)
    assert seen == scan.tiles(10**6)


def test_a_tile_that_fails_ends_the_stream_where_it_stands() -> None:
    scan, rows = Watched(DATA, fails=31), 0
    tiles = stream(scan, scan.tiles(10**6))
    for tile, _ in islice(tiles, 10):
        rows = tile.y1
    assert rows == 30
    with pytest.raises(BadScan, match="row cannot be read"):
        next(tiles)
    assert scan.asked <= 11 + THREADS


@pytest.mark.parametrize("n", [0, 1, 2, 7, 100])
def test_everything_is_shared_out_once(n: int) -> None:
    done = np.zeros(n, int)

    def work(part: slice) -> None:
        done[part] += 1

    with shared_out(n) as each_part:
        each_part(work)
        each_part(work)
    assert (done == 2).all()


def test_what_fails_on_a_thread_is_raised() -> None:
    def work(part: slice) -> None:
        raise BadScan("on a thread")

    with shared_out(3) as each_part, pytest.raises(BadScan, match="on a thread"):
        each_part(work)


def test_a_sample_is_the_same_whatever_the_layout_of_the_file() -> None:
    data = np.random.default_rng(0).poisson(5, (31, 9, 6, 8))

    class Columns(MemoryScan):
        def tiles(self, budget: int) -> list[Tile]:
            return [Tile(0, 31, x, x + 1) for x in range(9)]

    first = list(sample_blocks(MemoryScan(data)))
    for (x, y, pattern), (u, v, other) in zip(first, sample_blocks(Columns(data)), strict=True):
        assert (x, y) == (u, v)
        np.testing.assert_array_equal(pattern, other)
    assert len({y for _, y, _ in first}) == 13  # a small scan too has enough places to see descan bend


def test_threads_take_every_tile_once() -> None:
    scan, seen, lock = MemoryScan(DATA), [], threading.Lock()

    def work(thread: int, tile: Tile, patterns: np.ndarray) -> None:
        np.testing.assert_array_equal(patterns, DATA[tile.window])
        assert 0 <= thread <= THREADS
        with lock:
            seen.append(tile.y0)

    each_tile(scan, scan.tiles(10**6), work)
    assert sorted(seen) == [t.y0 for t in scan.tiles(10**6)]


def test_a_tile_that_cannot_be_read_stops_all_threads() -> None:
    scan = Watched(DATA, fails=3)
    with pytest.raises(BadScan, match="row cannot be read"):
        each_tile(scan, scan.tiles(1), lambda thread, tile, patterns: None)
