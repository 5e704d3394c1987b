"""Intensities frame by frame as PETS2 writes them (.cif_pets), for JANA2020 and others that refine dynamically.

PETS2's laboratory has x along columns, y up and z toward the gun; ω turns about z, α about x, β about y, and a frame is
in position at Rz(ω) Rx(α) Ry(β) UB. Its UB is that of a crystal whose tilt axis lies along x.
"""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.nouns import Crystal, FrameIntensities
from stemtomo_dl.geometry import wavelength
from stemtomo_dl.store.atomic import write_text

_TURNED_OVER = np.diag([1.0, -1.0, -1.0])  # from the lab frame to that of PETS2
_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_ZONE = ("id", "u", "v", "w", "precession_angle", "alpha", "beta", "omega", "scale")
_REFLECTION = ("index_h", "index_k", "index_l", "intensity_meas", "intensity_sigma", "zone_axis_id")
_HIGHEST = 9_999_999.0  # of an intensity in its column


def write_cif_pets(path: Path, crystal: Crystal, frames: FrameIntensities, voltage_kv: float, radius_px: float) -> None:
    """Write the measurements of a crystal.

    Intensities are brought to one scale for the whole file, on which the strongest fills its column at most.

    Parameters
    ----------
    path : Path
    crystal : Crystal
    frames : FrameIntensities
        Frames that hold no reflection are left out; zone axes keep the frames' numbers, from 1.
    voltage_kv : float
    radius_px : float
        Of the disks.
    """
    scale = min(1.0 / max(float(np.median(frames.sigma)), 1e-12) if len(frames.sigma) else 1.0, _room(frames))
    ub = Rotation.from_euler("z", crystal.tilt_axis_deg, degrees=True).as_matrix() @ _TURNED_OVER @ crystal.ub
    lines = ["data_pets"]
    lines += [f"_cell_{n:<14s} {v:10.5f}" for n, v in zip(_CELL, crystal.cell, strict=True)]
    lines += [f"_cell_volume {gemmi.UnitCell(*crystal.cell).volume:.5f}"]
    lines += [f"_diffrn_radiation_wavelength {wavelength(voltage_kv):.6f}"]
    lines += [f"_diffrn_orient_matrix_UB_{i + 1}{j + 1} {ub[i, j]:9.6f}" for i in range(3) for j in range(3)]
    lines += ["_diffrn_pets_omega 0.00000", "", *_details(crystal, frames, radius_px), ""]
    lines += ["loop_", *(f"_diffrn_zone_axis_{n}" for n in _ZONE), *_zones(crystal, frames, ub), ""]
    lines += ["loop_", *(f"_refln_{n}" for n in _REFLECTION)]
    order = np.lexsort((*frames.hkl.T[::-1], frames.frame))
    for (h, k, n), i, s, f in zip(
        frames.hkl[order].tolist(),
        (frames.intensity * scale)[order].tolist(),
        (frames.sigma * scale)[order].tolist(),
        frames.frame[order].tolist(),
        strict=True,
    ):
        lines.append(f" {h:3d} {k:3d} {n:3d} {i:11.2f} {max(s, 0.01):11.2f} {f + 1:5d}")
    write_text(path, "\n".join(lines) + "\n")


def _room(frames: FrameIntensities) -> float:
    """The greatest scale at which intensities fit their columns."""
    return _HIGHEST / max(float(np.abs(frames.intensity).max(initial=0)), 1e-12)


def _details(crystal: Crystal, frames: FrameIntensities, radius_px: float) -> list[str]:
    furthest = float(np.linalg.norm(frames.hkl @ crystal.ub.T, axis=1).max(initial=0))
    return [
        "_diffrn_measurement_details",
        ";",
        "data collection geometry: static",
        f"dstarmax: {furthest:6.3f}",
        f"RC width: {frames.rocking_width:8.5f}",
        f"mosaicity: {frames.mosaicity_deg:6.3f}",
        f"rotation axis position: {-crystal.tilt_axis_deg:8.3f}",
        f"reflection size: {2 * radius_px:7.3f}",
        "Virtual frame settings: number of merged frames:  1",
        "                        step between frames:      1",
        "                        sum all intensities:      1",
        ";",
    ]


def _zones(crystal: Crystal, frames: FrameIntensities, ub: np.ndarray) -> list[str]:
    """One line a frame: the direction toward the gun in direct space, its greatest component 1, and the angles."""
    back = Rotation.from_euler("z", -crystal.tilt_axis_deg, degrees=True).as_matrix()
    turn = _TURNED_OVER @ frames.rotation @ _TURNED_OVER @ back
    omega, alpha, beta = Rotation.from_matrix(turn).as_euler("ZXY", degrees=True).T
    axis = turn[:, 2] @ ub
    axis = axis / np.abs(axis).max(1, keepdims=True)
    return [
        f"{f + 1:4d} {axis[f, 0]:8.5f} {axis[f, 1]:8.5f} {axis[f, 2]:8.5f} {0:12.3f}"
        f" {alpha[f]:9.3f} {beta[f]:9.3f} {omega[f]:9.3f} {1:9.3f}"
        for f in np.unique(frames.frame).tolist()
    ]
