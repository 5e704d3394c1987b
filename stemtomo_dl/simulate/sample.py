"""Makes the particles of a scene: how many, and their places on the film, in agglomerates or on the needle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import distance_transform_edt

from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import field_centre
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate.body import Body, make_body
from stemtomo_dl.simulate.contact import Placed, arrival, overlap
from stemtomo_dl.simulate.crystal import Structure
from stemtomo_dl.simulate.damage import Damage
from stemtomo_dl.simulate.distortion import Probes, regular_probes, seen_footprint
from stemtomo_dl.simulate.film import FilmMap
from stemtomo_dl.simulate.population import Population
from stemtomo_dl.simulate.scene import Microscope, Scene
from stemtomo_dl.simulate.shape import Solid, footprint

_TRIES = 2000  # places tried for one particle before the field is called full
_TOUCH_NM = 1e-3  # particles in contact stay this far apart


@dataclass(frozen=True, eq=False)
class Particle(Record):
    """One crystal in the sample frame at α = 0; twins and crystalline shells are particles of their own."""

    structure: Structure
    solid: Solid
    mean_free_path_nm: float | None  # None: by composition and density
    u: np.ndarray = array("f8", "3 3")
    position_nm: np.ndarray = array("f8", "3", "nm")
    mosaic_deg: float = 0.0  # rms tilt of the mosaic blocks
    damage: Damage | None = None
    coat: Solid | None = None  # an amorphous shell, in the frame of the solid
    coat_mean_free_path_nm: float = np.inf

    @property
    def ub(self) -> np.ndarray:
        """UB (3, 3), 1/Å: g = R·UB·h."""
        return np.asarray(self.u @ self.structure.b)


@dataclass
class _Field:
    """The sample while it fills up."""

    scene: Scene
    film: FilmMap | None
    rng: np.random.Generator
    taken: np.ndarray  # (y, x), what outlines cover at α = 0 before any drift
    placed: list[Placed] = field(default_factory=list)
    clusters: dict[str, list[list[Placed]]] = field(default_factory=dict)  # agglomerates by their name

    @property
    def extent(self) -> np.ndarray:
        """Width and height (2,) in nm of the part of the field in which centres lie."""
        rows, columns = self.scene.instrument.scan
        return np.array([columns, rows]) * self.scene.instrument.step_nm * self.scene.field_fraction

    @property
    def needle(self) -> list[Placed]:
        """The needle, where there is one."""
        return [] if self.film is None or self.film.needle is None else [self.film.needle]

    def put(self, solid: Solid, place: np.ndarray) -> None:
        """Take note of a body that has found its place."""
        self.taken |= _cover(self.scene.instrument, solid, place)
        self.placed.append((solid, place))


def make_particles(
    scene: Scene, structures: Mapping[str, Structure], rng: np.random.Generator, film: FilmMap | None = None
) -> tuple[Particle, ...]:
    """All particles of a scene, in the order in which it names them; those of one body follow each other.

    Parameters
    ----------
    structures : mapping
        Every phase by the name that the scene gives its CIF.
    film : FilmMap or None
        Where the film's holes and wrinkles are; None: it is flat and whole.

    Raises
    ------
    InputError
        If the faces of a habit do not close, or the field has no room for a particle.
    """
    on = _Field(scene, film, rng, np.zeros(scene.instrument.scan, bool))
    on.placed.extend(on.needle)
    counts = _counts(scene, on.extent, rng)
    found: dict[tuple[int, int], tuple[Body, np.ndarray]] = {}
    later: list[tuple[int, int, Body]] = []
    for number, population in enumerate(scene.particles):
        for index in range(counts[number]):
            body = make_body(population, structures, rng, f"particles.{number}")
            _check_size(scene.instrument, body, number)
            if population.cluster_size > 1:
                later.append((number, index, body))
            else:
                found[number, index] = body, _settle(on, number, index, counts[number], body.hull)
    # agglomerates grow in random order: else one phase would be the kernel and the next the rind of all of them
    for i in rng.permutation(len(later)) if later else []:
        number, index, body = later[i]
        found[number, index] = body, _settle(on, number, index, counts[number], body.hull)
    return tuple(particle for key in sorted(found) for particle in _particles(scene.particles[key[0]], *found[key]))


def coat_path(
    particles: tuple[Particle, ...],
    rotation: np.ndarray,
    drift_px: np.ndarray,
    microscope: Microscope,
    mean_free_path_nm: float,
    probes: Probes | None = None,
) -> np.ndarray:
    """Length of the beam's way through amorphous shells at a tilt, in nm of a film of that mean free path, (y, x)."""
    probes = probes or regular_probes(microscope.scan)
    out, origin = np.zeros(microscope.scan), field_centre(microscope.scan) + drift_px
    for p in particles:
        if p.coat is not None:
            at = origin + (rotation @ p.position_nm)[:2] / microscope.step_nm
            seen = seen_footprint(p.coat.turned(rotation), at, microscope.step_nm, probes, microscope.probe_samples)
            height, width = seen.thickness.shape
            scale = mean_free_path_nm / p.coat_mean_free_path_nm
            out[seen.y0 : seen.y0 + height, seen.x0 : seen.x0 + width] += seen.thickness * scale
    return out


def _counts(scene: Scene, extent: np.ndarray, rng: np.random.Generator) -> list[int]:
    """How many bodies of every population; never none at all, a scene shows something."""
    area_um2 = float(extent.prod()) * 1e-6
    means = [p.count or (p.per_um2 or 0) * area_um2 for p in scene.particles]
    while True:
        counts = [
            int(rng.poisson(mean)) if p.count_law == "poisson" else max(1, round(mean))
            for p, mean in zip(scene.particles, means, strict=True)
        ]
        if any(counts):
            return counts


