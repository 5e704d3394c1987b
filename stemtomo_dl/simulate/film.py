"""The support: an amorphous film with holes, wrinkles and dirt, and a needle for what sticks to its rim.

All features are functions of the place in the sample frame, so they tilt and drift with the particles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, model_validator

from stemtomo_dl.config import Finite, Model, Positive
from stemtomo_dl.geometry import field_centre
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate import diffuse
from stemtomo_dl.simulate.distortion import Probes, regular_probes, row_chords
from stemtomo_dl.simulate.population import NonNegative
from stemtomo_dl.simulate.shape import Solid, enclosed

if TYPE_CHECKING:
    from stemtomo_dl.simulate.scene import Microscope

_WAVES = 48  # plane waves of a wrinkled film
_NEWTON_STEPS = 12  # for the place where a beam meets a wrinkled film
_STEEPEST = 20.0  # a film seen edge-on is at most this many times as thick as from above
_REACH = 3.0  # features are drawn in a disk of so many field diagonals: a tilted field shows more of the film
_SIDES = 24  # faces round a needle


class Holes(Model):
    """Round holes: a square array where ``period_nm`` is given, scattered with ``per_um2`` otherwise."""

    diameter_nm: Positive
    diameter_sigma: NonNegative = 0.0  # of the logarithm; of scattered holes
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
    diameter_sigma: NonNegative = 0.0  # of the logarithm
    thickness_nm: Positive  # in the middle of a patch; it falls as (1 − r²)²


class Needle(Model):
    """A blunt cone that lies in the film's plane and reaches into the field, opaque where it is thick."""

    tip_nm: tuple[Finite, Finite] = (0.0, 0.0)  # where it ends, x and y in the sample frame
    azimuth_deg: Finite = 0.0  # the way in which it points, from x toward y
    radius_nm: Positive = 20.0  # at the tip
    half_angle_deg: Annotated[float, Field(ge=0, le=60)] = 8.0
    mean_free_path_nm: Positive = 60.0  # of what it is made of


class Film(Model):
    """The amorphous support; it scatters once, diffusely."""

    thickness_nm: NonNegative = 0.0
    element: str = "C"
    mean_free_path_nm: Positive | None = None  # None: by the density that is usual for the element
    holes: Holes | None = None
    wrinkles: Wrinkles | None = None
    contamination: Contamination | None = None
    needle: Needle | None = None


@dataclass(frozen=True, eq=False)
class FilmMap(Record):
    """Where the features of one film lie, in the sample frame at α = 0.

    A square array of holes has one entry in ``holes`` and a ``period`` along ``azimuth``; the height is a sum of
    waves ``amplitude`` · cos(k·r + φ) with ``waves`` = (k_x, k_y, φ).
    """

    amplitude: float  # nm
    period: float  # nm; inf where holes do not repeat
    azimuth: float  # rad
    needle: tuple[Solid, np.ndarray] | None  # and the place (3,) of its centroid, nm
    waves: np.ndarray = array("f8", "wave 3", "rad/nm, rad/nm, rad")
    holes: np.ndarray = array("f8", "hole 3", "nm: x, y, radius")
    dirt: np.ndarray = array("f8", "patch 3", "nm: x, y, radius")

    def height(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Height z of the film, and its slopes along x and y, each of the shape of x and y."""
        out = np.zeros((3, *np.shape(x)))
        for kx, ky, phase in self.waves:
            turn = kx * x + ky * y + phase
            sine = np.sin(turn)
            out[0] += np.cos(turn)
            out[1] -= kx * sine
            out[2] -= ky * sine
        out *= self.amplitude
        return out[0], out[1], out[2]

    def in_hole(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether there is no film, bool of the shape of x and y."""
        out = np.zeros(np.shape(x), bool)
        for hx, hy, radius in self.holes:
            dx, dy = x - hx, y - hy
            if np.isfinite(self.period):
                c, s = np.cos(self.azimuth), np.sin(self.azimuth)
                dx, dy = c * dx + s * dy, c * dy - s * dx
                dx, dy = (d - self.period * np.round(d / self.period) for d in (dx, dy))
            out |= dx**2 + dy**2 < radius**2
        return out

    def added(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Share of the dirt's thickness, of the shape of x and y; patches that overlap add up."""
        out = np.zeros(np.shape(x))
        for px, py, radius in self.dirt:
            out += np.clip(1 - ((x - px) ** 2 + (y - py) ** 2) / radius**2, 0, None) ** 2
        return out


def make_film(film: Film, extent_nm: tuple[float, float], rng: np.random.Generator) -> FilmMap:
    """Draw the features of a film.

    Parameters
    ----------
    extent_nm : (float, float)
        Width and height of the field of view.
    """
    reach = _REACH * float(np.hypot(*extent_nm))
    waves, amplitude = np.zeros((0, 3)), 0.0
    if film.wrinkles is not None:
        # a Gaussian spectrum of variance 2/length² per axis has the correlation exp(−r²/length²)
        k = rng.normal(size=(_WAVES, 2)) * np.sqrt(2) / film.wrinkles.length_nm
        waves = np.column_stack([k, rng.uniform(0, 2 * np.pi, _WAVES)])
        amplitude = film.wrinkles.height_nm * np.sqrt(2 / _WAVES)
    holes, period, azimuth = np.zeros((0, 3)), np.inf, 0.0
    if film.holes is not None and film.holes.period_nm is not None:
        period, azimuth = film.holes.period_nm, rng.uniform(0, np.pi / 2)
        holes = np.array([[*rng.uniform(-0.5, 0.5, 2) * period, film.holes.diameter_nm / 2]])
    elif film.holes is not None and film.holes.per_um2 is not None:
        holes = _scatter(film.holes.per_um2, film.holes.diameter_nm, film.holes.diameter_sigma, reach, rng)
    dirt = np.zeros((0, 3))
    if film.contamination is not None:
        c = film.contamination
        dirt = _scatter(c.per_um2, c.diameter_nm, c.diameter_sigma, reach, rng)
    needle = None if film.needle is None else _cone(film.needle, reach)
    return FilmMap(amplitude, period, azimuth, needle, waves, holes, dirt)


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
        thickness = np.full(x.shape, film.thickness_nm)
        if film.contamination is not None:
            thickness += film.contamination.thickness_nm * film_map.added(x, y)
        path = np.where(film_map.in_hole(x, y), 0, thickness * obliquity)
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


def _scatter(per_um2: float, diameter: float, sigma: float, reach: float, rng: np.random.Generator) -> np.ndarray:
    """Round features (feature, 3): x, y, radius in nm, as a Poisson process over a disk."""
    count = rng.poisson(per_um2 * 1e-6 * np.pi * reach**2)
    r, phi = reach * np.sqrt(rng.uniform(size=count)), rng.uniform(0, 2 * np.pi, count)
    radius = diameter / 2 * np.exp(sigma * rng.normal(size=count))
    return np.column_stack([r * np.cos(phi), r * np.sin(phi), radius])


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
