"""Convex bodies in contact: how far one can come before it touches another.

The offsets at which a body B overlaps a body A are themselves a convex body, A ⊕ −B, with the support function
h(n) = h_A(n) + h_B(−n). Along a line o + s·d it is left at s = min over n of (h(n) − n·o)/(n·d). Any n gives an upper
bound, that is a plane which parts the bodies: a search that stops early leaves a gap, never an overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from stemtomo_dl.simulate.shape import Solid


class Placed(NamedTuple):
    """A body where it lies."""

    solid: Solid
    place: np.ndarray  # (3,) of its origin, nm
    bound: float  # nm, radius of a ball about the origin that holds it


_TOLERANCE = 1e-4  # nm
_STEEPEST = 2e4  # tangent of the largest angle between the line and the planes' normals that are tried
_MOST = 400  # steps of the ellipsoid method, each shrinks it by a fifth


def arrival(solid: Solid, through: np.ndarray, direction: np.ndarray, others: Sequence[Placed]) -> float:
    """How far along a line a body stands when it comes from infinity and first touches one of the others.

    Parameters
    ----------
    through, direction : (3,) arrays
        The body's origin moves on through + s·direction (a unit vector), s falling.

    Returns
    -------
    s in nm; -inf where it meets none of them.
    """
    furthest, bound, axes = -np.inf, solid.bound(), _axes(direction)
    for other in others:
        offset = through - other.place
        along = float(offset @ direction)
        room = (bound + other.bound) ** 2 - float(offset @ offset) + along**2
        # no contact can be further out than where the bounding balls touch
        if room > 0 and np.sqrt(room) - along > furthest:
            furthest = max(furthest, _exit(other.solid, solid, offset, axes))
    return furthest


def overlap(solid: Solid, place: np.ndarray, others: Sequence[Placed]) -> bool:
    """Whether a body has points in common with any of the others."""
    bound = solid.bound()
    for other in others:
        apart = place - other.place
        distance = float(np.linalg.norm(apart))
        if distance < bound + other.bound:
            direction = apart / distance if distance > 0 else np.array([0.0, 0.0, 1.0])
            if distance < _exit(other.solid, solid, np.zeros(3), _axes(direction)) - _TOLERANCE:
                return True
    return False


def _axes(direction: np.ndarray) -> np.ndarray:
    """A direction (3,) and two across it, (3, 3): seen along them, the planes' normals are (1, u, v)."""
    across = np.array([1.0, 0, 0]) if abs(direction[0]) < 0.6 else np.array([0, 1.0, 0])
    first = np.cross(direction, across)
    first /= np.linalg.norm(first)
    return np.stack([direction, first, np.cross(direction, first)])


def _exit(a: Solid, b: Solid, offset: np.ndarray, axes: np.ndarray) -> float:
    """Where b, moved by offset + s·axes[0], leaves a for good."""
    return float(
        _lowest(
            np.ascontiguousarray(a.vertices @ axes.T),
            np.ascontiguousarray(-b.vertices @ axes.T),
            a.radius if len(a.vertices) == 0 else 0.0,
            b.radius if len(b.vertices) == 0 else 0.0,
            axes @ (a.center * (len(a.vertices) == 0) - b.center * (len(b.vertices) == 0) - offset),
        )
    )


@njit(cache=True, nogil=True)
def _furthest(vertices: np.ndarray, u: float, v: float) -> int:
    """The vertex that is furthest along (1, u, v), −1 where there is none."""
    best, at = -np.inf, -1
    for i in range(len(vertices)):
        value = vertices[i, 0] + u * vertices[i, 1] + v * vertices[i, 2]
        if value > best:
            best, at = value, i
    return at


@njit(cache=True, nogil=True)
def _lowest(a: np.ndarray, minus_b: np.ndarray, a_radius: float, b_radius: float, middle: np.ndarray) -> float:
    """The least h(1, u, v), which is convex in u and v, by the ellipsoid method.

    h is the support function of ``middle`` ⊕ a ⊕ −b, of vertices where there are any and of balls where not.
    """
    u, v, best = 0.0, 0.0, np.inf
    p, q, r = _STEEPEST**2, 0.0, _STEEPEST**2  # the ellipsoid's matrix [[p, q], [q, r]]
    for _ in range(_MOST):
        ball = (a_radius + b_radius) / np.sqrt(1 + u * u + v * v)
        x, y, z = middle[0] + ball, middle[1] + ball * u, middle[2] + ball * v
        i, j = _furthest(a, u, v), _furthest(minus_b, u, v)
        if i >= 0:
            x, y, z = x + a[i, 0], y + a[i, 1], z + a[i, 2]
        if j >= 0:
            x, y, z = x + minus_b[j, 0], y + minus_b[j, 1], z + minus_b[j, 2]
        best = min(best, x + u * y + v * z)
        width2 = p * y * y + 2 * q * y * z + r * z * z
        if width2 < _TOLERANCE**2:  # nothing in the ellipsoid is lower by more
            break
        width = np.sqrt(width2)
        su, sv = (p * y + q * z) / width, (q * y + r * z) / width
        u, v = u - su / 3, v - sv / 3
        p, q, r = 4 / 3 * (p - 2 / 3 * su * su), 4 / 3 * (q - 2 / 3 * su * sv), 4 / 3 * (r - 2 / 3 * sv * sv)
    return best
