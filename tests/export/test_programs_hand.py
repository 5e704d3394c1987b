"""Each format read back by an independent reader; spots predicted through the exported geometry alone pin the hand."""

import re
import shutil
import subprocess

import chiral
import h5py
import numpy as np
import pytest
import tifffile
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from stemtomo_dl.export import FORMATS
from stemtomo_dl.export.angles import sweeps, typical_step
from stemtomo_dl.store.folder import write_folder

# descending, a gap of two steps and one of three, and angles off the even steps
ALPHA = np.delete(np.arange(41) * 1.0 - 20, [8, 25, 26])[::-1] + np.where(np.arange(38) % 5 == 0, 0.06, 0.0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    series = chiral.series(ALPHA)
    for name, write in FORMATS.items():
        write_folder(folder / name, write(series, "p0001"))
    return folder


def contrast(frames, place, ub, flip=1):
    """Mean value where reflections of a UB are predicted.

    ``place`` gives the lattice vectors' position on a frame and their distance from the sphere, 1/Å.
    """
    seen = []
    for angle, image in frames:
        column, row, off = place(chiral.HKL @ ub.T, flip * angle)
        at = (
            (np.abs(off) < 0.003)
            & (row > 1)
            & (column > 1)
            & (row < image.shape[0] - 2)
            & (column < image.shape[1] - 2)
        )
        seen.append(map_coordinates(image, [row[at], column[at]], order=1))
    seen = np.concatenate(seen)
    assert len(seen) > 80  # enough reflections meet the sphere to tell
    return np.mean(seen)


def pins_the_hand(frames, place):
    true = contrast(frames, place, chiral.UB)
    assert contrast(frames, place, -chiral.UB) < 0.2 * true
    assert contrast(frames, place, chiral.UB, flip=-1) < 0.2 * true  # the axis the other way


def flat(axis, basis, distance, center, pixel, wavelength):
    """Prediction on a flat detector; basis rows: along columns, along rows, along the beam, in the lab."""
    fast, slow, beam = np.asarray(basis, float)
    assert np.linalg.det(basis) == pytest.approx(1)  # the contract's sample frame is this one at α = 0
    axis = np.asarray(axis, float) / np.linalg.norm(axis)

    def place(g, angle):
        p = Rotation.from_rotvec(np.radians(angle) * axis).apply(g @ np.asarray(basis, float))
        s1 = p + beam / wavelength
        column = center[0] + distance * (s1 @ fast) / (s1 @ beam) / pixel
        row = center[1] + distance * (s1 @ slow) / (s1 @ beam) / pixel
        return column, row, np.linalg.norm(s1, axis=1) - 1 / wavelength

    return place


def number(text, key, n=1):
    return [float(v) for v in re.search(rf"{re.escape(key)}=((?:\s*[-\d.]+){{{n}}})", text)[1].split()]


def test_xds(written):
    fabio = pytest.importorskip("fabio", reason="fabio is not installed")
    text = (written / "xds/XDS.INP").read_text()
    files = sorted((written / "xds/data").iterdir())
    start, step = number(text, "STARTING_ANGLE")[0], number(text, "OSCILLATION_RANGE")[0]
    excluded = [range(int(a), int(b) + 1) for a, b in re.findall(r"EXCLUDE_DATA_RANGE= (\d+) (\d+)", text)]
    blank = {i for r in excluded for i in r}
    assert number(text, "DATA_RANGE", 2) == [1, len(files)]
    frames, angles = [], []
    for i, path in enumerate(files, 1):
        image = fabio.open(path)
        assert image.data.shape == chiral.SHAPE
        assert image.data.dtype == np.uint16
        assert (i in blank) == (not image.data.any())
        if i not in blank:
            assert not image.data[20:22].any()
            assert image.data.max() < 65535
            angles.append(float(image.header["OSC_START"]) + step / 2)
            assert start + (i - 0.5) * step == pytest.approx(angles[-1], abs=0.1)
            frames.append((start + (i - 0.5) * step, image.data - float(image.header["IMAGE_PEDESTAL"])))
    assert np.allclose(angles, np.sort(ALPHA), atol=1e-4)
    origin = number(text, "ORGX")[0] - 1, number(text, "ORGY")[0] - 1
    basis = [number(text, f"{k}", 3) for k in ("DETECTOR_X-AXIS", "DETECTOR_Y-AXIS", "INCIDENT_BEAM_DIRECTION")]
    distance, pixel = number(text, "DETECTOR_DISTANCE")[0], number(text, "QX")[0]
    assert float(image.header["BEAM_CENTER_Y"]) == pytest.approx((origin[0] + 0.5) * pixel)
    assert float(image.header["BEAM_CENTER_X"]) == pytest.approx((origin[1] + 0.5) * pixel)
    pins_the_hand(
        frames,
        flat(number(text, "ROTATION_AXIS", 3), basis, distance, origin, pixel, number(text, "X-RAY_WAVELENGTH")[0]),
    )


def test_nxmx(written):
    nxmx = pytest.importorskip("nxmx", reason="nxmx is not installed")
    with h5py.File(written / "dials/p0001.nxs") as file:
        assert file["entry/source/probe"][()] == b"electron"
        entry = nxmx.NXmx(file).entries[0]
        instrument, sample = entry.instruments[0], entry.samples[0]
        detector = instrument.detectors[0]
        module = detector.modules[0]
        pixel = module.fast_pixel_direction[()].to("mm").magnitude.item()
        fast, slow = module.fast_pixel_direction.vector, module.slow_pixel_direction.vector
        chain = nxmx.get_dependency_chain(module.fast_pixel_direction.depends_on)
        corner = nxmx.get_cumulative_transformation(chain)[0, :3, 3]
        alpha = sample.depends_on
        axis = alpha.vector
        angles = (alpha[()] + alpha.end[()]).to("deg").magnitude / 2
        data, mask = entry.data[0]["data"][()], np.asarray(detector.pixel_mask)
        lowest, wavelength = (
            float(detector.underload_value),
            instrument.beams[0].incident_wavelength.to("angstrom").magnitude,
        )
    assert mask[20:22].all()
    valid = data >= lowest
    assert not valid[:, 20:22].any()
    shown = valid.any((1, 2))
    assert np.allclose(angles[shown], np.sort(ALPHA), atol=0.1)
    assert data[valid].min() < 0  # negative values are kept
    assert data.max() == pytest.approx(50 * chiral.series(ALPHA).patterns.max(), rel=1e-6)
    center = -(corner @ fast) / pixel - 0.5, -(corner @ slow) / pixel - 0.5
    place = flat(axis, [fast, slow, (0, 0, 1)], corner[2], center, pixel, wavelength)
    pins_the_hand([(a, d) for a, d in zip(angles[shown], np.where(valid, data, 0)[shown], strict=True)], place)


def test_pets(written):
    """PETS2: y up, ω counter-clockwise; rows run down the picture."""
    text = (written / "pets/p0001.pts2").read_text()
    fact = {
        k: [float(v) for v in line.split()]
        for k, _, line in (t.partition(" ") for t in text.splitlines())
        if k in ("omega", "center", "aperpixel", "lambda", "background")
    }
    images = re.findall(r'^"(.*)" ([-\d.]+) ', text, re.M)
    assert np.allclose([float(a) for _, a in images], np.sort(ALPHA), atol=1e-4)
    frames = [
        (float(a), tifffile.imread(written / "pets" / n).astype(float) - fact["background"][0]) for n, a in images
    ]
    w, (column, row), scale = np.radians(fact["omega"][0]), fact["center"], fact["aperpixel"][0]
    up = np.diag([1.0, -1.0, -1.0])  # x right, y up, z toward the gun

    def place(g, angle):
        p = Rotation.from_rotvec(np.radians(angle) * np.array([np.cos(w), np.sin(w), 0])).apply(g @ up)
        off = np.linalg.norm(p - [0, 0, 1 / fact["lambda"][0]], axis=1) - 1 / fact["lambda"][0]
        return column + p[:, 0] / scale, row - p[:, 1] / scale, off

    assert "0 20" in text
    pins_the_hand(frames, place)


def test_tiff(written):
    rows = [r.split(",") for r in (written / "tiff/tilts.csv").read_text().splitlines()[1:]]
    given = chiral.series(ALPHA)
    for name, alpha, tilt, _ in rows:
        image = tifffile.imread(written / "tiff" / name)
        assert np.array_equal(image, given.patterns[int(tilt)])
        assert float(alpha) == pytest.approx(ALPHA[int(tilt)], abs=1e-4)
    assert not tifffile.imread(written / "tiff" / name.replace("frames", "masks"))[20:22].any()


EVEN = np.delete(np.arange(-60.0, 61.0), [20, 21, 70])[::-1]
RANDOM = np.random.default_rng(3).uniform(-60, 60, 80)


@pytest.mark.parametrize("alpha", [EVEN, RANDOM], ids=["even", "random"])
def test_dials_finds_the_lattice(tmp_path, alpha):
    """DIALS indexes the export to the true orientation, in a frame with y up and the beam along −z."""
    if shutil.which("dials.index") is None:
        pytest.skip("DIALS is not installed (Debian: apt-get install --no-install-recommends dials)")
    write_folder(tmp_path / "dials", FORMATS["dials"](chiral.counted(chiral.series(alpha, both=True)), "p0001"))
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["sh", tmp_path / "dials/dials.sh"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = re.findall(r"A = UB:\s*\{\{(.*?)\}\}", done.stdout, re.S)[-1]
    a = np.array([float(v) for v in re.findall(r"-?\d+\.\d+", rows)]).reshape(3, 3)
    indices = np.linalg.inv(chiral.UB) @ np.diag([1, -1, -1]) @ a  # the same lattice in another basis: whole numbers
    assert np.allclose(indices, np.rint(indices), atol=0.03)
    assert abs(np.linalg.det(np.rint(indices))) == 1
    off = re.findall(r"\|\s+0 \|\s+\d+ \|\s+([\d.]+) \|\s+([\d.]+)\s+\|\s+([\d.]+)\s*\|", done.stdout)[-1]
    step = sweeps(np.sort(alpha))[0].step_deg
    assert float(off[2]) * step < 0.5  # degrees; several where the axis is turned round


@pytest.mark.parametrize(
    "alpha",
    [EVEN, RANDOM, np.repeat(np.arange(-20.0, 21, 4), 3), np.array([0.0, 0, 0]), np.array([5.0])],
    ids=["even", "random", "thrice", "one angle", "one"],
)
def test_every_frame_is_in_one_sweep(alpha):
    """And near its angle; a sweep has two slots at the least, unless there is but one frame."""
    alpha = np.sort(alpha)
    found = sweeps(alpha)
    shown = np.concatenate([g.frame[g.frame >= 0] for g in found])
    assert sorted(shown.tolist()) == list(range(len(alpha)))
    assert len({g.step_deg for g in found}) == 1
    assert all(len(g.frame) > 1 for g in found[1:])
    for g in found:
        on = g.frame >= 0
        assert np.abs(g.angle_deg[on] - alpha[g.frame[on]]).max() <= max(0.12 * typical_step(alpha), 1e-9)


def test_the_script_names_every_sweep():
    files = FORMATS["dials"](chiral.series(RANDOM), "p0001")
    shown = 0
    for name in [n for n in files if n.endswith(".nxs")]:
        tree = files[name]
        shown += (tree["entry/data/data"] >= tree["entry/instrument/detector/underload_value"]).any((1, 2)).sum()
        assert f" {name} " in files["dials.sh"]
    assert shown == len(RANDOM)
    assert "p0001_2.nxs" in files
