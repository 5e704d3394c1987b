"""What is taken while a sample fills up: by bodies, and by the gaps that are kept round their outlines."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.ndimage import distance_transform_edt

from stemtomo_dl.simulate.contact import Placed
from stemtomo_dl.simulate.shape import Footprint, Solid


class Crowd:
    """The bodies that have their places, each found by a ball that holds it."""

    def __init__(self) -> None:
        self._placed: list[Placed] = []
        self._balls = np.empty((64, 4))  # x, y, z and radius, nm; rows beyond the last body are spare

    def add(self, solid: Solid, place: np.ndarray) -> None:
        """Take note of a body and its place (3,) in nm."""
        count = len(self._placed)
        if count == len(self._balls):
            self._balls = np.concatenate([self._balls, np.empty_like(self._balls)])
        self._placed.append(Placed(solid, place, solid.bound()))
        self._balls[count] = [*place, self._placed[-1].bound]

    def beside(self, solid: Solid, place: np.ndarray, direction: np.ndarray | None = None) -> list[Placed]:
        """Bodies that one at a place (3,), or on a line through it, could touch: those whose balls it meets."""
        along = np.zeros(3) if direction is None else direction
        near = _near(self._balls[: len(self._placed)], place, along, solid.bound())
        return [self._placed[i] for i in near]


class Gaps:
    """Where bodies that keep a gap cannot lie, for every gap that is asked for."""

    def __init__(self, gaps_nm: set[float], shape: tuple[int, int], step_nm: float) -> None:
        self._step_nm = step_nm
        self._closed = {gap: np.zeros(shape, bool) for gap in gaps_nm}

    def keep(self, seen: Footprint) -> None:
        """Close what lies within a gap of an outline."""
        if not seen.outline.any():
            return
        for gap, closed in self._closed.items():
            wide = int(min(np.ceil(gap / self._step_nm), max(closed.shape)))
            before = np.minimum(wide, [seen.y0, seen.x0])
            end = np.array([seen.y0, seen.x0]) + seen.outline.shape
            after = np.minimum(wide, closed.shape - end)
            apart = distance_transform_edt(~np.pad(seen.outline, np.column_stack([before, after])))
            (y0, x0), (y1, x1) = [seen.y0, seen.x0] - before, end + after
            closed[y0:y1, x0:x1] |= apart * self._step_nm <= gap

    def free(self, gap_nm: float, seen: Footprint) -> bool:
        """Whether an outline is further than a gap from all others."""
        height, width = seen.outline.shape
        closed = self._closed[gap_nm][seen.y0 : seen.y0 + height, seen.x0 : seen.x0 + width]
        return not (closed & seen.outline).any()


@njit(cache=True, nogil=True)
def _near(balls: np.ndarray, place: np.ndarray, direction: np.ndarray, reach: float) -> np.ndarray:
    """Balls that are met within a reach of a line through a place (3,), or of the place where the direction is 0."""
    found = np.empty(len(balls), np.int64)
    count = 0
    for i in range(len(balls)):
        x, y, z = balls[i, 0] - place[0], balls[i, 1] - place[1], balls[i, 2] - place[2]
        along = x * direction[0] + y * direction[1] + z * direction[2]
        if x * x + y * y + z * z - along * along < (balls[i, 3] + reach) ** 2:
            found[count] = i
            count += 1
    return found[:count]
