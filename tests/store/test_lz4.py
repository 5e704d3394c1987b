"""Damage in LZ4-compressed chunks."""

import contextlib

import h5py
import hdf5plugin
import numpy as np
import pytest

from stemtomo_dl.errors import BadScan
from stemtomo_dl.store.scans.open import open_scan


@pytest.mark.parametrize("filter_", ["bitshuffle", "lz4"])
@pytest.mark.parametrize("size", [1, 8, 400, 4000])
def test_random_damage_in_lz4_chunks_is_told(tmp_path, filter_, size):
    """The filters' decoders follow damaged lengths out of their buffers: without a check the process dies."""
    rng = np.random.default_rng(size)
    data = rng.poisson(1.0, (6, 16, 40, 32)).astype("u2")
    path = tmp_path / "scan.h5"
    compression = hdf5plugin.Bitshuffle(cname="lz4") if filter_ == "bitshuffle" else hdf5plugin.LZ4()
    with h5py.File(path, "w") as f:
        d = f.create_dataset("data", data=data, chunks=(1, 16, 40, 32), **compression)
        info = d.id.get_chunk_info(2)
    whole = path.read_bytes()
    scan = open_scan(path)
    tiles = scan.tiles(1 << 20)
    np.testing.assert_array_equal(np.concatenate([scan.read(t) for t in tiles]), data)
    told = 0
    for _ in range(12):
        at = info.byte_offset + int(rng.integers(0, max(1, info.size - size)))
        path.write_bytes(whole[:at] + rng.bytes(min(size, info.size)) + whole[at + min(size, info.size) :])
        with contextlib.suppress(BadScan):
            for t in tiles:
                scan.read(t)
            told -= 1
        told += 1
    assert told >= (0 if size < 400 else 1 if size < 4000 else 10)  # what only changes counts cannot be told
