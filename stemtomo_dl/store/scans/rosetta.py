"""All other formats, through RosettaSciIO's own lazy readers.

RosettaSciIO is under the GPL and an optional extra, so it is imported only where a file needs it.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.errors import BadScan, InputError
from stemtomo_dl.records import Tile
from stemtomo_dl.store.scans import layout

CHUNK = "16 MiB"  # dask's 128 MiB would be the memory that one tile takes
EXTRA = "pip install 'stemtomo_dl[formats]'"


@dataclass
class RosettaScan:
    """A scan that RosettaSciIO reads."""

    name: str
    path: Path
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    chunk: tuple[int, int]
    guessed: bool = False  # the scan's rows and columns

    @property
    def companions(self) -> list[Path]:
        """Files beside this one that its reader opens with it: the parts of a .tvips, the .emi of a .ser."""
        stem, suffix = self.path.stem, self.path.suffix
        if suffix.lower() == ".tvips":
            like = re.compile(re.escape(re.sub(r"\d{3}$", "", stem)) + r"\d{3}")
            return sorted(p for p in self.path.parent.glob(f"*{suffix}") if like.fullmatch(p.stem) and p != self.path)
        emi = self.path.with_name(re.sub(r"_\d+$", "", stem) + ".emi")
        return [emi] if suffix.lower() == ".ser" and emi.exists() else []

    def tiles(self, budget: int) -> list[Tile]:
        """Tiles of at most ``budget`` bytes along the boundaries of dask's chunks."""
        return layout.tiles(self.shape, self.dtype.itemsize, budget, self.chunk)

    def read(self, tile: Tile) -> np.ndarray:
        """Patterns of a tile, (y, x, qy, qx), in native byte order.

        Raises
        ------
        BadScan
            If RosettaSciIO cannot read them.
        """
        array, _ = _array(self.path, self.shape[:2])
        return np.ascontiguousarray(_compute(self.path, array[tile.window]), self.dtype)


def open_rosetta(path: Path, shape: tuple[int, int] | None) -> RosettaScan:
    """Open a file, or a .zspy folder, with the RosettaSciIO reader for its suffix.

    Raises
    ------
    InputError
        If RosettaSciIO is not installed.
    BadScan
        If no reader knows the suffix, the reader fails, or the file holds no single scan.
    """
    if not path.is_dir():
        layout.file_size(path)
    array, guessed = _array(path, shape)
    dtype = layout.check_values(path, array.dtype, array.shape)
    # Mapped files are only mapped when data are asked for: the last pattern tells whether the file is whole.
    _compute(path, array[-1, -1])
    chunk = (int(array.chunks[0][0]), int(array.chunks[1][0]))
    return RosettaScan(path.name, path, array.shape, dtype, chunk, guessed)


def _array(path: Path, shape: tuple[int, int] | None) -> tuple[Any, bool]:
    """The scan as a dask array (y, x, qy, qx), and whether its rows and columns are guessed."""
    try:
        stat = os.stat(path)
    except OSError as e:
        raise BadScan(f"{path}: cannot be read ({e.strerror}); correct the path or leave the tilt out") from e
    # A file that changed, or a process that was forked, must not see handles opened before.
    found: tuple[Any, bool] = _cached(path, shape, stat.st_mtime_ns, stat.st_size, os.getpid())
    return found


@functools.lru_cache(maxsize=8)
def _cached(path: Path, shape: tuple[int, int] | None, *_stamp: int) -> tuple[Any, bool]:
    signals = _signals(path)
    four = [a for a in signals if a.ndim == 4]
    three = [a for a in signals if a.ndim == 3]
    if len(four) > 1 or (not four and len(three) > 1):
        raise BadScan(f"{path}: holds several scans {[a.shape for a in four or three]}; save one of them as .h5")
    if four:
        layout.check_shape(path, four[0].shape, shape)
        return four[0], False
    if not three:
        shapes = ", ".join(str(a.shape) for a in signals) or "nothing"
        raise BadScan(f"{path}: holds no 4-D scan of diffraction patterns, but {shapes}; leave it out of [scans] files")
    folded = layout.fold(path, three[0].shape[0], shape)
    return three[0].reshape(folded.rows, folded.cols, *three[0].shape[1:]), folded.guessed


