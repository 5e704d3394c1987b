"""The whole road, as a user drives it: files in, files out, kills, wrong input."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import h5py
import hdf5plugin  # noqa: F401  the scans are compressed with its filters
import numpy as np
import pytest

from stemtomo_dl import pipeline
from stemtomo_dl.errors import InputError
from stemtomo_dl.run import reopen


def test_a_run_leaves_the_contracts_files(tiny, tiny_run):
    with h5py.File(tiny_run / "images.h5") as f:
        assert f["images"].shape[0] == 4
        assert f["images"].shape[2:] == (24, 32)
        assert "adf" in list(f["images"].attrs["detectors"])
        np.testing.assert_allclose(f["alpha_deg"], [30, 14, 0, -20])
        assert f["sectors"].shape[:3] == (4, 24, 32)
        dark = f["images"][:, [1, 2]].sum(1)
        assert np.corrcoef(f["sectors"][:].sum(3).ravel(), dark.ravel())[0, 1] > 0.9
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
    book = json.loads((tiny_run / "run.json").read_text())
    for p in particles:
        mine = [s for s in sightings if s["track"] == p["track"]]
        assert len(mine) == int(p["n_tilts"])
        with h5py.File(tiny_run / f"particles/p{int(p['track']):04d}/series.h5") as f:
            assert f["patterns"].shape == (len(mine), 64, 48)
            assert f["patterns"].dtype == "f4"
            assert sorted(f["tilt"][:]) == sorted(int(s["tilt"]) for s in mine)
            assert (f["n_probes"][:] > 0).all()
            np.testing.assert_allclose(f["dose_e_per_A2"], 400 / 40**2)
            np.testing.assert_allclose(f["accumulated_dose_e_per_A2"], 400 / 40**2 * (f["tilt"][:] + 1))
            assert f["variance"].shape == f["patterns"].shape
            assert (f["variance"][:] > 0).all()
            assert f.attrs["tilt_axis_deg"] == pytest.approx(book["stage"]["tilt_axis_deg"] + 12.0, abs=1e-4)
    assert list(book["stages"]) == ["images", "segment", "track", "extract", "index", "integrate", "solve", "report"]
    assert len(book["inputs"]) >= 5
    summary = json.loads((tiny_run / "summary.json").read_text())
    assert summary["n_particles"] == len(particles)
    assert summary["extraction"] == book["extraction"]
    assert [p["track"] for p in book["extraction"]["particles"]] == [int(p["track"]) for p in particles]
    assert book["extraction"]["camera_gain"] == pytest.approx(1, abs=0.1)
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


def test_frames_beyond_a_dose_are_left_out(own, tiny_run, tmp_path, command):
    toml, run = own / "experiment.toml", tmp_path / "limited"
    shutil.copytree(tiny_run, run)
    before = toml.read_text()
    toml.write_text(before + "\n[extract]\nmost_dose_e_per_A2 = 0.6\n")  # a scan costs 0.25
    command("run", toml, "-o", run, "--force")
    with h5py.File(run / "particles/p0001/series.h5") as f:
        assert f["tilt"][:].tolist() == [0, 1]
    toml.write_text(before + "\n[extract]\nmost_dose_e_per_A2 = 0.1\n")
    assert "leaves no tilt" in refused(command, "run", toml, "-o", run, "--force")


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
    assert "1 tilt skipped (see run.json)" in done.stdout
    book = json.loads((run / "run.json").read_text())
    assert len(book["skipped"]) == 1
    assert book["skipped"][0]["tilt"] == 1
    assert book["skipped"][0]["scan"] == f"scans/{scans[1].name}"
    assert str(tmp_path) not in book["skipped"][0]["reason"]
    assert f"tilt 1 (scans/{scans[1].name}): " in json.loads((run / "summary.json").read_text())["skipped"][0]
    with h5py.File(run / "images.h5") as f, h5py.File(run / "masks.h5") as m:
        assert f["good"][:].tolist() == [True, False, True, True]
        assert 1 not in m["tilt"][:]
        assert 3 in m["tilt"][:]
    moved = os.path.relpath(own, tmp_path)  # another spelling of the path is not another tilt
    done = command("run", f"{moved}/experiment.toml", "-o", run, "--skip-bad", cwd=tmp_path)
    assert "nothing to do" in done.stdout
    assert json.loads((run / "run.json").read_text())["skipped"] == book["skipped"]
    shutil.copy(scans[0], scans[1])  # mended: taken in without --force
    command("run", own / "experiment.toml", "-o", run)
    assert json.loads((run / "run.json").read_text())["skipped"] == []
    with h5py.File(run / "images.h5") as f:
        assert f["good"][:].all()


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


def damage(scan):
    """Spoil the middle of a scan, which its opening does not see."""
    with h5py.File(scan) as f:
        data = next(d for d in f.values() if d.ndim == 4)
        info = data.id.get_chunk_info(data.id.get_num_chunks() // 2 + 1)
    with scan.open("r+b") as f:
        f.seek(info.byte_offset)
        f.write(b"\xff" * info.size)


def test_no_tilt_readable_is_one_line(own, tmp_path, command):
    for scan in (own / "scans").iterdir():
        damage(scan)
    line = refused(command, "run", own / "experiment.toml", "-o", tmp_path / "run", "--skip-bad")
    assert "none of the 4 tilts could be read" in line


@pytest.fixture
def own_run(own, tiny_run, tmp_path):
    """A finished run of the copy that may be spoilt."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    book = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**book, "experiment": str(own / "experiment.toml")}))
    return run


