"""The support: an amorphous film with holes, wrinkles and dirt, and a needle for what sticks to its rim.

All features are functions of the place in the sample frame, so they tilt and drift with the particles. The film's
middle lies at z = 0 or its wrinkles' height; particles lie on its upper face, which the beam meets first at α = 0,
and dirt lies on that face too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from stemtomo_dl.config import Model, Positive
from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import field_centre
from stemtomo_dl.simulate import diffuse
from stemtomo_dl.simulate.distortion import Probes, regular_probes, row_chords
from stemtomo_dl.simulate.film_map import FilmMap
from stemtomo_dl.simulate.population import Degrees, Nanometre, Spread
from stemtomo_dl.simulate.shape import Solid, enclosed
from stemtomo_dl.simulate.streams import Stream, generator

if TYPE_CHECKING:
    from stemtomo_dl.simulate.scene import Microscope

_WAVES = 48  # plane waves of a wrinkled film
_NEWTON_STEPS = 12  # for the place where a beam meets a wrinkled film
_STEEPEST = 20.0  # a steep part of a film is at most this many times as thick as from above
_MOST_TILTED = 87.0  # deg; further on it is seen edge-on, over 20 times as long as the field is wide
_NEEDLE = 20.0  # field diagonals that a needle is long, at least
_IN_CELL = 16.0  # features of one kind, on average, in a cell of the film
_WIDEST = 3.0  # σ of a diameter, at most
_MOST = 20000  # holes, and as many patches of dirt
_SIDES = 24  # faces round a needle


Thickness = Annotated[float, Field(ge=0, le=1000)]  # nm


class Holes(Model):
    """Round holes: a square array where ``period_nm`` is given, scattered with ``per_um2`` otherwise."""

    diameter_nm: Positive
    diameter_sigma: Spread = 0.0  # of scattered holes
    period_nm: Positive | None = None
    per_um2: Positive | None = None

    @model_validator(mode="after")
    def _one_layout(self) -> Holes:
        if (self.period_nm is None) == (self.per_um2 is None):
            raise ValueError("give period_nm or per_um2")
        if self.period_nm is not None and self.diameter_nm >= self.period_nm:
            raise ValueError("diameter_nm must be less than period_nm")
        return self


class Wrinkles(Model):
    """A smooth Gaussian random height; its slope has the rms √2 · height/length and must stay gentle."""

    height_nm: Positive  # rms
    length_nm: Positive  # the correlation falls to 1/e at this distance

    @model_validator(mode="after")
    def _gentle(self) -> Wrinkles:
        if self.height_nm > 0.35 * self.length_nm:
            raise ValueError("height_nm above 0.35 length_nm folds the film over itself at common tilts")
        return self


class Contamination(Model):
    """Round patches of dirt on the film, thickest in their middle, scattering as the film does."""

    per_um2: Positive
    diameter_nm: Positive
    diameter_sigma: Spread = 0.0
    thickness_nm: Thickness  # in the middle of a patch; it falls as (1 − r²)²


class Needle(Model):
    """A blunt cone that lies in the film's plane and reaches into the field, opaque where it is thick."""

    tip_nm: tuple[Nanometre, Nanometre] = (0.0, 0.0)  # where it ends, x and y in the sample frame
    azimuth_deg: Degrees = 0.0  # the way in which it points, from x toward y
    radius_nm: Annotated[float, Field(ge=0.1, le=1e5)] = 20.0  # at the tip
    half_angle_deg: Annotated[float, Field(ge=0, le=60)] = 8.0
    mean_free_path_nm: Positive = 60.0  # of what it is made of


class Film(Model):
    """The amorphous support; it scatters once, diffusely."""

    thickness_nm: Thickness = 0.0
    element: str = "C"
    mean_free_path_nm: Positive | None = None  # None: by the density that is usual for the element
    holes: Holes | None = None
    wrinkles: Wrinkles | None = None
    contamination: Contamination | None = None
    needle: Needle | None = None


class Seen(NamedTuple):
    """A rectangle of a film's plane about the origin, as half lengths in nm along the tilt axis and across it."""

    along: float
    across: float
    axis_deg: float


