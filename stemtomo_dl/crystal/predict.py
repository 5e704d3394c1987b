"""Where and when a crystal's reflections are to be seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.records import DiffractionSeries

_CENTRED = {"C": (1, 1, 0), "A": (0, 1, 1), "B": (1, 0, 1), "I": (1, 1, 1)}


@dataclass(frozen=True, eq=False)
class Predicted:
    """Reflections near the Ewald sphere: one row a reflection and a frame.

    Attributes
    ----------
    row : (n,) array
        Of the list of reflections.
    frame : (n,) array
    s : (n,) array
        Excitation error, 1/Å.
    turning : (n, 2) array
        ∂s/∂θ, 1/Å per radian, for small rotations of the crystal about the tilt axis and, in the same plane, across it.
    length : (n,) array
        |g|, 1/Å.
    px : (n, 2) array
        Column, row.
    """

    row: np.ndarray
    frame: np.ndarray
    s: np.ndarray
    turning: np.ndarray
    length: np.ndarray
    px: np.ndarray

    def some(self, rows: np.ndarray) -> Predicted:
        """These rows."""
        return Predicted(*(c[rows] for c in (self.row, self.frame, self.s, self.turning, self.length, self.px)))

    def joined(self, other: Predicted) -> tuple[Predicted, np.ndarray]:
        """Both, sorted by frame, and which rows are of the first."""
        names = ("row", "frame", "s", "turning", "length", "px")
        both = Predicted(*(np.concatenate([getattr(self, n), getattr(other, n)]) for n in names))
        order = np.argsort(both.frame, kind="stable")
        return both.some(order), order < len(self.row)

    def turned(self, by: np.ndarray) -> Predicted:
        """The same with every frame's crystal turned by (frame, 2) radians about the tilt axis and across it."""
        return replace(self, s=self.s + (self.turning * by[self.frame]).sum(1))


def present(hkl: np.ndarray, lattice: str) -> np.ndarray:
    """Which indices (n, 3) the centring of a lattice allows; R in the obverse setting."""
    kind = lattice[1]
    if kind == "F":
        return np.asarray(np.ptp(hkl % 2, axis=1) == 0)
    if kind == "R":
        return np.asarray((-hkl[:, 0] + hkl[:, 1] + hkl[:, 2]) % 3 == 0)
    return np.asarray(hkl @ np.array(_CENTRED.get(kind, (0, 0, 0))) % 2 == 0)


def predicted_indices(series: DiffractionSeries, geometry: Geometry, crystal: Crystal) -> np.ndarray:
    """Indices (n, 3) of all reflections that could fall on the detector."""
    rows, columns = series.patterns.shape[1:]
    corners = np.array([[0, 0], [columns, 0], [0, rows], [columns, rows]]) - series.center_px
    g_max = float(np.linalg.norm(corners, axis=1).max()) * geometry.pixel
    most = np.ceil(g_max * np.linalg.norm(np.linalg.inv(crystal.ub), axis=1)).astype(int)
    hkl = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in most], indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ crystal.ub.T, axis=1)
    return np.asarray(hkl[(length > 0) & (length < g_max) & present(hkl, crystal.lattice)])


def turning_axes(tilt_axis_deg: float) -> np.ndarray:
    """The tilt axis and the direction across it, (2, 3) unit vectors in the lab frame."""
    c, s = np.cos(np.radians(tilt_axis_deg)), np.sin(np.radians(tilt_axis_deg))
    return np.array([[c, s, 0.0], [-s, c, 0.0]])


def predict(hkl: np.ndarray, reach: np.ndarray, spots: Spots, geometry: Geometry, crystal: Crystal) -> Predicted:
    """Predict reflections (n, 3) wherever their excitation error is within ``reach`` (n,), 1/Å.

    ``turning`` is −((e × g)·k₁)/k₁z with the diffracted wave vector k₁ = k₀ + g, s being measured along the beam.
    ``geometry`` has the crystal's own axis and centre in it.
    """
    g0 = hkl @ crystal.ub.T
    length, parts = np.linalg.norm(g0, axis=1), []
    axes, centers = turning_axes(geometry.instrument.tilt_axis_deg), geometry.centers(spots)
    for f, turn in enumerate(geometry.turns()):
        g = g0 @ turn.T
        s = geometry.excitation(g)
        near = np.flatnonzero(np.abs(s) < reach)
        g, s = g[near], s[near]
        out = s + 1 / geometry.wavelength_a + g[:, 2]  # k₁z
        about_xy = np.stack([g[:, 2] * g[:, 1] / out - g[:, 1], g[:, 0] - g[:, 2] * g[:, 0] / out], 1)
        px = geometry.to_detector(g, centers[f])
        parts.append((near, np.full(len(near), f), s, about_xy @ axes[:, :2].T, length[near], px))
    return Predicted(*(np.concatenate(c) for c in zip(*parts, strict=True)))
