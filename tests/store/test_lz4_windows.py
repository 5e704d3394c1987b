"""Windows of bitshuffle-LZ4 datasets that are decoded outside HDF5, against HDF5's own reading."""

import h5py
import hdf5plugin
import numpy as np
import pytest

from stemtomo_dl.store.scans import lz4

WINDOWS = [
    (slice(0, 5), slice(0, 21)),
    (slice(1, 2), slice(0, 8)),
    (slice(1, 4), slice(3, 19)),
    (slice(4, 5), slice(20, 21)),
]


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<u4", "<f4"])
@pytest.mark.parametrize("chunks", [(1, 8, 12, 10), (2, 4, 12, 10), (1, 8, 5, 10), (1, 1, 12, 3)])
def test_any_window_is_what_hdf5_reads(tmp_path, dtype, chunks):
    data = np.random.default_rng(0).poisson(2.0, (5, 21, 12, 10)).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        d = file.create_dataset("data", data=data, chunks=chunks, **hdf5plugin.Bitshuffle(cname="lz4"))
        assert lz4.applies(d)
        for window in WINDOWS:
            np.testing.assert_array_equal(lz4.read(d, window), data[window])


def test_stacks_and_chunks_that_were_stored_as_they_are(tmp_path):
    data = np.random.default_rng(1).poisson(2.0, (30, 12, 10)).astype("u2")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        d = file.create_dataset("data", data=data, chunks=(7, 12, 10), **hdf5plugin.Bitshuffle(cname="lz4"))
        d.id.write_direct_chunk((7, 0, 0), data[7:14].tobytes(), filter_mask=1)
        np.testing.assert_array_equal(lz4.read(d, (slice(3, 29),)), data[3:29])


def test_without_the_filters_own_function_hdf5_reads(tmp_path, monkeypatch):
    data = np.random.default_rng(2).poisson(2.0, (4, 9, 6, 5)).astype("u2")
    monkeypatch.setattr(lz4, "_bitshuffle", lambda: None)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        d = file.create_dataset("data", data=data, chunks=(1, 4, 6, 5), **hdf5plugin.Bitshuffle(cname="lz4"))
        np.testing.assert_array_equal(lz4.read(d, WINDOWS[1]), data[WINDOWS[1]])
