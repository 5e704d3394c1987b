"""Uneven angles for programs that know only a start and a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_TOLERANCE = 0.1  # of a typical step: how far from its true angle a frame may be said to be
_FINEST = 5  # steps a typical step may be cut into; half of one is the tolerance
_LONE_DEG = 1.0  # the wedge of a frame whose neighbours say nothing


def typical_step(alpha_deg: np.ndarray) -> float:
    """Median step of rising angles, degrees; repeated angles are no step."""
    steps = np.diff(alpha_deg)
    steps = steps[steps > 1e-6]
    return float(np.median(steps)) if len(steps) else _LONE_DEG


@dataclass(frozen=True, eq=False)
class Grid:
    """Even steps that a series is laid on: ``frame`` (slot,) says which frame a slot shows, −1 none."""

    first_deg: float
    step_deg: float
    frame: np.ndarray

    @property
    def angle_deg(self) -> np.ndarray:
        """Angles (slot,) of the middles of the slots."""
        return self.first_deg + self.step_deg * np.arange(len(self.frame))

    def gaps(self, shown: bool = False) -> list[tuple[int, int]]:
        """First and last slot, from 1, of every run of slots without a frame, or with one."""
        edges = np.diff(np.concatenate([[False], (self.frame >= 0) == shown, [False]]).astype(int))
        return list(zip((np.flatnonzero(edges == 1) + 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def grid(alpha_deg: np.ndarray) -> Grid:
    """The coarsest even steps on which every frame of rising angles (frame,) lies near its true angle.

    A typical step is cut into up to five, which brings all within a tenth of it. Of frames taken at one angle the
    first is shown.
    """
    typical = typical_step(alpha_deg)
    lone = np.append(True, np.diff(alpha_deg) > typical * _TOLERANCE)
    angles, which = alpha_deg[lone], np.flatnonzero(lone)
    for parts in range(1, _FINEST + 1):
        slot = np.rint((angles - angles[0]) / (typical / parts)).astype(int)
        first, step = _line(slot, angles, typical / parts)
        off = np.abs(angles - first - step * slot).max()
        if off <= _TOLERANCE * typical and (np.diff(slot) > 0).all():
            break
    kept = np.unique(slot, return_index=True)[1]
    frame = np.full(slot[-1] + 1, -1)
    frame[slot[kept]] = which[kept]
    return Grid(first, step, frame)


def sweeps(alpha_deg: np.ndarray) -> list[Grid]:
    """Grids of one step that between them show every frame of rising angles (frame,), the first as `grid` gives it.

    Frames whose slot another one has come in further grids, of two slots at the least, since programs take a single
    image for a still.
    """
    out = [grid(alpha_deg)]
    first, step = out[0].first_deg, out[0].step_deg
    left = np.setdiff1d(np.arange(len(alpha_deg)), out[0].frame)
    while len(left):
        slot, kept = np.unique(np.rint((alpha_deg[left] - first) / step).astype(int), return_index=True)
        frame = np.full(max(slot[-1] - slot[0] + 1, 2), -1)
        frame[slot - slot[0]] = left[kept]
        out.append(Grid(first + step * float(slot[0]), step, frame))
        left = np.delete(left, kept)
    return out


def _line(slot: np.ndarray, angles: np.ndarray, step: float) -> tuple[float, float]:
    """First angle and step; fitted where that brings the farthest frame nearer than the step that was aimed at."""
    given = (float(angles[0]), step)
    if len(angles) < 3:
        return given
    slope, start = np.polyfit(slot, angles, 1)
    fits = [given, (float(start), float(slope))]
    return min(fits, key=lambda f: float(np.abs(angles - f[0] - f[1] * slot).max()))
