"""XDS: SMV frames and XDS.INP.

The lab frame of XDS with its detector's x and y along (1, 0, 0) and (0, 1, 0) and the beam along (0, 0, 1) is the
frame of the detector itself, so that the tilt axis goes in as it is. XDS counts pixels from 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stemtomo_dl.export.angles import Grid, grid
from stemtomo_dl.export.frames import PIXEL_MM, Camera, Files, Levels, ascending, sixteen_bits
from stemtomo_dl.records import DiffractionSeries

_HEADER_BYTES = 1024


def xds(series: DiffractionSeries, title: str) -> Files:
    """Frames in SMV and the XDS.INP that reads them.

    XDS knows one start and one step: the frames are laid on an even grid, slots that no frame falls on are blank and
    excluded. Pixels that were not measured are 0, below the lowest valid value.

    Parameters
    ----------
    series : DiffractionSeries
    title : str
        What the series is called.

    Returns
    -------
    Files
        data/00001.img …, unsigned 16 bits on a pedestal (keys GAIN, IMAGE_PEDESTAL); XDS.INP.
    """
    s = ascending(series)
    levels, slots, camera = sixteen_bits(s), grid(s.alpha_deg), Camera.of(s)
    return {"data": _frames(s, levels, slots, camera), "XDS.INP": _input(s, slots, camera, title)}


def _frames(s: DiffractionSeries, levels: Levels, slots: Grid, camera: Camera) -> Iterator[tuple[str, bytes]]:
    blank = np.zeros(camera.shape, "<u2")
    for i, (frame, angle) in enumerate(zip(slots.frame.tolist(), slots.angle_deg, strict=True), 1):
        image = blank if frame < 0 else np.where(s.measured[frame], levels.values[frame], 0).astype("<u2")
        true = angle if frame < 0 else s.alpha_deg[frame]
        header = _header(levels, camera, true - slots.step_deg / 2, slots.step_deg)
        yield f"{i:05d}.img", header + image.tobytes()


def _header(levels: Levels, camera: Camera, start_deg: float, step_deg: float) -> bytes:
    """Header of an SMV file; the beam centre is in mm from the outer corner, along rows first, as ADSC has it."""
    along_columns, along_rows = camera.corner_mm
    keys = {
        "HEADER_BYTES": _HEADER_BYTES,
        "DIM": 2,
        "BYTE_ORDER": "little_endian",
        "TYPE": "unsigned_short",
        "SIZE1": camera.shape[1],
        "SIZE2": camera.shape[0],
        "PIXEL_SIZE": PIXEL_MM,
        "BIN": "1x1",
        "TIME": "1.0",
        "DISTANCE": f"{camera.distance_mm:.5f}",
        "TWOTHETA": "0.0",
        "PHI": f"{start_deg:.5f}",
        "OSC_START": f"{start_deg:.5f}",
        "OSC_RANGE": f"{step_deg:.5f}",
        "WAVELENGTH": f"{camera.wavelength_a:.8f}",
        "BEAM_CENTER_X": f"{along_rows:.6f}",
        "BEAM_CENTER_Y": f"{along_columns:.6f}",
        "GAIN": f"{levels.gain:.6g}",
        "IMAGE_PEDESTAL": levels.pedestal,
    }
    text = "{\n" + "".join(f"{k}={v};\n" for k, v in keys.items()) + "}\n"
    return text.encode("ascii").ljust(_HEADER_BYTES, b"\0")


def _input(s: DiffractionSeries, slots: Grid, camera: Camera, title: str) -> str:
    n, shown = len(slots.frame), slots.frame >= 0
    off = np.abs(s.alpha_deg[slots.frame[shown]] - slots.angle_deg[shown]).max()
    (column, row), (x, y) = camera.center_px, camera.axis
    reach = np.hypot(*camera.shape) / 2 * s.instrument.pixel_inv_angstrom
    lines = [
        f"! {title}: stills taken as wedges of one step; frames lie up to {off:.3f} deg from the angle this gives them",
        *_left_out(s.alpha_deg, slots),
        "JOB= XYCORR INIT COLSPOT IDXREF DEFPIX INTEGRATE CORRECT",
        "NAME_TEMPLATE_OF_DATA_FRAMES= data/?????.img   SMV",
        f"DATA_RANGE= 1 {n}",
        *(f"SPOT_RANGE= {a} {b}" for a, b in slots.gaps(shown=True)),
        "BACKGROUND_RANGE= {} {}".format(*max(slots.gaps(shown=True), key=lambda r: r[1] - r[0])),
        *(f"EXCLUDE_DATA_RANGE= {a} {b}" for a, b in slots.gaps()),
        f"STARTING_ANGLE= {slots.first_deg - slots.step_deg / 2:.5f}   STARTING_FRAME= 1",
        f"OSCILLATION_RANGE= {slots.step_deg:.5f}",
        f"ROTATION_AXIS= {x:.6f} {y:.6f} 0",
        f"X-RAY_WAVELENGTH= {camera.wavelength_a:.8f}",
        "INCIDENT_BEAM_DIRECTION= 0 0 1",
        "DETECTOR= ADSC   OVERLOAD= 65535   MINIMUM_VALID_PIXEL_VALUE= 1",
        f"NX= {camera.shape[1]} NY= {camera.shape[0]} QX= {PIXEL_MM} QY= {PIXEL_MM}",
        "SENSOR_THICKNESS= 0   AIR= 0",
        "DIRECTION_OF_DETECTOR_X-AXIS= 1 0 0",
        "DIRECTION_OF_DETECTOR_Y-AXIS= 0 1 0",
        f"ORGX= {column + 1:.3f} ORGY= {row + 1:.3f}",
        f"DETECTOR_DISTANCE= {camera.distance_mm:.5f}",
        "TRUSTED_REGION= 0.0 1.42",
        "VALUE_RANGE_FOR_TRUSTED_DETECTOR_PIXELS= 1 30000",
        f"INCLUDE_RESOLUTION_RANGE= 20 {1 / reach:.3f}",
        "!SPACE_GROUP_NUMBER= 0",
        "!UNIT_CELL_CONSTANTS= 10 20 30 90 90 90",
        "FRIEDEL'S_LAW= TRUE",
        "MAX_CELL_AXIS_ERROR= 0.05   MAX_CELL_ANGLE_ERROR= 3.0",
        "STRONG_PIXEL= 3.0   MINIMUM_FRACTION_OF_INDEXED_SPOTS= 0.25",
        "REFINE(IDXREF)= BEAM AXIS ORIENTATION CELL",
        "REFINE(INTEGRATE)= BEAM AXIS",
        "REFINE(CORRECT)= BEAM AXIS ORIENTATION CELL",
    ]
    return "\n".join(lines) + "\n"


def _left_out(alpha_deg: np.ndarray, slots: Grid) -> list[str]:
    """Comments on the frames that are not among the images, a few angles a line."""
    gone = np.delete(alpha_deg, slots.frame[slots.frame >= 0])
    if not len(gone):
        return [f"! all {len(alpha_deg)} frames"]
    listed = [f"!   at {' '.join(f'{a:.3f}' for a in gone[i : i + 12])} deg" for i in range(0, len(gone), 12)]
    return [f"! {len(gone)} of {len(alpha_deg)} frames left out, since another lies in the same step:", *listed]
