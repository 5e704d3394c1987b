"""Files that instruments wrote, against RosettaSciIO, which reads them on its own."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stemtomo_dl.errors import BadScan
from stemtomo_dl.records import Scan
from stemtomo_dl.store.scans.mib import MibScan
from stemtomo_dl.store.scans.open import open_scan

REAL = Path(os.environ.get("STEMTOMO_REAL") or Path(__file__).resolve().parents[3] / "shared" / "real")
READERS = REAL / "readers"
pytestmark = pytest.mark.skipif(not READERS.is_dir(), reason="the real data are absent (set STEMTOMO_REAL)")
ONE_OF_NINE = [
    f"{chips}_9_Frame_CounterDepth_{bits}_Rows_256" for chips in ("Single", "Quad") for bits in (1, 6, 12, 24)
]


def theirs(plugin: str, path: Path) -> np.ndarray:
    module = pytest.importorskip(f"rsciio.{plugin}", reason="RosettaSciIO is not installed")
    signal = module.file_reader(str(path))[0]
    return np.asarray(signal["data"])


def read(scan: Scan) -> np.ndarray:
    out = np.empty(scan.shape, scan.dtype)
    for tile in scan.tiles(300_000):
        out[tile.window] = scan.read(tile)
    return out


@pytest.fixture(scope="module")
def merlin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merlin")
    for name in ("Merlin_Single_Quad.zip", "Merlin_navigation4x2_ROI.zip"):
        with zipfile.ZipFile(READERS / name) as archive:
            archive.extractall(folder)
    return folder


@pytest.mark.parametrize("name", ONE_OF_NINE)
def test_assembled_merlin_frames(merlin: Path, name: str) -> None:
    data = theirs("quantumdetector", merlin / f"{name}.mib")
    scan = open_scan(merlin / f"{name}.mib", shape=(3, 3))
    assert scan.dtype == data.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read(scan), data.reshape(3, 3, *data.shape[-2:]))
    assert open_scan(merlin / f"{name}.mib").shape[:2] == (3, 3)  # no lines in .hdr or times: a square


@pytest.mark.parametrize("name", ["001_4x2_6bit", "002_4x2_6bit_roi128"])
@pytest.mark.parametrize("hdr", [True, False])
def test_merlin_scan_shape_from_time_stamps(merlin: Path, tmp_path: Path, name: str, hdr: bool) -> None:
    data = theirs("quantumdetector", merlin / f"{name}.mib")
    folder = merlin if hdr else tmp_path
    if not hdr:
        (tmp_path / f"{name}.mib").write_bytes((merlin / f"{name}.mib").read_bytes())
    scan = open_scan(folder / f"{name}.mib")
    assert scan.shape == data.shape
    assert scan.shape[:2] == (2, 4)
    np.testing.assert_array_equal(read(scan), data)
    other = open_scan(folder / f"{name}.mib", shape=(4, 2))
    np.testing.assert_array_equal(read(other), data.reshape(4, 2, *data.shape[2:]))


@pytest.mark.parametrize("chips", ["Single", "Quad"])
def test_raw_merlin_frames_show_the_assembled_detector(merlin: Path, chips: str) -> None:
    """RosettaSciIO cannot read raw frames, but the same detector was recorded assembled a second later.

    Its noisy pixels are the same; a chip in a wrong place or turned wrongly would correlate below 0.6.
    """
    raw = open_scan(merlin / f"{chips}_9_Frame_CounterDepth_1_Rows_256RAW.mib", shape=(3, 3))
    assembled = open_scan(merlin / f"{chips}_9_Frame_CounterDepth_1_Rows_256.mib", shape=(3, 3))
    assert isinstance(raw, MibScan)
    assert raw.frame.raw_bits == 1
    assert raw.shape == assembled.shape
    a, b = (read(s).sum((0, 1)).astype(float) for s in (raw, assembled))
    half = a.shape[0] // 2 if chips == "Quad" else a.shape[0]
    for y in range(0, a.shape[0], half):
        for x in range(0, a.shape[1], half):
            chip = np.s_[y : y + half, x : x + half]
            assert np.corrcoef(a[chip].ravel(), b[chip].ravel())[0, 1] > 0.99


def test_truncated_merlin_file(merlin: Path, tmp_path: Path) -> None:
    data = (merlin / "001_4x2_6bit.mib").read_bytes()
    for n in (1, 65536 + 384):  # one byte, one whole frame that the .hdr counts
        (tmp_path / "a.mib").write_bytes(data[:-n])
        (tmp_path / "a.hdr").write_bytes((merlin / "001_4x2_6bit.hdr").read_bytes())
        with pytest.raises(BadScan, match=r"a\.mib: truncated.* of 8;"):
            open_scan(tmp_path / "a.mib")


def test_blockfile() -> None:
    data = theirs("blockfile", READERS / "test1.blo")
    scan = open_scan(READERS / "test1.blo")
    assert scan.shape == data.shape == (3, 2, 144, 144)
    np.testing.assert_array_equal(read(scan), data)


@pytest.mark.parametrize("plugin", ["tia", "digitalmicrograph"])
def test_files_without_a_scan_say_what_they_hold(plugin: str) -> None:
    pytest.importorskip("rsciio", reason="RosettaSciIO is not installed")
    name, what = {
        "tia": ("16x16-diffraction_imagel_5x5x256x256_EDS_1.ser", r"\(5, 5, 4000\)"),
        "digitalmicrograph": ("test_diffraction_pattern.dm3", r"\(87, 87\)"),
    }[plugin]
    with pytest.raises(BadScan, match=what) as e:
        open_scan(READERS / name)
    assert name in str(e.value)
    assert "\n" not in str(e.value)


def test_dectris_master_without_its_data_file() -> None:
    with pytest.raises(BadScan, match=r"test_00_master\.h5: .*test_00_data_000001\.h5"):
        open_scan(READERS / "test_00_master.h5")
