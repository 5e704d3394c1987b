"""What the report tells of the tracks: states, paths, the stage, the map, and points to look at."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stemtomo_dl.config import Experiment
from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.records import SOURCES, STATES, Masks, Tracks
from stemtomo_dl.report.checks import points
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.paths import path_charts
from stemtomo_dl.report.space import space_data
from stemtomo_dl.report.stage import stage_section
from stemtomo_dl.report.summary import summarise
from stemtomo_dl.report.timeline import KINDS, kinds, misfit_chart, timeline_chart

SHAPE, STEP_NM, STATED_DEG, REFINED_DEG = (60, 80), 2.0, 20.0, 21.5
ALPHA = np.array([-50.0, -30.0, -20.0, 0.0, 15.0, 40.0])  # uneven steps
NAMES = tuple(KINDS)


def experiment() -> Experiment:
    table = {
        "title": "rods",
        "scans": {"files": "scans/*.h5", "tilts": "tilts.csv"},
        "beam": {"voltage_kv": 200, "convergence_mrad": 0.8},
        "scan": {"step_nm": STEP_NM},
        "detector": {"pixel_inv_angstrom": 0.05},
        "stage": {"tilt_axis_deg": STATED_DEG},
    }
    return Experiment.model_validate(table)


def make_facts(particles: int = 3, tilts: int = len(ALPHA), **changed) -> Facts:
    """A rigid series: every particle is seen at every tilt, just where the refined axis puts it."""
    rng = np.random.default_rng(3)
    alpha = ALPHA if tilts == len(ALPHA) else np.linspace(-60, 60, tilts)
    position = rng.uniform(-20, 20, (particles, 3))
    drift = rng.normal(0, 1, (tilts, 2))
    rotation = tilt_rotation(REFINED_DEG, alpha)[:, :2]
    place = np.einsum("tij,pj->pti", rotation, position) / STEP_NM + field_centre(SHAPE) + drift
    track, tilt = np.repeat(np.arange(1, particles + 1), tilts), np.tile(np.arange(tilts), particles)
    n = len(track)
    known = {
        "track": track.astype("i4"),
        "tilt": tilt.astype("i4"),
        "instance": np.arange(n, dtype="i4"),
        "x_px": place[..., 0].ravel(),
        "y_px": place[..., 1].ravel(),
        "area_px": np.full(n, 12.0),
        "alpha_deg": alpha,
        "drift_px": drift,
        "particle": np.arange(1, particles + 1, dtype="i4"),
        "position_nm": position,
        "residual_px": np.full(particles, 0.2),
        "states": np.zeros((particles, tilts), "i1"),
        "tilt_axis_deg": REFINED_DEG,
        "tilt_axis_error_deg": 0.05,
    }
    corner = np.maximum(np.stack([known["y_px"], known["x_px"]], -1).astype("i4"), 1)
    crops = tuple(np.ones((4, 3), bool) for _ in range(n))
    masks = Masks(SHAPE, crops, corner, tilt.astype("i4"), np.ones(n, "f4"), alpha)
    tracks = Tracks.plain(**(known | changed))
    names = tuple(f"scans/{t}.h5" for t in range(tilts))
    bad, good = np.zeros((8, 8), bool), np.ones(tilts, bool)
    return Facts(Path("run"), experiment(), "1.2.3", (), names, alpha, good, bad, ~good, masks, tracks)


def with_tracks(facts: Facts, **changed) -> Facts:
    return replace(facts, tracks=replace(facts.tracks, **changed))


def picture(svg: str) -> np.ndarray:
    """Pixels of the picture in a chart."""
    data = re.search(r'href="data:image/webp;base64,([^"]+)"', svg).group(1)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def column(svg: str, alpha: float) -> int:
    """Column of a chart's picture at a tilt angle, by the labels below the axis."""
    ticks = re.findall(r'class="mid" x="([\d.]+)" y="\d+">([−\d]+)</text>', svg)
    x, a = (np.array(v, float) for v in zip(*((x, v.replace("−", "-")) for x, v in ticks), strict=True))
    slope, start = np.polyfit(a, x, 1)
    left, width = (float(re.search(rf'<image [^>]*{k}="([\d.]+)"', svg).group(1)) for k in (" x", "width"))
    return round((slope * alpha + start - left) / width * picture(svg).shape[1])


