"""Plain TIFF frames with a tilt list: the values as they are, for any other program."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.export.frames import Files, ascending, tiffs
from stemtomo_dl.records import DiffractionSeries


def tiff(series: DiffractionSeries, title: str) -> Files:
    """Frames as 32-bit floats (counts per probe), masks, tilt list and geometry.

    Parameters
    ----------
    series : DiffractionSeries
    title : str
        What the series is called.

    Returns
    -------
    Files
        frames/0001.tif …; masks/0001.tif …, 255 where a pixel was measured; geometry.toml in the keys of an
        experiment file; tilts.csv, whose columns scan and alpha_deg are those of a tilt list.
    """
    s = ascending(series)
    return {
        "frames": tiffs(s.patterns),
        "masks": tiffs(np.where(m, np.uint8(255), np.uint8(0)) for m in s.measured),
        "geometry.toml": _geometry(s, title),
        "tilts.csv": _tilts(s),
    }


def _geometry(s: DiffractionSeries, title: str) -> str:
    m = s.instrument
    column, row = s.center_px
    return (
        f'title = "{title}"\n\n'
        f"[beam]\nvoltage_kv = {m.voltage_kv:g}\nconvergence_mrad = {m.convergence_mrad:g}\n\n"
        f"[detector]\npixel_inv_angstrom = {m.pixel_inv_angstrom:.8g}\ncenter_px = [{column:.3f}, {row:.3f}]\n\n"
        "[stage]\n# on the detector, from columns toward rows\n"
        f"tilt_axis_deg = {m.tilt_axis_deg + m.rotation_deg:.4f}\n"
    )


def _tilts(s: DiffractionSeries) -> str:
    dose = s.dose_e_per_A2
    lines = ["scan,alpha_deg,tilt,n_probes" + ("" if dose is None else ",dose_e_per_A2")]
    for i, (alpha, tilt, n) in enumerate(zip(s.alpha_deg, s.tilt, s.n_probes, strict=True)):
        tail = "" if dose is None else f",{dose[i]:.6g}"
        lines.append(f"frames/{i + 1:04d}.tif,{alpha:.4f},{tilt},{n}{tail}")
    return "\n".join(lines) + "\n"
