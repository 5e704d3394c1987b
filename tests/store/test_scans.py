"""Every format, non-square in all axes, against the array that was written."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from stemtomo_dl.errors import BadScan, InputError
from stemtomo_dl.records import Scan, Tile
from stemtomo_dl.store.scans import layout
from stemtomo_dl.store.scans.mib import MibScan
from stemtomo_dl.store.scans.open import open_scan
from stemtomo_dl.store.scans.write import write_scan
from stemtomo_dl.virtual.beam import refine_centres

SHAPE = (5, 7, 12, 10)
FILTERS = {
    "none": {},
    "gzip": {"compression": "gzip", "shuffle": True},
    "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle()),
    "blosc": dict(hdf5plugin.Blosc2(cname="lz4")),
    "zstd": dict(hdf5plugin.Zstd()),
}


def counts(dtype: str = "u2", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Values that differ everywhere and use all bytes of the type."""
    rng = np.random.default_rng(0)
    kind = np.dtype(dtype)
    values = rng.integers(0, min(np.iinfo(kind).max, 2**31), shape) if kind.kind == "u" else rng.normal(size=shape)
    return values.astype(kind)


def whole(scan: Scan, budget: int) -> np.ndarray:
    """The scan put together from its tiles; fails if they do not cover it exactly once."""
    out, seen = np.zeros(scan.shape, scan.dtype), np.zeros(scan.shape[:2], int)
    for tile in scan.tiles(budget):
        data = scan.read(tile)
        assert data.dtype == scan.dtype
        assert data.dtype.isnative
        assert data.shape == (*tile.shape, *scan.shape[2:])
        out[tile.window] = data
        seen[tile.window] += 1
    assert (seen == 1).all()
    return out


def check(scan: Scan, data: np.ndarray) -> None:
    assert scan.shape == data.shape
    assert scan.dtype == data.dtype.newbyteorder("=")
    pattern = data[0, 0].nbytes
    for budget in (1, pattern * 3, pattern * data.shape[1] * 2, 10 * data.nbytes):
        np.testing.assert_array_equal(whole(scan, budget), data)
        assert all(t.shape[0] * t.shape[1] * pattern <= max(budget, pattern) for t in scan.tiles(budget))
    part = Tile(1, min(4, data.shape[0]), 1, min(5, data.shape[1]))
    np.testing.assert_array_equal(scan.read(part), data[part.window])


def save_h5(path: Path, data: np.ndarray, name: str = "data", **how: object) -> Path:
    with h5py.File(path, "a") as f:
        f.create_dataset(name, data=data, **how)
    return path


def one_line(error: BaseException, *words: object) -> None:
    text = str(error)
    assert "\n" not in text
    for word in words:
        assert str(word) in text


# ------------------------------------------------------------------------------------------ written and read back


WRITABLE = [
    (s, d) for s in (".h5", ".npy", ".mib", ".hspy") for d in ("u1", "u2", "u4", "f4") if (s, d) != (".mib", "f4")
]


@pytest.mark.parametrize(("suffix", "dtype"), WRITABLE)
def test_written_scan_is_read_back(tmp_path: Path, suffix: str, dtype: str) -> None:
    data, path = counts(dtype), tmp_path / f"a{suffix}"
    write_scan(path, (data[y : y + 2] for y in range(0, 5, 2)), SHAPE, dtype)
    check(open_scan(path), data)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_rosettasciio_reads_the_mib_that_is_written(tmp_path: Path, dtype: str) -> None:
    reader = pytest.importorskip("rsciio.quantumdetector", reason="RosettaSciIO is not installed")
    data, path = counts(dtype), tmp_path / "a.mib"
    write_scan(path, [data], SHAPE, dtype)
    (signal,) = reader.file_reader(str(path))
    np.testing.assert_array_equal(signal["data"], data)
    path.with_suffix(".hdr").unlink()  # then both go by the time stamps
    (signal,) = reader.file_reader(str(path))
    np.testing.assert_array_equal(signal["data"], data)
    check(open_scan(path), data)


