"""Centroids of a tilt series with known identities, drawn without images: what a tracker is tested on.

Particles lie on a wavy film, turn with the stage as `geometry.tilt_rotation` says, drift, jump, creep, hide, merge
and leave the field. Every disturbance has a switch, and none changes the random numbers of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from stemtomo_dl.config import Model
from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate.motion import Tilts

Share = Annotated[float, Field(ge=0, le=1)]
Extent = Annotated[float, Field(ge=0, le=1e4)]  # px
Count = Annotated[int, Field(ge=0, le=100_000)]

_WAVES = ((150.0, 0.3), (220.0, 1.9))  # of the film: wavelength over 2π in px, and direction in radians
_CLUSTER, _CLUSTER_PX = 5, 6.0  # particles of an agglomerate, rms distance from its centre along each axis
_AREA_TURN = 2.0  # an outline's area varies with twice the tilt angle, as that of a rod does
_RADIUS_SPREAD = 0.25  # of the logarithm


class _Of(IntEnum):
    """What random numbers are for; each has its own, so that one switch leaves the rest as it was."""

    ANGLES = 0
    DRIFT = 1
    JUMPS = 2
    PLACES = 3
    CREEP = 4
    MISSES = 5
    DROPOUTS = 6
    MERGES = 7
    NOISE = 8
    AREAS = 9
    FALSE = 10
    PATTERNS = 11
    ORDER = 12


class SightingSettings(Model):
    """What is drawn; the default is the series of the project's reference figures (about 100 sightings a tilt)."""

    shape: tuple[Count, Count] = (512, 512)  # rows, columns
    particles: Count = 200  # laid on the film, in the field or not
    reach: Annotated[float, Field(gt=0)] = 2.0  # they lie over this many fields across the axis, and one along it
    height_px: Extent = 25.0  # rms of heights over the film
    wave_px: Extent = 20.0  # amplitude of the film's waves
    radius_px: Annotated[float, Field(gt=0)] = 9.0
    agglomerated: Share = 0.0  # of the particles, in clusters of five
    tilts: Tilts = Tilts(start=-60, stop=60, step=120 / 299)
    tilt_axis_deg: float = 20.0  # as stated
    axis_error_deg: float = 2.0  # true less stated
    eucentric_px: Extent = 30.0  # height of the film over the tilt axis
    drift_px: Extent = 1.0  # rms of the walk's steps along x and y
    jumps: Count = 5
    jump_px: Extent = 12.0  # length of each, in any direction
    creep_px: Extent = 0.0  # own motion in the image from first tilt to last, rms along x and y
    creep: Literal["walk", "steady"] = "walk"
    misses: Share = 0.08
    dropout_rate: Share = 0.02  # of a particle and tilt, to begin
    dropout_tilts: Annotated[float, Field(ge=1)] = 6.0  # mean length
    merged: Share = 0.5  # of the overlaps, tilt by tilt
    overlap: Extent = 0.7  # discs overlap that are nearer than this share of both radii
    noise_px: Extent = 1.0  # rms along x and y
    area_noise: Extent = 0.08  # rms of the logarithm
    area_change: Share = 0.15  # by which areas vary with the tilt
    false: Extent = 3.0  # mean of detections per tilt that show no particle
    bins: Count = 0  # of descriptors; 0 for none
    descriptor_deg: Annotated[float, Field(gt=0)] = 3.0  # tilt by which a particle's pattern has changed to 1/e
    descriptor_noise: Extent = 0.7  # rms against the pattern's own


_DEFAULT = SightingSettings()
_SCATTERED = {"misses": 0.0, "dropout_rate": 0.0, "merged": 0.0, "false": 0.0, "noise_px": 0.0, "area_noise": 0.0}
_STILL = {"drift_px": 0.0, "jumps": 0, "axis_error_deg": 0.0, "eucentric_px": 0.0}
_HARD = {"misses": 0.15, "dropout_tilts": 12.0, "drift_px": 2.0, "jumps": 10, "jump_px": 20.0}
_STEP = 120 / 299


def _but(**changes: object) -> SightingSettings:
    return _DEFAULT.model_copy(update=changes)


