"""From particles' series to solved phases: the stages index, integrate and solve of a run."""

import csv
import json
import os
import shutil
import time
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from stemtomo_dl import crystals, pipeline
from stemtomo_dl.errors import InputError
from stemtomo_dl.run import reopen
from stemtomo_dl.workers import Failed, Processes, attempt, spread

ROTATION_DEG = 25.0  # of the detector that `brookites` are seen on


@pytest.fixture
def run(brookites, tmp_path):
    """A copy of the run that a test may spoil."""
    shutil.copytree(brookites / "run", tmp_path / "run")
    return tmp_path / "run"


class Silent:
    @contextmanager
    def stage(self, name, total):
        yield lambda: None


def ub_of(path):
    return np.array(json.loads(path.read_text())["ub"])


def turn_between(found, true):
    """The rotation, in degrees, by which a lattice is off another; its basis may be any of that lattice's."""
    same = np.rint(np.linalg.inv(found) @ true)
    assert abs(np.linalg.det(same)) == pytest.approx(1)
    u, _, vt = np.linalg.svd(true @ np.linalg.inv(found @ same))
    return np.degrees(np.arccos(np.clip((np.trace(u @ vt) - 1) / 2, -1, 1)))


def test_orientations_are_those_of_the_truth_in_the_sample_frame(brookites):
    with h5py.File(brookites / "e/truth.h5") as f:
        ub, position = f["ub"][:], f["positions_nm"][:]
    with (brookites / "run/particles.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 2
    for row in rows:
        at = np.array([float(row["x_nm"]), float(row["y_nm"])])
        true = ub[np.linalg.norm(position[:, :2] - at, axis=1).argmin()]
        track = int(row["track"])
        assert turn_between(ub_of(brookites / f"run/particles/p{track:04d}/crystal.json"), true) < 0.1


def test_the_tilt_axis_that_all_share_is_in_the_book(brookites):
    geometry = json.loads((brookites / "run/run.json").read_text())["indexing"]["geometry"]
    assert geometry["instrument"]["tilt_axis_deg"] == pytest.approx(31.0, abs=0.05)
    assert len(geometry["tilt"]) == len(geometry["alpha_deg"]) == 29


def test_summary_tells_particles_and_phases(brookites):
    summary = json.loads((brookites / "run/summary.json").read_text())
    assert summary["n_indexed"] == 2
    for particle in summary["particles"]:
        found = particle["crystallography"]
        assert found["lattice"] == "oP"
        assert found["cell"][:3] == pytest.approx([5.145, 5.447, 9.184], rel=5e-3)
        assert 0.6 < found["d_min_angstrom"] < 1.0
        assert 0 < found["completeness"] < 0.5
        (like,) = found["likeness"]
        assert found["candidate"] == like["name"] == "brookite"
        assert 0.5 < like["merit"] <= 1
    (phase,) = summary["phases"]
    assert phase["members"] == [1, 2]
    assert phase["structure"] == "solved"
    assert "mmm" in phase["laue_class"]


def test_a_solved_phase_comes_with_its_phasing_and_a_project_for_dynamical_refinement(brookites):
    place = brookites / "run/phases/brookite"
    stats = json.loads((place / "stats.json").read_text())
    assert not any("Laue class" in warning for warning in stats["warnings"])  # nobody stated a group
    phasing = stats["phasing"]
    assert phasing["method"] == "charge flipping"
    assert 1 <= phasing["agreeing_starts"] <= len(phasing["skewness"])
    assert max(phasing["skewness"]) > 1
    there = {p.name for p in (place / "dynamical").iterdir()}
    assert there == {"solution.cif", "README.txt", "p0001.cif_pets", "p0002.cif_pets"}
    outputs = json.loads((brookites / "run/run.json").read_text())["stages"]["solve"]["outputs"]
    assert {f"phases/brookite/dynamical/{n}" for n in there} <= set(outputs)


def test_the_cell_of_a_known_phase_tells_the_camera_length(brookites):
    stats = json.loads((brookites / "run/phases/brookite/stats.json").read_text())
    assert stats["camera_length"]["factor"] == pytest.approx(1.0, abs=0.004)
    assert stats["camera_length"]["misfit"] < 0.005


def derived(run):
    return {str(p.relative_to(run)): p.read_bytes() for p in run.glob("particles/*/*") if p.name != "series.h5"}


def test_several_processes_give_the_same_bytes(run, monkeypatch):
    before = derived(run)
    monkeypatch.setattr(crystals, "_HEAVY_BYTES", 0)
    with reopen(run, Silent()) as r:
        r.workers = Processes()
        for name in before:
            (run / name).unlink()
        pipeline.do_stage(r, "index", again=True)
        pipeline.do_stage(r, "integrate", again=True)
    assert derived(run) == before


def test_a_bad_particle_leaves_nothing_old_and_does_not_stop_the_others(run, monkeypatch):
    work = crystals.find_lattices

    def fails(path, rotation_deg):
        if path.parent.name == "p0001":
            raise ValueError(f"{path}: no\nlattice")
        return work(path, rotation_deg)

    monkeypatch.setattr(crystals, "find_lattices", fails)
    with reopen(run, Silent()) as r:
        for stage in ("index", "integrate", "report"):
            pipeline.do_stage(r, stage, again=True)
    assert {p.name for p in (run / "particles/p0001").iterdir()} == {"series.h5"}
    assert (run / "particles/p0002/crystal.json").exists()
    note = json.loads((run / "run.json").read_text())["indexing"]["particles"][0]["note"]
    assert note == "ValueError: particles/p0001/series.h5: no lattice"
    summary = json.loads((run / "summary.json").read_text())
    first, second = (p["crystallography"] for p in summary["particles"])
    assert not first["indexed"]
    assert first["note"] == note
    assert second["indexed"]


def test_too_few_spots_are_a_note(run):
    path = run / "particles/p0002/series.h5"
    with h5py.File(path, "r+") as f:
        f["patterns"][:] = np.random.default_rng(0).poisson(1.0, f["patterns"].shape)
    with reopen(run, Silent()) as r:
        pipeline.do_stage(r, "index", again=True)
    assert not (path.parent / "crystal.json").exists()
    note = json.loads((run / "run.json").read_text())["indexing"]["particles"][1]["note"]
    assert "not enough to tell a lattice" in note


def test_a_killed_stage_goes_on_at_the_particle(run, monkeypatch):
    before, work, done = derived(run), crystals.find_lattices, []

    def killed(path, rotation_deg):
        if done:
            raise KeyboardInterrupt
        done.append(path)
        return work(path, rotation_deg)

    def counted(path, rotation_deg):
        done.append(path)
        return work(path, rotation_deg)

    with reopen(run, Silent()) as r:
        r.ledger.claim("index", [])  # not done
        monkeypatch.setattr(crystals, "find_lattices", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.do_stage(r, "index")
    with reopen(run, Silent()) as r:
        monkeypatch.setattr(crystals, "find_lattices", counted)
        pipeline.do_stage(r, "index")
    assert [p.parent.name for p in done] == ["p0001", "p0002"]
    assert derived(run) == before


def test_what_a_stage_read_decides_whether_it_is_done_again(run, brookites):
    with pipeline.start(brookites / "e/experiment.toml", run, Silent()) as r:
        assert pipeline.run_stages(r) == []
    crystal = run / "particles/p0001/crystal.json"
    crystal.write_text(crystal.read_text() + "\n")
    solution = (run / "phases/brookite/solution.cif").stat().st_mtime_ns
    with pipeline.start(brookites / "e/experiment.toml", run, Silent()) as r:
        assert pipeline.run_stages(r) == ["integrate", "report"]  # the same intensities have the same structure
    assert (run / "phases/brookite/solution.cif").stat().st_mtime_ns == solution
    assert (run / "phases/brookite/dynamical/README.txt").exists()
    assert json.loads((run / "phases/brookite/stats.json").read_text())["structure"] == "solved"


def test_without_elements_structures_are_left_out(run, brookites, tmp_path, command):
    shutil.copytree(brookites / "e", tmp_path / "e")
    toml = tmp_path / "e/experiment.toml"
    toml.write_text(toml.read_text().replace('elements = ["O", "Ti"]', "").replace('phases = ["brookite.cif"]', ""))
    with pipeline.start(toml, run, Silent(), force=True) as r:
        assert pipeline.run_stages(r) == ["integrate", "solve", "report"]
    (place,) = run.glob("phases/*")
    assert place.name.startswith("oP_5.1")
    assert sorted(p.name for p in place.iterdir()) == ["merged.hkl", "merged.ins", "stats.json"]
    done = command("solve", run)
    assert "[sample] elements is not stated" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 2  # progress and what came of it


@pytest.mark.parametrize(
    ("stage", "without", "lacking"),
    [("index", "extract", "extract"), ("integrate", "index", "index"), ("solve", "integrate", "integrate")],
)
def test_stages_say_what_they_lack(run, stage, without, lacking):
    shutil.rmtree(run / "phases")
    with reopen(run, Silent()) as r:
        del r.ledger.book["stages"][without]
        with pytest.raises(InputError, match=f"run 'stemtomo {lacking}"):
            pipeline.do_stage(r, stage, again=True)


def test_one_series_is_reduced_as_in_a_run(brookites, tmp_path, command):
    command("reduce", brookites / "run/particles/p0001/series.h5", "-o", tmp_path / "one", "--elements", "Ti,O")
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"crystal.json", "one.hkl", "one.ins", "one.cif_pets"}
    alone = ub_of(tmp_path / "one/crystal.json")
    in_run = ub_of(brookites / "run/particles/p0001/crystal.json")
    c, s = np.cos(np.radians(ROTATION_DEG)), np.sin(np.radians(ROTATION_DEG))
    to_detector = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])  # a series alone knows its detector only
    assert turn_between(alone, to_detector @ in_run) < 0.15


def test_a_series_without_lattice_is_one_line(run, tmp_path, command):
    path = run / "particles/p0002/series.h5"
    with h5py.File(path, "r+") as f:
        f["patterns"][:] = 0
    done = command("reduce", path, "-o", tmp_path / "none", check=False)
    assert done.returncode == 2
    assert "not enough to tell a lattice" in done.stderr
    assert not (tmp_path / "none").exists()


def half(n):
    if n == 3:
        raise ValueError("three\nis odd")
    return n / 2


def fatal(n):
    if n == 1:
        time.sleep(0.2)
        os._exit(9)
    return n


def test_a_job_that_fails_has_a_reason():
    assert attempt(half, (4,)) == 2
    assert attempt(half, (3,)) == Failed("ValueError: three is odd")


def test_a_process_that_dies_takes_only_its_own_job_with_it():
    found = {}
    spread(fatal, {k: (k,) for k in range(3)}, found.__setitem__, Processes())
    assert found[0] == 0
    assert found[2] == 2
    assert "ended from outside" in found[1].reason
