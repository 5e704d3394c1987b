"""A scan held in memory, for tests of the stages alone."""

import numpy as np

from stemtomo_dl.records import Tile


class MemoryScan:
    """Scan protocol over an array (y, x, qy, qx); tiles are a few rows, ragged at the end."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.name, self.shape, self.dtype = data, "memory", data.shape, data.dtype

    def tiles(self, budget: int) -> list[Tile]:
        ny, nx = self.shape[:2]
        step = max(1, min(3, budget // self.data[0].nbytes))
        return [Tile(y, min(y + step, ny), 0, nx) for y in range(0, ny, step)]

    def read(self, tile: Tile) -> np.ndarray:
        return self.data[tile.window]
