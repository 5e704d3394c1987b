"""The whole road, as a user drives it: files in, files out, kills, wrong input."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest


def test_a_run_leaves_the_contracts_files(tiny, tiny_run):
    with h5py.File(tiny_run / "images.h5") as f:
        assert f["images"].shape[0] == 4
        assert f["images"].shape[2:] == (24, 32)
        assert "adf" in list(f["images"].attrs["detectors"])
        np.testing.assert_allclose(f["alpha_deg"], [30, 14, 0, -20])
    with (tiny_run / "tracks.csv").open() as f:
        sightings = list(csv.DictReader(f))
    assert {"track", "tilt", "alpha_deg", "instance", "x_px", "y_px", "area_px"} <= set(sightings[0])
    with h5py.File(tiny_run / "masks.h5") as f:
        for s in sightings:  # instance = row of /masks
            mask = f["masks"][int(s["instance"])]
            assert f["tilt"][int(s["instance"])] == int(s["tilt"])
            assert mask.sum() == pytest.approx(float(s["area_px"]))
            assert np.argwhere(mask).mean(0) == pytest.approx([float(s["y_px"]), float(s["x_px"])], abs=1e-3)
    with (tiny_run / "particles.csv").open() as f:
        particles = list(csv.DictReader(f))
    assert particles
    for p in particles:
        mine = [s for s in sightings if s["track"] == p["track"]]
        assert len(mine) == int(p["n_tilts"])
        with h5py.File(tiny_run / f"particles/p{int(p['track']):04d}/series.h5") as f:
            assert f["patterns"].shape == (len(mine), 64, 48)
            assert f["patterns"].dtype == "f4"
            assert sorted(f["tilt"][:]) == sorted(int(s["tilt"]) for s in mine)
            assert (f["n_probes"][:] > 0).all()
            np.testing.assert_allclose(f["dose_e_per_A2"], 400 / 40**2)
            assert f.attrs["tilt_axis_deg"] == pytest.approx(31.0 + 12.0)
    book = json.loads((tiny_run / "run.json").read_text())
    assert set(book["stages"]) == {"images", "segment", "track", "extract", "report"}
    assert len(book["inputs"]) >= 5
    assert json.loads((tiny_run / "summary.json").read_text())["n_particles"] == len(particles)
    assert (tiny_run / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")
    assert not list(tiny_run.rglob("*.part"))
    assert not (tiny_run / ".partial").exists()


def test_two_runs_are_identical_and_a_third_does_nothing(tiny, tiny_run, tmp_path, command, run_contents):
    run = tmp_path / "again"
    command("run", tiny / "experiment.toml", "-o", run)
    first, second = run_contents(tiny_run), run_contents(run)
    assert first.keys() == second.keys()
    assert [k for k in first if first[k] != second[k]] == []
    before = (run / "run.json").read_bytes()
    assert "nothing to do" in command("run", tiny / "experiment.toml", "-o", run).stdout
    assert json.loads(before)["stages"] == json.loads((run / "run.json").read_text())["stages"]


def _kill_when(arguments, condition):
    """Start the command and kill -9 it as soon as the condition holds."""
    code = "from stemtomo_dl.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], start_new_session=True)
    end = time.monotonic() + 120
    while process.poll() is None and not condition() and time.monotonic() < end:
        time.sleep(0.001)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("stage", ["images", "segment", "track", "extract", "report"])
def test_a_killed_run_resumes_and_gives_the_same(stage, tiny, tiny_run, tmp_path, command, run_contents):
    run = tmp_path / "killed"

    def reached():
        if stage in ("track", "report"):  # too short to have tilts of their own: kill at its first sign
            before = {"track": "masks.h5", "report": "particles/p0001/series.h5"}[stage]
            return (run / before).exists()
        return len(list(run.glob(f".partial/{stage}-*/tilt*"))) >= 2

    _kill_when(["run", tiny / "experiment.toml", "-o", run], reached)
    left = {p: p.stat().st_mtime_ns for p in run.glob(f".partial/{stage}-*/tilt*/*.npy")}
    command("run", tiny / "experiment.toml", "-o", run)
    assert run_contents(run) == run_contents(tiny_run)
    assert not [p for p in left if p.exists()]


def test_a_resumed_stage_does_not_do_its_tilts_again(tiny, tmp_path, command):
    run = tmp_path / "killed"
    partial = run / ".partial"
    _kill_when(["run", tiny / "experiment.toml", "-o", run], lambda: len(list(partial.glob("images-*/tilt*"))) >= 2)
    done = next(iter(sorted(partial.glob("images-*/tilt*"))))
    marked = np.full(np.load(done / "images.npy").shape, 7, "f4")  # a tilt that is not done again keeps this
    np.save(done / "images.npy", marked)
    command("run", tiny / "experiment.toml", "-o", run, "--until", "images")
    with h5py.File(run / "images.h5") as f:
        assert (f["images"][int(done.name[4:])] == 7).all()


def test_single_stages_and_edited_results(tiny, tiny_run, tmp_path, command, run_contents):
    run = tmp_path / "copy"
    shutil.copytree(tiny_run, run)
    for stage in ("segment", "track", "extract", "report"):
        assert command(stage, run).returncode == 0
    assert run_contents(run) == run_contents(tiny_run)
    with h5py.File(run / "masks.h5", "r+") as f:  # somebody takes an outline away
        first = int(np.flatnonzero(f["tilt"][:] == 0)[0])
        f["masks"][first] = False
    command("run", tiny / "experiment.toml", "-o", run)
    with h5py.File(run / "masks.h5") as f:
        assert not f["masks"][first].any(), "the edited masks must be used, not made again"
    assert (run / "tracks.csv").read_bytes() != (tiny_run / "tracks.csv").read_bytes()


@pytest.fixture
def own(tiny, tmp_path):
    """A copy of the tiny experiment that a test may spoil."""
    folder = tmp_path / "own"
    shutil.copytree(tiny, folder)
    return folder


def refused(command, *args, status=2):
    done = command(*args, check=False)
    assert done.returncode == status, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_changed_settings_are_refused_unless_forced(own, tmp_path, command):
    run = tmp_path / "run"
    command("run", own / "experiment.toml", "-o", run, "--until", "images")
    toml = own / "experiment.toml"
    toml.write_text(toml.read_text() + "\n[images]\nhaadf_from = 0.5\n")
    line = refused(command, "run", toml, "-o", run)
    assert "settings 'images' differs" in line
    assert "--force" in line
    command("run", toml, "-o", run, "--until", "images", "--force")


def test_changed_scans_are_refused(own, tmp_path, command):
    run = tmp_path / "run"
    command("run", own / "experiment.toml", "-o", run, "--until", "images")
    scans = sorted((own / "scans").iterdir())
    shutil.copy(scans[0], scans[1])
    assert "inputs 'scans/" in refused(command, "run", own / "experiment.toml", "-o", run)


def test_bad_tilts_are_told_or_skipped(own, tmp_path, command):
    scans = sorted((own / "scans").iterdir())
    scans[1].write_bytes(scans[1].read_bytes()[:5000])
    run = tmp_path / "run"
    line = refused(command, "run", own / "experiment.toml", "-o", run)
    assert scans[1].name in line
    assert not (run / "run.json").exists()
    done = command("run", own / "experiment.toml", "-o", run, "--skip-bad")
    assert "1 tilts skipped" in done.stdout or "1 tilt skipped" in done.stdout
    book = json.loads((run / "run.json").read_text())
    assert len(book["skipped"]) == 1
    assert scans[1].name in book["skipped"][0]
    with h5py.File(run / "images.h5") as f, h5py.File(run / "masks.h5") as m:
        assert f["good"][:].tolist() == [True, False, True, True]
        assert 1 not in m["tilt"][:]
        assert 3 in m["tilt"][:]


def test_damage_inside_a_scan_is_met_in_the_middle(own, tmp_path, command):
    scan = sorted((own / "scans").iterdir())[2]
    with h5py.File(scan) as f:
        data = next(d for d in f.values() if d.ndim == 4)
        info = data.id.get_chunk_info(data.id.get_num_chunks() // 2)
    with scan.open("r+b") as f:
        f.seek(info.byte_offset)
        f.write(b"\xff" * info.size)
    run = tmp_path / "run"
    line = refused(command, "run", own / "experiment.toml", "-o", run)
    assert scan.name in line
    assert "--skip-bad" in line
    command("run", own / "experiment.toml", "-o", run, "--skip-bad")
    assert len(json.loads((run / "run.json").read_text())["skipped"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "absent.toml", "-o", "r"], "absent.toml"),
        (["run"], "Missing argument"),
        (["nonsense"], "No such command"),
        (["segment", "absent"], "is not a run"),
        (["simulate", "absent", "-o", "s"], "absent"),
        (["run", "{tiny}/experiment.toml", "-o", "r", "--until", "lunch"], "no such stage"),
        (["evaluate", "{run}", "absent.h5"], "absent.h5"),
    ],
)
def test_wrong_calls_give_one_line(arguments, words, tiny, tiny_run, tmp_path, command):
    filled = [a.format(tiny=tiny, run=tiny_run) for a in arguments]
    done = command(*filled, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert words in done.stderr


def test_stages_out_of_order_say_what_is_missing(tiny, tmp_path, command):
    run = tmp_path / "run"
    command("run", tiny / "experiment.toml", "-o", run, "--until", "images")
    assert "masks.h5" in refused(command, "track", run)


def test_evaluation_of_a_run(tiny, tiny_run, command):
    scores = json.loads(command("evaluate", tiny_run, tiny / "truth.h5").stdout)
    assert scores["n_true_particles"] == 3
    assert 0.5 < scores["mean_iou"] <= 1
    assert 0 < scores["idf1"] <= 1
