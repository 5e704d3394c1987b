"""Makes one body of a population: its shape, and the crystals that it consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate import habit
from stemtomo_dl.simulate.crystal import Structure
from stemtomo_dl.simulate.damage import Damage
from stemtomo_dl.simulate.population import Orientation, Population, Shell, Twin
from stemtomo_dl.simulate.shape import Solid, directions, enclosed, hollow

_RANDOM_FACES = 18
_SIZE_TRIES = 10000


@dataclass(frozen=True, eq=False)
class Particle(Record):
    """One crystal in the sample frame at α = 0, the individual of a twin, or a crystalline shell.

    Its centroid is the solid's origin. While its body has no place yet, positions are relative to the body's origin.
    """

    structure: Structure
    solid: Solid
    mean_free_path_nm: float | None  # None: by composition and density
    u: np.ndarray = array("f8", "3 3")
    position_nm: np.ndarray = array("f8", "3", "nm")
    mosaic_deg: float = 0.0  # rms tilt of the mosaic blocks
    damage: Damage | None = None
    coat: Solid | None = None  # an amorphous shell, in the frame of the solid, which is its core
    coat_mean_free_path_nm: float = np.inf

    @property
    def ub(self) -> np.ndarray:
        """UB (3, 3), 1/Å: g = R·UB·h."""
        return np.asarray(self.u @ self.structure.b)

    @property
    def whole(self) -> Solid:
        """What the outline shows: the solid, and the amorphous shell round it."""
        return self.solid if self.coat is None else replace(self.coat, core=None)

    def moved(self, by: np.ndarray) -> Particle:
        """The particle after a shift (3,) in nm."""
        return replace(self, position_nm=self.position_nm + by)


@dataclass(frozen=True, eq=False)
class Body(Record):
    """What holds together: a crystal, twins, or a core and its shell, about the origin of the hull."""

    hull: Solid
    parts: tuple[Particle, ...]


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
    crystal = Particle(
        structure, solid, population.mean_free_path_nm, u, np.zeros(3), population.mosaic_deg, population.damage
    )
    twin, shell, cut = population.twin, population.shell, None
    parts: tuple[Particle, ...] = (crystal,)
    if twin is not None and rng.uniform() < twin.fraction:
        cut = _cut(twin, crystal)
        parts = _twins(twin, crystal, cut)
    return Body(solid, parts) if shell is None else _shelled(shell, crystal, parts, cut, structures, rng)


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


class _Cut(NamedTuple):
    """A composition plane in the frame of a body: where it is, and a ball about the origin that both sides share."""

    normal: np.ndarray  # (3,) from the first individual to the second
    level: float  # nm from the origin, less than ``room``
    room: float  # nm, radius of a ball within the body


def _cut(twin: Twin, crystal: Particle) -> _Cut:
    """Where a body is divided. Whatever the offset, both individuals keep some of the ball, and so of the body."""
    solid = crystal.solid
    normal = crystal.ub @ np.array(twin.composition or twin.plane)
    room = min(float(solid.distances.min(initial=np.inf)), solid.radius - float(np.linalg.norm(solid.center)))
    return _Cut(normal / np.linalg.norm(normal), twin.offset * room, room)


def _twins(twin: Twin, crystal: Particle, cut: _Cut) -> tuple[Particle, ...]:
    """The two individuals on either side of the composition plane, the second after the twin operation."""
    structure = crystal.structure
    axis = structure.b @ twin.plane if twin.plane is not None else structure.direct @ np.array(twin.axis)
    operation = Rotation.from_rotvec(np.radians(twin.angle_deg) * axis / np.linalg.norm(axis)).as_matrix()
    halves = zip((crystal.u, np.asarray(crystal.u @ operation)), _halves(crystal.solid, cut), strict=True)
    return tuple(replace(crystal, u=u, solid=solid, position_nm=at) for u, (solid, at) in halves)


def _halves(solid: Solid, cut: _Cut) -> list[tuple[Solid, np.ndarray]]:
    """What of a body lies on either side of a plane, and where the centroids (3,) are in the body's frame."""
    out = []
    for sign in (1, -1):
        normal, level = sign * cut.normal, sign * cut.level
        inside = (level - cut.room) / 2 * normal  # surely within the half
        whole = solid.moved(-inside)
        normals = np.concatenate([whole.normals, normal[None]])
        distances = np.append(whole.distances, level - normal @ inside)
        half, centroid = enclosed(normals, distances, whole.radius, whole.center)
        out.append((half, inside + centroid))
    return out


def _shelled(
    shell: Shell,
    crystal: Particle,
    parts: tuple[Particle, ...],
    cut: _Cut | None,
    structures: Mapping[str, Structure],
    rng: np.random.Generator,
) -> Body:
    """A body with a shell of even thickness: one more crystal, or a coat on each part."""
    thick, solid = shell.thickness_nm, crystal.solid
    outer, at = enclosed(solid.normals, solid.distances + thick, solid.radius + thick, solid.center)
    if shell.cif is None:
        around = outer.moved(at)  # in the frame of the core
        pieces = [(around, np.zeros(3))] if cut is None else _halves(around, cut)
        coats = [hollow(o.moved(o_at - p.position_nm), p.solid) for p, (o, o_at) in zip(parts, pieces, strict=True)]
        path = shell.mean_free_path_nm
        parts = tuple(replace(p, coat=c, coat_mean_free_path_nm=path) for p, c in zip(parts, coats, strict=True))
        return Body(outer, tuple(p.moved(-at) for p in parts))
    u = crystal.u
    if shell.orientation == "random":
        u = np.asarray(Rotation.from_quat(rng.normal(size=4)).as_matrix())
    layer = replace(
        crystal,
        structure=structures[shell.cif],
        solid=hollow(outer, solid.moved(-at)),
        mean_free_path_nm=shell.mean_free_path_nm,
        u=u,
    )
    return Body(outer, (*(p.moved(-at) for p in parts), layer))
