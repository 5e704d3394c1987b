"""Convex bodies: exact thickness along the beam, projected outline, volume."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from scipy.spatial import ConvexHull, HalfspaceIntersection, QhullError

from stemtomo_dl.records import Record, array

_TANGENTS = 400  # planes that stand for a ball where corners are needed: they lie at most 0.9 % of the radius outside
_RAYS = 20000  # for the volume of rounded bodies, good to 1e-4
GRID = 33  # points per direction of a body's far side

ORIGIN = np.zeros(3)


@dataclass(frozen=True, eq=False)
class Solid(Record):
    """A polyhedron {r : normals·r ≤ distances} cut by a ball, less its core; the centroid is the origin when made.

    Without faces it is a ball; without a ball (``radius`` inf) a polyhedron. The vertices of a rounded body are the
    corners of a polyhedron that encloses it closely; a ball has none.
    """

    volume: float  # nm³
    radius: float  # nm, of the ball; inf for a polyhedron
    normals: np.ndarray = array("f8", "face 3")
    distances: np.ndarray = array("f8", "face", "nm")
    vertices: np.ndarray = array("f8", "vertex 3", "nm")
    center: np.ndarray = array("f8", "3", "nm, of the ball")
    core: Solid | None = None  # a hollow inside, in the same frame

    def turned(self, rotation: np.ndarray) -> Solid:
        """The solid after a rotation (3, 3) about the origin."""
        return replace(
            self,
            normals=self.normals @ rotation.T,
            vertices=self.vertices @ rotation.T,
            center=rotation @ self.center,
            core=self.core and self.core.turned(rotation),
        )

    def moved(self, by: np.ndarray) -> Solid:
        """The solid after a shift (3,) in nm."""
        return replace(
            self,
            distances=self.distances + self.normals @ by,
            vertices=self.vertices + by,
            center=self.center + by,
            core=self.core and self.core.moved(by),
        )

    def reach(self) -> np.ndarray:
        """How far the solid extends from the origin, [[x, y] toward −, [x, y] toward +], nm, all ≥ 0."""
        out = np.full((2, 2), np.inf)
        if np.isfinite(self.radius):
            out = np.stack([self.radius - self.center[:2], self.radius + self.center[:2]])
        if len(self.vertices):
            out = np.minimum(out, np.stack([-self.vertices[:, :2].min(0), self.vertices[:, :2].max(0)]))
        return np.maximum(out, 0)

    def bound(self) -> float:
        """Radius of a ball about the origin that holds the solid, nm."""
        if len(self.vertices):
            return float(np.linalg.norm(self.vertices, axis=1).max())
        return self.radius + float(np.linalg.norm(self.center))

    def thickness(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Length of the chords along z at x (column) and y (row), nm: (row, column), nm."""
        low, high = _chords(self.normals, self.distances, self.radius, self.center, x, y)
        out = np.asarray(high - low)
        return out if self.core is None else out - self.core.thickness(x, y)

    def far_side(self) -> np.ndarray:
        """Points (point, 3) of the surface that looks toward +z, nm: a grid, corners and, of a polyhedron, edges.

        A ball's last point is among them; the corners of a rounded body lie a little outside it.
        """
        less, more = self.reach()
        x, y = (np.linspace(-a, b, GRID) for a, b in zip(less, more, strict=True))
        low, high = _chords(self.normals, self.distances, self.radius, self.center, x, y)
        row, column = np.nonzero(high > low)
        parts = [np.column_stack([x[column], y[row], high[row, column]]), self.vertices]
        if not len(self.vertices):
            parts.append(self.center[None] + [0, 0, self.radius])
        if np.isinf(self.radius):
            parts.append(self._edges())
        return np.concatenate(parts)

    def _edges(self) -> np.ndarray:
        """Points (point, 3) along the edges of a polyhedron: they join corners that two faces share."""
        on = np.abs(self.vertices @ self.normals.T - self.distances) < 1e-6 * self.bound()
        shared = np.triu(on.astype(int) @ on.T.astype(int) >= 2, 1)
        first, second = (self.vertices[i] for i in np.nonzero(shared))
        t = np.linspace(0, 1, GRID)[1:-1, None, None]
        return np.asarray((first + t * (second - first)).reshape(-1, 3))


@dataclass(frozen=True, eq=False)
class Footprint(Record):
    """What one particle covers of one scan; ``y0``, ``x0`` is the crop's first pixel, which may be empty."""

    y0: int
    x0: int
    thickness: np.ndarray = array("f8", "y x", "nm")
    outline: np.ndarray = array("bool", "y x")


def ball(radius: float) -> Solid:
    """A ball of a radius in nm."""
    none = np.zeros((0, 3))
    return Solid(4 / 3 * np.pi * radius**3, radius, none, np.zeros(0), none, ORIGIN)


def polyhedron(normals: np.ndarray, distances: np.ndarray) -> Solid:
    """The convex body within faces of unit normals (face, 3) at distances (face,) in nm from the origin.

    The origin must lie inside; the body is then moved so that its centroid is the origin.

    Raises
    ------
    ValueError
        If the faces do not enclose a volume.
    """
    return enclosed(normals, distances)[0]