def _check_size(microscope: Microscope, body: Body, number: int) -> None:
    widest = max(microscope.scan) * microscope.step_nm
    if body.hull.bound() > widest:
        raise InputError(
            f"key 'particles.{number}.size_nm': a particle reaches {body.hull.bound():.4g} nm from its centre, more "
            f"than the whole field of {widest:.4g} nm; make it smaller or set size_limits_nm"
        )


def _settle(on: _Field, number: int, index: int, count: int, solid: Solid) -> np.ndarray:
    """Find a body's place (3,) in nm and note it."""
    population = on.scene.particles[number]
    if population.support == "needle":
        place = _on_needle(on, number, solid)
    elif population.cluster_size > 1:
        place = _in_cluster(on, population, solid)
    else:
        place = _on_film(on, population, index, solid)
    if place is None:
        raise InputError(
            f"key 'particles.{number}': no room for particle {index + 1} of {count}; "
            "ask for fewer or smaller ones, or a smaller min_gap_nm"
        )
    on.put(solid, place)
    return place


def _on_film(on: _Field, population: Population, index: int, solid: Solid, alone: bool = False) -> np.ndarray | None:
    """A place as told or at random, at least the gap away from outlines already there and not over a hole.

    ``alone``: nor inside another body; never inside the needle.
    """
    if population.positions_nm:
        return np.array(population.positions_nm[index], float)
    step = on.scene.instrument.step_nm
    clearance = distance_transform_edt(~on.taken) * step if on.taken.any() else None
    for _ in range(_TRIES):
        xy = on.rng.uniform(-0.5, 0.5, 2) * on.extent
        place = np.array([*xy, population.z_sigma_nm * on.rng.normal()])
        if on.film is not None:
            if on.film.in_hole(xy[0], xy[1]):
                continue
            place[2] += on.film.height(xy[0], xy[1])[0]
        if overlap(solid, place, on.placed if alone else on.needle):
            continue
        if population.min_gap_nm is None or clearance is None:
            return place
        cover = _cover(on.scene.instrument, solid, place)
        if not cover.any() or clearance[cover].min() > population.min_gap_nm:
            return place
    return None


def _in_cluster(on: _Field, population: Population, solid: Solid) -> np.ndarray | None:
    """A place in contact with an agglomerate, or where a new one begins.

    One body in ``cluster_size`` begins a new one, so that this is their mean number.
    """
    clusters = on.clusters.setdefault(population.cluster, [])
    joined = bool(clusters) and on.rng.uniform() > 1 / population.cluster_size
    if joined:
        cluster = clusters[on.rng.integers(len(clusters))]
        place = _touching(on, solid, [member for _, member in cluster])
    else:
        cluster = []
        clusters.append(cluster)
        place = _on_film(on, population, 0, solid, alone=True)
    if place is not None:
        cluster.append((solid, place))
    return place


def _touching(on: _Field, solid: Solid, aims: list[np.ndarray]) -> np.ndarray | None:
    """A place in contact with what is met first on a random way toward one of the points (3,) aimed at."""
    for _ in range(_TRIES):
        direction = on.rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        aim = aims[on.rng.integers(len(aims))]
        place = aim + (arrival(solid, aim, direction, on.placed) + _TOUCH_NM) * direction
        if np.isfinite(place).all() and (np.abs(place[:2]) <= on.extent / 2).all():
            return np.asarray(place)
    return None


def _on_needle(on: _Field, number: int, solid: Solid) -> np.ndarray | None:
    """A place on the rim of the needle, or on what sticks to it already."""
    needle = on.scene.film.needle
    if needle is None:
        raise InputError(f"key 'particles.{number}.support': there is no needle; add film.needle")
    azimuth = np.radians(needle.azimuth_deg)
    behind = -on.rng.uniform(0, float(np.linalg.norm(on.extent)), 200)[:, None] * [np.cos(azimuth), np.sin(azimuth), 0]
    aims = np.array([*needle.tip_nm, 0.0]) + behind
    visible = aims[(np.abs(aims[:, :2]) <= on.extent / 2).all(1)]
    return _touching(on, solid, list(visible)) if len(visible) else None


def _particles(population: Population, body: Body, place: np.ndarray) -> list[Particle]:
    """The crystals of a body in its place; the first of them carries the coat."""
    coats = [None if body.coat is None else body.coat.moved(-body.parts[0].offset_nm)]
    coats += [None] * (len(body.parts) - 1)
    path = np.inf if population.shell is None else population.shell.mean_free_path_nm
    return [
        Particle(
            structure=part.structure,
            solid=part.solid,
            mean_free_path_nm=part.mean_free_path_nm,
            u=part.u,
            position_nm=place + part.offset_nm,
            mosaic_deg=population.mosaic_deg,
            damage=population.damage,
            coat=coat,
            coat_mean_free_path_nm=path,
        )
        for part, coat in zip(body.parts, coats, strict=True)
    ]


def _cover(microscope: Microscope, solid: Solid, place: np.ndarray) -> np.ndarray:
    """Outline at α = 0 before any drift, (y, x)."""
    step, shape = microscope.step_nm, microscope.scan
    seen = footprint(solid, field_centre(shape) + place[:2] / step, step, shape)
    out = np.zeros(shape, bool)
    height, width = seen.outline.shape
    out[seen.y0 : seen.y0 + height, seen.x0 : seen.x0 + width] = seen.outline
    return out
