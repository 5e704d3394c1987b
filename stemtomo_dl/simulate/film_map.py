"""Where the features of a film lie, and what of it is where: height, holes, dirt, the face that particles stand on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate.shape import Solid

_TURN = 0.3  # rad of the shortest wave from node to node: cubic interpolation is then good to 2e-4 of its amplitude


@dataclass(frozen=True, eq=False)
class FilmMap(Record):
    """Where the features of one film lie, in the sample frame at α = 0.

    A square array of holes has one entry in ``holes`` and a ``period`` along ``azimuth``; the height is a sum of
    waves ``amplitude`` · cos(k·r + φ) with ``waves`` = (k_x, k_y, φ).
    """

    amplitude: float  # nm
    thickness: float  # nm
    dirt_thickness: float  # nm, in the middle of a patch
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

    def in_hole(self, x: np.ndarray, y: np.ndarray, within: float = 0.0) -> np.ndarray:
        """Whether there is no film, or none within a distance in nm, bool of the shape of x and y."""
        out = np.zeros(np.shape(x), bool)
        periodic = np.isfinite(self.period)
        for hx, hy, radius in self.holes if periodic else _near(self.holes, x, y):
            dx, dy = x - hx, y - hy
            if periodic:
                c, s = np.cos(self.azimuth), np.sin(self.azimuth)
                dx, dy = c * dx + s * dy, c * dy - s * dx
                dx, dy = (d - self.period * np.round(d / self.period) for d in (dx, dy))
            out |= dx**2 + dy**2 < max(radius - within, 0) ** 2
        return out

    def added(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Thickness of the dirt, nm, of the shape of x and y; patches that overlap add up."""
        out = np.zeros(np.shape(x))
        for px, py, radius in _near(self.dirt, x, y):
            out += np.clip(1 - ((x - px) ** 2 + (y - py) ** 2) / radius**2, 0, None) ** 2
        return self.dirt_thickness * out

    def floor(self, x: np.ndarray, y: np.ndarray, rim: float = 0.0) -> np.ndarray:
        """What particles stand on: z of the upper face and its dirt, nm, of the shape of x and y.

        It is inf over a hole, but for a ``rim`` in nm that counts as film: for points that are that far apart.
        """
        return np.asarray(np.where(self.in_hole(x, y, rim), np.inf, self._face(x, y) - self.added(x, y)))

    def _face(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Height z of the upper face without dirt, nm, of the shape of x and y.

        Many points on little film are interpolated between nodes so close that it makes no difference.
        """
        if not len(self.waves):
            return np.full(np.shape(x), -self.thickness / 2)
        step = _TURN / max(float(np.hypot(*self.waves[:, :2].T).max()), 1e-12)
        first = np.array([np.min(y), np.min(x)]) - step
        rows, columns = (int(min(np.ptp(v) / step, 1e6)) + 4 for v in (y, x))
        if rows * columns > np.size(x):
            return self._upper(*self.height(x, y))
        e_x = np.exp(1j * self.waves[:, :1] * (first[1] + step * np.arange(columns)))
        e_y = np.exp(1j * (self.waves[:, 1:2] * (first[0] + step * np.arange(rows)) + self.waves[:, 2:]))
        weights = self.amplitude * np.array([np.ones(len(e_x)), 1j * self.waves[:, 0], 1j * self.waves[:, 1]])
        nodes = self._upper(*(((e_y * weight[:, None]).T @ e_x).real for weight in weights))
        at = ((np.ravel(v) - start) / step for v, start in zip((y, x), first, strict=True))
        return _cubic(nodes, *at).reshape(np.shape(x))

    def _upper(self, height: np.ndarray, slope_x: np.ndarray, slope_y: np.ndarray) -> np.ndarray:
        """The upper face of a film whose middle has a height and slopes; its thickness is along the normal."""
        return np.asarray(height - self.thickness / 2 * np.sqrt(1 + slope_x**2 + slope_y**2))

    def follows(self, place: np.ndarray, rotation: np.ndarray) -> bool:
        """Whether the film follows a place (3,) along the beam, after a rotation (3, 3) of the stage."""
        height, slope_x, slope_y = self.height(place[0], place[1])
        above = bool(place[2] < height)
        return above == bool(np.array([-slope_x, -slope_y, 1.0]) @ rotation[2] > 0)


def _near(features: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Those of round features (feature, 3) that may cover some of the points."""
    if not len(features) or not np.size(x):
        return features[:0]
    radius = features[:, 2]
    near = [(f > np.min(v) - radius) & (f < np.max(v) + radius) for f, v in zip(features.T, (x, y), strict=False)]
    return np.asarray(features[near[0] & near[1]])


@njit(cache=True, nogil=True)
def _cubic(nodes: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Values (point,) between the nodes (row, column) of a grid by Lagrange's cubics, one node in from its rim."""
    out = np.empty(len(row))
    for p in range(len(row)):
        i, j = min(int(row[p]), nodes.shape[0] - 3), min(int(column[p]), nodes.shape[1] - 3)
        u, v = row[p] - i, column[p] - j
        total = 0.0
        for a, weight_a in enumerate(_lagrange(u)):
            for b, weight_b in enumerate(_lagrange(v)):
                total += weight_a * weight_b * nodes[i - 1 + a, j - 1 + b]
        out[p] = total
    return out


@njit(cache=True, nogil=True, inline="always")
def _lagrange(t: float) -> tuple[float, float, float, float]:
    """Weights of the nodes at −1, 0, 1, 2 for a place t between 0 and 1."""
    return (
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    )
