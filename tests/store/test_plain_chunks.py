"""Windows of chunked datasets that are read past HDF5, against HDF5's own reading."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from stemtomo_dl.errors import BadScan
from stemtomo_dl.records import Tile
from stemtomo_dl.store.scans import chunks
from stemtomo_dl.store.scans.open import open_scan

SHAPE = (5, 21, 80, 64)
WINDOWS = [
    (slice(0, 5), slice(0, 21)),
    (slice(1, 2), slice(0, 8)),
    (slice(1, 4), slice(3, 19)),
    (slice(4, 5), slice(20, 21)),
]


def save(path: Path, data: np.ndarray, **options: object) -> Path:
    with h5py.File(path, "w", userblock_size=options.pop("userblock_size", 0)) as file:
        file.create_dataset("data", data=data, **options)
    return path


def counts(dtype: str = "<u2") -> np.ndarray:
    return np.random.default_rng(0).poisson(2.0, SHAPE).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<u4", "<f4", "bool"])
@pytest.mark.parametrize("shape", [(1, 8, 80, 64), (1, 7, 80, 64), (2, 4, 80, 64), (1, 21, 32, 64), (5, 21, 80, 3)])
def test_any_window_is_what_hdf5_reads(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    data = counts(dtype)
    with h5py.File(save(tmp_path / "a.h5", data, chunks=shape), "r") as file:
        assert chunks.applies(file["data"]) == (np.prod(shape) * data.itemsize >= 32768)
        for window in WINDOWS:
            found = chunks.read(file["data"], window)
            assert found.dtype == data.dtype
            np.testing.assert_array_equal(found, data[window])


def test_chunks_that_follow_each_other_are_mapped_and_others_put_together(tmp_path: Path) -> None:
    data = counts()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        d = file.create_dataset("data", SHAPE, data.dtype, chunks=(1, 7, 80, 64))
        for y in (0, 1, 2, 4, 3):  # the last two rows in another order than that of the scan
            d[y] = data[y]
        stack = file.create_dataset("stack", data=data[0], chunks=(8, 80, 64))
        file.flush()
        for window, mapped in (((slice(0, 3), slice(0, 21)), True), ((slice(2, 5), slice(0, 21)), False)):
            found = chunks.read(d, window)
            np.testing.assert_array_equal(found, data[window])
            assert found.flags.writeable != mapped
        found = chunks.read(d, (slice(3, 4), slice(3, 20)))
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, data[3:4, 3:20])
        found = chunks.read(stack, (slice(5, 21),))
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, data[0, 5:21])


@pytest.mark.parametrize(
    "options", [{"compression": "gzip"}, {"shuffle": True}, {"fletcher32": True}, {"userblock_size": 512}]
)
def test_what_is_not_plain_is_left_to_hdf5(tmp_path: Path, options: dict[str, object]) -> None:
    data = counts()
    path = save(tmp_path / "a.h5", data, chunks=(1, 8, 80, 64), **options)
    with h5py.File(path, "r") as file:
        assert not chunks.applies(file["data"])
    np.testing.assert_array_equal(open_scan(path, None, None).read(Tile(1, 3, 2, 12)), data[1:3, 2:12])


def test_a_file_that_has_become_shorter_is_told(tmp_path: Path) -> None:
    path = save(tmp_path / "a.h5", counts(), chunks=(1, 8, 80, 64))
    scan = open_scan(path, None, None)
    with h5py.File(path) as file:
        # the chunk whose bytes come last goes, and with it nothing that HDF5 needs to open the file
        infos = [file["data"].id.get_chunk_info(i) for i in range(file["data"].id.get_num_chunks())]
        last = max(infos, key=lambda i: i.byte_offset)
    y, x = last.chunk_offset[:2]
    with path.open("r+b") as raw:
        raw.truncate(last.byte_offset + 100)
    with pytest.raises(BadScan, match=r"rows \d+–\d+, columns \d+–\d+ cannot be decoded"):
        scan.read(Tile(y, y + 1, x, min(x + 8, SHAPE[1])))


def test_a_chunk_that_was_never_written_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        d = file.create_dataset("data", SHAPE, "u2", chunks=(1, 8, 80, 64))
        d[:3] = 1
        file.flush()
        with pytest.raises(ValueError, match="never written"):
            chunks.read(d, WINDOWS[0])