def states_and_sources() -> tuple[Facts, list[str]]:
    """One particle at six tilts, each of another kind, and a second one that is found at all."""
    facts = make_facts(2)
    t = facts.tracks
    state, source, x = t.state.copy(), t.source.copy(), t.x_px.copy()
    state[:3] = STATES.index("overlapped"), STATES.index("merged"), 0
    source[[1, 2]] = SOURCES.index("prompted"), SOURCES.index("projected")
    x[3] += 4.0
    states = t.states.copy()
    states[0, 5] = STATES.index("hidden")
    seen = np.arange(len(t.track)) != 5
    rows = {k: getattr(t, k)[seen] for k in ("track", "tilt", "instance", "y_px", "area_px", "misfit_px", "detected")}
    rows |= {"state": state[seen], "source": source[seen], "x_px": x[seen], "identity": t.identity[seen]}
    return with_tracks(facts, states=states, **rows), ["overlapped", "merged", "projected", "off", "clean", "hidden"]


def test_kinds_of_every_particle_at_every_tilt():
    facts, expected = states_and_sources()
    assert [NAMES[k] for k in kinds(facts)[0]] == expected
    assert {NAMES[k] for k in kinds(facts)[1]} == {"clean"}
    good = facts.good.copy()
    good[1] = False
    assert [NAMES[k] for k in kinds(replace(facts, good=good))[:, 1]] == ["gap", "gap"]


def test_timeline_shows_the_kinds_at_their_angles_best_covered_first():
    facts, expected = states_and_sources()
    svg = timeline_chart(facts)
    assert re.findall(r'class="end"[^>]*>(\d+)</text>', svg) == ["2", "1"]
    pixels = picture(svg)
    for row, wanted in ((0, ["clean"] * 6), (8, expected)):
        shown = ["#" + bytes(pixels[row, column(svg, a)].tolist()).hex() for a in ALPHA]
        assert shown == [KINDS[k][0] for k in wanted]
    assert "Particle 1: 5 outlines; 5 clean, 1 hidden" in svg


def test_misfit_map_brightens_with_the_misfit_and_leaves_out_computed_outlines():
    facts, _ = states_and_sources()
    pixels = picture(svg := misfit_chart(facts)).astype(int)
    shown = [pixels[8, column(svg, a)] for a in ALPHA]
    assert shown[2].tolist() == shown[5].tolist() == [255, 255, 255]
    assert shown[3].sum() > shown[0].sum()
    assert shown[0].tolist() == shown[4].tolist()


def test_misfits_are_told_from_the_refined_axis_where_the_tracker_does_not_say():
    facts = make_facts()
    np.testing.assert_allclose(facts.misfit_px, 0, atol=1e-9)
    stated = with_tracks(facts, tilt_axis_deg=STATED_DEG)
    assert stated.misfit_px.max() > 0.1
    told = with_tracks(facts, misfit_px=np.full(len(facts.tracks.track), 0.7))
    np.testing.assert_array_equal(told.misfit_px, 0.7)


def test_paths_without_drift_are_level_along_the_axis():
    across, along = path_charts(make_facts())
    for svg, level in ((across, False), (along, True)):
        curves = re.findall(r'class="line thin grey" d="([^"]+)"', svg)
        assert len(curves) == 3
        reach = [np.ptp([float(v.split()[1]) for v in re.split("[ML]", d)[1:]]) for d in curves]
        assert (max(reach) < 0.11) == level


def test_paths_of_many_particles_stay_small():
    assert sum(map(len, path_charts(make_facts(300, 200)))) < 1_200_000


