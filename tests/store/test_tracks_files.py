"""The tracker's tables: what is written is what is read; edited and foreign ones are read, or refused in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Masks, Tracks
from stemtomo_dl.store.atomic import write_json
from stemtomo_dl.store.linked import check_tracks, outlines_at
from stemtomo_dl.store.tracks import Tables, read_tracks, stage_facts, write_stage, write_tracks

ALPHA = np.array([-3.0, np.nan, 2.5])


def make_tracks():
    xy = np.array([1.5, 2.25, 7.125])
    return Tracks(
        track=np.array([1, 1, 3], "i4"),
        tilt=np.array([0, 2, 2], "i4"),
        instance=np.array([4, 1, 0], "i4"),
        x_px=xy,
        y_px=xy + 1,
        area_px=xy * 9,
        state=np.array([0, 2, 2], "i1"),
        source=np.array([0, 2, 1], "i1"),
        misfit_px=np.array([0.5, np.nan, 1.25]),
        detected=np.array([4, -1, 2], "i4"),
        identity=np.array([0.75, np.nan, 0.5], "f4"),
        alpha_deg=ALPHA,
        alpha_offset_deg=np.array([0.25, 0, -0.125]),
        drift_px=np.array([[0, 1.5], [0, 0], [-2, 3.0]]),
        particle=np.array([1, 3], "i4"),
        position_nm=np.array([[1.0, 2, 3], [-4, 5.5, 0]]),
        position_error_nm=np.array([[1.0, 2, 3], [0.5, 0.25, np.nan]]),
        gauge_error_nm=np.array([1.0, 2.0, np.nan]),
        residual_px=np.array([0.25, 1.0]),
        usable_deg=np.array([[-3.0, 2.5], [np.nan, np.nan]]),
        overlap_share=np.array([0.5, 1.0]),
        own_motion_px=np.array([0.0, 2.5]),
        states=np.array([[0, -1, 2], [4, -1, 2]], "i1"),
        predicted_px=np.array([[[1.5, 2], [np.nan] * 2, [3, 4]], [[-5.0, 6], [np.nan] * 2, [7, 8.5]]]),
        tilt_axis_deg=24.25,
        tilt_axis_error_deg=0.5,
        noise_px=0.125,
        rigid=False,
        note="too few particles",
    )


def test_what_is_written_is_what_is_read(tmp_path):
    tracks, tables = make_tracks(), Tables.of_run(tmp_path)
    write_tracks(tables, tracks)
    write_json(tmp_path / "run.json", {"stage": stage_facts(tracks)})
    back = read_tracks(tables, tmp_path / "run.json")
    for name, value in vars(tracks).items():
        np.testing.assert_array_equal(getattr(back, name), value, name)


def test_tables_are_the_contracts_and_words_stand_for_numbers(tmp_path):
    write_tracks(Tables.of_run(tmp_path), make_tracks())
    lines = (tmp_path / "tracks.csv").read_text().splitlines()
    assert lines[0] == "track,tilt,alpha_deg,instance,x_px,y_px,area_px,state,source,residual_px,detected,identity"
    assert lines[1] == "1,0,-3.0000,4,1.5000,2.5000,13.5000,clean,found,0.5000,4,0.7500"
    header, first, second = (tmp_path / "particles.csv").read_text().splitlines()
    assert header == (
        "track,n_tilts,x_nm,y_nm,z_nm,residual_px,x_err_nm,y_err_nm,z_err_nm,from_deg,to_deg,overlap_share,"
        "own_motion_px,n_clean"
    )
    assert first.startswith("1,2,")
    assert [row.rsplit(",", 1)[1] for row in (first, second)] == ["1", "0"]
    states = (tmp_path / "states.csv").read_text().splitlines()
    assert states[:2] == ["track,tilt,alpha_deg,state,x_px,y_px", "1,0,-3.0000,clean,1.5000,2.0000"]
    assert len(states) == 5  # none for the tilt without an angle


def test_a_tracker_alone_names_its_tables_after_the_first(tmp_path):
    tables, tracks = Tables.beside(tmp_path / "mine.csv"), make_tracks()
    write_tracks(tables, tracks)
    assert write_stage(tables, tracks).name == "mine_stage.json"
    names = {f"mine{n}" for n in (".csv", "_particles.csv", "_states.csv", "_drift.csv", "_stage.json")}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert json.loads((tmp_path / "mine_stage.json").read_text())["drift_px"] == [[0, 1.5], [0, 0], [-2, 3]]
    np.testing.assert_array_equal(read_tracks(tables).states, tracks.states)


def test_tables_with_the_contracts_columns_alone_are_read(tmp_path):
    write_linked(tmp_path, "1,0,-3,0,1,1,9\n2,1,0,1,1,1,9\n")
    tracks = read_tracks(Tables.of_run(tmp_path))
    assert (tracks.state == 0).all()
    assert (tracks.source == 0).all()
    assert tracks.detected.tolist() == tracks.instance.tolist()
    assert (tracks.states == -1).all()
    assert (tracks.alpha_offset_deg == 0).all()
    for unknown in (tracks.identity, tracks.misfit_px, tracks.position_error_nm, tracks.tilt_axis_deg):
        assert np.isnan(unknown).all()
    write_json(tmp_path / "run.json", {"settings": {"stage": {"tilt_axis_deg": 24.3}}})
    assert read_tracks(Tables.of_run(tmp_path), tmp_path / "run.json").tilt_axis_deg == 24.3  # the stated one


def test_a_row_added_by_hand_may_leave_the_further_columns_empty(tmp_path):
    write_tracks(Tables.of_run(tmp_path), make_tracks())
    with (tmp_path / "tracks.csv").open("a") as f:
        f.write("3,0,-3,2,1,1,9,,,,,\n")
    tracks = read_tracks(Tables.of_run(tmp_path))
    assert (tracks.state[-1], tracks.source[-1], tracks.detected[-1]) == (0, 0, 2)


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        (
            "tracks.csv",
            "1,1,0,1,1,1,9,clear,found,0,1,1",
            r"tracks\.csv: line 5: state must be one of clean, overlapped",
        ),
        ("tracks.csv", "1,1,0,1,1,1,9,clean,found,0,-2,1", r"detected must be a whole number from -1, got '-2'"),
        ("states.csv", "1,7,0,clean,1,1", r"states\.csv: row 5: tilt 7: the last tilt is 2"),
        ("states.csv", "1,1,0,,1,1", r"states\.csv: line 6: state must be one of"),
        ("drift.csv", "3,x,0,0,0", r"drift\.csv: line 5: alpha_deg must be a number, got 'x'"),
        ("run.json", '{"stage": {"rigid": true}}', r"run\.json: does not tell the stage"),
    ],
)
def test_wrong_cells_give_one_line(tmp_path, name, line, words):
    write_tracks(Tables.of_run(tmp_path), make_tracks())
    with (tmp_path / name).open("a") as f:
        f.write(line + "\n")
    with pytest.raises(InputError, match=words) as caught:
        read_tracks(Tables.of_run(tmp_path), tmp_path / "run.json")
    assert "\n" not in str(caught.value)


LINKED = Masks.pack(np.ones((4, 3, 3), bool), np.array([0, 1, 2, 0]), np.ones(4), np.array([-3.0, 0, 2.5]))


def write_linked(folder, rows, particles="1,2,0,0,0,1\n2,2,0,0,0,1\n"):
    (folder / "tracks.csv").write_text("track,tilt,alpha_deg,instance,x_px,y_px,area_px\n" + rows)
    (folder / "particles.csv").write_text("track,n_tilts,x_nm,y_nm,z_nm,residual_px\n" + particles)
    (folder / "drift.csv").write_text("tilt,alpha_deg,x_px,y_px\n0,-3,0,0\n1,0,0,0\n2,2.5,0,0\n")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1,2,2.5,7,1,1,9", r"tracks\.csv: row 2: instance 7: masks\.h5 has instances 0 to 3"),
        ("1,0,-3,3,1,1,9", r"row 2: track 1 has another row at tilt 0"),
        ("1,1,0,2,1,1,9", r"row 2: instance 2 is not of tilt 1"),
        ("1,3,0,2,1,1,9", r"row 2: alpha_deg|row 2: tilt 3: masks\.h5 has tilts 0 to 2"),
        ("5,1,0,1,1,1,9", r"row 2: track 5 is not in particles\.csv"),
        ("0,1,0,1,1,1,9", r"row 2: track 0: tracks count from 1"),
        ("1,1,0,-1,1,1,9", r"line 3: instance must be a whole number from 0, got '-1'"),
        ("1.5,1,0,1,1,1,9", r"line 3: track must be a whole number"),
        ("1,1,5,1,1,1,9", r"row 2: alpha_deg 5 is not that of tilt 1, which is 0"),
        ("1,1,0,1,nan,1,9", r"row 2: position or area"),
        ("1,1,0,1,1,1,-9", r"row 2: position or area"),
        ("1,1,0,1,1,,9", r"line 3: y_px must be a number, got ''"),
        ("1,1,0,1", r"line 3: x_px must be a number"),
    ],
)
def test_edited_tracks_that_do_not_fit_are_refused(tmp_path, row, words):
    write_linked(tmp_path, f"1,0,-3,0,1,1,9\n{row}\n")
    with pytest.raises(InputError, match=words) as caught:
        check_tracks(read_tracks(Tables.of_run(tmp_path)), LINKED, tmp_path)
    assert "\n" not in str(caught.value)
    assert "correct it" in str(caught.value)


def test_two_tracks_given_one_number_are_one(tmp_path):
    write_linked(tmp_path, "2,2,2.5,2,1,1,9\n2,0,-3,0,1,1,9\n2,1,0,1,1,1,9\n")
    tracks = read_tracks(Tables.of_run(tmp_path))
    check_tracks(tracks, LINKED, tmp_path)
    assert tracks.particle.tolist() == [2]  # of particle 1 no sighting is left
    (tmp_path / "particles.csv").write_text("track,n_tilts,x_nm,y_nm,z_nm,residual_px\n2,1,0,0,0,1\n2,1,0,0,0,1\n")
    with pytest.raises(InputError, match=r"particles\.csv: track 2 is listed twice"):
        check_tracks(read_tracks(Tables.of_run(tmp_path)), LINKED, tmp_path)


def test_outlines_of_a_tilt_show_one_particle_each():
    """At tilt 0: a shared detection, the two cut from it, one nobody has, and a filled one that no track has."""
    full, source = np.ones((6, 3, 3), bool), np.array([0, 0, 2, 2, 2, 0], "i1")
    masks = replace(Masks.pack(full, np.array([0, 0, 0, 0, 0, 1]), np.ones(6), np.zeros(2)), source=source)
    one = np.ones(2)
    tracks = Tracks.plain(
        track=np.array([1, 2], "i4"),
        tilt=np.zeros(2, "i4"),
        instance=np.array([2, 3], "i4"),
        x_px=one,
        y_px=one,
        area_px=one,
        alpha_deg=np.zeros(2),
        drift_px=np.zeros((2, 2)),
        particle=np.array([1, 2], "i4"),
        position_nm=np.zeros((2, 3)),
        residual_px=one,
        detected=np.zeros(2, "i4"),
    )
    assert outlines_at(masks, tracks, 0).tolist() == [1, 2, 3]
