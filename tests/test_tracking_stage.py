"""The track stage in a run: outlines it fills in, and when it is done again; the tracker alone; tracks exported."""

import csv
import json
import shutil
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from stemtomo_dl import interchange, known, pipeline
from stemtomo_dl.errors import InputError
from stemtomo_dl.run import reopen
from stemtomo_dl.store import results
from stemtomo_dl.store.linked import read_linked


class Silent:
    @contextmanager
    def stage(self, name, total):
        yield lambda: None


@pytest.fixture
def gap(tiny_run, tmp_path):
    """A tracked run in which the segmenter has missed a particle once, between two tilts at which it saw it."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    masks, tracks = read_linked(run)
    seen = [k for k in tracks.particle if {0, 1, 2} <= set(tracks.tilt[tracks.track == k].tolist())]
    lost = tracks.detected[(tracks.track == seen[0]) & (tracks.tilt == 1)]
    results.write_masks(run / "masks.h5", masks.some(np.setdiff1d(masks.found, lost)))
    with reopen(run, Silent()) as r:
        assert pipeline.do_stage(r, "track")
    return run


def redone(run):
    with reopen(run, Silent()) as r:
        return pipeline.do_stage(r, "track")


def sightings(run):
    with (run / "tracks.csv").open() as f:
        return list(csv.DictReader(f))


def test_a_gap_is_filled_by_an_outline_of_its_own(gap):
    (filled,) = [s for s in sightings(gap) if s["source"] != "found" and s["tilt"] == "1"]
    assert (filled["source"], filled["tilt"], filled["detected"]) == ("projected", "1", "-1")
    with h5py.File(gap / "masks.h5") as f:
        row = int(filled["instance"])
        assert (f["source"][: np.count_nonzero(f["source"][:] == 0)] == 0).all()  # what was found comes first
        assert f["source"][row] == 2
        assert f["tilt"][row] == 1
        assert f["masks"][row].sum() == pytest.approx(float(filled["area_px"]))
    with (gap / "states.csv").open() as f:
        states = list(csv.DictReader(f))
    particles = {s["track"] for s in sightings(gap)}
    assert len(states) == 4 * len(particles)
    stage = json.loads((gap / "run.json").read_text())["stage"]
    assert len(stage["drift_px"]) == 4


def test_the_stage_is_done_again_when_what_was_found_changes_and_else_not(gap):
    before = [(gap / n).read_bytes() for n in ("masks.h5", "tracks.csv", "states.csv")]
    assert not redone(gap)
    with reopen(gap, Silent()) as r:
        pipeline.do_stage(r, "track", again=True)
    assert [(gap / n).read_bytes() for n in ("masks.h5", "tracks.csv", "states.csv")] == before
    with h5py.File(gap / "masks.h5", "a") as f:  # a found outline loses its first row
        first = np.flatnonzero(f["masks"][0].any(1))[0]
        f["masks"][0, first] = False
    assert redone(gap)
    assert not redone(gap)


def test_outlines_found_anew_take_those_filled_in_with_them(gap):
    with reopen(gap, Silent()) as r:
        assert pipeline.do_stage(r, "segment", again=True)
        assert pipeline.do_stage(r, "track")
    assert {s["source"] for s in sightings(gap) if s["tilt"] == "1"} == {"found"}
    assert len(read_linked(gap)[1].particle)


def foreign(path, shape=(40, 50)):
    """Six disks that tilt about x, as a program writes them that knows no scores."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    alpha = np.linspace(-25, 25, 11)
    centres = np.array([[-16, -12, 3], [14, -11, -4], [-13, 10, 0], [15, 11.0, 5], [0, 0, -6], [1, -13, 8]])
    lines = np.cos(np.radians(alpha))[:, None] * centres[:, 1] - np.sin(np.radians(alpha))[:, None] * centres[:, 2]
    full = [
        [(x - 24.5 - c[0]) ** 2 + (y - 19.5 - v) ** 2 <= 12 for c, v in zip(centres, row, strict=True)] for row in lines
    ]
    with h5py.File(path, "w") as f:
        f["masks"] = np.array(full, "u1").reshape(-1, *shape)
        f["tilt"], f["alpha_deg"] = np.repeat(np.arange(len(alpha)), len(centres)), alpha
    return np.tile(np.arange(len(centres)), len(alpha))


def test_link_alone_on_another_programs_masks(tmp_path, command):
    who = foreign(tmp_path / "masks.h5")
    before = (tmp_path / "masks.h5").read_bytes()
    line = command("link", tmp_path / "masks.h5", "-o", tmp_path / "out" / "mine.csv", "--tilt-axis", 0).stdout
    assert line.startswith("6 particles, 66 sightings")
    assert (tmp_path / "masks.h5").read_bytes() == before
    with (tmp_path / "out" / "mine.csv").open() as f:
        rows = list(csv.DictReader(f))
    pairs = {(int(r["track"]), int(who[int(r["instance"])])) for r in rows}
    assert len(pairs) == 6  # every track one particle, every particle one track
    names = ("mine.csv", "mine_particles.csv", "mine_states.csv", "mine_drift.csv", "mine_stage.json")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(names)


def test_links_tracks_are_exported_beside_the_table(tmp_path):
    foreign(tmp_path / "masks.h5")
    with pytest.raises(InputError, match="choose one of napari, ctc"):
        known.link(tmp_path / "masks.h5", tmp_path / "t.csv", 0.0, form="mamut")
    tracks = known.link(tmp_path / "masks.h5", tmp_path / "t.csv", 0.0, form="ctc")
    lines = (tmp_path / "t_export" / "ctc" / "res_track.txt").read_text().splitlines()
    assert len(lines) >= len(tracks.particle)


def test_link_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match=r"absent\.h5: is missing"):
        known.link(tmp_path / "absent.h5", tmp_path / "t.csv")
    foreign(tmp_path / "masks.h5")
    with pytest.raises(InputError, match=r"is the masks file itself"):
        known.link(tmp_path / "masks.h5", tmp_path / "masks.h5")
    with h5py.File(tmp_path / "masks.h5", "a") as f:
        f["tilt"][0] = 77
    with pytest.raises(InputError, match=r"/tilt names a tilt that /alpha_deg does not have"):
        known.link(tmp_path / "masks.h5", tmp_path / "t.csv")
    with pytest.raises(InputError, match="choose one of napari, ctc"):
        interchange.export_tracks(tmp_path, "mamut")


def test_link_of_nothing_is_empty(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as f:
        f["masks"], f["tilt"], f["alpha_deg"] = np.zeros((0, 8, 9), bool), np.zeros(0, int), np.arange(3.0)
    assert not len(known.link(tmp_path / "m.h5", tmp_path / "t.csv").track)
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 1


def test_a_runs_tracks_are_exported(gap):
    for form in ("napari", "ctc"):
        assert interchange.export_tracks(gap, form).exists()
    assert (gap / "export" / "ctc" / "mask003.tif").exists()
