"""Where the features of a film lie, and what of it is where: height, holes, dirt, the face that particles stand on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate.shape import Solid


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
        height, slope_x, slope_y = self.height(x, y)
        upright = self.thickness / 2 * np.sqrt(1 + slope_x**2 + slope_y**2)  # thickness is along the normal
        return np.asarray(np.where(self.in_hole(x, y, rim), np.inf, height - upright - self.added(x, y)))

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
