"""Makes the particles of a scene: shapes, orientations, places on the film."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial.transform import Rotation

from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import field_centre
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate.crystal import Structure
from stemtomo_dl.simulate.scene import Orientation, Population, Scene
from stemtomo_dl.simulate.shape import Solid, ball, footprint, polyhedron

_TRIES = 2000  # places tried for one particle before the field is called full
_RANDOM_FACES = 18


@dataclass(frozen=True, eq=False)
class Particle(Record):
    """One crystal in the sample frame at α = 0."""

    structure: Structure
    solid: Solid
    mean_free_path_nm: float
    u: np.ndarray = array("f8", "3 3")
    position_nm: np.ndarray = array("f8", "3", "nm")

    @property
    def ub(self) -> np.ndarray:
        """UB (3, 3), 1/Å: g = R·UB·h."""
        return np.asarray(self.u @ self.structure.b)


def make_particles(scene: Scene, structures: Mapping[str, Structure], rng: np.random.Generator) -> tuple[Particle, ...]:
    """All particles of a scene, in the order in which it names them.

    Raises
    ------
    InputError
        If the faces of a habit do not close, or the field has no room for a particle.
    """
    taken = np.zeros(scene.instrument.scan, bool)
    particles: list[Particle] = []
    for number, population in enumerate(scene.particles):
        for index in range(population.count):
            structure = structures[population.cif]
            u = _orientation(population.orientation, structure, rng)
            solid = _solid(population, structure, u, rng, f"particles.{number}")
            place = _place(scene, population, index, solid, taken, rng)
            if place is None:
                raise InputError(
                    f"key 'particles.{number}': no room for particle {index + 1} of {population.count}; "
                    "ask for fewer or smaller ones, or a smaller min_gap_nm"
                )
            taken |= _cover(scene, solid, place)
            particles.append(Particle(structure, solid, population.mean_free_path_nm, u, place))
    return tuple(particles)


def _orientation(wanted: Orientation, structure: Structure, rng: np.random.Generator) -> np.ndarray:
    """Matrix U (3, 3), crystal frame to sample frame."""
    if wanted.kind == "fixed":
        return np.asarray(Rotation.from_rotvec(wanted.rotation_vector_deg, degrees=True).as_matrix())
    if wanted.kind == "random":
        return np.asarray(Rotation.from_quat(rng.normal(size=4)).as_matrix())
    along = structure.direct @ np.array(wanted.direction)
    roll = Rotation.from_rotvec(rng.uniform(0, 2 * np.pi) * along / np.linalg.norm(along))
    normal = np.array([0.0, 0.0, 1.0])
    goal = np.array([1.0, 0.0, 0.0]) if wanted.kind == "lying" else normal
    lay, _ = Rotation.align_vectors(goal[None], along[None] / np.linalg.norm(along))
    azimuth = Rotation.from_rotvec(rng.uniform(0, 2 * np.pi) * normal)
    spread = Rotation.from_rotvec(np.radians(wanted.spread_deg) * rng.normal(size=3) * [1, 1, 0])
    return np.asarray((spread * azimuth * lay * roll).as_matrix())


def _solid(population: Population, structure: Structure, u: np.ndarray, rng: np.random.Generator, key: str) -> Solid:
    """A particle's body in the sample frame."""
    half = population.size_nm / 2 * np.exp(population.size_sigma * rng.normal())
    if population.shape == "sphere":
        return ball(half)
    if population.shape == "random":
        normals = Rotation.from_quat(rng.normal(size=4)).apply(_spread_directions(_RANDOM_FACES))
        distances = np.full(len(normals), half)
    else:
        forms = [structure.form(face.hkl) for face in population.faces]
        normals = np.concatenate(forms) @ u.T
        distances = half * np.repeat([face.distance for face in population.faces], [len(f) for f in forms])
    distances = distances * np.exp(population.irregularity * rng.normal(size=len(distances)))
    try:
        return polyhedron(normals, distances)
    except ValueError as e:
        raise InputError(f"key '{key}.faces': {e}; add a form") from e


def _spread_directions(count: int) -> np.ndarray:
    """Directions (count, 3) evenly over the sphere, on a Fibonacci spiral."""
    z = 1 - (2 * np.arange(count) + 1) / count
    phi = np.arange(count) * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - z**2)
    return np.column_stack([r * np.cos(phi), r * np.sin(phi), z])


def _place(
    scene: Scene, population: Population, index: int, solid: Solid, taken: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """Position (3,) in nm as told or at random, at least the gap away from outlines already there."""
    if population.positions_nm:
        return np.array(population.positions_nm[index], float)
    rows, columns = scene.instrument.scan
    extent = np.array([columns, rows]) * scene.instrument.step_nm * scene.field_fraction
    clearance = distance_transform_edt(~taken) * scene.instrument.step_nm if taken.any() else None
    for _ in range(_TRIES):
        xy = rng.uniform(-0.5, 0.5, 2) * extent
        place = np.array([*xy, population.z_sigma_nm * rng.normal()])
        if population.min_gap_nm is None or clearance is None:
            return place
        cover = _cover(scene, solid, place)
        if not cover.any() or clearance[cover].min() > population.min_gap_nm:
            return place
    return None


def _cover(scene: Scene, solid: Solid, place: np.ndarray) -> np.ndarray:
    """Outline at α = 0 before any drift, (y, x)."""
    step, shape = scene.instrument.step_nm, scene.instrument.scan
    seen = footprint(solid, field_centre(shape) + place[:2] / step, step, shape)
    out = np.zeros(shape, bool)
    height, width = seen.outline.shape
    out[seen.y0 : seen.y0 + height, seen.x0 : seen.x0 + width] = seen.outline
    return out
