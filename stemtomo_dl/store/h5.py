"""What the HDF5 files of a run share: how small arrays are stored, how files are opened, how masks are read fast."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from stemtomo_dl.errors import InputError

SMALL = {"compression": "gzip", "compression_opts": 4, "shuffle": True}  # readable without any plugin
QUICK = {**SMALL, "compression_opts": 1}  # of what is large
_BLOCK = 32 << 20  # bytes of masks in memory at once
_THREADS = 2
_PLAIN = ({h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE}, {h5py.h5z.FILTER_DEFLATE})  # no bytes to shuffle


def open_ours(path: Path, needed: Iterable[str]) -> h5py.File:
    """Open a file of a run for reading, or say what is wrong with it."""
    try:
        file = h5py.File(path)
    except OSError as e:
        raise InputError(f"{path}: {_unreadable(path)}") from e
    lacking = [k for k in needed if k not in file]
    if lacking:
        file.close()
        raise InputError(
            f"{path}: has no dataset /{lacking[0]}; give another file, or run the stage that writes it again"
        )
    return file


def _unreadable(path: Path) -> str:
    """Why a file cannot be opened and what to do: the path may be mistyped, or the file lost or cut short."""
    if not path.exists():
        return "is missing; correct the path, or run the stage that writes it"
    if path.is_dir():
        return "is a folder; give the path of an HDF5 file"
    return "is not a readable HDF5 file; give another, or where it was cut short run the stage that writes it again"


Crop = tuple[np.ndarray, tuple[int, int]]


def crops(masks: h5py.Dataset) -> Iterator[Crop]:
    """Every mask of a dataset (instance, y, x) cut to its outline, and the row and column of the cut's first pixel.

    An empty mask becomes one False pixel. Our own layout is inflated on threads, beside HDF5's lock.
    """
    filters = masks.id.get_create_plist()
    kinds = {filters.get_filter(i)[0] for i in range(filters.get_nfilters())}
    plain = masks.dtype == bool and masks.chunks == (1, *masks.shape[1:]) and kinds in _PLAIN
    step = max(1, _BLOCK // max(1, int(np.prod(masks.shape[1:]))))
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(masks), step):
            which = range(start, min(start + step, len(masks)))
            parts = [which[k::_THREADS] for k in range(_THREADS)]
            try:
                done = list(pool.map(lambda part: [_inflated(masks, i) for i in part], parts)) if plain else None
                found = [done[k % _THREADS][k // _THREADS] for k in range(len(which))] if done else None
            except (RuntimeError, OSError, ValueError, zlib.error):  # chunks never written, or stored as they are
                found = None
            block = () if found is not None else np.array(masks[which.start : which.stop], bool)
            yield from found if found is not None else (_crop(m) for m in block)


def _inflated(masks: h5py.Dataset, i: int) -> Crop:
    _, raw = masks.id.read_direct_chunk((i, 0, 0))
    values = zlib.decompress(raw, bufsize=masks.shape[1] * masks.shape[2])
    width = masks.shape[2]
    first, last = values.find(b"\1") // width, values.rfind(b"\1") // width  # rows, without looking at all pixels
    mask = np.frombuffer(values, bool).reshape(masks.shape[1:])
    crop, (y, x) = _crop(mask[max(first, 0) : max(last, 0) + 1])
    return crop, (y + max(first, 0), x)


def _crop(mask: np.ndarray) -> Crop:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros((1, 1), bool), (0, 0)
    (y0, y1), (x0, x1) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
    return mask[y0 : y1 + 1, x0 : x1 + 1].copy(), (y0, x0)
