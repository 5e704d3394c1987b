"""Scene files: what is wrong is said with key and file."""

import contextlib
from pathlib import Path

import pytest

from stemtomo_dl import resources
from stemtomo_dl.config import Experiment, check
from stemtomo_dl.errors import InputError
from stemtomo_dl.simulate.scene import Scene, Tilts, load_scene
from stemtomo_dl.simulate.series import simulate

SCENES = resources.synthetic() / "scenes"


SHIPPED = sorted(SCENES.glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_scenes_load(path):
    scene, cifs = load_scene(path)
    assert tuple(cifs) == scene.cifs
    assert {p.cif for p in scene.particles} <= set(cifs)
    assert isinstance(scene.experiment(["Ti"]), Experiment)


def test_shipped_scenes_go_by_name(tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    assert load_scene(Path("tiny"))[0].title == load_scene(SCENES / "tiny.toml")[0].title
    (tmp_path / "demo").mkdir()  # a folder of a scene's name is not that scene
    assert load_scene(Path("demo"))[0].seed == 2024
    with pytest.raises(InputError, match="nothing"):
        load_scene(Path("nothing"))


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("seed = 7", "sed = 7", "sed"),
        ("sigma_deg = 0.05", "sigma_dg = 0.05", "tilts.sigma_dg"),
        ("min_gap_nm = 4", "min_gap = 4", "particles.0.min_gap"),
        ("electrons_per_pattern = 400", "electrons_per_pattern = -1", "instrument.electrons_per_pattern"),
        ("step_nm = 4.0", "", "instrument.step_nm"),
        ("angles = [30, 14, 0, -20]", "start = 3", "tilts"),
        ('cif = "rutile.cif"', 'cif = "absent.cif"', "absent.cif"),
        ("thickness_nm = 5", "thickness_nm = 5\nholes = { diametre_nm = 3 }", "film.holes.diametre_nm"),
        ('shape = "sphere"', 'shape = "sphere"\ntwin = { plane = [1, 0, 1], law = 3 }', "particles.1.twin.law"),
        ('shape = "sphere"', 'shape = "sphere"\nrounding = 1.2', "particles.1.rounding"),
        ("{ hkl = [1, 2, 0] }", "{ hkl = [0, 0, 0] }", "particles.0.faces.0.hkl"),
        ('kind = "lying"', 'kind = "lying", direction = [0, 0, 0]', "particles.0.orientation.direction"),
    ],
)
def test_errors_name_key_and_file(tmp_path, old, new, key):
    text = (SCENES / "tiny.toml").read_text()
    assert old in text
    path = tmp_path / "wrong.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_scene(path)
    assert key in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_shells_cif_is_read_and_named_as_a_phase(tmp_path):
    text = (SCENES / "tiny.toml").read_text() + 'shell = { thickness_nm = 2, cif = "anatase.cif" }\n'
    (tmp_path / "scene.toml").write_text(text)
    scene, cifs = load_scene(tmp_path / "scene.toml")
    assert list(cifs) == ["brookite.cif", "rutile.cif", "anatase.cif"]
    assert scene.experiment([]).sample.phases == ["anatase.cif", "brookite.cif", "rutile.cif"]


def test_cif_beside_the_scene_comes_first(tmp_path):
    (tmp_path / "scene.toml").write_text((SCENES / "tiny.toml").read_text())
    (tmp_path / "rutile.cif").write_text("data_mine")
    assert load_scene(tmp_path / "scene.toml")[1]["rutile.cif"] == "data_mine"


def test_tilts_run_either_way_and_include_both_ends():
    assert Tilts(start=-50, stop=50, step=2).stated_deg() == list(range(-50, 51, 2))
    assert Tilts(start=10, stop=-10, step=5).stated_deg() == [10, 5, 0, -5, -10]
    assert Tilts(start=0, stop=1, step=0.3).stated_deg() == pytest.approx([0, 0.3, 0.6, 0.9])


