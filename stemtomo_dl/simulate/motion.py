"""What moves from tilt to tilt: the stage, the field of view, the beam on the detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import tilt_rotation
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate.scene import Scene


@dataclass(frozen=True, eq=False)
class Motion(Record):
    """The true course of a series, and the angles that the goniometer states."""

    stated_deg: np.ndarray = array("f8", "tilt", "deg")
    alpha_deg: np.ndarray = array("f8", "tilt", "deg")
    drift_px: np.ndarray = array("f8", "tilt 2", "px (x, y)")
    centers_px: np.ndarray = array("f8", "tilt 2", "px (column, row)")


def make_motion(scene: Scene, rng: np.random.Generator) -> Motion:
    """Draw the course of a series.

    The drift is a random walk from zero at the first tilt, plus jumps, plus what a film off the tilt axis shows:
    a height h along z is seen at R(a, α)·(0, 0, h).

    Raises
    ------
    InputError
        If a jump is at a tilt that does not exist.
    """
    stated = np.array(scene.tilts.stated_deg())
    alpha = stated + scene.tilts.sigma_deg * rng.normal(size=len(stated))
    drift = _walk(len(stated), scene.drift.walk_px, rng)
    for i, jump in enumerate(scene.drift.jumps):
        if jump.tilt >= len(stated):
            raise InputError(f"key 'drift.jumps.{i}.tilt': tilt {jump.tilt} of {len(stated)}; they count from 0")
        drift[jump.tilt :] += jump.shift_px
    rotation = tilt_rotation(scene.instrument.tilt_axis_deg, alpha)
    drift += rotation[:, :2, 2] * scene.drift.height_nm / scene.instrument.step_nm
    rows, columns = scene.instrument.detector
    middle = np.array([(columns - 1) / 2, (rows - 1) / 2]) + scene.instrument.beam_offset_px
    centers = middle + _walk(len(stated), scene.drift.beam_walk_px, rng)
    return Motion(stated, alpha, drift, centers)


def _walk(count: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """A random walk (count, 2) that starts at zero."""
    steps = sigma * rng.normal(size=(count, 2))
    return np.cumsum(steps, axis=0) - steps[:1]
