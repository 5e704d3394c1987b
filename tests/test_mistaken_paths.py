"""What the command says of a path that is mistyped, of another kind, or cut short: one line, status 2, at once."""

import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

STAGES = ("images", "segment", "track", "extract", "index", "integrate", "solve", "report")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with files that are not what they are taken for."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "letter.txt").write_text("hello\n")
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["noise"] = np.arange(10_000)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "other.h5").read_bytes()[:1000])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/run.json").write_text('{"stages": {')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("verb", [*STAGES, "export"])
def test_a_folder_that_is_no_run_is_named_with_what_to_do(verb, complaint):
    for folder in ("folder", "misspelt", "letter.txt"):
        assert f"{folder}: is not a run (no run.json); start one with 'stemtomo run" in complaint(verb, folder)
    assert "broken/run.json: cannot be read" in complaint(verb, "broken")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("misspelt.h5", "misspelt.h5: is missing; correct the path"),
        ("folder", "folder: is a folder; give the path of an HDF5 file"),
        ("letter.txt", "letter.txt: is not a readable HDF5 file; give another"),
        ("cut.h5", "cut.h5: is not a readable HDF5 file; give another, or where it was cut short"),
        ("other.h5", "other.h5: has no dataset /masks; give another file"),
    ],
)
def test_the_tracker_says_what_is_wrong_with_its_masks(name, said, complaint):
    assert said in complaint("link", name, "-o", "tracks.csv")


def test_a_mistyped_series_or_run_is_not_said_to_lack_a_stage(complaint):
    assert "misspelt.h5: is missing; correct the path" in complaint("reduce", "misspelt.h5", "-o", "out")
    assert "misspelt.h5: is missing; give the truth.h5" in complaint("evaluate", "folder", "misspelt.h5")


@pytest.mark.parametrize(("verb", "shipped"), [("simulate", "cspbbr3, demo"), ("train", "sam_tiny, ")])
def test_names_of_what_is_shipped_are_offered_wherever_the_mistyped_path_points(verb, shipped, complaint):
    assert shipped in complaint(verb, "folder/misspelt", "-o", "out")


def test_a_segmenter_that_is_not_there_is_told_before_any_image_is_made(tiny, tmp_path, complaint):
    own = tmp_path / "own"
    shutil.copytree(tiny, own)
    toml = (own / "experiment.toml").read_text().replace('model = "classical"', 'model = "misspelt"')
    (own / "experiment.toml").write_text(toml)
    said = complaint("run", str(own / "experiment.toml"), "-o", "run")
    assert "[segment] weights 'misspelt': not in the registry; choose one of" in said
    assert 'or state model = "classical"' in said
    assert not (tmp_path / "run/images.h5").exists()


def test_a_wrong_folder_is_noticed_before_anything_slow_is_loaded():
    program = (
        "import sys; from stemtomo_dl.cli import main; sys.argv = ['stemtomo', 'solve', 'misspelt']\n"
        "try: main()\n"
        "except SystemExit: print(*({'torch', 'numba', 'scipy', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_package_that_is_not_installed_is_named():
    program = (
        "import sys; from stemtomo_dl.cli import main; sys.modules['h5py'] = None\n"
        "sys.argv = ['stemtomo', 'link', 'letter.txt', '-o', 'x.csv']; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    said = "stemtomo: the package 'h5py' is not installed; 'pip install stemtomo_dl' brings all that is needed\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("text", ['{"name": "x"', "[1]"])
def test_figures_of_a_phase_that_were_cut_short(text, tmp_path):
    from stemtomo_dl.errors import InputError
    from stemtomo_dl.store.phases import read_phase, read_stats

    assert read_stats(tmp_path) == {}
    (tmp_path / "stats.json").write_text(text)
    for read in (read_stats, read_phase):
        with pytest.raises(InputError, match=r"stats\.json: is no phase's stats\.json"):
            read(tmp_path)