def test_experiment_file_states_what_the_scene_says_it_does():
    scene, _ = load_scene(SCENES / "tiny.toml")
    content = scene.model_dump() | {"stated": {"pixel_inv_angstrom": 0.0357, "tilt_axis_deg": 0.0}}
    experiment = type(scene).model_validate(content).experiment(["Ti", "O"])
    assert experiment.detector.pixel_inv_angstrom == 0.0357
    assert experiment.stage.tilt_axis_deg == 0
    assert experiment.detector.rotation_deg == 12
    assert experiment.sample.phases == ["brookite.cif", "rutile.cif"]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("seed = 7", "seed = 7\nd_min = 100.0", "key 'd_min': brookite has no reflection"),
        ("seed = 7", "seed = 7\nd_min = 0.01", "key 'd_min': Input should be greater than or equal to 0.2"),
        ("pixel_inv_angstrom = 0.035", "pixel_inv_angstrom = 1.5", "instrument.pixel_inv_angstrom"),
        ("pixel_inv_angstrom = 0.035", "pixel_inv_angstrom = 1e-5", "raise pixel_inv_angstrom"),
        ("scan = [24, 32]", "scan = [8, 8000]\nraster = { shear_deg = 60.0 }", "instrument.raster.shear_deg"),
        ("scan = [24, 32]", "scan = [24, 32]\nraster = { fast_scale = 1e9 }", "instrument.raster.fast_scale"),
        ("scan = [24, 32]", "scan = [24, 32]\ndescan = { fast_px = [1e6, 0] }", "instrument.descan.fast_px"),
        ("scan = [24, 32]", "scan = [24, 32]\nellipse = { ratio = 1e3 }", "instrument.ellipse.ratio"),
        ("scan = [24, 32]", "scan = [24, 32]\ncamera = { psf_sigma_px = 1e4 }", "instrument.camera.psf_sigma_px"),
        ("scan = [24, 32]", "scan = [24, 32]\ncamera = { hot_electrons = 1e12 }", "instrument.camera.hot_electrons"),
        ("detector = [64, 48]", "detector = [8000, 8000]", "instrument.detector"),
        ('cif = "rutile.cif"', 'mosaic_deg = 90\ncif = "rutile.cif"', "particles.1.mosaic_deg"),
        (
            "electrons_per_pattern = 400",
            "electrons_per_pattern = 1e8",
            "key 'overlap'",
        ),
    ],
)
def test_absurd_scenes_are_not_built_and_end_in_one_line(tmp_path, old, new, key):
    text = (SCENES / "tiny.toml").read_text()
    assert old in text
    if key == "key 'overlap'":
        text = text.replace("seed = 7", 'seed = 7\noverlap = "sequential"')
    path = tmp_path / "absurd.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError) as caught:
        simulate(*load_scene(path))
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_readmes_example_is_complete_and_plays(tmp_path):
    text = (resources.synthetic() / "README.md").read_text(encoding="utf-8")
    example = text.split("```toml\n")[1].split("```")[0]
    (tmp_path / "scene.toml").write_text(example, encoding="utf-8")
    scene, cifs = load_scene(tmp_path / "scene.toml")
    tables = {"raster", "descan", "ellipse", "camera"}
    assert tables <= scene.instrument.model_fields_set
    assert {"stated", "tilts", "drift", "film", "particles", "instrument"} <= scene.model_fields_set
    series = simulate(scene, cifs)
    assert len(series) == 8
    assert series.scan(0).shape == series.shape


@pytest.mark.parametrize(
    ("table", "keys", "words"),
    [
        ("instrument", {"scan": [100000, 100000]}, "instrument.scan"),
        ("instrument", {"detector": [64, 1000000]}, "instrument.detector"),
        ("instrument", {"electrons_per_pattern": 1e15}, "electrons per pattern"),
        ("instrument", {"convergence_mrad": 60.0}, "wider than the detector"),
        ("instrument", {"probe_samples": 1000}, "instrument.probe_samples"),
        ("instrument", {"pixel_inv_angstrom": 3.0}, "nothing diffracts"),
        ("instrument", {"beam_offset_px": [500.0, 0.0]}, "off the detector"),
        ("instrument", {"scan": [4096, 4096], "step_nm": 50.0}, "more than can be played"),
        (None, {"d_min": 1e-6}, "d_min"),
        (None, {"field_fraction": 1e6}, "field_fraction"),
    ],
)
def test_absurd_scenes_end_in_one_line(table, keys, words):
    content = load_scene(SCENES / "tiny.toml")[0].model_dump()
    if table is None:
        content |= keys
    else:
        content[table] |= keys
    content["particles"][0] |= {"count": None, "per_um2": 200.0}
    with pytest.raises(InputError, match=words) as caught:
        check(Scene, content, "scene.toml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("scene.toml: ")


def test_what_goes_wrong_while_building_names_the_file(tmp_path, monkeypatch):
    from stemtomo_dl import known

    text = (SCENES / "tiny.toml").read_text().replace('shape = "sphere"', "faces = [{ hkl = [0, 0, 1] }]")
    path = tmp_path / "open.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"open\.toml: key 'particles\.1\.faces': .*add a form"):
        known.simulate(str(path), tmp_path / "out", None)


def test_names_and_texts_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"no such scene; give .* one of .*demo"):
        load_scene(Path("tinny"))
    (tmp_path / "rutile.cif").write_bytes("data_é".encode("latin-1"))
    (tmp_path / "scene.toml").write_text((SCENES / "tiny.toml").read_text())
    with pytest.raises(InputError, match=r"rutile\.cif is not UTF-8 text"):
        load_scene(tmp_path / "scene.toml")


def test_a_beam_behind_a_gap_is_told(tmp_path):
    from stemtomo_dl import known

    class Quiet:
        def stage(self, name, total):
            return contextlib.nullcontext(lambda: None)

    camera = 'beam_offset_px = BEAM\ncamera = { kind = "hybrid" }'
    text = (SCENES / "tiny.toml").read_text().replace("beam_offset_px = [-1.2, 2.3]", camera)
    for beam, told in (((0.0, 0.0), 1), ((9.0, 9.0), 0)):
        path = tmp_path / f"{told}.toml"
        path.write_text(text.replace("BEAM", str(list(beam))))
        played = known.simulate(str(path), tmp_path / f"out{told}", Quiet())
        assert len(played.notes) == told
        assert all("beam_offset_px" in n for n in played.notes)
