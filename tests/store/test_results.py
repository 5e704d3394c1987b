"""Files of a run: what is written is what is read, and bad files give one line."""

import json
import multiprocessing
import os
from dataclasses import replace

import h5py
import numpy as np
import pytest

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import DiffractionSeries, Instrument, Masks, VirtualImages
from stemtomo_dl.store import results
from stemtomo_dl.store.atomic import write_json, writing
from stemtomo_dl.store.ledger import Ledger
from stemtomo_dl.store.partial import Partial, discard
from stemtomo_dl.store.tracks import Tables, read_tracks

RNG = np.random.default_rng(0)
ALPHA = np.array([-3.0, np.nan, 2.5])


def make_masks(n=5):
    return Masks.pack(RNG.random((n, 12, 9)) < 0.3, np.arange(n) % 3, np.linspace(0, 1, n), ALPHA)


def test_images_round_trip_and_missing_tilts(tmp_path):
    def image(seed):
        rng = np.random.default_rng(seed)
        return VirtualImages(
            ("bf", "adf"),
            rng.random((2, 5, 7), "f4"),
            rng.random((2, 6)),
            rng.random((6, 4), "f4"),
            rng.random((6, 4), "f4"),
            rng.poisson(2, (3, 4, 8)).astype("f4"),
            seed == 2,
        )

    path, bad = tmp_path / "images.h5", RNG.random((6, 4)) < 0.2
    results.write_images(path, iter([(0, image(0)), (2, image(2))]), ALPHA, bad)
    alpha, good, stored = results.read_image_facts(path)
    np.testing.assert_array_equal(alpha, ALPHA)
    np.testing.assert_array_equal(good, [True, False, True])
    np.testing.assert_array_equal(stored, bad)
    v = results.read_images(path, 2)
    np.testing.assert_array_equal(v["adf"], image(2)["adf"])
    np.testing.assert_array_equal(v.beam_px, image(2).beam_px)
    np.testing.assert_array_equal(v.sectors, image(2).sectors)
    assert v.beam_hidden
    np.testing.assert_array_equal(results.read_beam_hidden(path), [False, False, True])
    with h5py.File(path) as f:  # as the contract lays it out
        assert f["images"].shape == (3, 2, 5, 7)
        assert f["images"].dtype == "f4"
        assert list(f["images"].attrs["detectors"]) == ["bf", "adf"]
        assert np.isnan(f["images"][1]).all()
        assert f["sectors"].shape == (3, 3, 4, 8)
        assert f["sectors"].chunks == (1, 3, 4, 8)
        assert f["sectors"].attrs["probes_together"] == 2


def test_masks_round_trip_in_the_contracts_layout(tmp_path):
    masks, path = make_masks(), tmp_path / "masks.h5"
    results.write_masks(path, masks)
    with h5py.File(path) as f:
        assert f["masks"].dtype == bool
        assert f["masks"].chunks == (1, 12, 9)
        assert f["tilt"].dtype == "i4"
        assert f["score"].dtype == "f4"
        np.testing.assert_array_equal(f["masks"][:], [masks.full(i) for i in range(5)])
    back = results.read_masks(path)
    np.testing.assert_array_equal([back.full(i) for i in range(5)], [masks.full(i) for i in range(5)])
    np.testing.assert_array_equal(back.tilt, masks.tilt)
    results.write_masks(path, make_masks(0))
    assert len(results.read_masks(path)) == 0


def test_masks_tell_what_the_segmenter_did_not_find(tmp_path):
    masks = make_masks()
    filled = replace(make_masks(2), source=np.array([1, 2], "i1"))
    results.write_masks(tmp_path / "masks.h5", Masks.concatenate([masks, filled]))
    back = results.read_masks(tmp_path / "masks.h5")
    assert back.source.tolist() == [0] * 5 + [1, 2]
    assert back.found.tolist() == masks.found.tolist() == [0, 1, 2, 3, 4]
    chosen = back.some(np.array([6, 0]))
    np.testing.assert_array_equal(chosen.full(0), filled.full(1))
    assert chosen.source.tolist() == [2, 0]


@pytest.mark.parametrize(
    "how", [{}, {"chunks": (2, 6, 9), "compression": "lzf"}, {"chunks": (1, 12, 9), "fletcher32": True}]
)
@pytest.mark.parametrize("dtype", [bool, "u1", "i4"])
def test_masks_in_any_layout(tmp_path, how, dtype):
    full = RNG.random((5, 12, 9)) < 0.1
    full[2] = False
    with h5py.File(tmp_path / "m.h5", "w") as f:
        f.create_dataset("masks", data=full.astype(dtype) * (1 if dtype is bool else 3), **how)
        f["tilt"], f["alpha_deg"] = np.arange(5) % 3, ALPHA
    back, packed = results.read_masks(tmp_path / "m.h5"), Masks.pack(full, np.zeros(5), np.zeros(5), ALPHA)
    np.testing.assert_array_equal(back.origin, packed.origin)
    assert all((a == b).all() for a, b in zip(back.crops, packed.crops, strict=True))