@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("u2", 16), ("u4", 32)])
def test_mib_states_the_depth_of_its_counts(tmp_path: Path, dtype: str, bits: int) -> None:
    path = tmp_path / "a.mib"
    write_scan(path, [counts(dtype)], SHAPE, dtype)
    assert f"ns,{bits},".encode() in path.read_bytes()[:384]
    assert f"Counter Depth (number):\t{bits}\n" in path.with_suffix(".hdr").read_text()


def test_rosettasciio_reads_the_hspy_that_is_written(tmp_path: Path) -> None:
    reader = pytest.importorskip("rsciio.hspy", reason="RosettaSciIO is not installed")
    data, path = counts(), tmp_path / "a.hspy"
    write_scan(path, [data], SHAPE, "u2")
    (signal,) = reader.file_reader(str(path))
    np.testing.assert_array_equal(signal["data"], data)
    assert [a["navigate"] for a in signal["axes"]] == [True, True, False, False]


@pytest.mark.parametrize(
    ("rows", "error"),
    [([counts()[:3]], "3 rows"), ([counts(), counts()], "up to row 10"), ([counts()[..., :-1]], "does not fit")],
)
def test_rows_that_do_not_make_the_scan_leave_no_file(tmp_path: Path, rows: list[np.ndarray], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        write_scan(tmp_path / "a.h5", rows, SHAPE, "u2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "dtype"), [("a.tif", "u2"), ("a.mib", "f4"), ("a.mib", "i2")])
def test_what_cannot_be_written_is_said(tmp_path: Path, name: str, dtype: str) -> None:
    with pytest.raises(InputError) as e:
        write_scan(tmp_path / name, [], SHAPE, dtype)
    one_line(e.value, name)


# -------------------------------------------------------------------------------------------------------- HDF5


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("chunks", [(1, 1, 12, 10), (1, 4, 12, 10), (2, 3, 5, 4), (5, 7, 12, 10), (1, 7, 1, 10)])
def test_hdf5_filters_and_chunks(tmp_path: Path, filters: str, chunks: tuple[int, ...]) -> None:
    data = counts()
    check(open_scan(save_h5(tmp_path / "a.h5", data, chunks=chunks, **FILTERS[filters])), data)


@pytest.mark.parametrize("dtype", ["u1", "u4", "i2", "f4", "f8", ">u2", ">f4"])
def test_hdf5_types_and_contiguous_layout(tmp_path: Path, dtype: str) -> None:
    data = counts("u2").astype(dtype)
    check(open_scan(save_h5(tmp_path / "a.h5", data)), data)


def test_chunks_beyond_the_edge(tmp_path: Path) -> None:
    data = counts()
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_dataset("d", data=data, chunks=(4, 16, 16, 16), maxshape=(None,) * 4)
    check(open_scan(tmp_path / "a.h5"), data)


def test_tiles_follow_chunks(tmp_path: Path) -> None:
    pattern = 12 * 10 * 2
    scan = open_scan(save_h5(tmp_path / "a.h5", counts(), chunks=(2, 3, 12, 10)))
    assert scan.tiles(pattern * 13) == [Tile(y, min(y + 2, 5), x, min(x + 6, 7)) for y in (0, 2, 4) for x in (0, 6)]
    assert scan.tiles(pattern * 27) == [Tile(0, 2, 0, 7), Tile(2, 4, 0, 7), Tile(4, 5, 0, 7)]


def test_the_one_4d_dataset_is_found_anywhere(tmp_path: Path) -> None:
    data = counts()
    save_h5(tmp_path / "a.h5", data, "deep/down/cube")
    save_h5(tmp_path / "a.h5", data[0], "stack")
    with h5py.File(tmp_path / "a.h5", "a") as f:
        f["alias"] = h5py.SoftLink("/deep/down/cube")  # another way to the same data is no second candidate
    check(open_scan(tmp_path / "a.h5"), data)
    check(open_scan(tmp_path / "a.h5", "alias"), data)


def test_emd_with_one_4d_dataset(tmp_path: Path) -> None:
    data = counts()
    check(open_scan(save_h5(tmp_path / "a.emd", data, "4DSTEM/datacube/data")), data)


def test_several_4d_datasets_are_named(tmp_path: Path) -> None:
    save_h5(tmp_path / "a.h5", counts(), "raw")
    save_h5(tmp_path / "a.h5", counts("u1"), "entry/other")
    with pytest.raises(BadScan) as e:
        open_scan(tmp_path / "a.h5")
    one_line(e.value, "a.h5", "/raw", "/entry/other", "dataset")
    assert open_scan(tmp_path / "a.h5", "/entry/other").dtype == np.dtype("u1")


@pytest.mark.parametrize(("dataset", "says"), [("/nowhere", "/raw"), ("/flat", "2 axes"), ("/group", "/raw")])
def test_wrong_dataset(tmp_path: Path, dataset: str, says: str) -> None:
    save_h5(tmp_path / "a.h5", counts(), "raw")
    save_h5(tmp_path / "a.h5", counts()[0, 0], "flat")
    save_h5(tmp_path / "a.h5", counts()[0, 0], "group/flat")
    with pytest.raises(BadScan) as e:
        open_scan(tmp_path / "a.h5", dataset)
    one_line(e.value, "a.h5", dataset, says)


def dectris(folder: Path, data: np.ndarray, per_file: int, chunk: int = 1) -> Path:
    frames = data.reshape(-1, *data.shape[2:])
    with h5py.File(folder / "s_master.h5", "w") as master:
        group = master.create_group("entry/data")
        for i, a in enumerate(range(0, len(frames), per_file)):
            name = f"s_data_{i + 1}.h5"
            part = frames[a : a + per_file]
            save_h5(folder / name, part, "entry/data/data", chunks=(chunk, *data.shape[2:]), **hdf5plugin.Bitshuffle())
            group[f"data_{i + 1}"] = h5py.ExternalLink(name, "/entry/data/data")
    return folder / "s_master.h5"


@pytest.mark.parametrize(("per_file", "chunk"), [(3, 1), (14, 7), (35, 14), (4, 2)])
def test_dectris_stacks_follow_each_other(tmp_path: Path, per_file: int, chunk: int) -> None:
    data = counts()  # with 3 to a file there are 12 files, so that data_10 must not come before data_2
    path = dectris(tmp_path, data, per_file, chunk)
    check(open_scan(path, shape=SHAPE[:2]), data)
    check(open_scan(path, "/entry/data", SHAPE[:2]), data)
    with pytest.raises(BadScan) as e:
        open_scan(path)
    one_line(e.value, "s_master.h5", "35 frames", "shape = [rows, columns]")


def test_dectris_rows_from_its_triggers(tmp_path: Path) -> None:
    data = counts()
    path = dectris(tmp_path, data, 10)
    save_h5(path, np.uint64(5), "entry/instrument/detector/detectorSpecific/ntrigger")
    save_h5(path, np.uint64(7), "entry/instrument/detector/detectorSpecific/nimages")
    check(open_scan(path), data)


def test_dectris_data_file_missing(tmp_path: Path) -> None:
    path = dectris(tmp_path, counts(), 10)
    (tmp_path / "s_data_3.h5").unlink()
    with pytest.raises(BadScan) as e:
        open_scan(path, shape=SHAPE[:2])
    one_line(e.value, "s_master.h5", "s_data_3.h5")


@pytest.mark.parametrize(("stored", "given"), [("f2", "f4"), ("g", "f8"), ("?", "u1"), ("i8", "i8"), (">u8", "u8")])
@pytest.mark.parametrize("suffix", [".h5", ".npy"])
def test_unusual_types_are_handed_out_as_loops_take_them(tmp_path: Path, suffix: str, stored: str, given: str) -> None:
    data, path = (counts("u2") % 7).astype(stored), tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, data)
    else:
        save_h5(path, data)
    scan = open_scan(path)
    check(scan, data.astype(given))
    patterns = scan.read(Tile(0, 5, 0, 7)).reshape(-1, 12, 10)
    centres = np.full((35, 2), 5.0)
    refine_centres(patterns, np.ones((12, 10), "f4"), centres, 3.0, 1)  # a compiled loop


def test_complex_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadScan) as e:
        open_scan(save_h5(tmp_path / "a.h5", counts("u2").astype("c8")))
    one_line(e.value, "a.h5", "complex64")