def test_map_turns_as_the_stage_does():
    facts = make_facts()
    data = space_data(facts)
    json.dumps(data, allow_nan=False)
    assert (data["axis"], data["alpha"]) == (REFINED_DEG, ALPHA.tolist())
    assert data["particles"][0][2] == [None] * 3
    assert set(data["values"]) == {"coverage", "height z", "misfit"}  # own motion is not known
    seen = tilt_rotation(data["axis"], data["alpha"][5]) @ data["particles"][1][1] + [*data["drift"][5], 0]
    row = 6 + 5
    at = (np.array([facts.tracks.x_px[row], facts.tracks.y_px[row]]) - field_centre(SHAPE)) * STEP_NM
    np.testing.assert_allclose(seen[:2], at, atol=0.05)
    assert [len(s) for s in data["states"]] == [6, 6, 6]


BEAM = np.zeros((len(ALPHA), 2))


def test_nothing_to_look_at_in_a_good_series():
    assert points(make_facts(), BEAM) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"tilt_axis_deg": 29.0}, "29° ± 0.05°, 9.0° from the stated 20.0°"),
        ({"tilt_axis_error_deg": 2.0}, "too few particles, or too small a range"),
        ({"rigid": False, "note": "only <2> tilts"}, "not to be trusted. only &lt;2&gt; tilts"),
        (
            {"own_motion_px": np.array([0.1, 6.0, np.nan])},
            'by 6 px at most: the lattice may turn as well: <a href="#p2"',
        ),
        ({"identity": np.repeat([0.9, 0.9, 0.2], 6).astype("f4")}, "of doubtful identity at over a fifth"),
        ({"source": np.repeat([0, 0, 2], 6).astype("i1")}, "the outlines there are computed"),
        ({"state": np.repeat([0, 2, 0], 6).astype("i1")}, "seen only as one with another particle"),
    ],
)
def test_points_say_what_is_doubtful(changed, told):
    facts = with_tracks(make_facts(), misfit_px=np.zeros(18), **changed)
    assert any(told in p for p in points(facts, BEAM))


def test_axis_that_points_the_other_way_is_the_same_axis():
    assert points(with_tracks(make_facts(), misfit_px=np.zeros(18), tilt_axis_deg=REFINED_DEG - 180), BEAM) == []


def test_stage_table_states_what_was_refined():
    facts = make_facts()
    text = stage_section(facts, BEAM)
    assert "20.0° stated, 21.5° ± 0.05° refined" in text
    assert "error of the angle" not in text
    offset = np.array([0.1, -0.1, 0.1, -0.1, 0.1, -0.3])
    drift = facts.tracks.drift_px.copy()
    drift[4:] += 30.0
    text = stage_section(with_tracks(facts, alpha_offset_deg=offset, drift_px=drift), BEAM)
    assert "0.15° rms, 0.3° at most" in text
    assert "error of the angle" in text
    assert re.search(r"4\d(\.\d)? px, between tilts 3 and 4", text)
    unknown = with_tracks(facts, tilt_axis_error_deg=np.nan, tilt_axis_deg=STATED_DEG)
    assert "20.0° as stated, not refined" in stage_section(unknown, BEAM)


def test_summary_counts_states_and_sources():
    facts, _ = states_and_sources()
    summary = summarise(facts)
    json.dumps(summary, allow_nan=False)
    assert summary["n_states"] == {"clean": 11, "overlapped": 0, "merged": 0, "hidden": 1, "outside": 0}
    assert summary["n_sources"] == {"found": 9, "prompted": 1, "projected": 1, "split": 0}
    assert [p["coverage"] for p in summary["particles"]] == [0.6667, 1.0]  # neither hidden nor computed is seen
    assert summary["stage"]["tilt_axis_deg"] == REFINED_DEG
    assert summary["stage"]["tilt_axis_stated_deg"] == STATED_DEG
    assert summary["stage"]["noise_px"] is None
    assert summary["particles"][0]["position_error_nm"] == [None] * 3
