"""PETS2: a project file and 16-bit TIFF frames.

Keywords and their order of values are those of project files that PETS2 2.3 writes. The centre of the first pixel is
(0, 0), as in every other file of ours.
"""

from __future__ import annotations

import numpy as np

from stemtomo_dl.export.angles import typical_step
from stemtomo_dl.export.frames import Camera, Files, Levels, ascending, sixteen_bits, tiffs, tilt_axis
from stemtomo_dl.geometry import disk_radius_px
from stemtomo_dl.records import DiffractionSeries

_LEAST_REFLECTION_PX = 8  # diameter
_MARGIN_PX = 4  # of the integration circle about a disk


def pets(series: DiffractionSeries, title: str) -> Files:
    """Project file of PETS2 with its frames.

    PETS2 measures ω counter-clockwise from the horizontal, y up, hence minus the axis from columns toward rows; its
    list takes every angle as it is. The frames are stills: ``geometry static``.

    Parameters
    ----------
    series : DiffractionSeries
    title : str
        What the series is called, and its project file.

    Returns
    -------
    Files
        frames/0001.tif …, unsigned, on a pedestal that ``background`` subtracts; TITLE.pts2.
    """
    s = ascending(series)
    levels = sixteen_bits(s)
    return {"frames": tiffs(levels.values), f"{title}.pts2": _project(s, levels, title)}


def _project(s: DiffractionSeries, levels: Levels, title: str) -> str:
    m, camera = s.instrument, Camera.of(s)
    disk = 2 * disk_radius_px(m.convergence_mrad, camera.wavelength_a, m.pixel_inv_angstrom)
    column, row = camera.center_px
    reach = min(column, row, camera.shape[1] - 1 - column, camera.shape[0] - 1 - row) * m.pixel_inv_angstrom
    # A pixel that few frames measured has nothing to be interpolated from but its neighbours: PETS2 may do that itself.
    bad = np.argwhere(s.measured.mean(0) < 0.5)
    lines = [
        "# Stepped stills. Where rocking curves are wider than the steps, this may serve PETS2 better:",
        f"# geometry continuous, phi {typical_step(s.alpha_deg) / 2:.4f}",
        "geometry static",
        "phi 0.00000",
        f"lambda {camera.wavelength_a:.8f}",
        f"aperpixel {m.pixel_inv_angstrom:.8f}",
        f"omega {-tilt_axis(s) % 360:.4f}",
        "bin 1",
        f"reflectionsize {max(_LEAST_REFLECTION_PX, int(np.ceil(disk)) + _MARGIN_PX)}",
        f"noiseparameters {levels.gain:.5f} 0.0",
        "saturationlimit 65535",
        f"dstarmax {reach:.4f}",
        f"center {column:.3f} {row:.3f}",
        f"background {levels.pedestal}",
        "badpixels",
        *(f"{x} {y}" for y, x in bad),
        "endbadpixels",
        "notes",
        f"{title}: value = {levels.scale:.6g} x counts per probe + {levels.pedestal}",
        "endnotes",
        "imagelist",
        *(f'"frames/{i:04d}.tif" {a:.4f} 0.0000' for i, a in enumerate(s.alpha_deg, 1)),
        "endimagelist",
    ]
    return "\n".join(lines) + "\n"