def seen_part(film: Film, microscope: Microscope, alpha_deg: np.ndarray, drift_px: np.ndarray) -> Seen:
    """The part of a film's plane that comes into view in a series.

    A tilted field shows 1/cos α as much of the film across the axis; where beams meet a wrinkled film is off that
    by its height times tan α.

    Parameters
    ----------
    alpha_deg : (tilt,) array
        True angles.
    drift_px : (tilt, row, 2) array
        Drift of every scan row.

    Raises
    ------
    InputError
        If the film would be seen edge-on.
    """
    m, steepest = microscope, float(np.abs(np.cos(np.radians(alpha_deg))).min())
    if (film.thickness_nm > 0 or film.contamination is not None) and steepest < np.cos(np.radians(_MOST_TILTED)):
        worst = alpha_deg[np.abs(np.cos(np.radians(alpha_deg))).argmin()]
        raise InputError(
            f"key 'tilts': at {worst:.4g}° the film is seen edge-on; stay {90 - _MOST_TILTED:g}° away from 90°, "
            "or leave out what film.thickness_nm and film.contamination add"
        )
    wide, high = (m.raster.fast_scale * m.scan[1], m.raster.slow_scale * m.scan[0])
    wide += (
        abs(np.tan(np.radians(m.raster.shear_deg))) * high + 2 * abs(m.raster.flyback_px) + 8 * m.raster.row_jitter_px
    )
    diagonal = float(np.hypot(wide, high)) + 2 * float(np.abs(drift_px).max(initial=0)) * np.sqrt(2) + 2
    half = diagonal / 2 * m.step_nm
    tall = 0.0 if film.wrinkles is None else 4 * film.wrinkles.height_nm
    return Seen(half + tall, (half + tall) / max(steepest, np.cos(np.radians(_MOST_TILTED))), m.tilt_axis_deg)


def make_film(film: Film, seen: Seen, seed: int) -> FilmMap:
    """Draw the features of a film in the part of it that is seen.

    They are functions of the seed and the place: whoever sees more of a film sees more of the same.

    Raises
    ------
    InputError
        If there are too many to draw.
    """
    waves, amplitude = np.zeros((0, 3)), 0.0
    if film.wrinkles is not None:
        rng = generator(seed, Stream.WRINKLES)
        # a Gaussian spectrum of variance 2/length² per axis has the correlation exp(−r²/length²)
        k = rng.normal(size=(_WAVES, 2)) * np.sqrt(2) / film.wrinkles.length_nm
        waves = np.column_stack([k, rng.uniform(0, 2 * np.pi, _WAVES)])
        amplitude = film.wrinkles.height_nm * np.sqrt(2 / _WAVES)
    holes, period, azimuth = np.zeros((0, 3)), np.inf, 0.0
    if film.holes is not None and film.holes.period_nm is not None:
        rng = generator(seed, Stream.HOLES)
        period, azimuth = film.holes.period_nm, rng.uniform(0, np.pi / 2)
        holes = np.array([[*rng.uniform(-0.5, 0.5, 2) * period, film.holes.diameter_nm / 2]])
    elif film.holes is not None and film.holes.per_um2 is not None:
        holes = _scatter("holes", film.holes, film.holes.per_um2, seen, seed, Stream.HOLES)
    dirt, dirt_thickness = np.zeros((0, 3)), 0.0
    if film.contamination is not None:
        patches = film.contamination
        dirt = _scatter("contamination", patches, patches.per_um2, seen, seed, Stream.DIRT)
        dirt_thickness = film.contamination.thickness_nm
    # a power of two: a little more drift leaves the body that particles stick to as it is
    length = 2 ** float(np.ceil(np.log2(2 * _NEEDLE * seen.along)))
    needle = None if film.needle is None else _cone(film.needle, length)
    return FilmMap(amplitude, film.thickness_nm, dirt_thickness, period, azimuth, needle, waves, holes, dirt)


def free_path(film: Film, voltage_kv: float) -> float:
    """Mean free path of diffuse scattering in a film, nm."""
    return film.mean_free_path_nm or diffuse.mean_free_path(diffuse.amorphous(film.element), voltage_kv)


def film_path(
    film: Film,
    film_map: FilmMap,
    rotation: np.ndarray,
    drift_px: np.ndarray,
    microscope: Microscope,
    probes: Probes | None = None,
) -> np.ndarray:
    """Length of the beam's way through the support at a tilt, in nm of film, (y, x).

    A film of thickness T and normal n is crossed over T/|n·b|, b the beam in the sample frame. Dirt lengthens the
    way, a hole takes it away; a needle counts by its own mean free path.

    Parameters
    ----------
    rotation : (3, 3) array
        R(a, α) of the stage.
    drift_px : (2,) array
        Where the sample's origin is seen, off the field's centre, px (x, y).
    probes : Probes or None
        Where the probes really are; None: on a regular raster.
    """
    probes = probes or regular_probes(microscope.scan)
    centre = field_centre(microscope.scan) + drift_px
    lab_x = (probes.x - centre[0]) * microscope.step_nm
    lab_y = (probes.y - centre[1]) * microscope.step_nm
    path = np.zeros(lab_x.shape)
    if film.thickness_nm > 0 or len(film_map.dirt):
        x, y, obliquity = _meet(film_map, rotation, lab_x, np.repeat(lab_y[:, None], lab_x.shape[1], axis=1))
        path = np.where(film_map.in_hole(x, y), 0, (film.thickness_nm + film_map.added(x, y)) * obliquity)
    if film.needle is not None and film_map.needle is not None:
        solid, place = film_map.needle
        seen = rotation @ place
        chord = row_chords(solid.turned(rotation), lab_x - seen[0], lab_y - seen[1])
        path += chord * free_path(film, microscope.voltage_kv) / film.needle.mean_free_path_nm
    return path