def test_force_redoes_what_depends_on_the_change_and_nothing_else(own, own_run, command):
    (own_run / "particles" / "mine.txt").write_text("x")
    (own_run / "phases" / "mine").mkdir(parents=True)
    (own_run / "particles" / "p0001" / "notes.txt").write_text("x")
    old = {n: (own_run / n).stat().st_mtime_ns for n in ("images.h5", "masks.h5", "tracks.csv")}
    toml = own / "experiment.toml"
    toml.write_text(toml.read_text() + "\n[track]\nmin_tilts = 4\n")
    assert "--force redoes what depends on it" in refused(command, "run", toml, "-o", own_run)
    command("run", toml, "-o", own_run, "--force", "--until", "segment")
    assert {n: (own_run / n).stat().st_mtime_ns for n in ("images.h5", "masks.h5")} == {
        n: old[n] for n in ("images.h5", "masks.h5")
    }
    for stale in ("tracks.csv", "particles/p0001/series.h5", "report.html", "summary.json"):
        assert not (own_run / stale).exists()
    command("run", toml, "-o", own_run)
    assert (own_run / "report.html").exists()
    for mine in ("particles/mine.txt", "phases/mine", "particles/p0001/notes.txt"):
        assert (own_run / mine).exists()


def test_stages_refuse_raw_data_that_changed(own, own_run, command):
    scans = sorted((own / "scans").iterdir())
    kept = scans[1].read_bytes()
    shutil.copy(scans[0], scans[1])
    line = refused(command, "extract", own_run)
    assert f"inputs 'scans/{scans[1].name}' differs" in line
    assert "--force" in line
    scans[1].write_bytes(kept)
    table = own / "tilts.csv"
    text = table.read_text()
    shutil.copy(scans[0], scans[0].with_name("scan_9999.h5"))
    table.write_text(text + "scan_9999.h5,44\n")
    assert "scans: 'scans/scan_9999.h5' is new" in refused(command, "extract", own_run)
    scans[0].with_name("scan_9999.h5").unlink()
    table.write_text(text)
    command("extract", own_run)


def edit_tracks(run, edit):
    rows = [line.split(",") for line in (run / "tracks.csv").read_text().splitlines()]
    (run / "tracks.csv").write_text("\n".join(",".join(r) for r in edit(rows)) + "\n")


def test_edited_tracks_are_checked_and_used(own, own_run, command):
    edit_tracks(own_run, lambda rows: [*rows[:-1], [*rows[-1][:3], "999", *rows[-1][4:]]])
    for stage in ("extract", "report"):
        line = refused(command, stage, own_run)
        assert "tracks.csv: row" in line
        assert "instance 999" in line


