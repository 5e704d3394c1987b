"""Truth and synthetic experiments on disk, in the contract's form."""

from dataclasses import fields

import h5py
import numpy as np
import pytest

from stemtomo_dl import resources
from stemtomo_dl.config import Experiment, load
from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Truth
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import simulate
from stemtomo_dl.store.experiment import Origin, experiment_toml, write_experiment
from stemtomo_dl.store.scans.open import open_scan
from stemtomo_dl.store.series import open_series
from stemtomo_dl.store.truth import read_truth, write_truth

TINY, CIFS = load_scene(resources.synthetic() / "scenes/tiny.toml")
SERIES = simulate(TINY, CIFS)


def write(folder, scene: Scene = TINY, cifs: dict[str, str] = CIFS) -> int:
    """Write a scene's experiment; how many scans lay in their places."""
    series = simulate(scene, cifs)
    experiment, origin = scene.experiment(series.elements), Origin(scene.resolved(), cifs, "1")
    arguments = (experiment, series.truth, series.stated_deg, series.rows, series.shape, origin)
    done: list[int] = []
    write_experiment(folder, *arguments, mask=series.listed_pixels, advance=lambda: done.append(1))
    return len(done)


def test_truth_round_trip(tmp_path):
    write_truth(tmp_path / "truth.h5", SERIES.truth)
    back = read_truth(tmp_path / "truth.h5")
    for f in fields(Truth):
        if f.name not in ("masks", "reflections", "phase"):
            np.testing.assert_array_equal(getattr(back, f.name), getattr(SERIES.truth, f.name), err_msg=f.name)
    assert back.phase == SERIES.truth.phase
    assert len(back.masks) == len(SERIES.truth.masks) > 8
    for i in range(len(back.masks)):
        np.testing.assert_array_equal(back.masks.full(i), SERIES.truth.masks.full(i))
    np.testing.assert_array_equal(back.masks.tilt, SERIES.truth.masks.tilt)
    for name, (hkl, intensity) in SERIES.truth.reflections.items():
        np.testing.assert_array_equal(back.reflections[name][0], hkl)
        np.testing.assert_array_equal(back.reflections[name][1], intensity)
    assert [p.name for p in tmp_path.iterdir()] == ["truth.h5"]


def test_truth_has_the_contracts_layout(tmp_path):
    write_truth(tmp_path / "truth.h5", SERIES.truth)
    with h5py.File(tmp_path / "truth.h5") as f:
        shapes = {"ub": (3, 3, 3), "positions_nm": (3, 3), "alpha_deg": (4,), "drift_px": (4, 2), "centers_px": (4, 2)}
        for name, shape in {**shapes, "masks": (4, 3, 24, 32), "phase": (3,)}.items():
            assert f[name].shape == shape, name
        assert f["masks"].dtype == bool
        assert f["masks"].chunks == (1, 1, 24, 32)
        assert f["masks"].compression
        assert f["phase"].asstr()[2] == "rutile"
        assert set(f["phases"]) == {"brookite", "rutile"}
        assert f["phases/rutile/hkl"].shape == (*f["phases/rutile/intensity"].shape, 3)


def test_bad_truth_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="missing"):
        read_truth(tmp_path / "truth.h5")
    (tmp_path / "truth.h5").write_text("no")
    with pytest.raises(InputError, match="not a readable"):
        read_truth(tmp_path / "truth.h5")
    with h5py.File(tmp_path / "truth.h5", "w") as f:
        f["ub"] = np.zeros((1, 3, 3))
    with pytest.raises(InputError, match="contract"):
        read_truth(tmp_path / "truth.h5")


@pytest.mark.parametrize("suffix", [".h5", ".npy", ".mib", ".hspy"])
def test_scans_are_what_was_simulated(tmp_path, suffix):
    if suffix == ".hspy":
        pytest.importorskip("rsciio")
    one = TINY.model_copy(update={"format": suffix, "tilts": TINY.tilts.model_copy(update={"angles": [5.0]})})
    assert write(tmp_path, one) == 1
    experiment = load(Experiment, tmp_path / "experiment.toml")
    assert experiment == one.experiment(SERIES.elements)
    scan = open_scan(tmp_path / f"scans/scan_0001{suffix}", shape=experiment.scans.shape)
    assert scan.shape == SERIES.shape
    (tile,) = scan.tiles(1 << 30)
    np.testing.assert_array_equal(scan.read(tile), simulate(one, CIFS).scan(0))


def test_experiment_folder(tmp_path):
    assert write(tmp_path) == 4
    lines = (tmp_path / "tilts.csv").read_text().splitlines()
    assert lines == ["scan,alpha_deg", "scan_0001.h5,30", "scan_0002.h5,14", "scan_0003.h5,0", "scan_0004.h5,-20"]
    assert (tmp_path / "rutile.cif").read_text() == CIFS["rutile.cif"]
    assert read_truth(tmp_path / "truth.h5").alpha_deg[0] != 30  # the true ones
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


def test_resumes_without_redrawing(tmp_path):
    write(tmp_path)
    scans = sorted((tmp_path / "scans").iterdir())
    before = [p.stat().st_mtime_ns for p in scans]
    content = scans[2].read_bytes()
    scans[2].unlink()
    write(tmp_path)
    after = [p.stat().st_mtime_ns for p in scans]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True]
    assert scans[2].read_bytes() == content


def test_another_scene_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match="another scene"):
        write(tmp_path, TINY.model_copy(update={"seed": 9}))
    with pytest.raises(InputError, match="another scene"):
        write(tmp_path, cifs=CIFS | {"rutile.cif": CIFS["rutile.cif"].replace("0.3053", "0.3050")})


