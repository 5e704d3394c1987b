"""Folders of frames in the formats that other programs write, read back by their values, masks and facts."""

import struct

import fabio
import numpy as np
import pytest
import tifffile

from stemtomo_dl.errors import InputError
from stemtomo_dl.export.tiff import tiff
from stemtomo_dl.export.xds import xds
from stemtomo_dl.records import DiffractionSeries, Instrument
from stemtomo_dl.store.folder import write_folder
from stemtomo_dl.store.frame_files import read_frame
from stemtomo_dl.store.frames import read_frames

FACTS = {"voltage_kv": 200.0, "pixel_inv_angstrom": 0.02, "tilt_axis_deg": 20.0}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def images(rng):
    return rng.poisson(3.0, (3, 20, 26)).astype("f4")


@pytest.fixture
def series(images):
    n = len(images)
    measured = np.ones(images.shape, bool)
    measured[:, 4, 5] = False
    return DiffractionSeries(
        instrument=Instrument(200.0, 0.5, 0.02, 5.0, 20.0, 10.0),
        patterns=np.where(measured, images, 0).astype("f4"),
        measured=measured,
        alpha_deg=np.array([-2.0, 0.0, 2.0]),
        tilt=np.arange(n, dtype="i4"),
        n_probes=np.ones(n, "i4"),
        n_support=np.zeros(n, "i4"),
        center_px=np.array([13.2, 9.4]),
    )


def test_what_we_export_as_tiff_comes_back(series, tmp_path):
    write_folder(tmp_path, tiff(series, "p"))
    back = read_frames(tmp_path / "frames", tmp_path / "tilts.csv", {})
    np.testing.assert_array_equal(back.patterns, series.patterns)
    np.testing.assert_array_equal(back.measured, series.measured)
    np.testing.assert_allclose(back.alpha_deg, series.alpha_deg)
    np.testing.assert_allclose(back.center_px, series.center_px)
    m = back.instrument
    assert (m.voltage_kv, m.convergence_mrad, m.pixel_inv_angstrom, m.tilt_axis_deg) == (200.0, 0.5, 0.02, 30.0)


def test_what_we_export_as_smv_comes_back(series, tmp_path):
    write_folder(tmp_path, xds(series, "p"))
    back = read_frames(tmp_path / "data", None, {"tilt_axis_deg": 30.0})
    np.testing.assert_allclose(back.patterns, series.patterns, atol=0.51)  # in whole counts
    np.testing.assert_array_equal(back.measured, series.measured)
    np.testing.assert_allclose(back.alpha_deg, series.alpha_deg, atol=1e-4)
    np.testing.assert_allclose(back.center_px, series.center_px, atol=1e-3)
    assert back.instrument.pixel_inv_angstrom == pytest.approx(0.02, rel=1e-5)
    assert back.instrument.voltage_kv == pytest.approx(200.0, abs=1e-2)


def test_byte_offsets_as_fabio_writes_them(tmp_path, rng):
    values = rng.poisson(2.0, (30, 41)).astype("i4")
    values[3, 4], values[5, 6], values[9, 9] = 300, 70_000, -1  # two and four bytes; not measured
    fabio.cbfimage.CbfImage(data=values).write(str(tmp_path / "a.cbf"))
    frame = read_frame(tmp_path / "a.cbf")
    np.testing.assert_array_equal(frame.values, values)
    np.testing.assert_array_equal(frame.measured, values >= 0)


def test_facts_of_a_mini_cbf(tmp_path):
    head = (
        "# Pixel_size 55e-6 m x 55e-6 m\n# Wavelength 0.02508 A\n# Detector_distance 1.1 m\n"
        "# Beam_xy (20.50, 11.25) pixels\n# Start_angle -30.0 deg.\n# Angle_increment 0.5 deg.\n"
    )
    values = np.ones((24, 40), "i4")
    fabio.cbfimage.CbfImage(data=values).write(str(tmp_path / "a.cbf"))
    raw = (tmp_path / "a.cbf").read_bytes()
    (tmp_path / "a.cbf").write_bytes(head.encode() + raw)
    frame = read_frame(tmp_path / "a.cbf")
    assert frame.center_px == (20.5, 11.25)
    assert frame.stated["alpha_deg"] == -29.75
    assert frame.stated["pixel_inv_angstrom"] == pytest.approx(55e-6 / (0.02508 * 1.1))


