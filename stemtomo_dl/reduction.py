"""One diffraction series, from anywhere, to a crystal and its reflections.

`find_lattices` and `measure` are what the stages `index` and `integrate` do for a particle, on whatever process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stemtomo_dl.crystal.cells import is_cell
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.index import index
from stemtomo_dl.crystal.integrate import integrate
from stemtomo_dl.crystal.joint import camera_line, refine_jointly, with_camera_length
from stemtomo_dl.crystal.nouns import Crystal, Reflections, Spots
from stemtomo_dl.crystal.search import LONGEST_A
from stemtomo_dl.crystal.spots import find_spots
from stemtomo_dl.crystal.steady import RATE, steady_angles
from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import wavelength
from stemtomo_dl.records import DiffractionSeries, Instrument, Record, array
from stemtomo_dl.store.cif_pets import write_cif_pets
from stemtomo_dl.store.frames import read_frames
from stemtomo_dl.store.reflections import write_crystals, write_hkl, write_ins
from stemtomo_dl.store.results import read_series

REDUCTION = 3  # steps of `reduce`
_SHELL = 50  # reflections, in which I/σ is averaged
_LEAST_I_OVER_SIGMA = 2.0  # of the outermost shell that counts
_MANY_SPOTS = 60  # with which a lattice is found, as a rule


@dataclass(frozen=True, eq=False)
class SeriesSpots(Record):
    """What of a series its lattice is found in: spots, and which tilt each frame is."""

    instrument: Instrument
    spots: Spots
    tilt: np.ndarray = array("i4", "frame")
    alpha_deg: np.ndarray = array("f8", "frame", "deg")


class Indexed(NamedTuple):
    """Spots of a series and the lattices they lie on, the one with most spots first; none where that is not told."""

    seen: SeriesSpots
    crystals: list[Crystal]


class Extent(NamedTuple):
    """How far a crystal's reflections reach."""

    d_min: float  # Å: of the outermost shell in which I/σ is 2
    completeness: float  # of the reflections to there, Friedel mates being one


def open_any(path: Path, tilts: Path | None, stated: Mapping[str, Any]) -> DiffractionSeries:
    """A series.h5 or a folder of frames, with what is stated beside it.

    Raises
    ------
    InputError
        If it cannot be read, or lacks a fact.
    """
    if path.is_dir():
        return in_scan_frame(read_frames(path, tilts, stated), 0.0)
    if tilts is not None:
        raise InputError(f"--tilts {tilts}: {path} holds its own angles; give --tilts with a folder of frames only")
    return in_scan_frame(read_series(path, stated), 0.0)


def find_lattices(path: Path, rotation_deg: float = 0.0) -> Indexed:
    """Spots and lattices of a series.h5.

    Parameters
    ----------
    path : Path
    rotation_deg : float
        From scan axes to detector axes; a series alone knows its detector only, and 0 then stands for a sample frame
        whose x is along the detector's rows.

    Raises
    ------
    InputError
        If the series cannot be read.
    """
    return lattices_of(in_scan_frame(read_series(path), rotation_deg))


def lattices_of(series: DiffractionSeries, cell: np.ndarray | None = None) -> Indexed:
    """Spots and lattices of a series; with ``cell`` (6,), Å and degrees, only lattices that have it."""
    spots = find_spots(series)
    seen = SeriesSpots(series.instrument, spots, series.tilt, steady_angles(series.alpha_deg, spots))
    return Indexed(seen, index(spots, series.instrument, seen.alpha_deg, cell=cell))


def in_scan_frame(series: DiffractionSeries, rotation_deg: float) -> DiffractionSeries:
    """A series whose tilt axis, stated on the detector, is that of the scan: orientations are the sample's then."""
    stated = series.instrument
    axis = stated.tilt_axis_deg - rotation_deg
    return replace(series, instrument=replace(stated, tilt_axis_deg=axis, rotation_deg=rotation_deg))


def measure(path: Path, spots: Spots, geometry: Geometry, crystals: Sequence[Crystal]) -> Reflections:
    """Intensities of the first of the crystals in a series.h5, less what the others' reflections lie upon.

    Parameters
    ----------
    path : Path
    spots : Spots
        Of the series.
    geometry : Geometry
        Of the frames of the series, in the frame of the crystals.
    crystals : sequence of Crystal

    Raises
    ------
    InputError
        If the series cannot be read.
    """
    series = in_scan_frame(read_series(path), geometry.instrument.rotation_deg)
    return integrate(series, spots, geometry, crystals[0], crystals[1:])