def test_square_stack_needs_no_shape(tmp_path: Path) -> None:
    data = counts(shape=(4, 4, 6, 5))
    check(open_scan(save_h5(tmp_path / "a.h5", data.reshape(16, 6, 5))), data)


def virtual(path: Path, data: np.ndarray) -> Path:
    sources = h5py.VirtualLayout(data.shape, data.dtype)
    for y, row in enumerate(data):
        save_h5(path.parent / f"row{y}.h5", row)
        sources[y] = h5py.VirtualSource(f"row{y}.h5", "data", row.shape)
    with h5py.File(path, "w") as f:
        f.create_virtual_dataset("data", sources)
    return path


def test_virtual_dataset_and_its_missing_source(tmp_path: Path) -> None:
    data = counts()
    path = virtual(tmp_path / "v.h5", data)
    check(open_scan(path), data)
    (tmp_path / "row2.h5").unlink()  # HDF5 itself would read zeros
    with pytest.raises(BadScan) as e:
        open_scan(path)
    one_line(e.value, "v.h5", "row2.h5")


def test_raw_external_file_and_its_truncation(tmp_path: Path) -> None:
    data = counts()
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_dataset("data", data=data, external=[(str(tmp_path / "a.raw"), 0, h5py.h5f.UNLIMITED)])
    check(open_scan(tmp_path / "a.h5"), data)
    (tmp_path / "a.raw").write_bytes(data.tobytes()[:-1])
    with pytest.raises(BadScan) as e:
        open_scan(tmp_path / "a.h5")
    one_line(e.value, "a.h5", f"{data.nbytes - 1} of {data.nbytes}")


