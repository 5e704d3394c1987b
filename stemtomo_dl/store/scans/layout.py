"""What all formats share: how a stack of frames folds to a scan, and how a scan is cut into tiles."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from math import isqrt, lcm
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stemtomo_dl.errors import BadScan
from stemtomo_dl.records import Tile

CACHED_BYTES = 8 << 20  # of a tile
_PIECE = 16  # patterns: a part of a row holds a multiple of it, so that most layouts are cut alike


class Fold(NamedTuple):
    """A stack of frames as a scan: of every ``stride`` frames the first ``cols`` are one row, the rest flyback."""

    rows: int
    cols: int
    stride: int
    guessed: bool = False  # nothing said so: the frames just make up a square

    @property
    def flyback(self) -> int:
        """Frames per row that belong to no probe position."""
        return self.stride - self.cols

    def runs(self, tile: Tile) -> Iterator[tuple[int, int]]:
        """Ranges of frames (first, one past the last) that make up a tile, in reading order."""
        if tile.x0 == 0 and tile.x1 == self.stride:
            yield tile.y0 * self.stride, tile.y1 * self.stride
            return
        for y in range(tile.y0, tile.y1):
            yield y * self.stride + tile.x0, y * self.stride + tile.x1


def fold(
    path: Path, frames: int, shape: tuple[int, int] | None, line: int | None = None, *, flyback: bool = False
) -> Fold:
    """Find the rows and columns of a scan that is stored as a stack of frames.

    Parameters
    ----------
    path : Path
        The file, for messages.
    frames : int
        Frames in the file.
    shape : (int, int) or None
        Rows and columns as the user states them.
    line : int or None
        Frames per scan line as the file states them.
    flyback : bool
        Whether the format may hold flyback frames at the end of every line.

    Raises
    ------
    BadScan
        If the frames do not make up such a scan, or nothing says what they make up.
    """
    if shape is None:
        if line is not None and line > 0 and frames % line == 0:
            return Fold(frames // line, line, line)
        side = isqrt(frames)
        if side * side != frames or frames == 0:
            raise BadScan(
                f"{path}: {frames} frames and nothing says how many rows and columns; "
                "set shape = [rows, columns] in [scans]"
            )
        return Fold(side, side, side, guessed=True)
    rows, cols = shape
    if frames == rows * cols:
        return Fold(rows, cols, cols)
    stride, rest = divmod(frames, rows)
    # A user who swaps or mistypes the shape must not be served as one whose lines end in flyback:
    # more than half a line of flyback is taken for a mistake unless the file itself states it.
    if flyback and rest == 0 and stride > cols and (stride == line or stride - cols <= cols // 2):
        return Fold(rows, cols, stride)
    if frames < rows * cols:
        raise BadScan(
            f"{path}: truncated or of another shape: {frames} frames, but shape = [{rows}, {cols}] needs "
            f"{rows * cols}; copy the file again, correct shape, or leave the tilt out"
        )
    raise BadScan(
        f"{path}: {frames} frames do not fold to shape = [{rows}, {cols}] ({rows * cols}); correct shape in [scans]"
    )


def check_shape(path: Path, found: tuple[int, ...], shape: tuple[int, int] | None) -> None:
    """Raise `BadScan` where a file that knows its scan shape (y, x, …) contradicts the user."""
    if shape is not None and tuple(found[:2]) != tuple(shape):
        raise BadScan(
            f"{path}: holds a scan of {found[0]} × {found[1]}, but shape = [{shape[0]}, {shape[1]}]; "
            "remove or correct shape in [scans]"
        )


def check_values(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.dtype[Any]:
    """Type in which a scan's patterns are handed out, in native byte order.

    What compiled loops do not take is widened or narrowed as it is read: bool to u1, float16 to f4, long double to f8.

    Raises
    ------
    BadScan
        If its values are not counts or an axis is empty.
    """
    if dtype.kind not in "uifb":
        raise BadScan(f"{path}: holds values of type {dtype}, not integers or floats; convert the scan")
    if 0 in shape:
        raise BadScan(f"{path}: has an empty axis, shape {shape}; leave the tilt out or record it again")
    if dtype.kind == "b":
        return np.dtype("u1")
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype("f4" if dtype.itemsize < 4 else "f8")
    return dtype.newbyteorder("=")


def file_size(path: Path) -> int:
    """Bytes in a file that must exist and hold something."""
    try:
        size = os.stat(path).st_size
    except OSError as e:
        raise BadScan(f"{path}: cannot be read ({e.strerror}); correct the path or leave the tilt out") from e
    if size == 0:
        raise BadScan(f"{path}: is empty (0 bytes); copy the file again or leave the tilt out")
    return size


def first_line(error: BaseException) -> str:
    """One line of another library's complaint."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def tiles(shape: tuple[int, int, int, int], itemsize: int, budget: int, step: tuple[int, int] = (1, 1)) -> list[Tile]:
    """Cut a scan into tiles of at most ``budget`` bytes, along the boundaries of its chunks.

    Whole scan rows where they fit, else parts of rows. Chunks larger than the budget are cut as well, since a
    bound on memory is worth more than decoding each chunk once. A tile holds at least one pattern, and where chunks
    allow it no more than the processor's caches, so that what has been read need not be fetched from memory again.

    Parameters
    ----------
    shape : (y, x, qy, qx)
    itemsize : int
        Bytes per value.
    budget : int
        Bytes per tile.
    step : (int, int)
        Chunk size along (y, x).
    """
    ny, nx = shape[:2]
    cy, cx = min(step[0], ny), min(step[1], nx)
    each = shape[2] * shape[3] * itemsize
    patterns = max(1, min(budget, max(CACHED_BYTES, cy * cx * each)) // each)
    if cy * nx <= patterns:
        h, w = patterns // nx // cy * cy, nx
    elif cy * cx <= patterns:
        even = lcm(cx, _PIECE)
        h, w = cy, patterns // cy // even * even or patterns // cy // cx * cx
    else:
        w = min(cx, patterns)
        h = min(cy, patterns // w)
    ys, xs = _cuts(ny, cy, h), _cuts(nx, cx, w)
    return [Tile(y0, y1, x0, x1) for y0, y1 in ys for x0, x1 in xs]


def _cuts(n: int, chunk: int, size: int) -> list[tuple[int, int]]:
    """Intervals of ``size`` over 0…n that never straddle a chunk boundary unless they hold whole chunks."""
    block = max(chunk, size)
    return [
        (a, min(a + size, start + block, n))
        for start in range(0, n, block)
        for a in range(start, min(start + block, n), size)
    ]


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key under which scan_2 comes before scan_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]
