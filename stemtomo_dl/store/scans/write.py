"""Write a scan row by row, in the format that the suffix names; it never has to be in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import DTypeLike

from stemtomo_dl.errors import InputError
from stemtomo_dl.store.atomic import write_text, writing

Shape = tuple[int, int, int, int]
Writer = Callable[[Path, Iterator[np.ndarray], Shape, np.dtype[Any]], None]
MIB_KINDS = {1: "U08", 2: "U16", 4: "U32"}
MIB_HEADER = 384  # bytes
MIB_START = datetime(2000, 1, 1)
FRAME_TIME, LINE_PAUSE = timedelta(milliseconds=1), timedelta(milliseconds=1)
AXES = (("y", True), ("x", True), ("ky", False), ("kx", False))


def write_scan(path: str | Path, rows: Iterable[np.ndarray], shape: Shape, dtype: DTypeLike) -> None:
    """Write a 4D-STEM scan from an iterator over blocks of its rows.

    The file appears under its name only when it is whole.

    Parameters
    ----------
    path : str or Path
        .h5 (bitshuffle-LZ4, dataset /data), .npy, .mib (with the .hdr file beside it) or .hspy.
    rows : iterable of (rows, x, qy, qx) arrays
        Blocks of scan rows from the top down, of any height.
    shape : (y, x, qy, qx)
    dtype : dtype
        Type to store; the blocks must be castable to it within their kind.

    Raises
    ------
    InputError
        If the suffix is none of these, or the format cannot hold the dtype.
    ValueError
        If the blocks do not make up ``shape``.
    """
    path, dtype = Path(path), np.dtype(dtype)
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(f"{path}: cannot write '{path.suffix}'; use one of {', '.join(WRITERS)}")
    if writer is _mib and (dtype.kind != "u" or dtype.itemsize not in MIB_KINDS):
        raise InputError(f"{path}: .mib holds u1, u2 or u4, not {dtype}; choose another format or type")
    with writing(path) as temporary:
        writer(temporary, _checked(rows, shape, dtype), shape, dtype)
    if writer is _mib:
        write_text(path.with_suffix(".hdr"), _hdr(shape, dtype))


def _checked(rows: Iterable[np.ndarray], shape: Shape, dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    """The blocks in the stored dtype; raises where they do not make up the scan."""
    y = 0
    for block in rows:
        y += len(block)
        if block.ndim != 4 or block.shape[1:] != shape[1:] or y > shape[0]:
            raise ValueError(f"block of shape {block.shape} up to row {y} does not fit a scan of {shape}")
        yield block.astype(dtype, casting="same_kind", copy=False)
    if y != shape[0]:
        raise ValueError(f"{y} rows for a scan of {shape}")


def _npy(path: Path, rows: Iterator[np.ndarray], shape: Shape, dtype: np.dtype[Any]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with open(path, "wb") as f:
        np.lib.format.write_array_header_1_0(f, header)
        for block in rows:
            f.write(np.ascontiguousarray(block).data)


def _h5(path: Path, rows: Iterator[np.ndarray], shape: Shape, dtype: np.dtype[Any]) -> None:
    with h5py.File(path, "w") as file:
        _fill(file, "data", rows, shape, dtype)


def _hspy(path: Path, rows: Iterator[np.ndarray], shape: Shape, dtype: np.dtype[Any]) -> None:
    """HyperSpy's HDF5 layout, version 3: data, one group per axis, metadata."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"file_format": "HyperSpy", "file_format_version": "3.3"})
        group = file.create_group("Experiments/__unnamed__")
        group.attrs.update({"package": "", "package_version": ""})
        _fill(group, "data", rows, shape, dtype)
        for i, (name, navigate) in enumerate(AXES):
            group.create_group(f"axis-{i}").attrs.update(
                {"_type": "UniformDataAxis", "name": name, "units": "", "navigate": navigate, "is_binned": False}
                | {"size": shape[i], "scale": 1.0, "offset": 0.0}
            )
        group.create_group("metadata/General").attrs["title"] = "__unnamed__"
        group.create_group("metadata/Signal").attrs["signal_type"] = "electron_diffraction"
        group.create_group("original_metadata")


def _fill(group: h5py.Group, name: str, rows: Iterator[np.ndarray], shape: Shape, dtype: np.dtype[Any]) -> None:
    # Chunks of 4 to 64 patterns of 256² read equally fast; 16 keep a tile small where detectors are large.
    chunks = (1, min(shape[1], 16), *shape[2:])
    data = group.create_dataset(name, shape, dtype, chunks=chunks, **hdf5plugin.Bitshuffle())
    y = 0
    for block in rows:
        data[y : y + len(block)] = block
        y += len(block)


def _mib(path: Path, rows: Iterator[np.ndarray], shape: Shape, dtype: np.dtype[Any]) -> None:
    _, nx, qy, qx = shape
    stored = dtype.newbyteorder(">")
    record = np.dtype([("header", f"S{MIB_HEADER}"), ("data", stored, (qy, qx))])
    frame = 0
    with open(path, "wb") as f:
        for block in rows:
            out = np.zeros(block.shape[:2], record)
            out["data"] = block[:, :, ::-1]
            numbers = range(frame, frame + out.size)
            out["header"] = np.array([_mib_header(i, nx, qy, qx, dtype) for i in numbers]).reshape(out.shape)
            out.tofile(f)
            frame += out.size


def _mib_header(i: int, nx: int, qy: int, qx: int, dtype: np.dtype[Any]) -> bytes:
    """Header of frame ``i``; its time stamp shows the pause at the end of every line.

    The counter depth is that of the stored type: counts may fill all of it, so 6, 12 or 24 bits would be wrong.
    """
    time = MIB_START + i * FRAME_TIME + (i // nx) * LINE_PAUSE
    zeros = ",".join(["0.000000E+0"] * 8)
    chip = "3RX," + ",".join(["000"] * 27)
    nanoseconds = f"{FRAME_TIME // timedelta(microseconds=1)}000ns"
    text = (
        f"MQ1,{i + 1:06d},{MIB_HEADER:05d},01,{qx:04d},{qy:04d},{MIB_KINDS[dtype.itemsize]},   1x1,01,"
        f"{time:%Y-%m-%d %H:%M:%S.%f},{FRAME_TIME.total_seconds():.6f},0,0,0,{zeros},{chip},"
        f"MQ1A,{time:%Y-%m-%dT%H:%M:%S.%f}000Z,{nanoseconds},{8 * dtype.itemsize},"
    )
    return text.encode("ascii")


def _hdr(shape: Shape, dtype: np.dtype[Any]) -> str:
    lines = {
        "Time and Date Stamp (day, mnth, yr, hr, min, s)": f"{MIB_START:%d/%m/%Y %H:%M:%S}",
        "Assembly Size (NX1, 2X2)": "   1x1",
        "Counter Depth (number)": str(8 * dtype.itemsize),
        "Frames in Acquisition (Number)": str(shape[0] * shape[1]),
        "Frames per Trigger (Number)": str(shape[1]),
    }
    return "HDR,\t\n" + "".join(f"{k}:\t{v}\n" for k, v in lines.items()) + "End\t"


WRITERS: dict[str, Writer] = {".h5": _h5, ".npy": _npy, ".mib": _mib, ".hspy": _hspy}