def test_experiment_toml_survives_quotes_and_defaults(tmp_path):
    experiment = TINY.experiment(["O"]).model_copy(update={"title": 'a "quoted" \\ title, µ'})
    (tmp_path / "e.toml").write_text(experiment_toml(experiment), encoding="utf-8")
    assert load(Experiment, tmp_path / "e.toml") == experiment


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".mib", "uint8"), (".mib", "uint32"), (".hspy", "uint16"), (".npy", "uint32")]
)
def test_every_format_holds_what_the_camera_counts(tmp_path, suffix, dtype):
    content = TINY.model_dump() | {"format": suffix}
    content["tilts"] |= {"missing": [1], "order": "down"}
    content["instrument"] |= {"camera": {"kind": "scintillator", "dtype": dtype, "gain": 200.0}}
    scene = Scene.model_validate(content)
    assert write(tmp_path, scene) == 3
    assert (tmp_path / "tilts.csv").read_text().split()[1:] == [
        f"scan_{i:04d}{suffix},{angle}" for i, angle in ((1, 30), (2, 0), (3, -20))
    ]
    assert len(list((tmp_path / "scans").glob(f"*{suffix}"))) == 3
    series, shape = simulate(scene, CIFS), (24, 32) if suffix in (".mib", ".npy") else None
    scan = open_scan(tmp_path / f"scans/scan_0002{suffix}", shape=shape)
    assert (scan.shape, scan.dtype.newbyteorder("=")) == (series.shape, np.dtype(dtype))
    read = np.concatenate([scan.read(tile) for tile in scan.tiles(2**26)])
    np.testing.assert_array_equal(read, series.scan(1))
    assert read.max() == 255 if dtype == "uint8" else read.max() > 10_000
    assert len(read_truth(tmp_path / "truth.h5").alpha_deg) == 3


def test_the_mask_is_written_named_and_read(tmp_path):
    content = TINY.model_dump()
    content["instrument"] |= {"camera": {"kind": "hybrid", "hot_pixels": 4, "dead_pixels": 3, "listed_share": 1.0}}
    scene = Scene.model_validate(content)
    write(tmp_path, scene)
    series = simulate(scene, CIFS)
    sensor = series.cast.sensor
    bad = open_series(tmp_path / "experiment.toml").series.bad_pixels
    np.testing.assert_array_equal(bad, series.listed_pixels)
    assert bad[tuple(np.concatenate([sensor.hot, sensor.dead]).T)].all()
    never = series.scan(0).max((0, 1)) == 0
    gaps = np.zeros((64, 48), bool)
    gaps[31:33] = gaps[:, 23:25] = True
    assert never[gaps].all()
    assert bad[gaps].all()
    write(tmp_path / "ideal")
    assert "mask" not in (tmp_path / "ideal/experiment.toml").read_text()
    assert not (tmp_path / "ideal/mask.npy").exists()


def test_the_scene_beside_an_experiment_plays_again(tmp_path):
    shell = {"thickness_nm": 2.0, "cif": "anatase.cif"}
    content = TINY.model_dump() | {"title": 'again, "quoted"', "overlap": "sequential"}
    content["particles"][1] |= {"shell": shell, "twin": {"plane": (1, 0, 1)}, "cif": "folder/rutile.cif"}
    content["drift"] |= {"jumps": [{"tilt": 1, "shift_px": (1.5, -2.0)}]}
    scene = Scene.model_validate(content)
    structures = resources.synthetic() / "structures"
    cifs = {name: (structures / name.split("/")[-1]).read_text() for name in scene.cifs}
    write(tmp_path / "one", scene, cifs)
    again, read = load_scene(tmp_path / "one/scene.toml")
    assert again.model_dump(exclude={"particles"}) == scene.model_dump(exclude={"particles"})
    assert list(read.values()) == list(cifs.values())
    write(tmp_path / "two", again, read)
    first, second = ((tmp_path / n / "scans/scan_0002.h5").read_bytes() for n in ("one", "two"))
    assert first == second


def test_a_damaged_truth_or_origin_is_an_input_error(tmp_path):
    write_truth(tmp_path / "truth.h5", SERIES.truth)
    content = bytearray((tmp_path / "truth.h5").read_bytes())
    with h5py.File(tmp_path / "truth.h5") as f:
        at = f["masks"].id.get_chunk_info(0).byte_offset
    content[at : at + 40] = bytes(40)
    (tmp_path / "truth.h5").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_truth(tmp_path / "truth.h5")
    (tmp_path / "scene.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"scene\.json"):
        write(tmp_path)


def test_a_folder_with_someones_own_experiment_is_left_alone(tmp_path):
    (tmp_path / "experiment.toml").write_text("mine")
    with pytest.raises(InputError, match=r"holds experiment\.toml that no scene here has written"):
        write(tmp_path)
    assert (tmp_path / "experiment.toml").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["experiment.toml"]


def test_a_damaged_scan_is_made_again(tmp_path):
    write(tmp_path)
    path = tmp_path / "scans/scan_0002.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    write(tmp_path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("kind", ["file", "loop", "long", "scans"])
def test_folders_that_cannot_be(tmp_path, kind):
    folder = tmp_path / ("x" * 300 if kind == "long" else kind)
    if kind == "file":
        folder.write_text("")
    elif kind == "loop":
        folder.symlink_to(folder)
    elif kind == "scans":
        folder.mkdir()
        (folder / "scans").write_text("")
    with pytest.raises(InputError):
        write(folder)