def enclosed(
    normals: np.ndarray, distances: np.ndarray, radius: float = np.inf, center: np.ndarray = ORIGIN
) -> tuple[Solid, np.ndarray]:
    """The body within faces (face, 3) and a ball, centred, and where its centroid was, (3,) in nm.

    The origin must lie inside. Without faces the body is the ball.

    Raises
    ------
    ValueError
        If the faces do not enclose a volume.
    """
    if len(normals) == 0:
        return ball(radius), center
    if np.isfinite(radius):
        tangents = directions(_TANGENTS)
        corners, _ = _corners(
            np.concatenate([normals, tangents]), np.concatenate([distances, radius + tangents @ center])
        )
        volume, centroid = _star(normals, distances, radius, center)
    else:
        corners, hull = _corners(normals, distances)
        # tetrahedra from the origin to the hull's triangles: signed volumes cannot be negative, the origin is inside
        triangles = corners[hull]
        parts = np.abs(np.linalg.det(triangles)) / 6
        volume, centroid = float(parts.sum()), (parts[:, None] * triangles.sum(1)).sum(0) / (4 * parts.sum())
        corners = corners[np.unique(hull)]
    return Solid(
        volume, radius, normals, distances - normals @ centroid, corners - centroid, center - centroid
    ), centroid


def hollow(outer: Solid, core: Solid) -> Solid:
    """A shell: what is left of a body without another that lies inside it, in the same frame."""
    return replace(outer, volume=outer.volume - core.volume, core=core)


def directions(count: int) -> np.ndarray:
    """Directions (count, 3) evenly over the sphere, on a Fibonacci spiral."""
    z = 1 - (2 * np.arange(count) + 1) / count
    phi = np.arange(count) * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - z**2)
    return np.column_stack([r * np.cos(phi), r * np.sin(phi), z])


def _corners(normals: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners (corner, 3) of half-spaces round the origin, and the triangles (triangle, 3) of their hull."""
    try:
        with np.errstate(divide="ignore", invalid="ignore"):  # of corners at infinity, refused below
            corners = HalfspaceIntersection(np.column_stack([normals, -distances]), ORIGIN).intersections
        if not np.isfinite(corners).all():
            raise ValueError("the faces do not enclose a volume")
        return corners, ConvexHull(corners).simplices
    except QhullError as e:
        raise ValueError("the faces do not enclose a volume") from e


def _star(normals: np.ndarray, distances: np.ndarray, radius: float, center: np.ndarray) -> tuple[float, np.ndarray]:
    """Volume and centroid (3,) by rays from the origin: ∫ r³/3 dΩ and ∫ u·r⁴/4 dΩ over the volume."""
    rays = directions(_RAYS)
    along = rays @ center
    out = along + np.sqrt(along**2 - center @ center + radius**2)
    for normal, distance in zip(normals, distances, strict=True):
        with np.errstate(divide="ignore"):
            room = distance / np.maximum(rays @ normal, 0)
        np.minimum(out, room, out=out)
    solid_angle = 4 * np.pi / _RAYS
    volume = float((out**3).sum() * solid_angle / 3)
    return volume, (rays * out[:, None] ** 4).sum(0) * solid_angle / (4 * volume)


def footprint(solid: Solid, at_px: np.ndarray, step_nm: float, shape: tuple[int, int], samples: int = 1) -> Footprint:
    """Thickness and outline of a solid, already turned into the lab frame, on a scan.

    Parameters
    ----------
    at_px : (2,) array
        Where the centroid is seen, px (x, y).
    step_nm : float
        Distance of probe positions.
    shape : (int, int)
        Rows and columns of the scan.
    samples : int
        Probe positions per step and direction over which the thickness is averaged. The outline is always
        where the pixel's centre is covered.
    """
    low, high = solid.reach() / step_nm
    first = np.clip(np.floor(at_px - low), 0, [shape[1], shape[0]]).astype(int)
    last = np.clip(np.ceil(at_px + high) + 1, first, [shape[1], shape[0]]).astype(int)
    x, y = (np.arange(a, b, dtype=float) - c for a, b, c in zip(first, last, at_px, strict=True))
    outline = solid.thickness(x * step_nm, y * step_nm)
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    fine_x, fine_y = ((v[:, None] + offsets).ravel() * step_nm for v in (x, y))
    thickness = solid.thickness(fine_x, fine_y).reshape(len(y), samples, len(x), samples).mean((1, 3))
    return Footprint(int(first[1]), int(first[0]), thickness, outline > 0)


@njit(cache=True, nogil=True)
def _chords(
    normals: np.ndarray, distances: np.ndarray, radius: float, center: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where lines along z enter and leave, (row, column) each, alike where they miss.

    Each line is clipped with the ball and every half-space (Kay & Kajiya's slabs).
    """
    entry, exit_ = np.zeros((len(y), len(x))), np.zeros((len(y), len(x)))
    for j in range(len(y)):
        for i in range(len(x)):
            inside = radius * radius - (x[i] - center[0]) ** 2 - (y[j] - center[1]) ** 2
            if inside <= 0:
                continue
            half = np.sqrt(inside)
            high, low = center[2] + half, center[2] - half
            for n in range(len(distances)):
                room = distances[n] - normals[n, 0] * x[i] - normals[n, 1] * y[j]
                slope = normals[n, 2]
                if slope > 1e-12:
                    high = min(high, room / slope)
                elif slope < -1e-12:
                    low = max(low, room / slope)
                elif room < 0:
                    high = low
            if high > low:
                entry[j, i], exit_[j, i] = low, high
    return entry, exit_