PRESETS: dict[str, SightingSettings] = {
    "clean": _but(**_SCATTERED, **_STILL),
    "default": _DEFAULT,
    "hard": _but(**_HARD),
    "creep": _but(creep_px=8.0),
    "steady creep": _but(creep_px=8.0, creep="steady"),
    "noise": _but(noise_px=2.5),
    "misses": _but(misses=0.3),
    "dropouts": _but(dropout_tilts=25.0),
    "drift": _but(drift_px=4.0),
    "jumps": _but(jumps=15, jump_px=30.0),
    "merges": _but(merged=1.0, overlap=1.0),
    "false": _but(false=10.0),
    "areas": _but(area_noise=0.3, area_change=0.4),
    "few": _but(particles=40),
    "many": _but(particles=1000, shape=(1024, 1024)),
    "agglomerates": _but(agglomerated=0.6),
    "axis": _but(axis_error_deg=8.0),
    "angles": _but(tilts=Tilts(start=-60, stop=60, step=_STEP, sigma_deg=0.3, angle_scale=1.02)),
    "backlash": _but(tilts=Tilts(start=-60, stop=60, step=1.0, order="dose-symmetric", backlash_deg=0.5)),
    "uneven": _but(tilts=Tilts(start=60, stop=-60, step=_STEP, uneven_deg=0.3, missing=0.2)),
    "wedge": _but(tilts=Tilts(start=-20, stop=20, step=40 / 299)),
    "coarse": _but(tilts=Tilts(start=-60, stop=60, step=2.0)),
}


@dataclass(frozen=True, eq=False)
class Sightings(Record):
    """Detections of a series in the order of its tilts, and what they show.

    ``particle`` is the largest particle in a detection, −1 where it shows none; ``shown`` lists every particle of
    every detection, so that a merged one has several rows. A particle at p is seen at R(a, α)·p from the field's
    centre, plus drift and own motion.
    """

    settings: SightingSettings
    tilt_axis_deg: float  # the true one
    xy: np.ndarray = array("f8", "sighting 2", "px (x, y)")
    area: np.ndarray = array("f8", "sighting", "px²")
    covariance: np.ndarray = array("f8", "sighting 2 2", "px²")
    tilt: np.ndarray = array("i4", "sighting")
    particle: np.ndarray = array("i4", "sighting")
    shown: np.ndarray = array("i4", "shown 2", "sighting, particle")
    stated_deg: np.ndarray = array("f8", "tilts", "deg")
    alpha_deg: np.ndarray = array("f8", "tilts", "deg, the true ones")
    drift_px: np.ndarray = array("f8", "tilts 2", "px (x, y)")
    positions_px: np.ndarray = array("f8", "particle 3", "px, sample frame, from the field's centre")
    path_px: np.ndarray = array("f8", "tilts particle 2", "px (x, y), where each particle is, seen or not")
    descriptor: np.ndarray | None = array("f4", "sighting bins", "rows of mean 0 and variance 1", optional=True)


def draw_sightings(settings: SightingSettings, rng: np.random.Generator) -> Sightings:
    """Draw a series.

    Parameters
    ----------
    settings : SightingSettings
    rng : Generator
        Only its seed matters: what is drawn for one disturbance does not depend on the others.
    """
    draws = dict(zip(_Of, rng.spawn(len(_Of)), strict=True))
    stated, alpha = _angles(settings.tilts, draws[_Of.ANGLES])
    axis = settings.tilt_axis_deg + settings.axis_error_deg
    places, radius = _places(settings, axis, draws[_Of.PLACES])
    rotation = tilt_rotation(axis, alpha)
    drift = _drift(settings, rotation, draws[_Of.DRIFT], draws[_Of.JUMPS])
    path = np.einsum("tij,pj->tpi", rotation[:, :2], places) + drift[:, None] + field_centre(settings.shape)
    path += _creep(settings, path.shape, draws[_Of.CREEP])
    height, width = settings.shape
    inside = ((path > -0.5) & (path < [width - 0.5, height - 0.5])).all(2)
    seen = inside & (draws[_Of.MISSES].random(inside.shape) >= settings.misses) & ~_dark(settings, inside.shape, draws)
    turn = np.cos(_AREA_TURN * np.radians(alpha)[:, None] + np.arange(len(places)))
    areas = np.pi * radius**2 * (1 + settings.area_change * (turn - 1))
    patterns = _patterns(settings, alpha, len(places), draws[_Of.PATTERNS]) if settings.bins else None
    parts = [_one_tilt(t, settings, path[t], areas[t], seen[t], patterns, draws) for t in range(len(alpha))]
    columns = {k: np.concatenate([p[k] for p in parts]) for k in parts[0] if k != "shown"}
    first = np.cumsum([0] + [len(p["particle"]) for p in parts[:-1]])
    columns["shown"] = np.concatenate([p["shown"] + [f, 0] for p, f in zip(parts, first, strict=True)]).astype("i4")
    columns["covariance"] = columns["area"][:, None, None] / (4 * np.pi) * np.eye(2)
    return Sightings(settings, axis, stated_deg=stated, alpha_deg=alpha, drift_px=drift, positions_px=places,
                     path_px=path, **columns)  # fmt: skip


