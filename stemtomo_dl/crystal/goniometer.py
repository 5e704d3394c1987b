"""What places spots: beam, camera and goniometer of a series, as stated or as refined.

A node g₀ of a crystal (sample frame at α = 0) is turned by the stage about its axis, and by what a frame's orientation
is off: g = D_f R(a, α_f) g₀. The camera shows it at c_f + E g_xy / (p k), where p is the stated size of a pixel in 1/Å,
k the factor by which it is wrong, and E the projector's ellipse, which keeps areas to first order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.geometry import excitation_error, rotate_in_plane, wavelength
from stemtomo_dl.records import Instrument, Record, array


@dataclass(frozen=True, eq=False)
class Geometry(Record):
    """Instrument and tilt angles of a series, with the corrections that refinement found."""

    instrument: Instrument  # with the tilt axis's azimuth
    alpha_deg: np.ndarray = array("f8", "frame", "deg")
    elevation_deg: float = 0.0  # of the tilt axis above the image plane, toward +z
    scale: float = 1.0  # true 1/Å per pixel over the stated one
    curvature_scale: float | None = None  # as the Ewald sphere's curvature alone tells it; None: not asked
    curvature_esd: float | None = None
    ellipse: tuple[float, float] = (
        0.0,
        0.0,
    )  # ε cos 2φ, ε sin 2φ: longer by ε along φ (columns toward rows)
    shift_px: np.ndarray | None = array("f8", "frame 2", "px (column, row), to be added to centres", optional=True)
    turn_rad: np.ndarray | None = array("f8", "frame 3", "rotation vector in the lab frame", optional=True)

    @property
    def wavelength_a(self) -> float:
        """Of the electrons, Å."""
        return wavelength(self.instrument.voltage_kv)

    @property
    def pixel(self) -> float:
        """Corrected size of a pixel, 1/Å."""
        return self.instrument.pixel_inv_angstrom * self.scale

    @property
    def step(self) -> float:
        """Typical step of the tilt, radians."""
        angles = np.unique(np.round(self.alpha_deg, 4))
        return float(np.radians(np.median(np.diff(angles)))) if len(angles) > 1 else 0.0

    @property
    def axis(self) -> np.ndarray:
        """Unit vector (3,) of the tilt axis in the lab frame."""
        w, d = np.radians([self.instrument.tilt_axis_deg, self.elevation_deg])
        return np.array([np.cos(w) * np.cos(d), np.sin(w) * np.cos(d), np.sin(d)])

    def turns(self) -> np.ndarray:
        """Rotations (frame, 3, 3) from the sample frame at α = 0 to the lab frame."""
        out = Rotation.from_rotvec(np.radians(self.alpha_deg)[:, None] * self.axis)
        return np.asarray((out if self.turn_rad is None else Rotation.from_rotvec(self.turn_rad) * out).as_matrix())

    def excitation(self, g: np.ndarray) -> np.ndarray:
        """Excitation errors (…), 1/Å, of lab vectors (…, 3); NaN beyond the sphere's rim."""
        return excitation_error(g, self.wavelength_a)

    def passing(self, g: np.ndarray) -> np.ndarray:
        """|ds/dα| (…), 1/Å per radian: how fast lab vectors (…, 3) pass through the Ewald sphere."""
        velocity = np.cross(self.axis, g)
        k = 1 / self.wavelength_a
        along = np.sqrt(np.maximum(k * k - g[..., 0] ** 2 - g[..., 1] ** 2, 1e-12))
        return np.abs((g[..., :2] * velocity[..., :2]).sum(-1) / along + velocity[..., 2])

    def to_detector(self, g: np.ndarray, center_px: np.ndarray) -> np.ndarray:
        """Places (…, 2) px of lab vectors (…, 3); ``center_px`` (…, 2) with every shift in it, see `centers`."""
        return rotate_in_plane(g[..., :2], self.instrument.rotation_deg) @ self.bend.T / self.pixel + center_px

    def to_lab(self, px: np.ndarray, center_px: np.ndarray) -> np.ndarray:
        """Lab vectors (…, 3), on the Ewald sphere, of places (…, 2) px; NaN beyond the sphere's rim."""
        flat = (px - center_px) * self.pixel @ np.linalg.inv(self.bend).T
        xy = rotate_in_plane(flat, -self.instrument.rotation_deg)
        z = self.excitation(np.concatenate([xy, np.zeros_like(xy[..., :1])], -1))
        return np.concatenate([xy, z[..., None]], -1)

    def centers(self, spots: Spots) -> np.ndarray:
        """Where the beam is in every frame (frame, 2) px: as the spots' series has it, with this geometry's shift."""
        return spots.center_px if self.shift_px is None else spots.center_px + self.shift_px

    def lab(self, spots: Spots) -> np.ndarray:
        """Lab vectors (spot, 3) of spots, 1/Å."""
        return self.to_lab(spots.px, self.centers(spots)[spots.frame])

    def sample(self, spots: Spots) -> np.ndarray:
        """Vectors (spot, 3) of spots in the sample frame at α = 0, 1/Å."""
        return np.asarray(np.einsum("nji,nj->ni", self.turns()[spots.frame], self.lab(spots)))

    def of(self, crystal: Crystal) -> Geometry:
        """The same with the tilt axis that a crystal was refined with, and the beam where that crystal has it."""
        shift = np.zeros((len(self.alpha_deg), 2)) if self.shift_px is None else self.shift_px
        return replace(self.with_axis(crystal.tilt_axis_deg), shift_px=shift + crystal.center_shift_px)

    def with_axis(self, tilt_axis_deg: float) -> Geometry:
        """The same with another azimuth of the tilt axis."""
        return replace(self, instrument=replace(self.instrument, tilt_axis_deg=tilt_axis_deg))

    def at(self, frames: np.ndarray) -> Geometry:
        """The same for some of the frames: a particle's out of a whole tilt series'."""
        shift = None if self.shift_px is None else self.shift_px[frames]
        turn = None if self.turn_rad is None else self.turn_rad[frames]
        return replace(self, alpha_deg=self.alpha_deg[frames], shift_px=shift, turn_rad=turn)

    @property
    def bend(self) -> np.ndarray:
        """What the ellipse makes of vectors (column, row), (2, 2)."""
        a, b = self.ellipse
        return np.array([[1 + a, b], [b, 1 - a]])


def placed(spots: Spots, tilt: np.ndarray, n_tilts: int) -> Spots:
    """Spots of a series whose frames are the tilts (frame,) of a whole tilt series, numbered by tilt.

    Centres of tilts that the series lacks are those of its first frame; no spot lies there.
    """
    center = np.tile(spots.center_px[:1], (n_tilts, 1))
    center[tilt] = spots.center_px
    return replace(spots, frame=tilt[spots.frame].astype("i4"), center_px=center)