def test_tracks_given_one_number_become_one_particle(own, own_run, command):
    for k in (1, 2):
        (own_run / f"particles/p000{k}/crystal.json").write_text("{}")
        (own_run / f"particles/p000{k}/p000{k}.hkl").write_text("")
    (own_run / "particles/p0099").mkdir()
    (own_run / "particles/p0099/series.h5").write_text("mine")
    (own_run / "particles/p0002/notes.txt").write_text("mine")

    def merge(rows):  # track 1 at tilts 0 and 1, then what was track 2
        first = [r for r in rows[1:] if r[0] == "1" and int(r[1]) < 2]
        second = [["1", *r[1:]] for r in rows[1:] if r[0] == "2" and int(r[1]) >= 2]
        return [rows[0], *first, *second, *(r for r in rows[1:] if int(r[0]) > 2)]

    edit_tracks(own_run, merge)
    command("run", own / "experiment.toml", "-o", own_run)
    with h5py.File(own_run / "particles/p0001/series.h5") as f:
        assert f["tilt"][:].tolist() == [0, 1, 2, 3]
    left = sorted(str(p.relative_to(own_run / "particles")) for p in own_run.glob("particles/p*/*"))
    assert "p0001/crystal.json" not in left
    assert [p for p in left if p.startswith(("p0002", "p0099"))] == ["p0002/notes.txt", "p0099/series.h5"]
    assert json.loads((own_run / "summary.json").read_text())["n_particles"] == 2


def test_a_series_that_did_not_change_keeps_what_was_made_from_it(own_run, command):
    (own_run / "particles/p0001/crystal.json").write_text("{}")
    command("extract", own_run)
    assert (own_run / "particles/p0001/crystal.json").exists()


class Silent:
    @contextmanager
    def stage(self, name, total):
        yield lambda: None


def test_extraction_asks_for_disk_space_first(own_run, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with reopen(own_run, Silent()) as run:
        for name in run.ledger.outputs("extract"):
            (own_run / name).unlink()
        with pytest.raises(InputError, match=r"particles need 0\.\d GB .* 0\.0 GB are free"):
            pipeline.do_stage(run, "extract", again=True)


def test_a_run_is_free_for_others_when_it_is_left(own, own_run):
    with pipeline.start(own / "experiment.toml", own_run, Silent()) as run:
        assert pipeline.run_stages(run, "images") == []
        with pytest.raises(InputError, match="another stemtomo is at work"):
            reopen(own_run, Silent())
    with reopen(own_run, Silent()) as run:
        assert pipeline.do_stage(run, "track", again=True)


def test_patterns_are_centred_where_the_beam_is(tiny_run):
    with h5py.File(tiny_run / "images.h5") as f:
        coef, (height, width) = f["beam_px"][:], f["images"].shape[2:]
    x, y = width // 2, height // 2
    beam = np.median(coef @ [1, x, y, x * x, x * y, y * y], axis=0)
    with h5py.File(tiny_run / "particles/p0001/series.h5") as f:
        np.testing.assert_allclose(f["center_px"], np.round(beam))
        assert not np.allclose(f["center_px"], [24, 32])
        assert len(f["n_support"]) == len(f["patterns"])


def test_a_guessed_scan_shape_is_told(own, tmp_path, command):
    for path in (own / "scans").iterdir():
        with h5py.File(path) as f:
            data = next(d for d in f.values() if d.ndim == 4)[:, :24]
        with h5py.File(path, "w") as f:
            f["data"] = data.reshape(-1, *data.shape[2:])
    done = command("run", own / "experiment.toml", "-o", tmp_path / "run", "--until", "images")
    assert "scan shape guessed 24 × 24 from 576 frames; set shape" in done.stderr
    assert len(json.loads((tmp_path / "run/run.json").read_text())["notes"]) == 1


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
    (dose,) = scores["segmentation"]["dose"].values()
    assert dose["ap50"] == scores["segmentation"]["all"]["ap50"]
