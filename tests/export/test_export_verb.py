"""The verb: what it writes, and how it refuses."""

import shutil

import pytest


def test_writes_what_is_asked_for(tiny_run, command, tmp_path):
    run = tmp_path / "run"  # the finished run is other tests', too
    shutil.copytree(tiny_run, run)
    done = command("export", run, "--formats", "pets,tiff", "--particles", "1")
    assert "1 particles as pets, tiff" in done.stdout
    folder = run / "particles/p0001"
    assert {p.name for p in folder.iterdir()} >= {"pets", "tiff"}
    assert (folder / "pets/p0001.pts2").exists()


@pytest.mark.parametrize("asked", [("--formats", "shelx"), ("--particles", "99"), ("--particles", "one")])
def test_refuses_in_one_line(tiny_run, command, asked):
    done = command("export", tiny_run, *asked, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert asked[0] in done.stderr