def _signals(path: Path) -> list[Any]:
    """Signals of two detector axes in a file, scan axes first; of the others only what to say about them."""
    signals = read_signals(path)
    ordered = [a for s in signals if (a := _scan_first(s)) is not None]
    if not ordered:
        shapes = ", ".join(str(tuple(s["data"].shape)) for s in signals)
        raise BadScan(
            f"{path}: holds no diffraction patterns, but {shapes or 'nothing'}; leave it out of [scans] files"
        )
    return ordered


def read_signals(
    path: Path,
    unknown: str = "convert it to .h5 or correct [scans] files",
    damaged: str = "copy it again or leave the tilt out",
) -> list[dict[str, Any]]:
    """All that a file holds, as RosettaSciIO describes it, data not yet read.

    Parameters
    ----------
    path : Path
    unknown, damaged : str
        What to do about a file of an unknown format, and about one that cannot be read.

    Raises
    ------
    InputError
        If RosettaSciIO is not installed.
    BadScan
        If no reader knows the suffix, or none can read the file.
    """
    complaint = ""
    for reader in _readers(path, unknown):
        try:
            return _read(reader, path)
        except Exception as e:  # a reader for another format of this suffix may fail in any way
            complaint = f"{type(e).__name__}: {layout.first_line(e)}"
    raise BadScan(f"{path}: RosettaSciIO cannot read it ({complaint}); {damaged}")


def _readers(path: Path, unknown: str) -> list[Any]:
    """RosettaSciIO's readers for a suffix."""
    try:
        import rsciio
    except ImportError as e:
        raise InputError(f"{path}: reading '{path.suffix}' needs RosettaSciIO; {EXTRA}") from e
    rsciio.set_log_level("ERROR")  # remarks on metadata that nothing here uses
    suffix = path.suffix.lower().lstrip(".")
    found = [p for p in rsciio.IO_PLUGINS if suffix in {s.lower() for s in p["file_extensions"]}]
    if not found:
        raise BadScan(f"{path}: unknown format '{path.suffix}'; {unknown}")
    try:
        return [importlib.import_module(p["api"]).file_reader for p in found]
    except ImportError as e:
        raise InputError(f"{path}: reading '{path.suffix}' needs {e.name}; {EXTRA}") from e


def _read(reader: Any, path: Path) -> list[dict[str, Any]]:
    import dask

    with warnings.catch_warnings(), dask.config.set({"array.chunk-size": CHUNK}):
        warnings.simplefilter("ignore")
        signals: list[dict[str, Any]] = reader(str(path), lazy=True)
    return signals


def _scan_first(signal: dict[str, Any]) -> Any | None:
    """Data with the scan axes before the two detector axes; None if it has no two detector axes."""
    import dask.array as da

    data, axes = da.asarray(signal["data"]), signal["axes"]
    places = [i if (k := a.get("index_in_array")) is None else int(k) for i, a in enumerate(axes)]
    signals = [p for p, a in zip(places, axes, strict=True) if not a.get("navigate", p < data.ndim - 2)]
    scan = [p for p in range(data.ndim) if p not in signals]
    if len(signals) != 2 or len(scan) > 2:
        return None
    return data.transpose([*scan, *sorted(signals)])


def _compute(path: Path, part: Any) -> np.ndarray:
    try:
        result: np.ndarray = np.asarray(part.compute(scheduler="synchronous"))
    except Exception as e:  # whatever the format's reader raises on a damaged file
        raise BadScan(
            f"{path}: cannot be decoded ({layout.first_line(e)}); copy the file again or leave the tilt out"
        ) from e
    return result
