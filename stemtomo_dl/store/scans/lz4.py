"""Is an LZ4-compressed chunk sound? The HDF5 filters' decoder trusts what it reads, and damage can kill the process.

Walks through the chunk's blocks and, in each, through the LZ4 sequences without copying anything, so that every
length and offset is known to stay inside before the decoder follows them. Layouts: the filters' documentation
(bitshuffle, HDF5 LZ4 plugin) and the LZ4 block format description.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from numba import njit

from stemtomo_dl.store.scans import chunks

BITSHUFFLE, LZ4 = 32008, 32004  # HDF5's registered filter numbers
_BITSHUFFLE_LZ4 = 2  # bitshuffle's fifth parameter: 0 none, 2 LZ4, 3 zstd


def applies(dataset: h5py.Dataset) -> bool:
    """Whether a dataset is compressed by one of these filters alone."""
    plist = dataset.id.get_create_plist()
    if dataset.chunks is None or plist.get_nfilters() != 1:
        return False
    number, _, values, _ = plist.get_filter(0)
    return number == LZ4 or (number == BITSHUFFLE and len(values) > 4 and values[4] == _BITSHUFFLE_LZ4)


def read(dataset: h5py.Dataset, window: tuple[slice, ...]) -> np.ndarray:
    """A window of a dataset, every chunk looked through before it is decoded.

    Bitshuffle's own function decodes where it can be had, on as many threads as call this: HDF5 lets one at a time.

    Raises
    ------
    ValueError
        If a chunk is damaged; the message says where it lies.
    """
    decode = _bitshuffle()
    if decode is None or dataset.id.get_create_plist().get_filter(0)[0] != BITSHUFFLE:
        for offset in chunks.offsets(dataset, window):
            _sound_chunk(dataset, offset)
        return np.asarray(dataset[window])
    itemsize = dataset.dtype.itemsize

    def fetch(offset: chunks.Offset, chunk: np.ndarray) -> None:
        raw, packed = _sound_chunk(dataset, offset)
        if not packed:
            chunk.reshape(-1).view("u1")[:] = raw
        elif decode(raw[12:].ctypes.data, chunk.ctypes.data, chunk.size, itemsize, _number(raw, 8, 4) // itemsize) < 0:
            raise ValueError(f"the compressed chunk at {offset} is damaged")

    return chunks.assemble(dataset, window, fetch)


def _sound_chunk(dataset: h5py.Dataset, offset: chunks.Offset) -> tuple[np.ndarray, bool]:
    """The bytes in the file of the chunk that begins there, and whether they are compressed."""
    shuffled = dataset.id.get_create_plist().get_filter(0)[0] == BITSHUFFLE
    size = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
    mask, raw = dataset.id.read_direct_chunk(offset)
    data = np.frombuffer(raw, np.uint8)
    if not mask and not _sound(data, size, 8 * dataset.dtype.itemsize if shuffled else 1, shuffled):
        raise ValueError(f"the compressed chunk at {offset} is damaged")
    return data, not mask


@functools.cache
def _bitshuffle() -> Callable[..., int] | None:
    """bshuf_decompress_lz4(in, out, elements, bytes of each, elements of a block) of the filter that HDF5 uses."""
    for path in Path(hdf5plugin.PLUGIN_PATH).glob("*h5bshuf*"):
        with contextlib.suppress(OSError, AttributeError):
            decode = ctypes.CDLL(str(path)).bshuf_decompress_lz4
            decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_size_t] * 3]
            decode.restype = ctypes.c_int64
            return decode
    return None


@njit(cache=True, nogil=True)
def _number(raw: np.ndarray, at: int, length: int) -> int:
    """Big-endian unsigned number."""
    value = 0
    for i in range(length):
        value = value * 256 + raw[at + i]
    return value


@njit(cache=True, nogil=True)
def _sound(raw: np.ndarray, size: int, unit: int, shuffled: bool) -> bool:
    """Whether a chunk decodes to ``size`` bytes; bitshuffle leaves what is not a whole unit uncompressed at the end."""
    if len(raw) < 12 or _number(raw, 0, 8) != size:
        return False
    block = _number(raw, 8, 4)
    if block <= 0 or block % unit:
        return False
    at, done = 12, 0
    whole = size - size % unit
    while done < whole:
        if at + 4 > len(raw):
            return False
        length = _number(raw, at, 4)
        at += 4
        out = min(block, whole - done)
        if length <= 0 or at + length > len(raw):
            return False
        stored = not shuffled and length == out  # the plain filter keeps what does not shrink
        if not stored and not _sound_block(raw, at, at + length, out):
            return False
        at += length
        done += out
    return at + size % unit <= len(raw)


@njit(cache=True, nogil=True)
def _length(raw: np.ndarray, at: int, end: int, first: int) -> tuple[np.int64, int]:
    """A length that starts in four bits of a token and goes on in bytes as long as they are full; and what follows.

    −1 where the bytes end before the length does.
    """
    length, more = np.int64(first), np.int64(255 if first == 15 else 0)
    while more == 255:
        if at >= end:
            return np.int64(-1), at
        more = np.int64(raw[at])
        length += more
        at += 1
    return length, at


@njit(cache=True, nogil=True)
def _sound_block(raw: np.ndarray, at: int, end: int, size: int) -> bool:
    """Whether the sequences in raw[at:end] use up just that and give just ``size`` bytes."""
    done = 0
    while at < end:
        token = np.int64(raw[at])  # in signed numbers all through: numba makes floats of a mix
        literals, at = _length(raw, at + 1, end, token >> 4)
        at += literals
        done += literals
        if literals < 0 or at > end or done > size:
            return False
        if at == end:
            return done == size  # the last sequence is literals alone
        if at + 2 > end:
            return False
        distance = np.int64(raw[at]) + 256 * np.int64(raw[at + 1])
        if distance == 0 or distance > done:
            return False
        match, at = _length(raw, at + 2, end, token & 15)
        done += match + 4
        if match < 0 or done > size:
            return False
    return False