def test_chunks_never_written_are_not_zeros(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_dataset("data", SHAPE, "u2", chunks=(1, *SHAPE[1:]))[:3] = counts()[:3]
    with pytest.raises(BadScan) as e:
        open_scan(tmp_path / "a.h5")
    one_line(e.value, "a.h5", "3 of 5 chunks")


def test_corrupt_chunk_is_a_bad_scan(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_scan(path, [counts()], SHAPE, "u2")
    with h5py.File(path) as f:
        chunk = f["data"].id.get_chunk_info(3)
    with open(path, "r+b") as f:
        f.seek(chunk.byte_offset)
        f.write(b"\xff" * chunk.size)
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.read(Tile(0, 3, 0, 7)), counts()[:3])
    with pytest.raises(BadScan) as e:
        scan.read(Tile(3, 4, 0, 7))
    one_line(e.value, "a.h5", "rows 3–3")


# -------------------------------------------------------------------------------------------------------- .npy


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "u4", "f4", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_byte_and_index_orders(tmp_path: Path, dtype: str, order: str) -> None:
    data = counts("u1").astype(dtype)
    np.save(tmp_path / "a.npy", np.asarray(data, order=order))
    check(open_scan(tmp_path / "a.npy"), data)


def test_npy_stack(tmp_path: Path) -> None:
    data = counts()
    np.save(tmp_path / "a.npy", data.reshape(35, 12, 10))
    check(open_scan(tmp_path / "a.npy", shape=(5, 7)), data)
    with pytest.raises(BadScan) as e:
        open_scan(tmp_path / "a.npy", shape=(5, 6))
    one_line(e.value, "a.npy", "35 frames", "[5, 6]")


def test_npy_tile_is_a_view_of_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", counts())
    tile = open_scan(tmp_path / "a.npy").read(Tile(1, 3, 0, 7))
    assert not tile.flags.owndata
    assert not tile.flags.writeable


# -------------------------------------------------------------------------------------------------------- .mib


def raw_mib(path: Path, words: np.ndarray, cols: int, bits: int, chips: str) -> None:
    """A Merlin file of raw frames (frame, bytes) that hold ``cols`` pixels a row."""
    chip = "3RX," + ",".join(["000"] * 27)
    size = 384 if chips == "1x1" else 768
    many = ",".join([chip] * (1 if chips == "1x1" else 4))
    rows = words.shape[1] * 8 // (cols * {1: 1, 6: 8, 12: 16}[bits])
    with open(path, "wb") as f:
        for i, frame in enumerate(words):
            head = f"MQ1,{i + 1:06d},{size:05d},01,{cols:04d},{rows:04d},R64,   {chips},01,t,0.001,0,0,0,{many},"
            f.write((head + f"MQ1A,2021-04-15T14:00:20.{i:09d}Z,1000000ns,{bits},").encode().ljust(size, b"\0"))
            f.write(frame.tobytes())


@pytest.mark.parametrize(("bits", "per_word"), [(1, 64), (6, 8), (12, 4)])
@pytest.mark.parametrize("chips", ["1x1", "2x2"])
def test_raw_frames_pixel_by_pixel(tmp_path: Path, bits: int, per_word: int, chips: str) -> None:
    rng = np.random.default_rng(1)
    n, side = (64, 6) if chips == "1x1" else (128, 12)  # a chip is 64 columns by 6 rows
    data = rng.integers(0, 2**bits, (3, 2, side, n)).astype("u2" if bits == 12 else "u1")
    stored = data[:, :, ::-1].reshape(6, side, n)  # from the bottom up
    if chips == "2x2":
        lower = stored[:, 6:, :][:, ::-1, ::-1]
        # the file has chips 4 3 2 1; turning the lower half as a whole swaps 3 and 4 back into that order
        stored = np.concatenate([lower[:, :, :64], lower[:, :, 64:], stored[:, :6, 64:], stored[:, :6, :64]], 2)
    words = stored.reshape(6, -1, per_word).astype("u8")
    if bits == 1:  # pixel i of a word is bit i of a big-endian number
        packed = (words << np.arange(64, dtype="u8")).sum(-1, dtype="u8").astype(">u8")
    else:
        packed = words[..., ::-1].astype("u1" if bits == 6 else ">u2")
    raw_mib(tmp_path / "a.mib", packed.reshape(6, -1).view("u1"), stored.shape[2], bits, chips)
    check(open_scan(tmp_path / "a.mib", shape=(3, 2)), data)


def test_raw_frames_of_24_bits_are_refused(tmp_path: Path) -> None:
    raw_mib(tmp_path / "a.mib", np.zeros((4, 64), "u1"), 64, 1, "1x1")
    text = (tmp_path / "a.mib").read_bytes().replace(b"ns,1,", b"ns,24,")
    (tmp_path / "a.mib").write_bytes(text)
    with pytest.raises(BadScan) as e:
        open_scan(tmp_path / "a.mib")
    one_line(e.value, "a.mib", "24 bits")


def test_mib_flyback_frames_are_left_out(tmp_path: Path) -> None:
    data, path = counts(), tmp_path / "a.mib"
    write_scan(path, [data], SHAPE, "u2")
    scan = open_scan(path, shape=(5, 6))
    assert isinstance(scan, MibScan)
    assert scan.flyback == 1
    check(scan, data[:, :6])


@pytest.mark.parametrize("shape", [(7, 5), (6, 7), (4, 7), (5, 3), (35, 2)])
def test_mib_of_another_shape(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "a.mib"
    write_scan(path, [counts()], SHAPE, "u2")
    path.with_suffix(".hdr").unlink()  # it states lines of 7 frames, which may end in any number of flyback frames
    if shape == (7, 5):  # as many frames: nothing in the file contradicts
        assert open_scan(path, shape=shape).shape[:2] == shape
        return
    with pytest.raises(BadScan) as e:
        open_scan(path, shape=shape)
    one_line(e.value, "a.mib", "35 frames", list(shape))


@pytest.mark.parametrize("shape", [(7, 5), (35, 1)])
def test_mib_shape_that_contradicts_its_header_file(tmp_path: Path, shape: tuple[int, int]) -> None:
    write_scan(tmp_path / "a.mib", [counts()], SHAPE, "u2")
    with pytest.raises(BadScan) as e:
        open_scan(tmp_path / "a.mib", shape=shape)
    one_line(e.value, "a.mib", ".hdr", list(shape), "states 7")


def test_mib_without_any_shape(tmp_path: Path) -> None:
    path = tmp_path / "a.mib"
    write_scan(path, [counts(shape=(1, 7, 6, 5))], (1, 7, 6, 5), "u2")  # one line: no pause to go by
    path.with_suffix(".hdr").unlink()
    with pytest.raises(BadScan) as e:
        open_scan(path)
    one_line(e.value, "a.mib", "7 frames", "shape")


# ----------------------------------------------------------------------------------------------- RosettaSciIO


def test_formats_through_rosettasciio(tmp_path: Path) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO is not installed")
    from rsciio.blockfile import file_writer

    data = counts("u1", (5, 7, 8, 8))
    axis = {"scale": 1.0, "offset": 0.0, "name": ""}
    axes = [axis | {"size": n, "navigate": i < 2, "units": "nm" if i < 2 else "cm"} for i, n in enumerate(data.shape)]
    signal = {"data": data, "axes": axes, "metadata": {}, "original_metadata": {}, "attributes": {"_lazy": False}}
    file_writer(str(tmp_path / "a.blo"), signal)
    check(open_scan(tmp_path / "a.blo"), data)
    whole_file = (tmp_path / "a.blo").read_bytes()
    (tmp_path / "a.blo").write_bytes(whole_file[:-100])
    with pytest.raises(BadScan) as e:
        open_scan(tmp_path / "a.blo")
    one_line(e.value, "a.blo")


@pytest.mark.parametrize("suffix", [".zspy", ".hspy"])
def test_signal_axes_first_are_put_last(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO is not installed")
    import importlib

    data = counts()
    axis = {"_type": "UniformDataAxis", "scale": 1.0, "offset": 0.0, "units": "", "name": "", "is_binned": False}
    axes = [axis | {"size": n, "navigate": i >= 2} for i, n in enumerate((12, 10, 5, 7))]
    signal = {"data": data.transpose(2, 3, 0, 1).copy(), "axes": axes, "original_metadata": {}, "learning_results": {}}
    signal |= {"metadata": {"General": {"title": "t"}, "Signal": {}}, "attributes": {"_lazy": False}}
    signal |= {"tmp_parameters": {}, "models": {}, "package_info": {"package": "", "package_version": ""}}
    importlib.import_module(f"rsciio.{suffix[1:]}").file_writer(str(tmp_path / f"a{suffix}"), signal)
    check(open_scan(tmp_path / f"a{suffix}"), data)


def test_missing_extra_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.blo").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "rsciio", None)
    with pytest.raises(InputError) as e:
        open_scan(tmp_path / "a.blo")
    assert not isinstance(e.value, BadScan)  # leaving out tilts would not help
    one_line(e.value, "a.blo", "pip install 'stemtomo_dl[formats]'")


def test_unknown_format(tmp_path: Path) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO is not installed")
    (tmp_path / "a.xyz").write_bytes(b"x")
    with pytest.raises(BadScan) as e:
        open_scan(tmp_path / "a.xyz")
    one_line(e.value, "a.xyz", "'.xyz'")


# -------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("name", ["a.h5", "b.h5", "a.npy", "a.mib", "a.hspy"])
@pytest.mark.parametrize("damage", ["short", "tail", "empty", "gone", "noise"])
def test_damaged_file_is_one_line(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    if name == "b.h5":
        save_h5(path, counts())  # contiguous
    else:
        write_scan(path, [counts()], SHAPE, "u2")
    size = path.stat().st_size
    if damage == "gone":
        path.unlink()
    else:
        keep = {"short": size // 2, "tail": size - 1, "empty": 0, "noise": 0}[damage]
        path.write_bytes(path.read_bytes()[:keep] + (b"\x07" * 5000 if damage == "noise" else b""))
    with pytest.raises(BadScan) as e:
        open_scan(path)
    one_line(e.value, path)


@pytest.mark.parametrize("name", ["a.h5", "a.npy", "a.mib", "a.hspy"])
def test_file_that_shrinks_after_opening(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_scan(path, [counts()], SHAPE, "u2")
    scan = open_scan(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(BadScan) as e:
        scan.read(Tile(4, 5, 0, 7))
    one_line(e.value, path)
    path.unlink()
    with pytest.raises(BadScan) as e:
        scan.read(Tile(0, 1, 0, 7))
    one_line(e.value, path)


@pytest.mark.parametrize(("name", "data"), [("a.npy", counts()[0, 0]), ("a.h5", counts()[0, 0])])
def test_no_scan_in_the_file(tmp_path: Path, name: str, data: np.ndarray) -> None:
    if name == "a.npy":
        np.save(tmp_path / name, data)
    else:
        save_h5(tmp_path / name, data)
    with pytest.raises(BadScan) as e:
        open_scan(tmp_path / name)
    one_line(e.value, name)


@pytest.mark.parametrize("name", ["a.h5", "a.npy", "a.hspy"])
def test_shape_that_contradicts_the_file(tmp_path: Path, name: str) -> None:
    write_scan(tmp_path / name, [counts()], SHAPE, "u2")
    with pytest.raises(BadScan) as e:
        open_scan(tmp_path / name, shape=(7, 5))
    one_line(e.value, name, "5 × 7", "[7, 5]")


# ------------------------------------------------------------------------------------------ processes and threads


def read_pickled(blob: bytes) -> np.ndarray:
    return whole(pickle.loads(blob), 5000)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_scan_travels_to_another_process(tmp_path: Path, method: str) -> None:
    data, blobs = counts(), []
    for suffix in (".h5", ".npy", ".mib"):
        write_scan(tmp_path / f"a{suffix}", [data], SHAPE, "u2")
        scan = open_scan(tmp_path / f"a{suffix}")
        scan.read(Tile(0, 1, 0, 7))  # whatever reading leaves open must not travel
        blobs.append(pickle.dumps(scan))
    with multiprocessing.get_context(method).Pool(1) as pool:
        for result in pool.map(read_pickled, blobs):
            np.testing.assert_array_equal(result, data)


@pytest.mark.parametrize("suffix", [".h5", ".npy", ".mib", ".zspy"])
def test_two_threads_read_one_scan(tmp_path: Path, suffix: str) -> None:
    data, path = counts(shape=(40, 7, 12, 10)), tmp_path / f"a{suffix}"
    if suffix == ".zspy":
        zarr = pytest.importorskip("rsciio.zspy", reason="RosettaSciIO is not installed")
        axis = {"_type": "UniformDataAxis", "scale": 1.0, "offset": 0.0, "units": "", "name": "", "is_binned": False}
        signal = {"data": data, "axes": [axis | {"size": n, "navigate": i < 2} for i, n in enumerate(data.shape)]}
        signal |= {"metadata": {"General": {"title": "t"}, "Signal": {}}, "attributes": {"_lazy": False}, "models": {}}
        signal |= {
            "tmp_parameters": {},
            "original_metadata": {},
            "package_info": {"package": "", "package_version": ""},
        }
        zarr.file_writer(str(path), signal | {"learning_results": {}})
    else:
        write_scan(path, [data], data.shape, "u2")
    scan = open_scan(path)
    with ThreadPoolExecutor(2) as pool:
        for tile, part in zip(scan.tiles(2000), pool.map(scan.read, scan.tiles(2000)), strict=True):
            np.testing.assert_array_equal(part, data[tile.window])


def test_natural_order() -> None:
    names = ["s_10.h5", "s_2.h5", "s_1b.h5", "10_s.h5", "s_002.h5"]
    assert sorted(names, key=layout.natural) == ["10_s.h5", "s_1b.h5", "s_2.h5", "s_002.h5", "s_10.h5"]


@pytest.mark.parametrize("columns", [128, 243, 250])
def test_formats_are_cut_alike(columns):
    """Long scan rows too, so that what is estimated tile by tile does not depend on the format."""
    shape, each = (7, columns, 100, 100), 100 * 100 * 2
    for budget in (each * 71, each * 130, each * 600):
        cut = [layout.tiles(shape, 2, budget, (1, chunk)) for chunk in (1, 4, 16)]
        assert cut[0] == cut[1] == cut[2]
