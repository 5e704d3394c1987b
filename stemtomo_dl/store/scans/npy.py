"""NumPy files: a 4-D array (y, x, qy, qx), or a 3-D stack of frames with the scan's shape given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.errors import BadScan
from stemtomo_dl.records import Tile
from stemtomo_dl.store.scans import layout


@dataclass
class NpyScan:
    """A scan in a .npy file; tiles are views of the mapped file where its byte order is the machine's."""

    name: str
    path: Path
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    offset: int
    order: str
    guessed: bool = False  # the scan's rows and columns

    def tiles(self, budget: int) -> list[Tile]:
        """Tiles of whole rows, or parts of rows, of at most ``budget`` bytes."""
        return layout.tiles(self.shape, self.dtype.itemsize, budget)

    def read(self, tile: Tile) -> np.ndarray:
        """Patterns of a tile, (y, x, qy, qx), read-only.

        Raises
        ------
        BadScan
            If the file is gone or shorter than its header says.
        """
        # Mapped anew for every tile: the pages are let go with the tile, and a scan has nothing to pickle.
        # The size is checked first because touching a page beyond the end kills the process.
        _check_size(self.path, self.offset, self.shape, self.stored)
        order: Any = self.order
        try:
            data = np.memmap(self.path, self.stored, "r", self.offset, self.shape, order)
        except (OSError, ValueError) as e:
            raise BadScan(f"{self.path}: cannot be read ({layout.first_line(e)}); leave the tilt out") from e
        return np.ascontiguousarray(data[tile.window], self.dtype)


def open_npy(path: Path, shape: tuple[int, int] | None) -> NpyScan:
    """Open a .npy file by its header alone.

    Raises
    ------
    BadScan
        If the file is not a whole .npy file of 4 axes (or 3, with ``shape``).
    """
    layout.file_size(path)
    try:
        with open(path, "rb") as f:
            version = np.lib.format.read_magic(f)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            found, fortran, stored = read(f)
            offset = f.tell()
    except (OSError, ValueError) as e:
        raise BadScan(f"{path}: not a NumPy file ({layout.first_line(e)}); save it again or leave the tilt out") from e
    guessed = False
    if len(found) == 3 and not fortran:
        fold = layout.fold(path, found[0], shape)
        found, guessed = (fold.rows, fold.cols, *found[1:]), fold.guessed
    if len(found) != 4:
        raise BadScan(f"{path}: has {len(found)} axes {found}; a scan has 4 (y, x, qy, qx): reshape it")
    layout.check_shape(path, found, shape)
    dtype = layout.check_values(path, stored, found)
    _check_size(path, offset, found, stored)
    return NpyScan(path.name, path, found, dtype, stored, offset, "F" if fortran else "C", guessed)


def _check_size(path: Path, offset: int, shape: tuple[int, ...], stored: np.dtype[Any]) -> None:
    want, size = offset + int(np.prod(shape, dtype=np.int64)) * stored.itemsize, layout.file_size(path)
    if size < want:
        raise BadScan(f"{path}: truncated: {size} bytes of {want}; copy the file again or leave the tilt out")
