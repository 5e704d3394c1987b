"""Frames, signs and units, once.

Lab frame, right-handed: x right along a scan row, y down, z along the beam, away from the gun. The stage turns
the sample by the right-handed rotation R(a, α) about a = (cos ω, sin ω, 0). Reciprocal vectors in 1/Å without 2π;
incident wave vector k₀ = (0, 0, K), K = 1/λ; the Ewald sphere is centred at −k₀.
"""

from __future__ import annotations

import numpy as np


def wavelength(voltage_kv: float) -> float:
    """Relativistic electron wavelength in Å.

    De Broglie's relation with CODATA constants: λ = h / sqrt(2 m e V (1 + e V / 2 m c²)).
    """
    volts = voltage_kv * 1e3
    return float(12.2642597 / np.sqrt(volts * (1 + 0.97847547e-6 * volts)))


def tilt_rotation(tilt_axis_deg: float, alpha_deg: np.ndarray | float) -> np.ndarray:
    """Rotation R(a, α) of the stage, (…, 3, 3), by Rodrigues' formula.

    Parameters
    ----------
    tilt_axis_deg : float
        ω, from x toward y as seen on the image (y down).
    alpha_deg : array_like
        Tilt angles, any shape.
    """
    w, alpha = np.radians(tilt_axis_deg), np.radians(np.asarray(alpha_deg, float))[..., None, None]
    ax, ay = np.cos(w), np.sin(w)
    cross = np.array([[0.0, 0.0, ay], [0.0, 0.0, -ax], [-ay, ax, 0.0]])
    return np.eye(3) + np.sin(alpha) * cross + (1 - np.cos(alpha)) * (cross @ cross)


def rotate_in_plane(xy: np.ndarray, angle_deg: float) -> np.ndarray:
    """Turn vectors (…, 2) from x toward y."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.stack([c * xy[..., 0] - s * xy[..., 1], s * xy[..., 0] + c * xy[..., 1]], -1)


def field_centre(shape: tuple[int, int]) -> np.ndarray:
    """Pixel (x, y) at which the sample frame's origin is seen when nothing has drifted."""
    return np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])


def excitation_error(g: np.ndarray, wavelength_a: float) -> np.ndarray:
    """Distance along z from reciprocal-lattice points to the Ewald sphere, positive inside it.

    Parameters
    ----------
    g : (…, 3) array
        Lab-frame reciprocal vectors, 1/Å.

    Returns
    -------
    (…) array, 1/Å. NaN where the point lies beyond the sphere's rim (|g_xy| > K).
    """
    k = 1 / wavelength_a
    with np.errstate(invalid="ignore"):
        return np.sqrt(k * k - g[..., 0] ** 2 - g[..., 1] ** 2) - (k + g[..., 2])


def g_to_detector(g: np.ndarray, pixel_inv_angstrom: float, rotation_deg: float, center_px: np.ndarray) -> np.ndarray:
    """Detector position (column, row) of reflections with lab vectors g (…, 3): +g_x along columns, +g_y along rows.

    The calibrated detector is linear in the transverse wave vector, which is what a diffracted beam keeps: it leaves
    along (g_x, g_y, sqrt(K² − g_xy²)). A camera that is linear in tan 2θ shows it further out by (g_xy/K)²/2.
    """
    return rotate_in_plane(g[..., :2], rotation_deg) / pixel_inv_angstrom + center_px


def detector_to_q(
    px: np.ndarray, wavelength_a: float, pixel_inv_angstrom: float, rotation_deg: float, center_px: np.ndarray
) -> np.ndarray:
    """Lab reciprocal vectors (…, 3), on the Ewald sphere, of detector positions (…, 2) (column, row).

    NaN where a position lies beyond the sphere's rim.
    """
    xy = rotate_in_plane((px - center_px) * pixel_inv_angstrom, -rotation_deg)
    z = excitation_error(np.concatenate([xy, np.zeros_like(xy[..., :1])], -1), wavelength_a)
    return np.concatenate([xy, z[..., None]], -1)


def disk_radius_px(convergence_mrad: float, wavelength_a: float, pixel_inv_angstrom: float) -> float:
    """Radius of a diffraction disk in detector pixels."""
    return convergence_mrad * 1e-3 / (wavelength_a * pixel_inv_angstrom)


def virtual_radii(
    center_px: np.ndarray, shape: tuple[int, int], disk_px: float, bf_disk_radii: float, haadf_from: float
) -> tuple[float, float, float, float]:
    """Where virtual detectors begin and end, px from the pixel that is nearest to the beam.

    Parameters
    ----------
    center_px : (2,) array
        Column, row of the beam.
    shape : (int, int)
        Rows and columns of the detector.
    disk_px : float
        Radius of the diffraction disks.
    bf_disk_radii : float
        Edge of the bright field in radii of the disks.
    haadf_from : float
        Where the high-angle dark field begins, as a share of its outer edge.

    Returns
    -------
    bright, inner, outer, reach : float
        Bright field is r ≤ bright; dark field inner < r ≤ reach, high-angle from ``outer`` on.
    """
    (cx, cy), (rows, columns) = center_px, shape
    edge = min(cx, columns - 1 - cx, cy, rows - 1 - cy)
    reach = max(0.97 * edge, 0.25 * max(rows, columns))  # a beam near an edge still leaves part of a ring
    bright, outer = bf_disk_radii * disk_px + 0.5, haadf_from * reach
    return bright, max(min(2.0 * disk_px + 1.5, 0.5 * outer), bright), outer, reach
