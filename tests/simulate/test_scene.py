"""Scene files: what is wrong is said with key and file."""

import pytest

from stemtomo_dl import resources
from stemtomo_dl.config import Experiment
from stemtomo_dl.errors import InputError
from stemtomo_dl.simulate.scene import Tilts, load_scene

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