@pytest.mark.parametrize(("order", "stamp"), [("<", b"\x44\x44"), (">", b"\x11\x11")])
@pytest.mark.parametrize(("mode", "kind"), [(1, "i2"), (2, "f4"), (6, "u2")])
def test_mrc(tmp_path, order, stamp, mode, kind):
    values = np.arange(12).reshape(3, 4).astype(order + kind)
    head = bytearray(1024)
    head[:16] = struct.pack(f"{order}4i", 4, 3, 1, mode)
    head[92:96] = struct.pack(f"{order}i", 64)  # extended header
    head[208:214] = b"MAP " + stamp
    (tmp_path / "a.mrc").write_bytes(bytes(head) + bytes(64) + values.tobytes())
    np.testing.assert_array_equal(read_frame(tmp_path / "a.mrc").values, values.astype("f4"))


def test_a_bare_list_gives_angles_in_the_files_order(images, tmp_path):
    for n, image in zip((1, 2, 10), images, strict=True):
        tifffile.imwrite(tmp_path / f"f{n}.tif", image)
    (tmp_path / "angles.txt").write_text("-1\n0.5\n3\n")
    back = read_frames(tmp_path, tmp_path / "angles.txt", FACTS)
    np.testing.assert_array_equal(back.patterns, images)
    np.testing.assert_array_equal(back.alpha_deg, [-1, 0.5, 3])


@pytest.mark.parametrize(
    ("angles", "facts", "word"),
    [
        (None, FACTS, "--tilts"),
        ("1\n2\n", FACTS, "2 angles for 3 frames"),
        ("1\n2\nx\n", FACTS, "scan,alpha_deg"),
        ("1\n2\n3\n", {}, "--voltage-kv"),
        ("1\n2\n3\n", {"voltage_kv": 200.0}, "--pixel-inv-angstrom"),
        ("1\n2\n3\n", {k: FACTS[k] for k in ("voltage_kv", "pixel_inv_angstrom")}, "--tilt-axis-deg"),
    ],
)
def test_what_lacks_is_one_line_that_names_its_option(images, tmp_path, angles, facts, word):
    for n, image in enumerate(images):
        tifffile.imwrite(tmp_path / f"f{n}.tif", image)
    table = tmp_path / "angles.txt"
    if angles is not None:
        table.write_text(angles)
    with pytest.raises(InputError, match=word):
        read_frames(tmp_path, None if angles is None else table, facts)


@pytest.mark.parametrize(
    ("name", "content"), [("a.tif", b"II"), ("a.img", b"{SIZE1=3;}"), ("a.cbf", b"x"), ("a.mrc", b"")]
)
def test_a_broken_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        read_frame(tmp_path / name)


def test_a_folder_without_frames_says_so(tmp_path):
    with pytest.raises(InputError, match="holds no frames"):
        read_frames(tmp_path, None, FACTS)


def test_the_command_says_what_frames_lack(series, tmp_path, command):
    write_folder(tmp_path, xds(series, "p"))
    done = command("reduce", tmp_path / "data", "-o", tmp_path / "out", check=False)
    assert done.returncode == 2
    assert "--tilt-axis-deg" in done.stderr
    axis = ("--tilt-axis-deg", "30")
    done = command("reduce", tmp_path / "data", *axis, "--cell", "5,5,5,10,90,170", "-o", tmp_path / "out", check=False)
    assert done.returncode == 2
    assert "no cell has these values" in done.stderr
    done = command("reduce", tmp_path / "data", *axis, "-o", tmp_path / "out", check=False)
    assert done.returncode == 2
    assert "not enough to tell a lattice" in done.stderr
    assert not (tmp_path / "out").exists()
