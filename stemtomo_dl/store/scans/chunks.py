"""A window of a chunked dataset, chunk by chunk past HDF5, which lets one thread at a time decode and copy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import prod

import h5py
import numpy as np

Offset = tuple[int, ...]

_LEAST_BYTES = 32 << 10  # of a chunk: for smaller ones HDF5's loop is faster than one in Python


def applies(dataset: h5py.Dataset) -> bool:
    """Whether a dataset's chunks lie in the file as they are, each large enough to be fetched by itself."""
    if dataset.chunks is None or dataset.file.userblock_size:  # some versions of HDF5 count from behind that block
        return False
    large = prod(dataset.chunks) * dataset.dtype.itemsize >= _LEAST_BYTES
    return large and int(dataset.id.get_create_plist().get_nfilters()) == 0


def read(dataset: h5py.Dataset, window: tuple[slice, ...]) -> np.ndarray:
    """A window of a dataset that is chunked but not compressed, from the mapped file.

    It is a view, read-only, where the chunks follow each other in the file as their patterns do in the window.

    Raises
    ------
    ValueError
        If a chunk is missing or the file ends within it; the message says where it lies.
    """
    file = np.memmap(dataset.file.filename, "u1", "r")
    size = prod(dataset.chunks) * dataset.dtype.itemsize
    where = {offset: dataset.id.get_chunk_info_by_coord(offset).byte_offset for offset in offsets(dataset, window)}
    for offset, at in where.items():
        if at is None:
            raise ValueError(f"the chunk at {offset} was never written")
        if at + size > len(file):  # to touch a page beyond the end would kill the process
            raise ValueError(f"the file ends within the chunk at {offset}")

    def fetch(offset: Offset, chunk: np.ndarray) -> None:
        chunk.reshape(-1).view("u1")[:] = file[where[offset] : where[offset] + size]

    first, *_ = places = list(where.values())
    full = whole(dataset, window)
    if first % dataset.dtype.itemsize or (np.diff(places) != size).any() or not _one_run(dataset, full):
        return assemble(dataset, window, fetch)
    shape = [s.stop - s.start for s in full]
    pattern = prod(shape[-2:]) * dataset.dtype.itemsize
    first += full[-3].start % dataset.chunks[-3] * pattern
    return np.asarray(file[first : first + prod(shape[:-2]) * pattern].view(dataset.dtype).reshape(shape))


def _one_run(dataset: h5py.Dataset, full: tuple[slice, ...]) -> bool:
    """Whether chunks in their order hold a window's patterns (…, qy, qx) in theirs, with nothing between them."""
    before, along = full[:-3], full[-3]
    if dataset.chunks[-2:] != dataset.shape[-2:] or any(c > 1 for c in dataset.chunks[:-3]):
        return False
    lines = along == slice(0, dataset.shape[-3]) and dataset.shape[-3] % dataset.chunks[-3] == 0
    return lines or all(s.stop - s.start == 1 for s in before)


def whole(dataset: h5py.Dataset, window: tuple[slice, ...]) -> tuple[slice, ...]:
    """A window with a slice for every axis of the dataset."""
    return (*window, *(slice(0, n) for n in dataset.shape[len(window) :]))


def offsets(dataset: h5py.Dataset, window: tuple[slice, ...]) -> itertools.product[Offset]:
    """Where the chunks begin that a window needs, in the order of the dataset."""
    full = whole(dataset, window)
    return itertools.product(*(range(s.start // c * c, s.stop, c) for s, c in zip(full, dataset.chunks, strict=True)))


def assemble(
    dataset: h5py.Dataset, window: tuple[slice, ...], fetch: Callable[[Offset, np.ndarray], None]
) -> np.ndarray:
    """A window from its chunks.

    Parameters
    ----------
    dataset : h5py.Dataset
    window : tuple of slice
        Of its first axes, with a start and a stop.
    fetch : callable
        Takes where a chunk begins, and fills an array of its shape: that part of the result itself where it can.
    """
    full = whole(dataset, window)
    out = np.empty([s.stop - s.start for s in full], dataset.dtype)
    beside = np.empty(0, dataset.dtype)
    for offset in offsets(dataset, window):
        reach = zip(offset, dataset.chunks, full, strict=True)
        inside = [slice(max(o, s.start), min(o + c, s.stop)) for o, c, s in reach]
        target = out[tuple(slice(i.start - s.start, i.stop - s.start) for i, s in zip(inside, full, strict=True))]
        direct = target.shape == dataset.chunks and target.flags.c_contiguous
        if not direct and not beside.size:
            beside = np.empty(dataset.chunks, dataset.dtype)
        chunk = target if direct else beside
        fetch(offset, chunk)
        if not direct:
            target[...] = chunk[tuple(slice(i.start - o, i.stop - o) for i, o in zip(inside, offset, strict=True))]
    return out
