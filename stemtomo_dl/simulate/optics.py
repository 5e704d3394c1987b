"""An instrument with its virtual detectors, as training images and images of whole scenes see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri

from stemtomo_dl.geometry import disk_radius_px, virtual_radii, wavelength
from stemtomo_dl.simulate import cone, diffuse

BF, ADF, HAADF = 1, 2, 3  # zones of the detector; 0 is none of them

_POINTS = 100.0  # per px², that fill a disk
_NODES = 7  # per direction, that stand for a point spread


@dataclass(frozen=True, eq=False)
class Optics:
    """An instrument with its virtual detectors, which are those of `virtual.detectors`."""

    voltage_kv: float
    convergence_mrad: float
    pixel_inv_angstrom: float
    detector: tuple[int, int]  # rows, columns
    center_px: tuple[float, float]  # column, row
    rings: int = 3  # of cells in the illumination cone
    rotation_deg: float = 0.0
    bf_disk_radii: float = 1.2
    haadf_from: float = 0.6
    film_element: str = "C"
    psf_px: float = 0.0  # rms of the camera's point spread, of its core where it has a tail
    blind: np.ndarray | None = None  # (qy, qx) bool, pixels that are left out

    @property
    def disk_px(self) -> float:
        """Radius of the illumination disk on the detector."""
        return disk_radius_px(self.convergence_mrad, wavelength(self.voltage_kv), self.pixel_inv_angstrom)

    @property
    def radii(self) -> tuple[float, float, float, float]:
        """Of the virtual detectors, as `virtual_radii` gives them."""
        center = np.array(self.center_px)
        return virtual_radii(center, self.detector, self.disk_px, self.bf_disk_radii, self.haadf_from)

    def template(self, material: diffuse.Material) -> np.ndarray:
        """Share (qy, qx) of a material's diffusely scattered electrons in every pixel."""
        radii = diffuse.quantiles(material, self.voltage_kv, self.pixel_inv_angstrom, self.disk_px)
        sharp = diffuse.template(radii, np.array(self.center_px), self.detector)
        return np.asarray(gaussian_filter(sharp, self.psf_px, mode="nearest")) if self.psf_px > 0 else sharp


def zones(optics: Optics) -> np.ndarray:
    """Virtual detector (qy, qx) of every pixel."""
    center, (bright, inner, outer, reach) = np.array(optics.center_px), optics.radii
    y, x = np.indices(optics.detector)
    r = np.hypot(x - np.round(center[0]), y - np.round(center[1]))
    dark = (r > inner) & (r <= reach)
    zone = np.select([r <= bright, dark & (r <= outer), dark], [BF, ADF, HAADF], 0).astype("i8")
    return zone if optics.blind is None else np.where(optics.blind, 0, zone)


def rings(optics: Optics) -> np.ndarray:
    """Whole number of px (qy, qx) by which every pixel is away from the beam."""
    y, x = np.indices(optics.detector)
    return np.round(np.hypot(x - optics.center_px[0], y - optics.center_px[1])).astype("i8")


def filled(optics: Optics) -> np.ndarray:
    """Equally likely places (cell, point, 2) of the electrons of a disk, px from its middle, point spread included."""
    if optics.psf_px == 0:
        return cone.points(optics.rings, optics.disk_px, _POINTS)
    points = cone.points(optics.rings, optics.disk_px, _POINTS / _NODES)  # the spread fills in between
    steps = ndtri((np.arange(_NODES) + 0.5) / _NODES)
    steps *= optics.psf_px / steps.std()  # the tails that the nodes lack
    grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    return np.asarray((points[:, :, None] + grid).reshape(len(points), -1, 2))


def direct_beam(optics: Optics) -> np.ndarray:
    """Share (qy, qx) of an evenly lit disk about the beam's centre that lands in every pixel, blind ones included."""
    rows, columns = optics.detector
    places = filled(optics) + np.array(optics.center_px)
    column, row = np.floor(places + 0.5).astype(int).reshape(-1, 2).T
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    landed = np.bincount(row[inside] * columns + column[inside], minlength=rows * columns)
    return np.asarray(landed.reshape(rows, columns) / len(row))
