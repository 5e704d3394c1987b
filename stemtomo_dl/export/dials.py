"""DIALS: NXmx files with an electron probe, and the commands that take them to a lattice.

NeXus describes the laboratory as McStas does: y up, z along the beam. The frame of the detector (x along columns,
y along rows, z along the beam) goes into it by half a turn about z: (x, y, z) -> (−x, −y, z).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stemtomo_dl.export.angles import Grid, sweeps
from stemtomo_dl.export.frames import PIXEL_MM, Camera, Files, ascending, direct_beam, typical_probes
from stemtomo_dl.records import DiffractionSeries

_OVERLOAD = 2**31 - 2
_CLASSES = {  # the groups of a file
    "entry": "NXentry",
    "entry/source": "NXsource",
    "entry/instrument": "NXinstrument",
    "entry/instrument/beam": "NXbeam",
    "entry/instrument/detector": "NXdetector",
    "entry/instrument/detector/module": "NXdetector_module",
    "entry/instrument/detector/transformations": "NXtransformations",
    "entry/sample": "NXsample",
    "entry/sample/transformations": "NXtransformations",
    "entry/data": "NXdata",
}
_DETECTOR = "entry/instrument/detector"
_ALPHA = "entry/sample/transformations/alpha"


def dials(series: DiffractionSeries, title: str) -> Files:
    """NXmx files, one as a rule, and a script.

    DIALS gives a file one start and one step: the frames are laid on an even grid, in which slots that no frame falls
    on hold no valid pixel. Frames whose slot another one has go into further files, which the script indexes together
    with the first. Values are counts of a typical frame, in floats, negative where the background was above
    them; pixels that were not measured lie below ``underload_value``.

    Parameters
    ----------
    series : DiffractionSeries
    title : str
        What the series is called, and its file.

    Returns
    -------
    Files
        TITLE.nxs, TITLE_2.nxs …, as trees by path; dials.sh.
    """
    s = ascending(series)
    found = sweeps(s.alpha_deg)
    names = [f"{title}.nxs", *(f"{title}_{k}.nxs" for k in range(2, len(found) + 1))]
    files: Files = {name: _tree(s, slots, title) for name, slots in zip(names, found, strict=True)}
    files["dials.sh"] = _script(names, found, len(s.alpha_deg))
    return files


def _tree(s: DiffractionSeries, slots: Grid, title: str) -> Mapping[str, Any]:
    camera = Camera.of(s)
    measured = s.measured[slots.frame] & (slots.frame >= 0)[:, None, None]
    counts = s.patterns[slots.frame] * np.float32(typical_probes(s))
    underload = float(np.floor(counts.min(initial=0.0))) - 1
    start = slots.angle_deg - slots.step_deg / 2
    classes = {f"{group}@NX_class": name for group, name in _CLASSES.items()}
    return classes | {
        "entry/definition": "NXmx",
        "entry/title": title,
        "entry/source/name": "electron gun",
        "entry/source/type": "Electron Source",
        "entry/source/probe": "electron",
        "entry/instrument/name": "4D-STEM",
        "entry/instrument/beam/incident_wavelength": camera.wavelength_a,
        "entry/instrument/beam/incident_wavelength@units": "angstrom",
        **_detector(camera),
        # The direct beam is masked here: DIALS 3.12 takes no d_max where the beam meets the centre of a pixel.
        f"{_DETECTOR}/pixel_mask": (~s.measured.any(0) | direct_beam(s)).astype("u4"),
        f"{_DETECTOR}/saturation_value": _OVERLOAD,
        f"{_DETECTOR}/underload_value": underload,
        "entry/sample/name": title,
        "entry/sample/depends_on": f"/{_ALPHA}",
        _ALPHA: start,
        **_transformation(_ALPHA, "rotation", "deg", (-camera.axis[0], -camera.axis[1], 0.0), "."),
        f"{_ALPHA}_end": start + slots.step_deg,
        f"{_ALPHA}_end@units": "deg",
        "entry/data@signal": "data",
        "entry/data/data": np.where(measured, counts, np.float32(2 * underload - 2)),
    }


def _detector(camera: Camera) -> dict[str, Any]:
    (x, y), (column, row) = camera.corner_mm, camera.center_px
    det_z, module = f"{_DETECTOR}/transformations/det_z", f"{_DETECTOR}/module"
    values: dict[str, Any] = {
        f"{_DETECTOR}/sensor_material": "Si",  # a name that readers ask for: electrons are not corrected for it
        f"{_DETECTOR}/sensor_thickness": 1e-3,
        f"{_DETECTOR}/sensor_thickness@units": "mm",
        f"{_DETECTOR}/count_time": 1.0,
        f"{_DETECTOR}/count_time@units": "s",
        f"{_DETECTOR}/frame_time": 1.0,
        f"{_DETECTOR}/frame_time@units": "s",
        f"{_DETECTOR}/beam_center_x": column + 0.5,
        f"{_DETECTOR}/beam_center_x@units": "pixels",
        f"{_DETECTOR}/beam_center_y": row + 0.5,
        f"{_DETECTOR}/beam_center_y@units": "pixels",
        f"{_DETECTOR}/distance": camera.distance_mm,
        f"{_DETECTOR}/distance@units": "mm",
        f"{_DETECTOR}/depends_on": f"/{det_z}",
        f"{module}/data_origin": np.zeros(2, "i4"),
        f"{module}/data_size": np.array(camera.shape, "i4"),
    }
    for axis in ("x", "y"):
        values |= {f"{_DETECTOR}/{axis}_pixel_size": PIXEL_MM, f"{_DETECTOR}/{axis}_pixel_size@units": "mm"}
    offset, shift, pixel = f"{module}/module_offset", np.array([x, y, 0.0]), np.array([PIXEL_MM])
    for path, value, vector, on in (
        (det_z, np.array([camera.distance_mm]), (0.0, 0.0, 1.0), "."),
        (offset, np.zeros(1), (1.0, 0.0, 0.0), f"/{det_z}"),
        (f"{module}/fast_pixel_direction", pixel, (-1.0, 0.0, 0.0), f"/{offset}"),
        (f"{module}/slow_pixel_direction", pixel, (0.0, -1.0, 0.0), f"/{offset}"),
    ):
        values |= {path: value} | _transformation(path, "translation", "mm", vector, on)
    return values | {f"{offset}@offset": shift, f"{offset}@offset_units": "mm"}


def _transformation(path: str, kind: str, units: str, vector: tuple[float, float, float], on: str) -> dict[str, Any]:
    attributes = {"transformation_type": kind, "units": units, "vector": np.array(vector), "depends_on": on}
    return {f"{path}@{name}": value for name, value in attributes.items()}


def _script(names: list[str], found: list[Grid], frames: int) -> str:
    blank = "".join(f" exclude_images={k}:{a}:{b}" for k, slots in enumerate(found) for a, b in slots.gaps())
    shown = [int((slots.frame >= 0).sum()) for slots in found]
    held = ", ".join(f"{n} in {name}" for name, n in zip(names, shown, strict=True))
    return (
        "#!/bin/sh\n"
        f"# All {frames} frames: {held}.\n"
        "# From the frames to a lattice; add indexing.known_symmetry.unit_cell=a,b,c,al,be,ga where it is known.\n"
        f"# Then: dials.integrate indexed.expt indexed.refl{blank}\n"
        'set -eu\ncd "$(dirname "$0")"\n'
        f"dials.import {' '.join(names)} output.experiments=imported.expt\n"
        "dials.find_spots imported.expt min_spot_size=2 gain=1\n"
        "dials.index imported.expt strong.refl indexing.method=fft3d detector.fix=distance\n"
    )
