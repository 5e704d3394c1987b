"""One diffraction frame a file: TIFF, SMV (.img), mini-CBF, MRC. What their headers state is given with the values."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from stemtomo_dl.errors import InputError

_SMV_TYPES = {"unsigned_short": "u2", "signed_short": "i2", "unsigned_long": "u4", "signed_long": "i4", "float": "f4"}
_MRC_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_MRC_HEADER = 1024
_CBF_DATA = b"\x0c\x1a\x04\xd5"
_ESCAPES = (("<i2", 2), ("<i4", 4), ("<i8", 8))  # of byte offsets: each one's lowest value says that the next follows
_MIDDLE = (0.2, 0.8)  # of a frame: where a beam is


class Frame(NamedTuple):
    """One frame."""

    values: np.ndarray  # (row, column) float32
    measured: np.ndarray  # (row, column) bool
    stated: dict[str, float]  # voltage's ``wavelength_angstrom``, ``pixel_inv_angstrom``, ``alpha_deg``: where it says
    center_px: tuple[float, float] | None = None  # column, row


def read_frame(path: Path) -> Frame:
    """Read one frame.

    Raises
    ------
    InputError
        If it cannot be read or does not hold one two-dimensional frame.
    """
    try:
        frame = READERS[path.suffix.lower()](path)
    except (OSError, ValueError, KeyError, IndexError, TypeError, struct.error, tifffile.TiffFileError) as e:
        what = getattr(e, "strerror", None) or f"{type(e).__name__}: {e}"
        raise InputError(f"{path}: cannot be read as a frame ({' '.join(what.split())}); write it anew") from e
    if frame.values.ndim != 2:
        raise InputError(f"{path}: is of shape {frame.values.shape}; one frame (row, column) a file is needed")
    return frame


def _tiff(path: Path) -> Frame:
    values = np.squeeze(tifffile.imread(path)).astype("f4")
    return Frame(values, np.isfinite(values), {})


def _smv(path: Path) -> Frame:
    """ADSC's format: a text header of key=value; and the plain values."""
    data = path.read_bytes()
    head = data[: data.index(b"}")].decode("latin-1")
    keys = {k.strip(): v.strip() for k, _, v in (line.partition("=") for line in head.strip("{\n").split(";"))}
    kind = ("<" if keys.get("BYTE_ORDER", "little_endian").startswith("little") else ">") + _SMV_TYPES[
        keys.get("TYPE", "unsigned_short")
    ]
    columns, rows = int(keys["SIZE1"]), int(keys["SIZE2"])
    raw = np.frombuffer(data, kind, rows * columns, int(keys["HEADER_BYTES"])).reshape(rows, columns)
    known = {k: float(v) for k, v in keys.items() if re.fullmatch(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?", v)}
    pedestal = known.get("IMAGE_PEDESTAL", 0.0)
    # below a pedestal there is nothing: programs write 0 where a pixel was not measured
    measured = raw > 0 if pedestal > 0 else np.ones(raw.shape, bool)
    stated = _camera(known.get("WAVELENGTH"), known.get("DISTANCE"), known.get("PIXEL_SIZE"))
    if "OSC_START" in known:
        stated["alpha_deg"] = known["OSC_START"] + known.get("OSC_RANGE", 0.0) / 2
    values = (raw.astype("f4") - np.float32(pedestal)) / np.float32(known.get("GAIN", 1.0) or 1.0)
    return Frame(values, measured, stated, _smv_center(known, rows, columns))


def _smv_center(known: dict[str, float], rows: int, columns: int) -> tuple[float, float] | None:
    """Column and row of the beam: in mm from the outer corner, along rows first (ADSC), or in pixels (Instamatic)."""
    x, y, pixel = known.get("BEAM_CENTER_X", 0.0), known.get("BEAM_CENTER_Y", 0.0), known.get("PIXEL_SIZE", 0.0)
    for column, row in ((y / pixel - 0.5, x / pixel - 0.5) if pixel else (-1.0, -1.0), (x, y)):
        low, high = _MIDDLE
        if low * columns < column < high * columns and low * rows < row < high * rows:
            return column, row
    return None


def _cbf(path: Path) -> Frame:
    """Mini-CBF: a text header as of Pilatus, and byte offsets."""
    data = path.read_bytes()
    start = data.index(_CBF_DATA) + len(_CBF_DATA)
    head = data[:start].decode("latin-1")
    if "x-CBF_BYTE_OFFSET" not in head:
        raise ValueError("only the compression x-CBF_BYTE_OFFSET is understood")
    columns, rows, size = (
        int(_after(head, f"X-Binary-{what}:", r"(\d+)"))
        for what in ("Size-Fastest-Dimension", "Size-Second-Dimension", "Size")
    )
    values = _byte_offsets(data[start : start + size], rows * columns).reshape(rows, columns)
    number = r"\s*([-+]?\d+\.?\d*(?:[eE][-+]?\d+)?)"
    wavelength, distance, pixel, alpha, width = (
        float(found) if (found := _after(head, f"# {key}", number, "")) else None
        for key in ("Wavelength", "Detector_distance", "Pixel_size", "Start_angle", "Angle_increment")
    )
    stated = _camera(wavelength, distance, pixel)
    if alpha is not None:
        stated["alpha_deg"] = alpha + (width or 0.0) / 2
    beam = re.search(rf"# Beam_xy\s*\({number},{number}\)", head)
    return Frame(values.astype("f4"), values >= 0, stated, (float(beam[1]), float(beam[2])) if beam else None)


def _after(text: str, key: str, pattern: str, otherwise: str | None = None) -> str:
    found = re.search(re.escape(key) + r"\s*" + pattern, text)
    if found is None and otherwise is None:
        raise ValueError(f"no {key.rstrip(':')} in its header")
    return found[1] if found else str(otherwise)


def _byte_offsets(data: bytes, n: int) -> np.ndarray:
    """Running sums of differences: one byte each, or where that is −128 two, and so on to eight (imgCIF)."""
    small = np.frombuffer(data, "i1")
    parts, at = [], 0
    for escape in np.flatnonzero(small == -128).tolist():
        if escape < at:
            continue  # a byte of a wider difference
        parts.append(small[at:escape].astype("i8"))
        at = escape + 1
        for kind, width in _ESCAPES:
            value = np.frombuffer(data, kind, 1, at)
            at += width
            if int(value[0]) != -(1 << (8 * width - 1)):
                break
        parts.append(value.astype("i8"))
    return np.cumsum(np.concatenate([*parts, small[at:].astype("i8")])[:n])


def _mrc(path: Path) -> Frame:
    """MRC2014, one section; rows in the order in which they are stored."""
    data = path.read_bytes()
    order = ">" if data[212:213] == b"\x11" else "<"
    columns, rows, sections, mode = np.frombuffer(data, f"{order}i4", 4).tolist()
    if sections > 1:
        raise ValueError(f"it holds {sections} sections, not one")
    start = _MRC_HEADER + int(np.frombuffer(data, f"{order}i4", 1, 92)[0])
    values = np.frombuffer(data, order + _MRC_TYPES[mode], rows * columns, start).reshape(rows, columns).astype("f4")
    return Frame(values, np.isfinite(values), {})


def _camera(wavelength_a: float | None, distance: float | None, pixel: float | None) -> dict[str, float]:
    """What a header's camera length and pixel, in one unit, say in 1/Å."""
    out = {"wavelength_angstrom": wavelength_a} if wavelength_a else {}
    if wavelength_a and distance and pixel:
        out["pixel_inv_angstrom"] = pixel / (wavelength_a * distance)
    return out


READERS: dict[str, Callable[[Path], Frame]] = {
    ".tif": _tiff,
    ".tiff": _tiff,
    ".img": _smv,
    ".smv": _smv,
    ".cbf": _cbf,
    ".mrc": _mrc,
}
