"""What moves from tilt to tilt and within a scan: the stage, the field of view, the beam on the detector."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from stemtomo_dl.config import Model
from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import tilt_rotation
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate.population import Nanometre
from stemtomo_dl.simulate.streams import Stream, generator

if TYPE_CHECKING:
    from stemtomo_dl.simulate.scene import Scene

Index = Annotated[int, Field(ge=0)]
Angle = Annotated[float, Field(ge=-180, le=180)]  # deg
Error = Annotated[float, Field(ge=0, le=10)]  # deg
Pixels = Annotated[float, Field(ge=-1e4, le=1e4)]
Wandering = Annotated[float, Field(ge=0, le=1e3)]  # px
Shift = tuple[Pixels, Pixels]
_MOST_TILTS = 10000


class _Quantity(IntEnum):
    """What of a motion is drawn: each has random numbers of its own, in the order of the tilts."""

    UNEVEN = 0
    ANGLE = 1
    WALK = 2
    SLIDE = 3
    BEAM = 4
    MISSING = 5


class Tilts(Model):
    """Stated angles, the order in which they are taken, and how far the goniometer misses them.

    The true angle is angle_scale · stated + angle_offset_deg, less the play of the drive, plus noise. The goniometer
    is right in the direction in which the series begins; when it turns round, the stage stands still until the play
    ``backlash_deg`` is taken up, and lags behind by that much as long as it goes the other way.
    """

    start: Angle | None = None
    stop: Angle | None = None
    step: Annotated[float, Field(gt=0, le=360)] | None = None
    angles: Annotated[list[Angle], Field(max_length=_MOST_TILTS)] = []
    sigma_deg: Error = 0.0  # rms of what each angle misses by itself
    angle_offset_deg: Angle = 0.0
    angle_scale: Annotated[float, Field(ge=0.5, le=2)] = 1.0
    backlash_deg: Error = 0.0
    uneven_deg: Error = 0.0  # rms departure from even steps, which the goniometer states (to 0.01°)
    order: Literal["given", "up", "down", "dose-symmetric"] = "given"  # dose-symmetric: 0, +, −, … from the flattest
    missing: list[Index] | Annotated[float, Field(ge=0, lt=1)] = []  # scans by their turn, from 0, or a share of them

    @model_validator(mode="after")
    def _one_way(self) -> Tilts:
        given = [v is not None for v in (self.start, self.stop, self.step)]
        if any(given) == bool(self.angles) or (any(given) and not all(given)):
            raise ValueError("give start, stop and step, or angles")
        if self.start is not None and self.stop is not None and self.step is not None:
            count = abs(self.stop - self.start) / self.step
            if count > _MOST_TILTS:
                raise ValueError(f"step = {self.step:g} makes {count:.2g} tilts, more than {_MOST_TILTS}; enlarge it")
        return self

    def stated_deg(self) -> list[float]:
        """The even angles in their order, both ends included where the step allows it; none is missing yet."""
        if self.start is None or self.stop is None or self.step is None:
            angles = list(self.angles)
        else:
            count = int(abs(self.stop - self.start) / self.step + 1e-6) + 1
            sign = 1.0 if self.stop >= self.start else -1.0
            angles = [round(self.start + sign * self.step * i, 6) for i in range(count)]
        match self.order:
            case "up":
                return sorted(angles)
            case "down":
                return sorted(angles, reverse=True)
            case "dose-symmetric":
                return sorted(angles, key=lambda a: (abs(a), -a))
        return angles

    def true_deg(self, stated: np.ndarray) -> np.ndarray:
        """Where the stage stands without noise, (tilt,), at stated angles (tilt,) in the order of their time."""
        driven = self.angle_scale * stated + self.angle_offset_deg
        steps = np.diff(driven)
        moved = steps[steps != 0]
        if not len(moved):
            return np.asarray(driven)
        way, lag = np.sign(moved[0]), np.zeros(len(driven))
        for i, step in enumerate(way * steps):
            lag[i + 1] = np.clip(lag[i] - step, 0, self.backlash_deg)
        return np.asarray(driven + way * lag)


class Jump(Model):
    """A sudden shift of the field of view that stays from this scan on, or from a row of it."""

    tilt: Index  # scans by their turn, from 0
    shift_px: Shift
    row: Index = 0


class Drift(Model):
    """How the field of view and the beam wander from tilt to tilt, and the field within a scan."""

    walk_px: Wandering = 0.0
    jumps: list[Jump] = []
    height_nm: Nanometre = 0.0  # how far the film lies off the tilt axis, along z at α = 0
    lateral_nm: Nanometre = 0.0  # how far the field's centre lies off the tilt axis, across it (x turned toward y)
    beam_walk_px: Wandering = 0.0
    steady_px: Shift = (0.0, 0.0)  # from the first row of a scan to its last, the same in every scan (x, y)
    scan_px: Wandering = 0.0  # rms of what comes on top of it, drawn anew for every scan


@dataclass(frozen=True, eq=False)
class Motion(Record):
    """The true course of a series, and the angles that the goniometer states.

    ``drift_px`` is the mean over a scan; ``row_px`` is how far each row lies off that mean. ``turn`` counts the scans
    that are missing too.
    """

    turn: np.ndarray = array("i8", "tilt")
    stated_deg: np.ndarray = array("f8", "tilt", "deg")
    alpha_deg: np.ndarray = array("f8", "tilt", "deg")
    drift_px: np.ndarray = array("f8", "tilt 2", "px (x, y)")
    row_px: np.ndarray = array("f8", "tilt row 2", "px (x, y)")
    centers_px: np.ndarray = array("f8", "tilt 2", "px (column, row)")


def make_motion(scene: Scene) -> Motion:
    """Draw the course of a series.

    The drift is a random walk from zero at the first tilt, plus jumps, plus what a field off the tilt axis shows:
    a film at the height h and the lateral distance d, r = (0, 0, h) + d·n with n across the axis, is seen at
    R(a, α)·r − d·n. Drift and stage go on through tilts that are missing. One more tilt at the end leaves those
    before it as they are.

    Raises
    ------
    InputError
        If a jump, a row of it or a missing tilt does not exist, or no tilt is left.
    """
    microscope = scene.instrument
    rng = {quantity: generator(scene.seed, Stream.MOTION, quantity) for quantity in _Quantity}
    even = np.array(scene.tilts.stated_deg())
    stated = even + scene.tilts.uneven_deg * rng[_Quantity.UNEVEN].normal(size=len(even))
    stated = np.round(stated, 2) if scene.tilts.uneven_deg else stated
    alpha = scene.tilts.true_deg(stated) + scene.tilts.sigma_deg * rng[_Quantity.ANGLE].normal(size=len(stated))
    drift = _walk(len(stated), scene.drift.walk_px, rng[_Quantity.WALK])
    drift = drift[:, None] + _within(scene, len(stated), rng[_Quantity.SLIDE])
    rotation, axis = tilt_rotation(microscope.tilt_axis_deg, alpha), np.radians(microscope.tilt_axis_deg)
    across = scene.drift.lateral_nm * np.array([-np.sin(axis), np.cos(axis), 0])
    seen = (rotation @ (across + [0, 0, scene.drift.height_nm]) - across)[:, :2]
    drift += seen[:, None] / microscope.step_nm
    rows, columns = microscope.detector
    middle = np.array([(columns - 1) / 2, (rows - 1) / 2]) + microscope.beam_offset_px
    centers = middle + _walk(len(stated), scene.drift.beam_walk_px, rng[_Quantity.BEAM])
    kept = _kept(scene.tilts, len(stated), rng[_Quantity.MISSING])
    mean = drift.mean(1)
    return Motion(kept, stated[kept], alpha[kept], mean[kept], (drift - mean[:, None])[kept], centers[kept])


def accumulated_dose(scene: Scene, tilts: int) -> np.ndarray:
    """What the sample has taken by the middle of every scan, e/Å² across the beam: (tilt,).

    Every probe has the area of its true raster step to itself; shear leaves that area as it is. Scans come in the
    order in which they were taken; a missing tilt was not exposed.
    """
    m = scene.instrument
    each = m.electrons / ((10 * m.step_nm) ** 2 * m.raster.fast_scale * m.raster.slow_scale)
    return np.asarray((np.arange(tilts) + 0.5) * each)


def _within(scene: Scene, tilts: int, rng: np.random.Generator) -> np.ndarray:
    """Drift of every row, (tilt, row, 2): jumps, and a slide from the first row to the last about its middle."""
    drift, rows = scene.drift, scene.instrument.scan[0]
    slide = np.array(drift.steady_px) + drift.scan_px * rng.normal(size=(tilts, 2))
    out = slide[:, None] * np.linspace(-0.5, 0.5, rows)[:, None] if rows > 1 else np.zeros((tilts, 1, 2))
    for i, jump in enumerate(drift.jumps):
        if jump.tilt >= tilts:
            raise InputError(f"key 'drift.jumps.{i}.tilt': tilt {jump.tilt} of {tilts}; they count from 0")
        if jump.row >= rows:
            raise InputError(f"key 'drift.jumps.{i}.row': row {jump.row} of {rows}; they count from 0")
        out[jump.tilt, jump.row :] += jump.shift_px
        out[jump.tilt + 1 :] += jump.shift_px
    return out


def _kept(tilts: Tilts, count: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of the tilts that are not missing."""
    if isinstance(tilts.missing, float):
        return _some(np.sort(np.argsort(rng.uniform(size=count))[round(tilts.missing * count) :]))
    beyond = [i for i in tilts.missing if i >= count]
    if beyond:
        raise InputError(f"key 'tilts.missing': tilt {beyond[0]} of {count}; they count from 0")
    return _some(np.setdiff1d(np.arange(count), tilts.missing))


def _some(kept: np.ndarray) -> np.ndarray:
    if not len(kept):
        raise InputError("key 'tilts.missing': no tilt is left; name fewer")
    return kept


def _walk(count: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """A random walk (count, 2) that starts at zero."""
    steps = sigma * rng.normal(size=(count, 2))
    return np.cumsum(steps, axis=0) - steps[:1]
