"""What the formats share: frames in ascending order of angle, the camera as X-ray programs describe one, 16 bits."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tifffile

from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.records import DiffractionSeries

# What to write, by name, the file that names the others last: a text; an HDF5 tree by path, "path@name" being an
# attribute; or a folder of frames.
Files = dict[str, str | Mapping[str, Any] | Iterable[tuple[str, bytes]]]

PIXEL_MM = 0.055  # an electron camera length has no meaning of its own: one pixel is declared, the distance follows
_HIGHEST = 65534  # 65535 is taken as overload by some readers


@dataclass(frozen=True)
class Camera:
    """A flat detector, perpendicular to the beam, that shows the series' reciprocal pixel.

    In the frame of the detector, x along columns, y along rows, z along the beam, the beam meets it at
    ``center_px`` (column, row; the centre of the first pixel is (0, 0)) and rising angles turn the crystal by the
    right-handed rotation about ``axis``.
    """

    wavelength_a: float
    distance_mm: float
    center_px: tuple[float, float]
    axis: tuple[float, float]
    shape: tuple[int, int]  # rows, columns

    @classmethod
    def of(cls, series: DiffractionSeries) -> Camera:
        """The camera of a series: distance = pixel / (λ · reciprocal pixel)."""
        m = series.instrument
        length = wavelength(m.voltage_kv)
        omega = np.radians(tilt_axis(series))
        (column, row), (rows, columns) = series.center_px.tolist(), series.patterns.shape[1:]
        return cls(
            length,
            PIXEL_MM / (length * m.pixel_inv_angstrom),
            (column, row),
            (float(np.cos(omega)), float(np.sin(omega))),
            (rows, columns),
        )

    @property
    def corner_mm(self) -> tuple[float, float]:
        """The beam (along columns, along rows) from the outer corner of the first pixel, mm."""
        column, row = self.center_px
        return (column + 0.5) * PIXEL_MM, (row + 0.5) * PIXEL_MM


def tilt_axis(series: DiffractionSeries) -> float:
    """The tilt axis on the detector, degrees from columns toward rows."""
    return series.instrument.tilt_axis_deg + series.instrument.rotation_deg


def ascending(series: DiffractionSeries) -> DiffractionSeries:
    """The series by rising angle; a tilt series is of stills, so that the order in which they were taken is free.

    Values that are no numbers become zeros that were not measured.
    """
    order = np.argsort(series.alpha_deg, kind="stable")
    rows = {n: getattr(series, n)[order] for n in ("alpha_deg", "tilt", "n_probes", "n_support")}
    patterns, dose = series.patterns[order], series.dose_e_per_A2
    finite = np.isfinite(patterns)
    return replace(
        series,
        patterns=np.where(finite, patterns, np.float32(0)),
        measured=series.measured[order] & finite,
        dose_e_per_A2=None if dose is None else dose[order],
        **rows,
    )


def typical_probes(series: DiffractionSeries) -> float:
    """Probes of a typical frame: so many times the mean pattern are the counts of a frame, with their statistics.

    One number for the series, so that frames keep their ratios.
    """
    return max(1.0, float(np.median(series.n_probes)))


@dataclass(frozen=True)
class Levels:
    """Patterns in 16 bits: value = ``scale`` · (counts per probe) + ``pedestal``, from 1 to 65534.

    Only in the direct beam, which a particle weakens far below its support's, are values cut at 1.
    """

    values: np.ndarray  # (frame, row, column) uint16
    scale: float
    pedestal: int
    gain: float  # value per count of a typical frame; 1 unless the range would not hold them


def sixteen_bits(series: DiffractionSeries) -> Levels:
    """Counts of a typical frame in 16 bits; scaled down where they would not fit, so that nothing wraps.

    The pedestal is no higher than the values outside the direct beam ask for: programs take it for counts.
    """
    probes = typical_probes(series)
    low = float(series.patterns[:, ~direct_beam(series)].min(initial=0.0))
    high = float(series.patterns.max(initial=0.0))
    scale = min(probes, (_HIGHEST - 3) / (high - low)) if high > low else probes
    pedestal = 1 + int(np.ceil(-low * scale))
    values = np.empty(series.patterns.shape, "u2")
    for value, pattern in zip(values, series.patterns, strict=True):
        value[:] = np.clip(np.rint(pattern * np.float64(scale)) + pedestal, 1, _HIGHEST)
    return Levels(values, scale, pedestal, scale / probes)


def direct_beam(series: DiffractionSeries) -> np.ndarray:
    """Pixels (row, column) of the direct beam's disk, with as much again about it."""
    m, (column, row) = series.instrument, series.center_px
    disk = disk_radius_px(m.convergence_mrad, wavelength(m.voltage_kv), m.pixel_inv_angstrom)
    y, x = np.indices(series.patterns.shape[1:])
    return np.asarray(np.hypot(x - column, y - row) <= 2 * disk + 1.5)


def tiffs(frames: Iterable[np.ndarray]) -> Iterator[tuple[str, bytes]]:
    """Single-page, uncompressed TIFF files, 0001.tif …, in the frames' own dtype."""
    for i, frame in enumerate(frames, 1):
        yield f"{i:04d}.tif", _tiff(frame)


def _tiff(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, frame, metadata=None, byteorder="<")
    return file.getvalue()
