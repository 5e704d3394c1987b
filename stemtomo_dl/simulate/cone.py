"""The illumination cone, cut into cells of equal area.

Ring r of R has 3(2r + 1) cells, so that all 3R² have one area; cell 3r² + j is the j-th of ring r, counted from x
toward y. The cells are fixed to the detector.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def _cells(rings: int) -> tuple[np.ndarray, np.ndarray]:
    """Ring and sector of every cell."""
    ring = np.repeat(np.arange(rings), 3 * (2 * np.arange(rings) + 1))
    return ring, np.arange(3 * rings**2) - 3 * ring**2


def middles(rings: int) -> np.ndarray:
    """The middle of every cell of the unit disk, (cell, 2) x, y."""
    ring, sector = _cells(rings)
    angle = 2 * np.pi * (sector + 0.5) / (3 * (2 * ring + 1))
    radius = np.sqrt((ring**2 + (ring + 1) ** 2) / 2) / rings
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def points(rings: int, radius: float, per_area: float) -> np.ndarray:
    """Places (cell, point, 2) x, y that fill every cell of a disk evenly, at least so many per unit area."""
    ring, sector = (v[:, None] for v in _cells(rings))
    side = int(np.ceil(np.sqrt(per_area * np.pi * radius**2 / len(ring))))
    part = (np.arange(side) + 0.5) / side
    rho = radius * np.sqrt(ring**2 + part * (2 * ring + 1)) / rings
    angle = 2 * np.pi * (sector + part) / (3 * (2 * ring + 1))
    x, y = rho[:, :, None] * np.cos(angle)[:, None], rho[:, :, None] * np.sin(angle)[:, None]
    return np.stack([x, y], -1).reshape(len(ring), side * side, 2)


@njit(cache=True, nogil=True)
def cell_of(rho: float, turn: float, rings: int) -> int:
    """Cell that holds a place of the unit disk, at radius rho and a share ``turn`` of a full turn."""
    ring = min(int(rho * rings), rings - 1)
    sectors = 3 * (2 * ring + 1)
    return 3 * ring * ring + min(int(turn * sectors), sectors - 1)


@njit(cache=True, nogil=True)
def cell_at(x: float, y: float, rings: int) -> int:
    """Cell that holds a place of the unit disk, at x and y."""
    turn = np.arctan2(y, x) / (2 * np.pi)
    return cell_of(np.sqrt(x * x + y * y), turn + 1 if turn < 0 else turn, rings)