def _angles(tilts: Tilts, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Stated and true angles, (tilt,), of the tilts that are not missing."""
    even = np.array(tilts.stated_deg())
    uneven, miss, left = rng.normal(size=len(even)), rng.normal(size=len(even)), rng.random(len(even))
    stated = even + tilts.uneven_deg * uneven
    true = tilts.true_deg(stated) + tilts.sigma_deg * miss
    gone = tilts.missing if isinstance(tilts.missing, list) else np.argsort(left)[: round(tilts.missing * len(even))]
    kept = np.setdiff1d(np.arange(len(even)), gone)
    return stated[kept], true[kept]


def _places(settings: SightingSettings, axis_deg: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions (particle, 3) and radii (particle,) in px."""
    n, side = settings.particles, max(settings.shape)
    along, across = rng.uniform(-0.5, 0.5, (2, n)) * [[side], [settings.reach * side]]
    w = np.radians(axis_deg)
    xy = np.stack([np.cos(w) * along - np.sin(w) * across, np.sin(w) * along + np.cos(w) * across], -1)
    phases = [np.cos(d) * xy[:, 0] / length + np.sin(d) * xy[:, 1] / length for length, d in _WAVES]
    z = settings.height_px * rng.normal(size=n) + settings.wave_px * np.sum(np.sin(phases), 0)
    places = np.column_stack([xy, z])
    radius = settings.radius_px * rng.lognormal(0, _RADIUS_SPREAD, n)
    near = _CLUSTER_PX * rng.normal(size=(n, 3))
    gathered = np.arange(round(settings.agglomerated * n))
    places[gathered] = places[gathered - gathered % _CLUSTER] + near[gathered]
    return places, radius


def _drift(
    settings: SightingSettings, rotation: np.ndarray, walk: np.random.Generator, jump: np.random.Generator
) -> np.ndarray:
    """Shift of the field, (tilt, 2) in px (x, y): a walk, jumps, and what a film off the tilt axis shows."""
    n = len(rotation)
    steps = settings.drift_px * walk.normal(size=(n, 2))
    when = 1 + jump.permutation(max(n - 1, 0))[: settings.jumps]
    way = jump.uniform(0, 2 * np.pi, len(when))
    steps[when] += settings.jump_px * np.stack([np.cos(way), np.sin(way)], -1)
    return np.cumsum(steps, 0) + rotation[:, :2, 2] * settings.eucentric_px


def _creep(settings: SightingSettings, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Own motion, (tilt, particle, 2) in px (x, y)."""
    n = max(shape[0] - 1, 1)
    if settings.creep == "steady":
        return np.linspace(-0.5, 0.5, shape[0])[:, None, None] * settings.creep_px * rng.normal(size=shape[1:])
    return np.asarray(np.cumsum(rng.normal(size=shape), 0) * settings.creep_px / np.sqrt(n))


def _dark(settings: SightingSettings, shape: tuple[int, ...], draws: dict[_Of, np.random.Generator]) -> np.ndarray:
    """Where particles have lost their contrast, (tilt, particle) bool."""
    rng = draws[_Of.DROPOUTS]
    begins = rng.random(shape) < settings.dropout_rate
    length = rng.geometric(1 / settings.dropout_tilts, shape)
    left, out = np.zeros(shape[1], int), np.zeros(shape, bool)
    for t in range(shape[0]):
        left = np.maximum(left - 1, begins[t] * length[t])
        out[t] = left > 0
    return out


def _patterns(settings: SightingSettings, alpha_deg: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Patterns (tilt, particle, bin) of unit variance whose correlation falls as exp(−|Δα| / descriptor_deg)."""
    out = rng.normal(size=(len(alpha_deg), n, settings.bins))
    order = np.argsort(alpha_deg, kind="stable")
    for a, b in pairwise(order):
        keep = np.exp(-abs(alpha_deg[b] - alpha_deg[a]) / settings.descriptor_deg)
        out[b] = keep * out[a] + np.sqrt(1 - keep**2) * out[b]
    return out


def _one_tilt(
    tilt: int,
    settings: SightingSettings,
    xy: np.ndarray,
    areas: np.ndarray,
    seen: np.ndarray,
    patterns: np.ndarray | None,
    draws: dict[_Of, np.random.Generator],
) -> dict[str, np.ndarray]:
    """Detections of a tilt in random order; overlapping particles may be one."""
    there = np.flatnonzero(seen)
    group = _merged(xy[there], np.sqrt(areas[there] / np.pi), settings, draws[_Of.MERGES])
    weight = areas[there]
    n = int(group.max(initial=-1)) + 1
    area = np.bincount(group, weight, n).astype(float)
    centre = np.stack([np.bincount(group, weight * xy[there, k], n) for k in (0, 1)], -1) / area[:, None]
    largest = np.full(n, -1)
    by_size = np.argsort(weight, kind="stable")
    largest[group[by_size]] = there[by_size]
    centre += settings.noise_px * draws[_Of.NOISE].normal(size=(len(areas), 2))[largest]
    area *= np.exp(settings.area_noise * draws[_Of.AREAS].normal(size=len(areas))[largest])
    rng = draws[_Of.FALSE]
    k = int(rng.poisson(settings.false))
    centre = np.concatenate([centre, rng.uniform(-0.5, np.array(settings.shape[::-1]) - 0.5, (k, 2))])
    area = np.concatenate([area, np.pi * (settings.radius_px * rng.lognormal(0, 0.4, k)) ** 2])
    order = draws[_Of.ORDER].permutation(n + k)
    place = np.argsort(order)
    out = {
        "xy": centre[order],
        "area": area[order],
        "tilt": np.full(n + k, tilt, "i4"),
        "particle": np.concatenate([largest, np.full(k, -1)])[order].astype("i4"),
        "shown": np.column_stack([place[group], there]),
    }
    if patterns is not None:
        mixed = np.zeros((n + k, settings.bins))
        np.add.at(mixed, group, weight[:, None] * patterns[tilt, there])
        mixed[:n] /= np.sqrt(np.bincount(group, weight**2, n))[:, None]
        mixed[n:] = draws[_Of.PATTERNS].normal(size=(k, settings.bins))
        mixed += settings.descriptor_noise * draws[_Of.PATTERNS].normal(size=mixed.shape)
        mixed -= mixed.mean(1, keepdims=True)
        out["descriptor"] = (mixed / mixed.std(1, keepdims=True))[order].astype("f4")
    return out


def _merged(xy: np.ndarray, radius: np.ndarray, settings: SightingSettings, rng: np.random.Generator) -> np.ndarray:
    """Number of the detection that each particle (n,) is part of."""
    n = len(xy)
    if not n:
        return np.zeros(0, int)
    i, j = cKDTree(xy).query_pairs(2 * settings.overlap * radius.max(), output_type="ndarray").T
    touching = np.hypot(*(xy[i] - xy[j]).T) < settings.overlap * (radius[i] + radius[j])
    i, j = i[touching], j[touching]
    joined = rng.random(len(i)) < settings.merged
    graph = coo_array((np.ones(joined.sum()), (i[joined], j[joined])), (n, n))
    return np.asarray(connected_components(graph, directed=False)[1])