def reduce(
    series: DiffractionSeries,
    where: Path,
    folder: Path,
    elements: Sequence[str] = (),
    cell: Sequence[float] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Crystal, str]:
    """Index and integrate a series; crystal.json, NAME.hkl, .ins and .cif_pets are written to a folder.

    Parameters
    ----------
    series : DiffractionSeries
        Its sample frame has x along the detector's rows.
    where : Path
        What it was read from, for messages.
    folder : Path
    elements : sequence of str
        For SFAC.
    cell : six numbers or None
        A known cell, Å and degrees: only a lattice that has it is taken.
    advance : callable
        Called after each of `REDUCTION` steps: lattice, geometry, intensities.

    Returns
    -------
    Crystal, str
        The lattice with most spots, and what is told of the camera length, in words.

    Raises
    ------
    InputError
        If the spots do not tell a lattice, no cell can have these values, or an axis is too long to be searched.
    """
    given = "" if cell is None else f"--cell {','.join(f'{v:g}' for v in cell)}"
    if cell is not None and not is_cell(np.asarray(cell, "f8")):
        raise InputError(f"{given}: no cell has these values; give Å and degrees")
    if cell is not None and max(cell[:3]) > LONGEST_A:
        raise InputError(f"{given}: axes are searched up to {LONGEST_A:g} Å; give a cell with shorter ones")
    seen, crystals = lattices_of(series, None if cell is None else np.asarray(cell, "f8"))
    if not crystals:
        which = "a lattice of this cell" if cell is not None else "a lattice"
        raise InputError(
            f"{where}: {not_enough(seen.spots, which)}; use more tilts, or check pixel_inv_angstrom and tilt_axis_deg"
        )
    advance()
    stated = Geometry(seen.instrument, seen.alpha_deg)
    rate = 0.0 if np.array_equal(seen.alpha_deg, series.alpha_deg) else RATE
    spots = [seen.spots]
    geometry, (first,) = with_camera_length(spots, *refine_jointly(spots, crystals[:1], stated, rate=rate), rate=rate)
    others = [c.rescaled(geometry.scale) for c in crystals[1:]]
    advance()
    reflections = integrate(series, seen.spots, geometry, first, others)
    advance()
    name = folder.resolve().name
    write_crystals(folder / "crystal.json", [first, *others])
    write_hkl(folder / f"{name}.hkl", reflections)
    voltage = seen.instrument.voltage_kv
    write_ins(folder / f"{name}.ins", name, first, wavelength(voltage), elements)
    if reflections.frames is not None:
        write_cif_pets(folder / f"{name}.cif_pets", first, reflections.frames, voltage, seen.spots.radius_px)
    return first, camera_line(geometry.scale, geometry.curvature_scale, geometry.curvature_esd)


def not_enough(spots: Spots, which: str = "a lattice") -> str:
    """Why there is no lattice, in words."""
    if len(spots) < _MANY_SPOTS:
        return f"its {len(spots)} spots are not enough to tell {which}"
    return f"its {len(spots)} spots do not tell {which}; axes are searched up to {LONGEST_A:g} Å"


def extent(reflections: Reflections, crystal: Crystal) -> Extent:
    """How far reflections reach and how many of those up to there they are; NaN where there are none.

    The reflections that a sphere holds are counted as its volume over that of the primitive reciprocal cell.
    """
    inverse_d = np.linalg.norm(reflections.hkl @ crystal.ub.T, axis=1)
    order = np.argsort(inverse_d)
    shells = np.array_split(order, max(len(order) // _SHELL, 1))
    strength = [np.mean(reflections.intensity[s] / reflections.sigma[s]) if len(s) else 0.0 for s in shells]
    strong = np.flatnonzero(np.array(strength) >= _LEAST_I_OVER_SIGMA)
    if not len(strong):
        return Extent(np.nan, np.nan)
    reach = float(inverse_d[shells[strong[-1]]].max())
    hkl = reflections.hkl[inverse_d <= reach]
    n = len(np.unique(np.concatenate([hkl, -hkl]), axis=0))
    points = {"P": 1, "R": 3, "F": 4}.get(crystal.lattice[1], 2)
    possible = 4 / 3 * np.pi * reach**3 / (abs(np.linalg.det(crystal.ub)) * points)
    return Extent(1 / reach, float(min(1.0, n / possible)))