@pytest.mark.parametrize("dose", [None, 2.5])
def test_series_stand_alone(tmp_path, dose):
    instrument = Instrument(200, 0.8, 0.03, 5.0, 24.3, 10.0, None if dose is None else 100.0)
    patterns = RNG.random((3, 6, 4), "f4")
    series = DiffractionSeries(
        instrument,
        patterns,
        patterns > 0.1,
        np.array([-1, 0, 1.5]),
        np.arange(3, dtype="i4"),
        np.array([4, 5, 6], "i4"),
        np.array([9, 0, 8], "i4"),
        np.array([2.0, 3.0]),
        None if dose is None else np.full(3, dose),
        None if dose is None else np.cumsum(np.full(3, dose)),
        variance=patterns**2,
        separated=np.array([True, False, True]),
        purity=np.array([1, np.nan, 0.6], "f4"),
    )
    path = tmp_path / "p0001" / "series.h5"
    results.write_series(path, series)
    with h5py.File(path) as f:
        assert f.attrs["tilt_axis_deg"] == pytest.approx(34.3)  # on the detector
        assert {"voltage_kv", "pixel_inv_angstrom", "convergence_mrad"} <= set(f.attrs)
        assert ("dose_e_per_A2" in f) == (dose is not None)
    back = results.read_series(path)
    for name in ("accumulated_dose_e_per_A2", "variance", "separated", "purity", "bragg_signal"):
        np.testing.assert_array_equal(getattr(back, name), getattr(series, name))
    assert back.bragg_signal is None
    np.testing.assert_array_equal(back.n_support, [9, 0, 8])
    with h5py.File(path, "r+") as f:
        del f["n_support"]  # as other programs write it
    np.testing.assert_array_equal(results.read_series(path).n_support, 0)
    np.testing.assert_array_equal(back.patterns, patterns)
    np.testing.assert_array_equal(back.measured, series.measured)
    assert back.instrument.tilt_axis_deg == pytest.approx(34.3)
    assert back.instrument.rotation_deg == 0


def test_bad_files_give_one_line(tmp_path):
    cases = {"absent.h5": None, "text.h5": b"not hdf5"}
    for name, content in cases.items():
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name) as caught:
            results.read_masks(tmp_path / name)
        assert "\n" not in str(caught.value)
    with h5py.File(tmp_path / "m.h5", "w") as f:
        f["masks"], f["tilt"], f["alpha_deg"] = np.zeros((2, 3, 4), bool), [0, 7], [1.0, 2.0]
    with pytest.raises(InputError, match="/tilt names a tilt"):
        results.read_masks(tmp_path / "m.h5")
    with pytest.raises(InputError, match="has no dataset /images"):
        results.read_images(tmp_path / "m.h5", 0)
    (tmp_path / "tracks.csv").write_text("track,tilt\n1,2\n")
    with pytest.raises(InputError, match=r"tracks\.csv"):
        read_tracks(Tables.of_run(tmp_path))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError), writing(path) as tmp:
        tmp.write_text("half") and 1 / 0
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]
    with pytest.raises(InputError, match="cannot be written"):
        write_json(path / "below-a-file" / "b.json", {})


