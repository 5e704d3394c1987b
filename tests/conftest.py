"""What all tests share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests


def stemtomo(*args, check=True, **options):
    """Run the command as a user does."""
    command = [sys.executable, "-c", "from stemtomo_dl.cli import main; main()", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def command():
    return stemtomo


@pytest.fixture
def complaint(monkeypatch, capsys):
    """What the command prints on stderr where it ends with status 2; called in this process, which has all loaded."""
    from stemtomo_dl import cli

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["stemtomo", *args])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr().err
        assert (ended.value.code, said.count("\n")) == (2, 1)
        return said

    return call


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The experiment of scene 'tiny', simulated once: 4 tilts of 24 × 32 patterns of 64 × 48.

    Its particles are outlined by the classical segmenter, which finds each at every tilt, whatever networks know.
    """
    folder = tmp_path_factory.mktemp("tiny")
    stemtomo("simulate", "tiny", "-o", folder)
    with (folder / "experiment.toml").open("a") as f:
        f.write('\n[segment]\nmodel = "classical"\n')
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny, tmp_path_factory):
    """A finished run on scene 'tiny'."""
    run = tmp_path_factory.mktemp("run") / "tiny"
    stemtomo("run", tiny / "experiment.toml", "-o", run)
    return run


_BROOKITES = """
title = "two brookites on a turned detector"
seed = 11

[instrument]
voltage_kv = 200
convergence_mrad = 1.0
electrons_per_pattern = 1500
scan = [14, 28]
step_nm = 5.0
detector = [80, 80]
pixel_inv_angstrom = 0.032
tilt_axis_deg = 31.0
rotation_deg = 25.0

[tilts]
start = -42
stop = 42
step = 3

[film]
thickness_nm = 5

[[particles]]
cif = "brookite.cif"
count = 2
size_nm = 30
shape = "sphere"
min_gap_nm = 15
"""


@pytest.fixture(scope="session")
def brookites(tmp_path_factory):
    """A finished run on two crystals of brookite (``run``), and its experiment (``e``)."""
    place = tmp_path_factory.mktemp("brookites")
    (place / "scene.toml").write_text(_BROOKITES)
    stemtomo("simulate", place / "scene.toml", "-o", place / "e")
    with (place / "e/experiment.toml").open("a") as f:
        f.write('\n[segment]\nmodel = "classical"\n')
    said = stemtomo("run", place / "e/experiment.toml", "-o", place / "run").stdout
    assert "2 particles from 29 tilts, 2 indexed: brookite (solved)" in said
    return place


def contents(run: Path) -> dict[str, bytes]:
    """All files of a run that two runs must have alike: all but run.json, which holds times."""
    files = (p for p in run.rglob("*") if p.is_file() and p.name not in ("run.json", ".lock"))
    return {os.fspath(p.relative_to(run)): p.read_bytes() for p in files}


@pytest.fixture(scope="session")
def run_contents():
    return contents
