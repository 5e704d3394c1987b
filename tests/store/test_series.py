"""The experiment file: order and angles of the scans, and one line for everything that can be wrong."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from stemtomo_dl.errors import BadScan, InputError
from stemtomo_dl.records import Tile, TiltSeries
from stemtomo_dl.store.fingerprint import fingerprint, fingerprints
from stemtomo_dl.store.scans.write import write_scan
from stemtomo_dl.store.series import open_series

SHAPE = (3, 4, 6, 5)
NAMES = tuple(f"scan_{i}.npy" for i in (1, 2, 3, 10, 11))  # natural order is not the alphabet's
ANGLES = (-60.0, -58.5, -57.0, 40.0, 1.25)

REST = """
[beam]
voltage_kv = 200
convergence_mrad = 0.8
{beam}
[scan]
step_nm = 5.0
[detector]
pixel_inv_angstrom = 0.0301
rotation_deg = 12.0
{detector}
[stage]
tilt_axis_deg = 24.3
"""


def make(
    folder: Path,
    tilts: str = '"tilts.csv"',
    table: str | None = None,
    files: str = '"scans/scan_*.npy"',
    beam: str = "",
    detector: str = "",
) -> Path:
    """An experiment of five scans; scan i holds the value 10 + i everywhere."""
    (folder / "scans").mkdir()
    for i, name in enumerate(NAMES):
        np.save(folder / "scans" / name, np.full(SHAPE, 10 + i, "u2"))
    lines = zip(NAMES, ANGLES, strict=True)
    text = "scan,alpha_deg\n" + "".join(f"{n},{a}\n" for n, a in lines) if table is None else table
    (folder / "tilts.csv").write_text(text)
    (folder / "e.toml").write_text(
        f'title = "t"\n[scans]\nfiles = {files}\ntilts = {tilts}\n' + REST.format(beam=beam, detector=detector)
    )
    return folder / "e.toml"


def values(series: TiltSeries) -> list[int | None]:
    """What each scan holds, which tells which file it is."""
    return [None if s is None else int(s.read(Tile(0, 1, 0, 1))[0, 0, 0, 0]) for s in series.scans]


def fails(path: Path, *words: object, kind: type[InputError] = InputError, skip_bad: bool = False) -> None:
    with pytest.raises(InputError) as e:
        open_series(path, skip_bad)
    assert type(e.value) is kind
    assert "\n" not in str(e.value)
    for word in words:
        assert str(word) in str(e.value)


def test_all_that_the_file_says_arrives(tmp_path: Path) -> None:
    mask = np.zeros((6, 5), bool)
    mask[2, 3] = True
    np.save(tmp_path / "m.npy", mask)
    path = make(tmp_path, beam="current_pa = 2.0\ndwell_ms = 1.0", detector='mask = "m.npy"')
    experiment, series, left_out, notes = open_series(path)
    assert experiment.title == series.title == "t"
    assert (left_out, notes) == ({}, [])
    assert series.names == tuple(f"scans/{n}" for n in NAMES)
    assert values(series) == [10, 11, 12, 13, 14]
    np.testing.assert_array_equal(series.alpha_deg, ANGLES)
    np.testing.assert_array_equal(series.bad_pixels, mask)
    i = series.instrument
    assert (i.voltage_kv, i.convergence_mrad, i.step_nm, i.rotation_deg) == (200, 0.8, 5.0, 12.0)
    assert (i.pixel_inv_angstrom, i.tilt_axis_deg) == (0.0301, 24.3)
    assert i.electrons_per_pattern == pytest.approx(12483.02, abs=0.01)  # 2 pA for 1 ms


def test_a_list_of_files_keeps_its_order(tmp_path: Path) -> None:
    order = [3, 0, 4, 1, 2]
    files = "[" + ", ".join(f'"scans/{NAMES[i]}"' for i in order) + "]"
    _, series, *_ = open_series(make(tmp_path, files=files))
    assert values(series) == [10 + i for i in order]
    np.testing.assert_array_equal(series.alpha_deg, [ANGLES[i] for i in order])


def test_angles_in_file_order(tmp_path: Path) -> None:
    _, series, *_ = open_series(make(tmp_path, tilts="[5, 4, 3, 2.5, 1]"))
    np.testing.assert_array_equal(series.alpha_deg, [5, 4, 3, 2.5, 1])
    assert values(series) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize(
    "scans",
    [
        [f"scans/{n}" for n in NAMES],
        [f"./scans/{n}" for n in NAMES],
        list(NAMES),
        [n.removesuffix(".npy") for n in NAMES],
        ["1", "2", "3", "10", "11"],  # numbers at the end of the stems
        ["001", "2", "03", "010", "11"],
        ["0", "1", "2", "3", "4"],  # places from 0
        ["1", "2", "3", "4", "5"],  # places from 1: the stems do not end so
    ],
)
def test_every_way_to_name_a_scan(tmp_path: Path, scans: list[str]) -> None:
    lines = [f"{s} , {a}" for s, a in zip(scans, ANGLES, strict=True)]
    table = "\ufeffscan, alpha_deg\r\n" + "\r\n".join(reversed(lines)) + "\r\n\r\n"  # any order, any line ends
    _, series, *_ = open_series(make(tmp_path, table=table))
    np.testing.assert_array_equal(series.alpha_deg, ANGLES)
    assert values(series) == [10, 11, 12, 13, 14]


def test_further_columns_are_ignored(tmp_path: Path) -> None:
    lines = "".join(f"{a},x,{n}\n" for n, a in zip(NAMES, ANGLES, strict=True))
    _, series, *_ = open_series(make(tmp_path, table="alpha_deg,note,scan\n" + lines))
    np.testing.assert_array_equal(series.alpha_deg, ANGLES)


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("scan_1.npy,-60\n", ["scan,alpha_deg"]),
        ("", ["scan,alpha_deg"]),
        ("scan,alpha_deg\n", ["no tilts"]),
        ("scan,alpha_deg\nscan_1.npy,-60\nscan_2.npy,-5 8\n", ["line 3", "-5 8"]),
        ("scan,alpha_deg\nscan_1.npy,nan\n", ["line 2", "nan"]),
        ("scan,alpha_deg\nscan_1.npy,inf\n", ["line 2", "inf"]),
        ("scan,alpha_deg\nscan_1.npy\n", ["line 2", "scan_1.npy"]),
        ("scan,alpha_deg\n,4\n", ["line 2"]),
        ("scan,alpha_deg\nscan_1.npy,-60\nscan_1.npy,-58\n", ["scan_1.npy", "twice"]),
        ("scan,alpha_deg\nscan_1.npy,-60\nscan_1,-58\n", ["lines 2 and 3", "scan_1.npy"]),
        ("scan,alpha_deg\n1,1\n2,2\n3,3\n4,4\n5,5\n6,6\n", ["6 tilts", "5 scans", "line 7"]),
    ],
)
def test_wrong_tilt_list(tmp_path: Path, table: str, words: list[str], skip_bad: bool) -> None:
    fails(make(tmp_path, table=table), "tilts.csv", *words, skip_bad=skip_bad)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_wrong_number_of_angles(tmp_path: Path, skip_bad: bool) -> None:
    fails(make(tmp_path, tilts="[1, 2, 3]"), "e.toml", "3 angles", "5 scans", skip_bad=skip_bad)


def test_tilt_list_without_file(tmp_path: Path) -> None:
    fails(make(tmp_path, tilts='"angles.csv"'), "angles.csv", "No such file")


def test_one_name_for_two_files(tmp_path: Path) -> None:
    path = make(tmp_path, files='"**/scan_*.npy"')
    (tmp_path / "more").mkdir()
    np.save(tmp_path / "more" / "scan_3.npy", np.zeros(SHAPE, "u2"))
    fails(path, "tilts.csv", "line 4", "more/scan_3.npy", "scans/scan_3.npy")


def test_no_file_matches(tmp_path: Path) -> None:
    fails(make(tmp_path, files='"scans/*.h5"'), "e.toml", "scans/*.h5")
    (tmp_path / "other").mkdir()
    fails(make(tmp_path / "other", files="[]"), "e.toml", "empty list")


def test_file_named_twice(tmp_path: Path) -> None:
    fails(make(tmp_path, files='["scans/scan_1.npy", "scans/scan_1.npy"]', tilts="[1, 2]"), "e.toml", "scan_1.npy")


# ---------------------------------------------------------------------------------------------- single bad tilts


def spoil(path: Path, how: str) -> None:
    file = path.parent / "scans" / "scan_3.npy"
    match how:
        case "truncated":
            file.write_bytes(file.read_bytes()[:-7])
        case "empty":
            file.write_bytes(b"")
        case "noise":
            file.write_bytes(b"\x01" * 4000)
        case "detector":
            np.save(file, np.zeros((3, 4, 5, 6), "u2"))
        case "scan":
            np.save(file, np.zeros((4, 3, 6, 5), "u2"))
        case "dtype":
            np.save(file, np.zeros(SHAPE, "u4"))
        case "axes":
            np.save(file, np.zeros((3, 4), "u2"))
        case "folder":
            file.unlink()
            file.mkdir()


SPOILT = {
    "truncated": ["truncated"],
    "empty": ["empty"],
    "noise": ["NumPy"],
    "detector": ["3 × 4 × 5 × 6", "3 × 4 × 6 × 5"],
    "scan": ["4 × 3 × 6 × 5", "3 × 4 × 6 × 5"],
    "dtype": ["uint32", "uint16"],
    "axes": ["2 axes"],
    "folder": ["folder"],
}


@pytest.mark.parametrize("how", SPOILT)
def test_bad_scan_ends_or_is_skipped(tmp_path: Path, how: str) -> None:
    path = make(tmp_path)
    spoil(path, how)
    fails(path, "scan_3.npy", *SPOILT[how], kind=BadScan)
    _, series, left_out, _ = open_series(path, skip_bad=True)
    assert values(series) == [10, 11, None, 13, 14]
    np.testing.assert_array_equal(series.alpha_deg, ANGLES)  # its number and its angle stay
    assert [i for i, _ in series.good()] == [0, 1, 3, 4]
    assert list(left_out) == [2]
    assert str(tmp_path) not in left_out[2]
    for word in SPOILT[how]:
        assert word in left_out[2]


@pytest.mark.parametrize("form", ["scans/scan_{}.npy", "scan_{}.npy", "scan_{}", "{}"])
def test_listed_but_absent(tmp_path: Path, form: str) -> None:
    lines = [f"{form.format(n)},{a}\n" for n, a in zip((1, 2, 3, 10, 11), ANGLES, strict=True)]
    path = make(tmp_path, table="scan,alpha_deg\n" + "".join(lines))
    (tmp_path / "scans" / "scan_3.npy").unlink()
    fails(path, "tilts.csv", "5 tilts", "4 scans", form.format(3))
    _, series, left_out, _ = open_series(path, skip_bad=True)
    assert values(series) == [10, 11, None, 13, 14]
    assert series.names[2] == "scans/scan_3.npy"
    np.testing.assert_array_equal(series.alpha_deg, ANGLES)
    assert len(left_out) == 1


def test_absent_file_of_a_list(tmp_path: Path) -> None:
    path = make(tmp_path, files='["scans/scan_2.npy", "scans/scan_7.npy", "scans/scan_1.npy"]', tilts="[1, 2, 3]")
    fails(path, "scan_7.npy", "no such file", kind=BadScan)
    _, series, left_out, _ = open_series(path, skip_bad=True)
    assert values(series) == [11, None, 10]
    assert len(left_out) == 1


def test_place_of_a_missing_scan_is_not_guessed(tmp_path: Path) -> None:
    path = make(tmp_path, table="scan,alpha_deg\n1,1\n2,2\n3,3\n4,4\n5,5\n")
    (tmp_path / "scans" / "scan_3.npy").unlink()
    fails(path, "tilts.csv", "5 tilts", "4 scans", skip_bad=True)


def test_scan_without_a_line_has_no_angle(tmp_path: Path) -> None:
    lines = [f"{n},{a}\n" for n, a in zip(NAMES, ANGLES, strict=True)]
    path = make(tmp_path, table="scan,alpha_deg\n" + "".join(lines[:3] + lines[4:]))
    fails(path, "tilts.csv", "4 tilts", "5 scans", "scan_10.npy")
    _, series, left_out, _ = open_series(path, skip_bad=True)
    assert values(series) == [10, 11, 12, None, 14]
    assert np.isnan(series.alpha_deg[3])
    np.testing.assert_array_equal(series.alpha_deg[[0, 1, 2, 4]], np.array(ANGLES)[[0, 1, 2, 4]])
    assert "no line" in left_out[3]


def test_nothing_left(tmp_path: Path) -> None:
    path = make(tmp_path)
    for name in NAMES:
        (tmp_path / "scans" / name).write_bytes(b"")
    fails(path, "e.toml", "none of the 5 scans", "scan_1.npy", skip_bad=True)


# -------------------------------------------------------------------------------------------------------- the mask


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((5, 6), bool), ["5 × 6", "6 × 5"]),
        (np.zeros((6, 5), "u1"), ["uint8", "bool"]),
        (None, ["No such file"]),
        (b"noise", ["cannot be read"]),
    ],
)
def test_wrong_mask(tmp_path: Path, mask: np.ndarray | bytes | None, words: list[str]) -> None:
    if isinstance(mask, bytes):
        (tmp_path / "m.npy").write_bytes(mask)
    elif mask is not None:
        np.save(tmp_path / "m.npy", mask)
    fails(make(tmp_path, detector='mask = "m.npy"'), "m.npy", *words, skip_bad=True)


# ------------------------------------------------------------------------------------------------------ other things


def test_flyback_frames_are_mentioned(tmp_path: Path) -> None:
    path = make(tmp_path, files='"*.mib"\nshape = [3, 4]', tilts="[1, 2]")
    for name in ("a.mib", "b.mib"):
        write_scan(tmp_path / name, [np.zeros((3, 5, 6, 5), "u2")], (3, 5, 6, 5), "u2")
    opened = open_series(path)
    assert opened.series.scans[0] is not None
    assert opened.series.scans[0].shape[:2] == (3, 4)
    assert opened.notes == ["1 flyback frames at the end of every scan line are left out"]


def test_a_guessed_shape_is_mentioned(tmp_path: Path) -> None:
    path = make(tmp_path)
    for name in NAMES:
        np.save(tmp_path / "scans" / name, np.zeros((16, 6, 5), "u2"))
    (note,) = open_series(path).notes
    assert note == "scan shape guessed 4 × 4 from 16 frames; set shape = [rows, columns] in [scans]"
    path.write_text(path.read_text().replace("[scans]", "[scans]\nshape = [2, 8]"))
    assert open_series(path).notes == []


@pytest.mark.parametrize("size", [0, 1000, 3 << 20, (3 << 20) + 1, 10 << 20])
def test_fingerprint_sees_size_start_middle_and_end(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, size, "u1")
    file = tmp_path / "a"
    file.write_bytes(data.tobytes())
    seen = {fingerprint(file)}
    assert fingerprint(file) in seen
    for at in (0, size // 2, size - 1) if size else ():
        changed = data.copy()
        changed[at] ^= 1
        file.write_bytes(changed.tobytes())
        seen.add(fingerprint(file))
    file.write_bytes(data.tobytes() + b"\0")
    seen.add(fingerprint(file))
    assert len(seen) == (5 if size else 2)


def test_fingerprints_name_every_input(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.zeros((6, 5), bool))
    path = make(tmp_path, detector='mask = "m.npy"')
    (tmp_path / "scans" / "scan_3.npy").unlink()
    experiment, series, *_ = open_series(path, skip_bad=True)
    before = fingerprints(path, experiment, series)
    assert set(before) == {f"scans/{n}" for n in NAMES if n != "scan_3.npy"} | {"tilts.csv", "m.npy"}
    (tmp_path / "tilts.csv").write_text("scan,alpha_deg\n")
    after = fingerprints(path, experiment, series)
    assert {k for k in before if before[k] != after[k]} == {"tilts.csv"}


def test_fingerprint_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a.zspy"
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "c").write_bytes(b"abc")
    first = fingerprint(folder)
    (folder / "0" / "c").write_bytes(b"abcd")
    assert fingerprint(folder) != first


def test_fingerprint_covers_the_files_read_with_a_scan(tmp_path: Path) -> None:
    path = make(tmp_path, files='["a.mib", "m.h5", "r.h5"]', tilts="[1, 2, 3]")
    shape = (3, 4, 6, 5)
    write_scan(tmp_path / "a.mib", [np.zeros(shape, "u2")], shape, "u2")
    with h5py.File(tmp_path / "m_data_1.h5", "w") as f:
        f["data"] = np.zeros((12, 6, 5), "u2")
    layout = h5py.VirtualLayout(shape, "u2")
    for y in range(3):
        layout[y] = h5py.VirtualSource("m_data_1.h5", "data", (12, 6, 5))[4 * y : 4 * y + 4]
    with h5py.File(tmp_path / "m.h5", "w") as f:
        f.create_virtual_dataset("data", layout)
    with h5py.File(tmp_path / "l.h5", "w") as f:
        f.create_dataset("data", data=np.zeros(shape, "u2"), external=[(str(tmp_path / "r.raw"), 0, 720)])
    with h5py.File(tmp_path / "r.h5", "w") as f:
        f["data"] = h5py.ExternalLink("l.h5", "data")
    experiment, series, *_ = open_series(path)
    before = fingerprints(path, experiment, series)
    hdr = tmp_path / "a.hdr"
    hdr.write_text(hdr.read_text() + " ")
    with h5py.File(tmp_path / "m_data_1.h5", "r+") as f:
        f["data"][0, 0, 0] = 1
    (tmp_path / "r.raw").write_bytes(b"\1" * 720)
    after = fingerprints(path, experiment, series)
    assert {k for k in before if before[k] != after[k]} == {"a.mib", "m.h5", "r.h5"}