def test_files_reach_the_disk_before_their_names(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("sync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("move"), replace(a, b)))
    write_json(tmp_path / "a.json", {})
    Partial(tmp_path, "images", "a" * 64).save(0, x=np.arange(4), y=np.eye(2))
    assert done == ["sync", "move", "sync", "sync", "move"]


def test_partial_results_belong_to_their_key(tmp_path):
    partial = Partial(tmp_path, "images", "a" * 64)
    partial.save(3, x=np.arange(4), y=np.eye(2))
    again = Partial(tmp_path, "images", "a" * 64)
    assert again.has(3)
    assert not again.has(2)
    np.testing.assert_array_equal(again.load(3)["x"], np.arange(4))
    (torn,) = tmp_path.glob(".partial/*/tilt00003/y.npy")
    torn.write_bytes(torn.read_bytes()[:-3])  # a power cut
    assert not again.has(3)
    again.save(3, x=np.arange(5))
    np.testing.assert_array_equal(again.array(3, "x"), np.arange(5))
    other = Partial(tmp_path, "images", "b" * 64)
    assert not other.has(3)
    discard(tmp_path, "images")
    assert os.listdir(tmp_path) == []


def origin(**changes):
    return {
        "version": "1",
        "experiment": "e.toml",
        "settings": {"track": {"gap": 1}},
        "alpha_deg": [0.0, None],
        "scans": ["a.h5", "b.h5"],
        "inputs": {"a.h5": "0"},
        "seed": 0,
        **changes,
    }


def test_a_run_of_something_else_is_refused_unless_forced(tmp_path):
    run = tmp_path / "run"
    ledger = Ledger(run, origin())
    (run / "out.h5").write_text("x")
    ledger.done("images", "key", 1.0, ["out.h5"])
    ledger.close()
    Ledger(run, origin(experiment="moved/e.toml")).close()
    for changes, words in (
        ({"settings": {"track": {"gap": 2}}}, "settings 'track' differs"),
        ({"inputs": {"a.h5": "1"}}, "inputs 'a.h5' differs"),
        ({"inputs": {}}, "inputs 'a.h5' is gone"),
        ({"alpha_deg": [1.0, None]}, "alpha_deg differs"),
        ({"scans": ["a.h5", "b.h5", "c.h5"]}, "scans: 'c.h5' is new"),
        ({"scans": ["b.h5", "a.h5"]}, "scans: in another order"),
    ):
        with pytest.raises(InputError, match=words + ".*--force redoes what depends on it"):
            Ledger(run, origin(**changes))
    ledger = Ledger(run, origin(alpha_deg=[1.0, None]), force=True)
    assert ledger.changed
    assert ledger.book["alpha_deg"] == [1.0, None]
    assert ledger.fresh("images", "key")  # whether it still is, its key tells
    ledger.close()


def test_forgetting_a_stage_removes_its_files_and_no_others(tmp_path):
    ledger = Ledger(tmp_path / "run", origin())
    folder = tmp_path / "run/particles/p0001"
    folder.mkdir(parents=True)
    (folder / "series.h5").write_text("x")
    (folder / "notes.txt").write_text("mine")
    ledger.done("extract", "key", 1.0, ["particles/p0001/series.h5", "particles/p0002/series.h5"])
    ledger.forget(["extract", "report"])
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    assert ledger.book["stages"] == {}
    ledger.close()


def test_skipped_tilts_are_listed_once_and_anew(tmp_path):
    ledger = Ledger(tmp_path / "run", origin(inputs={"a.h5": "0"}))
    ledger.skip("opening", {1: "no such file"})
    ledger.skip("images", {0: "truncated"})
    ledger.skip("opening", {1: "is empty"})
    assert [(s["tilt"], s["scan"], s["reason"]) for s in ledger.book["skipped"]] == [
        (0, "a.h5", "truncated"),
        (1, "b.h5", "is empty"),
    ]
    ledger.close()
    ledger = Ledger(tmp_path / "run", origin(inputs={"a.h5": "0", "b.h5": "2"}))  # mended: taken in, not refused
    assert not ledger.changed
    assert ledger.book["inputs"] == {"a.h5": "0", "b.h5": "2"}
    ledger.skip("opening", {})
    ledger.skip("images", {})
    assert ledger.book["skipped"] == []
    ledger.close()


def test_a_foreign_folder_is_not_taken_for_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds files but no run"):
        Ledger(tmp_path, origin())
    for name in ("particles/p0001/series.h5", "phases/brookite/solution.cif"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("mine")
    before = sorted(p for p in tmp_path.rglob("*"))
    Ledger(tmp_path, origin(), force=True).close()
    assert [p for p in sorted(tmp_path.rglob("*")) if p.name not in (".lock", "run.json")] == before
    with pytest.raises(InputError, match="is not a run"):
        Ledger(tmp_path / "nowhere")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        Ledger(tmp_path)


def test_stages_are_fresh_until_what_they_read_changes(tmp_path):
    ledger = Ledger(tmp_path / "run", origin())
    (tmp_path / "run/masks.h5").write_text("one")
    key = ledger.key({"a": 1}, ["masks.h5"])
    ledger.done("segment", key, 0.1, ["masks.h5"])
    assert ledger.fresh("segment", ledger.key({"a": 1}, ["masks.h5"]))
    assert not ledger.fresh("segment", ledger.key({"a": 2}, ["masks.h5"]))
    (tmp_path / "run/masks.h5").write_text("edited")
    assert not ledger.fresh("segment", ledger.key({"a": 1}, ["masks.h5"]))
    (tmp_path / "run/masks.h5").unlink()
    with pytest.raises(InputError, match="is missing"):
        ledger.key({}, ["masks.h5"])
    ledger.close()


def _hold(folder, ready, leave):
    ledger = Ledger(folder, origin())
    ready.set()
    leave.wait(20)
    ledger.close()


def test_two_processes_do_not_share_a_run(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "run", ready, leave))
    other.start()
    assert ready.wait(30)
    with pytest.raises(InputError, match="another stemtomo is at work"):
        Ledger(tmp_path / "run", origin())
    leave.set()
    other.join(20)
    Ledger(tmp_path / "run", origin()).close()
