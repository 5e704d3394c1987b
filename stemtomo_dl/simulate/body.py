"""Makes one body of a population: its shape, and the crystals that it consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate import habit
from stemtomo_dl.simulate.crystal import Structure
from stemtomo_dl.simulate.population import Orientation, Population, Shell, Twin
from stemtomo_dl.simulate.shape import Solid, directions, enclosed, hollow

_RANDOM_FACES = 18
_SIZE_TRIES = 10000


@dataclass(frozen=True, eq=False)
class Part(Record):
    """One crystal of a body; its centroid is the solid's origin."""

    structure: Structure
    solid: Solid
    mean_free_path_nm: float | None  # None: by composition and density
    u: np.ndarray = array("f8", "3 3")
    offset_nm: np.ndarray = array("f8", "3", "nm, of the centroid from the body's")


@dataclass(frozen=True, eq=False)
class Body(Record):
    """What holds together: a crystal, twins, or a core and its shell. An amorphous shell is a coat, not a part."""

    hull: Solid
    parts: tuple[Part, ...]
    coat: Solid | None = None


def make_body(population: Population, structures: Mapping[str, Structure], rng: np.random.Generator, key: str) -> Body:
    """Draw one body in the sample frame.

    Parameters
    ----------
    key : str
        The population's key in the scene, for messages.

    Raises
    ------
    InputError
        If the faces of a habit do not close, or no size is within the limits.
    """
    structure = structures[population.cif]
    u = _orientation(population.orientation, structure, rng)
    solid = _solid(population, structure, u, rng, key)
    twin, path = population.twin, population.mean_free_path_nm
    parts: tuple[Part, ...] = (Part(structure, solid, path, u, np.zeros(3)),)
    if twin is not None and rng.uniform() < twin.fraction:
        parts = _twins(twin, structure, solid, u, path)
    return Body(solid, parts) if population.shell is None else _coated(population.shell, solid, parts, structures, rng)


def _orientation(wanted: Orientation, structure: Structure, rng: np.random.Generator) -> np.ndarray:
    """Matrix U (3, 3), crystal frame to sample frame."""
    if wanted.kind == "fixed":
        return np.asarray(Rotation.from_rotvec(wanted.rotation_vector_deg, degrees=True).as_matrix())
    if wanted.kind == "random":
        return np.asarray(Rotation.from_quat(rng.normal(size=4)).as_matrix())
    along = structure.direct @ wanted.direction if wanted.plane is None else structure.b @ wanted.plane
    roll = Rotation.from_rotvec(rng.uniform(0, 2 * np.pi) * along / np.linalg.norm(along))
    normal = np.array([0.0, 0.0, 1.0])
    goal = np.array([1.0, 0.0, 0.0]) if wanted.kind == "lying" else normal
    lay, _ = Rotation.align_vectors(goal[None], along[None] / np.linalg.norm(along))
    azimuth = Rotation.from_rotvec(rng.uniform(0, 2 * np.pi) * normal)
    spread = Rotation.from_rotvec(np.radians(wanted.spread_deg) * rng.normal(size=3) * [1, 1, 0])
    return np.asarray((spread * azimuth * lay * roll).as_matrix())


def _size(population: Population, rng: np.random.Generator, key: str) -> float:
    """A size in nm, log-normal within its limits."""
    low, high = population.size_limits_nm or (0.0, np.inf)
    for _ in range(_SIZE_TRIES):
        size = population.size_nm * float(np.exp(population.size_sigma * rng.normal()))
        if low <= size <= high:
            return size
    raise InputError(f"key '{key}.size_limits_nm': sizes between {low:g} and {high:g} nm are too rare; widen it")


def _solid(population: Population, structure: Structure, u: np.ndarray, rng: np.random.Generator, key: str) -> Solid:
    """A body in the sample frame."""
    half = _size(population, rng, key) / 2
    if population.shape == "sphere":
        return enclosed(np.zeros((0, 3)), np.zeros(0), half)[0]
    if population.shape == "random":
        normals = Rotation.from_quat(rng.normal(size=4)).apply(directions(_RANDOM_FACES))
        distances = np.full(len(normals), half)
    else:
        forms = population.faces
        if population.habit is not None:
            forms = habit.shorthand(population.habit, population.aspect)
        normals, distances = habit.faces(structure, forms)
        normals, distances = normals @ u.T, half * distances
    distances = distances * np.exp(population.irregularity * rng.normal(size=len(distances)))
    try:
        sharp = enclosed(normals, distances)[0]
    except ValueError as e:
        raise InputError(f"key '{key}.faces': {e}; add a form") from e
    return _rounded(sharp, population.rounding) if population.rounding > 0 else sharp


def _rounded(sharp: Solid, rounding: float) -> Solid:
    """A polyhedron cut by a ball about its centroid: from the circumscribed one (0) to the inscribed one (1)."""
    radius = (1 - rounding) * sharp.bound() + rounding * float(sharp.distances.min())
    return enclosed(sharp.normals, sharp.distances, radius)[0]


def _twins(twin: Twin, structure: Structure, solid: Solid, u: np.ndarray, path_nm: float | None) -> tuple[Part, Part]:
    """The two individuals on either side of the composition plane, the second after the twin operation."""
    axis = structure.b @ twin.plane if twin.plane is not None else structure.direct @ np.array(twin.axis)
    operation = Rotation.from_rotvec(np.radians(twin.angle_deg) * axis / np.linalg.norm(axis)).as_matrix()
    normal = u @ structure.b @ np.array(twin.composition or twin.plane)
    normal /= np.linalg.norm(normal)
    # a ball about the centroid that fits: whatever the offset, both individuals keep some of it
    room = min(float(solid.distances.min(initial=np.inf)), solid.radius - float(np.linalg.norm(solid.center)))
    level = twin.offset * room
    first, first_at = _half(solid, normal, level, room)
    second, second_at = _half(solid, -normal, -level, room)
    return (
        Part(structure, first, path_nm, u, first_at),
        Part(structure, second, path_nm, np.asarray(u @ operation), second_at),
    )


def _half(solid: Solid, normal: np.ndarray, level: float, room: float) -> tuple[Solid, np.ndarray]:
    """What of a body lies below a plane, and where its centroid is in the body's frame."""
    inside = (level - room) / 2 * normal  # surely within the half
    whole = solid.moved(-inside)
    normals = np.concatenate([whole.normals, normal[None]])
    distances = np.append(whole.distances, level - normal @ inside)
    half, centroid = enclosed(normals, distances, whole.radius, whole.center)
    return half, inside + centroid


def _coated(
    shell: Shell,
    solid: Solid,
    parts: tuple[Part, ...],
    structures: Mapping[str, Structure],
    rng: np.random.Generator,
) -> Body:
    """A body with a shell of even thickness."""
    thick = shell.thickness_nm
    outer, at = enclosed(solid.normals, solid.distances + thick, solid.radius + thick, solid.center)
    layer = hollow(outer, solid.moved(-at))
    moved = tuple(Part(p.structure, p.solid, p.mean_free_path_nm, p.u, p.offset_nm - at) for p in parts)
    if shell.cif is None:
        return Body(outer, moved, layer)
    u = parts[0].u
    if shell.orientation == "random":
        u = np.asarray(Rotation.from_quat(rng.normal(size=4)).as_matrix())
    around = Part(structures[shell.cif], layer, shell.mean_free_path_nm, u, np.zeros(3))
    return Body(outer, (*moved, around))