def _meet(
    film_map: FilmMap, rotation: np.ndarray, lab_x: np.ndarray, lab_y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where beams meet the film, x and y in the sample frame, and 1/|n·b| there.

    Newton's method for the way t along the beam at which z(t) equals the height; a film that folds over itself in
    projection counts as the crossing that this finds.
    """
    across, beam = rotation[:2], rotation[2]  # rows of R are the lab's axes in the sample frame
    start = lab_x[..., None] * across[0] + lab_y[..., None] * across[1]
    t = -start[..., 2] / beam[2]
    for _ in range(_NEWTON_STEPS if len(film_map.waves) else 1):
        x, y = start[..., 0] + t * beam[0], start[..., 1] + t * beam[1]
        z, slope_x, slope_y = film_map.height(x, y)
        rate = beam[2] - slope_x * beam[0] - slope_y * beam[1]
        safe = np.sign(beam[2]) * np.maximum(np.abs(rate), 0.3 * abs(beam[2]))  # damped where the film is steep
        t = t - (start[..., 2] + t * beam[2] - z) / safe
    steepness = np.abs(rate) / np.sqrt(1 + slope_x**2 + slope_y**2)
    return x, y, 1 / np.maximum(steepness, 1 / _STEEPEST)


def _scatter(
    key: str, what: Holes | Contamination, per_um2: float, seen: Seen, seed: int, stream: Stream
) -> np.ndarray:
    """Round features (feature, 3): x, y, radius in nm, as a Poisson process over all that touch what is seen."""
    rim = what.diameter_nm / 2 * np.exp(_WIDEST * what.diameter_sigma)
    half = np.array([seen.along, seen.across]) + rim
    mean = per_um2 * 1e-6 * 4 * float(half.prod())
    if mean > _MOST:
        raise InputError(
            f"key 'film.{key}.per_um2': about {mean:.2g} of them come into view, more than {_MOST}; "
            "ask for fewer or smaller ones, or tilt less far"
        )
    c, s = np.cos(np.radians(seen.axis_deg)), np.sin(np.radians(seen.axis_deg))
    to_axis = np.array([[c, s], [-s, c]])
    edge = float(np.sqrt(_IN_CELL / per_um2) * 1e3)
    parts = [np.zeros((0, 3))]
    for cell in _cells(half, to_axis, edge):
        rng = generator(seed, stream, *cell)
        count = rng.poisson(_IN_CELL)
        place = (cell + rng.uniform(0, 1, (count, 2))) * edge
        spread = np.clip(rng.normal(size=count), -_WIDEST, _WIDEST)
        parts.append(np.column_stack([place, what.diameter_nm / 2 * np.exp(what.diameter_sigma * spread)]))
    found = np.concatenate(parts)
    return np.asarray(found[(np.abs(found[:, :2] @ to_axis.T) < half).all(1)])


def _cells(half: np.ndarray, to_axis: np.ndarray, edge: float) -> np.ndarray:
    """Cells (cell, 2) of a square grid, the origin at a corner, that may touch a rectangle of half lengths (2,)."""
    reach = np.abs(to_axis.T) @ half
    columns, rows = (np.arange(np.floor(-r / edge), np.ceil(r / edge)) for r in reach)
    cells = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2).astype(int)
    near = np.abs((cells + 0.5) @ to_axis.T) * edge <= half + edge / np.sqrt(2)
    return np.asarray(cells[near.all(1)])


def _cone(needle: Needle, length: float) -> tuple[Solid, np.ndarray]:
    """A needle's body, and where its centroid lies in the sample frame (3,), nm."""
    half, phi = np.radians(needle.half_angle_deg), 2 * np.pi * np.arange(_SIDES) / _SIDES
    sides = np.column_stack([np.full(_SIDES, np.sin(half)), np.cos(half) * np.cos(phi), np.cos(half) * np.sin(phi)])
    back = needle.radius_nm  # inside the body, behind the tip
    axial = np.sin(half) * back + np.cos(half) * needle.radius_nm
    c, s = np.cos(np.radians(needle.azimuth_deg)), np.sin(np.radians(needle.azimuth_deg))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    normals = np.concatenate([[[1.0, 0, 0], [-1.0, 0, 0]], sides]) @ turn.T
    distances = np.concatenate([[back, length], np.full(_SIDES, axial)])
    solid, centroid = enclosed(normals, distances)
    return solid, np.array([*needle.tip_nm, 0.0]) + turn @ [-back, 0, 0] + centroid
