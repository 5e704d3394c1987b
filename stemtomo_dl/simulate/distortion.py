"""What bends pictures: the raster of the probe on the sample, descan and the projector's ellipse on the detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from stemtomo_dl.config import Finite, Model, Positive
from stemtomo_dl.geometry import field_centre
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate.shape import Footprint, Solid, footprint

Pair = tuple[Finite, Finite]
Scale = Annotated[float, Field(ge=0.1, le=10)]
_Shift = Annotated[float, Field(ge=-256, le=256)]  # px; more would move the beam off most detectors
Moved = tuple[_Shift, _Shift]


class Raster(Model):
    """Where the probe really goes. Rows run along x; that is what the lab frame's x means."""

    shear_deg: Annotated[float, Field(gt=-45, lt=45)] = 0.0  # by how much the slow axis leans toward x
    fast_scale: Scale = 1.0  # true over stated step, along a row
    slow_scale: Scale = 1.0  # true over stated distance of rows
    flyback_px: Annotated[float, Field(ge=-1e4, le=1e4)] = (
        0.0  # how far the first probe of a row lies ahead (+x) of its place: the beam comes from there
    )
    flyback_decay_px: Positive = 4.0  # probes after which 1/e of it is left
    row_jitter_px: Annotated[float, Field(ge=0, le=1e3)] = 0.0  # rms shift of whole rows along x


class Descan(Model):
    """How the beam moves on the detector while the probe scans, px (column, row); none at the field's centre."""

    fast_px: Moved = (0.0, 0.0)  # from the first probe of a row to its last
    slow_px: Moved = (0.0, 0.0)  # from the first row to the last
    fast_bow_px: Moved = (0.0, 0.0)  # at both ends of a row against its middle, quadratic in between
    slow_bow_px: Moved = (0.0, 0.0)  # in the first and the last row against the middle one


class Ellipse(Model):
    """The projector's elliptical distortion; it keeps areas, so that the mean camera length is what is stated."""

    ratio: Annotated[float, Field(ge=0.5, le=2)] = 1.0  # of the long axis to the short one that a circle becomes
    azimuth_deg: Finite = 0.0  # of the long axis, from the detector's columns (x) toward its rows (y)

    def matrix(self) -> np.ndarray:
        """The map (2, 2) of vectors (column, row) from the beam; being linear, it is the same about any centre."""
        phi = np.radians(self.azimuth_deg)
        turn = np.array([[np.cos(phi), -np.sin(phi)], [np.sin(phi), np.cos(phi)]])
        return np.asarray(turn @ np.diag([self.ratio**0.5, self.ratio**-0.5]) @ turn.T)


@dataclass(frozen=True, eq=False)
class Probes(Record):
    """Where the probes of one scan are, in px of an ideal scan that drifted by the scan's mean."""

    regular: bool  # whether that is at whole numbers
    x: np.ndarray = array("f8", "y x", "px")
    y: np.ndarray = array("f8", "y", "px")


def regular_probes(shape: tuple[int, int]) -> Probes:
    """Probes (rows, columns) at whole numbers."""
    rows, columns = shape
    return Probes(True, np.tile(np.arange(columns, dtype=float), (rows, 1)), np.arange(rows, dtype=float))


def probe_places(raster: Raster, row_px: np.ndarray, columns: int, rng: np.random.Generator) -> Probes:
    """The places of one scan's probes.

    Parameters
    ----------
    row_px : (row, 2) array
        Drift of every row off the scan's mean (x, y): what the sample does, the probe does the other way.
    columns : int
        Probes per row.
    rng : Generator
        The scan's own, for the jitter of its rows.
    """
    rows = len(row_px)
    middle = field_centre((rows, columns))
    x, y = np.arange(columns) - middle[0], np.arange(rows) - middle[1]
    flyback = raster.flyback_px * np.exp(-np.arange(columns) / raster.flyback_decay_px)
    jitter = raster.row_jitter_px * rng.normal(size=rows)
    lean = raster.slow_scale * np.tan(np.radians(raster.shear_deg)) * y
    true_x = raster.fast_scale * x + flyback + (lean + jitter - row_px[:, 0])[:, None]
    true_y = raster.slow_scale * y - row_px[:, 1]
    regular = bool(np.allclose(true_x, x, atol=1e-9) and np.allclose(true_y, y, atol=1e-9))
    return Probes(regular, true_x + middle[0], true_y + middle[1])


def seen_footprint(solid: Solid, at_px: np.ndarray, step_nm: float, probes: Probes, samples: int) -> Footprint:
    """What a solid, turned into the lab frame, covers of a scan with its probes where they really are.

    Parameters are those of `shape.footprint`; a row's thicknesses are exact at the probes' places.
    """
    shape = probes.x.shape
    if probes.regular:
        return footprint(solid, at_px, step_nm, (shape[0], shape[1]), samples)
    low, high = solid.reach() / step_nm
    rows = _span((probes.y > at_px[1] - low[1] - 1) & (probes.y < at_px[1] + high[1] + 1))
    near = (probes.x[rows] > at_px[0] - low[0] - 1) & (probes.x[rows] < at_px[0] + high[0] + 1)
    columns = _span(near.any(0))
    x, y = (probes.x[rows, columns] - at_px[0]) * step_nm, (probes.y[rows] - at_px[1]) * step_nm
    offsets = ((np.arange(samples) + 0.5) / samples - 0.5) * step_nm
    outline, thickness = row_chords(solid, x, y) > 0, np.zeros(x.shape)
    for k in range(len(y)):
        fine = solid.thickness((x[k][:, None] + offsets).ravel(), y[k] + offsets)
        thickness[k] = fine.reshape(samples, -1, samples).mean((0, 2))
    return Footprint(rows.start, columns.start, thickness, outline)


def row_chords(solid: Solid, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Length of a solid's chords along z at x (row, column) of the rows y (row,), nm: (row, column), nm."""
    if len(y) and (x == x[0]).all():
        return solid.thickness(x[0], y)
    out = np.zeros(x.shape)
    for k in range(len(y)):
        out[k] = solid.thickness(x[k], y[k : k + 1])[0]
    return out


def beam_shifts(descan: Descan, shape: tuple[int, int]) -> np.ndarray:
    """How far the beam is off its place on the detector at every probe, (y, x, 2) px (column, row)."""
    v, u = (np.linspace(-0.5, 0.5, n) if n > 1 else np.zeros(1) for n in shape)
    along = np.outer(u, descan.fast_px) + np.outer(4 * u**2, descan.fast_bow_px)
    across = np.outer(v, descan.slow_px) + np.outer(4 * v**2, descan.slow_bow_px)
    return np.asarray(across[:, None] + along[None])


def _span(wanted: np.ndarray) -> slice:
    """From the first to the last that is wanted; empty where none is."""
    found = np.flatnonzero(wanted)
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)
