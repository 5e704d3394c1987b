"""Convex bodies: exact thickness along the beam, projected outline, volume."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from scipy.spatial import ConvexHull, HalfspaceIntersection, QhullError

from stemtomo_dl.records import Record, array


@dataclass(frozen=True, eq=False)
class Solid(Record):
    """A polyhedron {r : normals·r ≤ distances}, or a ball where it has no faces; the centroid is the origin."""

    volume: float  # nm³
    radius: float  # nm, of the ball; inf for a polyhedron
    normals: np.ndarray = array("f8", "face 3")
    distances: np.ndarray = array("f8", "face", "nm")
    vertices: np.ndarray = array("f8", "vertex 3", "nm")

    def turned(self, rotation: np.ndarray) -> Solid:
        """The solid after a rotation (3, 3) about its centroid."""
        return replace(self, normals=self.normals @ rotation.T, vertices=self.vertices @ rotation.T)

    def reach(self) -> np.ndarray:
        """How far the solid extends from its centroid, [[x, y] toward −, [x, y] toward +], nm, all ≥ 0."""
        if np.isfinite(self.radius):
            return np.full((2, 2), self.radius)
        return np.stack([-self.vertices[:, :2].min(0), self.vertices[:, :2].max(0)])

    def thickness(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Length of the chords along z at x (column) and y (row), nm: (row, column), nm."""
        return np.asarray(_chords(self.normals, self.distances, self.radius, x, y))


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
    return Solid(4 / 3 * np.pi * radius**3, radius, none, np.zeros(0), none)


def polyhedron(normals: np.ndarray, distances: np.ndarray) -> Solid:
    """The convex body within faces of unit normals (face, 3) at distances (face,) in nm from the origin.

    The origin must lie inside; the body is then moved so that its centroid is the origin.

    Raises
    ------
    ValueError
        If the faces do not enclose a volume.
    """
    try:
        with np.errstate(divide="ignore", invalid="ignore"):  # of corners at infinity, refused below
            corners = HalfspaceIntersection(np.column_stack([normals, -distances]), np.zeros(3)).intersections
        if not np.isfinite(corners).all():
            raise ValueError("the faces do not enclose a volume")
        hull = ConvexHull(corners)
    except QhullError as e:
        raise ValueError("the faces do not enclose a volume") from e
    # tetrahedra from the origin to the hull's triangles: signed volumes cannot be negative, the origin is inside
    triangles = corners[hull.simplices]
    parts = np.abs(np.linalg.det(triangles)) / 6
    centroid = (parts[:, None] * triangles.sum(1)).sum(0) / (4 * parts.sum())
    vertices = corners[hull.vertices] - centroid
    return Solid(float(parts.sum()), np.inf, normals, distances - normals @ centroid, vertices)


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
def _chords(normals: np.ndarray, distances: np.ndarray, radius: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Chord lengths along z by clipping each line with the ball and every half-space (Kay & Kajiya's slabs)."""
    out = np.zeros((len(y), len(x)))
    for j in range(len(y)):
        for i in range(len(x)):
            inside = radius * radius - x[i] * x[i] - y[j] * y[j]
            if inside <= 0:
                continue
            high = np.sqrt(inside)
            low = -high
            for n in range(len(distances)):
                room = distances[n] - normals[n, 0] * x[i] - normals[n, 1] * y[j]
                slope = normals[n, 2]
                if slope > 1e-12:
                    high = min(high, room / slope)
                elif slope < -1e-12:
                    low = max(low, room / slope)
                elif room < 0:
                    high = low
            out[j, i] = max(0.0, high - low)
    return out
