"""Lattices, phases and structures in the report: drawn where they lie, doubted where they should be."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from report.crystalline import CIF, NAME, crystal, make_crystal_run, measured, seen
from report.test_report import Page

from stemtomo_dl.crystal.nouns import Reflections
from stemtomo_dl.crystal.predict import present
from stemtomo_dl.report import build_report, gather, summarise
from stemtomo_dl.report.atoms import read_atoms, structure_view
from stemtomo_dl.report.checks import points
from stemtomo_dl.report.crystals import Crystallography, Found, read_detail
from stemtomo_dl.report.lattices import DETAILED, detailed, lattice_part
from stemtomo_dl.report.predictions import misfit_by_frame, pattern_figure, telling_tilts
from stemtomo_dl.report.raster import data_uri, ink
from stemtomo_dl.report.reciprocal import lattice_view, layer_chart, particle_layers
from stemtomo_dl.report.rocking import rocking_charts
from stemtomo_dl.report.strips import LARGE, LARGE_QUALITY
from stemtomo_dl.store.atomic import write_json
from stemtomo_dl.store.particle_files import Files
from stemtomo_dl.store.record_h5 import write_record
from stemtomo_dl.store.reflections import write_crystals


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_crystal_run(tmp_path_factory.mktemp("crystals") / "run")


@pytest.fixture(scope="module")
def html(run) -> str:
    return build_report(gather(run))


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


@pytest.fixture
def detail(run):
    facts = gather(run)
    return read_detail(run, facts.crystals, 1, [])


def changed(run, tmp_path, **figures):
    """A copy of the facts whose phase has other figures."""
    facts = gather(run)
    phase = facts.crystals.phases[0]
    phases = (phase._replace(figures=phase.figures | figures),)
    return replace(facts, crystals=replace(facts.crystals, phases=phases))


def test_stands_alone(html, page):
    assert not re.search(r"https?:|@import|url\(", html.replace("http://www.w3.org/2000/svg", ""))
    assert len(set(page.ids)) == len(page.ids)
    links = {v[1:] for t, k, v in page.attributes if t == "a" and k == "href" and "=" not in v}
    assert links <= set(page.ids)
    assert {"phases", "lattices", "phase1"} <= set(page.ids)


def test_says_how_far_particles_came(html, page):
    counts = {name: int(n) for n, name in re.findall(r"<div><b>(\d+)</b><span>([^<]*)</span></div>", html)}
    assert counts["particles followed"] == 3
    assert counts["particles indexed"] == counts["particles merged"] == 2
    assert counts["phases"] == counts["structures solved"] == 1
    assert "scans <1> and 2 are the same file" in page.text
    assert "1 particle: its few spots are not enough to tell a lattice" in page.text
    assert f"{NAME}: 2 particles; solved: O2Ti, P 42/m n m, R1 0.05" in page.text


def test_summary_tells_the_same(run):
    summary = summarise(gather(run))
    assert (summary["n_indexed"], summary["n_merged"], summary["n_solved"]) == (2, 2, 1)
    assert [p["crystallography"]["phase"] for p in summary["particles"]] == [NAME, NAME, None]
    assert summary["particles"][2]["crystallography"]["note"].endswith("to tell a lattice")
    assert summary["damaged"] == []


def test_predictions_lie_on_the_spots(detail):
    tilt = next(iter(telling_tilts(detail)))
    svg = pattern_figure(detail, tilt, "", "data:,", (32, 48), 1)
    number = r"(-?[\d.]+)"
    arcs = re.findall(rf"M{number} {number}a{number} [\d.]+ 0 1 1", svg)  # from below their centres
    circles = {(float(x) - 0.45, float(y) - float(r) - 0.5) for x, y, r in arcs}
    spots = detail.spots.px[detail.spots.frame == np.flatnonzero(detail.tilt == tilt)[0]]
    inside = spots[((spots > 0) & (spots < [47, 31])).all(1)]
    assert len(inside) >= 5
    off = [min(np.hypot(x - a, y - b) for a, b in circles) for x, y in inside]
    assert np.sort(off)[: int(0.7 * len(off))].max() < 0.2  # those within the reach that most spots have


def test_misfit_is_how_far_spots_are_moved(run):
    facts, one = gather(run), seen(crystal())
    moved = replace(one, spots=replace(one.spots, px=one.spots.px + np.array([0.06, -0.08])))
    write_record(run / "particles/p0002/spots.h5", moved)
    detail = read_detail(run, facts.crystals, 2, [])
    assert detail.fits.mean() > 0.9
    np.testing.assert_allclose(misfit_by_frame(detail), 0.1 * 0.05, rtol=0.02)


@pytest.mark.parametrize(("lattice", "axis", "all_layers"), [("tP", 2, False), ("mC", 2, False), ("oF", 0, True)])
def test_nodes_are_those_that_the_centring_allows(lattice, axis, all_layers):
    ub = np.diag([0.1, 0.13, 0.17])
    svg = layer_chart(ub, lattice, axis, [("blue", np.array([[7.0, 7.0, 7.0]]), np.ones(1))], all_layers=all_layers)
    rows = re.findall(r'class="nodes" stroke-dasharray="0 ([\d.]+)" d="([^"]*)"', svg)
    drawn = sum(round(float(length) // float(gap)) + 1 for gap, d in rows for length in re.findall(r"h(-?[\d.]+)", d))
    i, j = (k for k in range(3) if k != axis)
    reach = 1.04 * np.hypot(7 * ub[i, i], 7 * ub[j, j])
    grid = np.stack(np.meshgrid(*[np.arange(-24, 25)] * 3, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[present(grid, lattice) & (all_layers | (grid[:, axis] == 0))]
    flat = np.unique(grid[:, [i, j]], axis=0)
    assert drawn == (np.hypot(*(flat * [ub[i, i], ub[j, j]]).T) <= reach).sum()


def test_layers_hold_the_integrated_intensities_and_their_friedel_mates(detail):
    hkl = np.array([[1, 0, 0], [-1, 0, 0], [2, 1, 0], [0, 3, 0], [1, 1, 2]], "i4")
    intensity, zero = np.array([90.0, 110.0, 25.0, -3.0, 400.0]), np.zeros(5)
    few = Reflections(hkl, intensity, np.ones(5), zero, zero.astype("i4"))
    drawn = particle_layers(replace(detail, reflections=few), all_layers=False)[0]
    dots = {int(s): d.count("M") for s, d in re.findall(r'class="dots blue size(\d)" d="([^"]*)"', drawn)}
    assert dots == {3: 4, 0: 2}  # 100 and 210 with their mates; 030, weaker than nothing, with its own


def test_the_view_that_turns_has_the_spots_in_the_sample_frame(detail):
    view = lattice_view(detail)
    shown = np.array(view["groups"][0]["xyz"]).reshape(-1, 3) / 1000
    vectors = detail.geometry.sample(detail.spots)[detail.fits]
    np.testing.assert_allclose(shown, vectors, atol=6e-4)


def test_rocking_curves_go_through_what_was_made_on_them():
    svg = rocking_charts(measured(), crystal().ub)[0]
    line = re.search(r'class="line grey" d="([^"]*)"', svg)[1]
    curve = np.array([[float(v) for v in p.split()] for p in re.split("[ML]", line)[1:]])
    dots = np.array([[float(v) for v in p.split()] for p in re.findall(r"M([\d. -]+)h0", svg)])
    assert len(dots) >= 100
    np.testing.assert_allclose(dots[:, 1], np.interp(dots[:, 0], *curve.T), atol=1.5)  # units of the drawing


def test_bond_valences_and_the_drawn_cell(tmp_path):
    path = tmp_path / "solution.cif"
    path.write_text(CIF)
    atoms = read_atoms(path)
    near, far = np.sqrt(2) * (0.5 - 0.305) * 4.594, np.sqrt(2) * 0.305 * 4.594
    lengths = [far] * 2 + [np.hypot(near, 2.959 / 2)] * 4  # of rutile, by its geometry
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    u = 0.305
    oxygen = np.array([[u, u, 0], [1 - u, 1 - u, 0], [0.5 + u, 0.5 - u, 0.5], [0.5 - u, 0.5 + u, 0.5]])
    every = np.linalg.norm((steps + oxygen) * [4.594, 4.594, 2.959], axis=-1)
    expected = np.exp((1.815 - every[every < 4]) / 0.37).sum()
    assert atoms.valences[0] == (pytest.approx(expected, rel=1e-6), 4)
    assert atoms.valences[1][0] == pytest.approx(expected / 2, rel=1e-6)
    view = structure_view(atoms)
    balls = {g["name"]: len(g["xyz"]) // 3 for g in view["groups"]}
    assert balls["Ti"] == 9  # eight corners and the centre
    ends = np.concatenate([np.array(b[1]).reshape(-1, 2, 3) for b in view["bonds"]]) / 1000
    assert set(np.round(2 * np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1), 2)) <= {round(d, 2) for d in lengths}


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        ({"completeness": 0.41}, "only 41 % complete"),
        ({"r_int": 0.4}, "Rint is 0.4"),
        ({"cc_half": 0.5}, "CC½ is 0.5"),
        ({"redundancy": 1.2}, "measured 1.2 times"),
        ({"warnings": ["O1 and O2 are 1.1 Å apart"]}, "O1 and O2 are 1.1 Å apart"),
        ({"r1": 0.4}, "R1 is 0.4"),
        ({"cell": [4.8, 4.8, 2.96, 90, 90, 90]}, "from their phase's"),
    ],
)
def test_points_say_what_is_doubtful(run, tmp_path, figures, told):
    beam = np.zeros((5, 2))
    good = {"completeness": 0.9, "redundancy": 5.0, "r_int": 0.1, "cc_half": 0.99}
    assert not any(told in p for p in points(changed(run, tmp_path, **good), beam))
    assert any(told in p for p in points(changed(run, tmp_path, **good | figures), beam))


def test_a_hidden_beam_is_told(run):
    facts = gather(run)
    assert not any("hidden" in p for p in points(facts, np.zeros((5, 2))))
    behind = replace(facts, beam_hidden=np.array([True, False, True, True, False]))
    assert any("hidden at 3 of" in p for p in points(behind, np.zeros((5, 2))))


@pytest.mark.parametrize(("axis", "told"), [(8.0, "8.0° from the stated"), (2.0, "by the lattices and")])
def test_axes_that_disagree_are_told(run, axis, told):
    facts = gather(run)
    facts = replace(facts, tracks=replace(facts.tracks, tilt_axis_deg=0.0, tilt_axis_error_deg=0.1))
    assert not any(told in p for p in points(facts, np.zeros((5, 2))))
    shared = facts.crystals.geometry
    turned = replace(facts.crystals, geometry=shared._replace(geometry=shared.geometry.with_axis(axis)))
    assert any(told in p for p in points(replace(facts, crystals=turned), np.zeros((5, 2))))


def test_slices_of_the_potential_are_dark_where_the_model_has_its_atom(html):
    figure = html[html.index("Potential at") - 30_000 : html.index("Potential at")]
    figure = figure[figure.rindex("<svg") :]
    uri, matrix = re.search(r'<image href="([^"]*)".*?matrix\(([^)]*)\)', figure).groups()
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L"), float)
    row, column = np.unravel_index(image.argmin(), image.shape)
    a, b, c, d, e, f = (float(v) for v in matrix.split())
    u, v = (column + 0.5) / image.shape[1], (row + 0.5) / image.shape[0]
    ring = [float(n) for n in re.search(r'cx="([\d.]+)" cy="([\d.]+)"', figure).groups()]
    np.testing.assert_allclose([a * u + c * v + e, b * u + d * v + f], ring, atol=0.2)


def test_an_unsolved_phase_says_what_is_missing(tmp_path):
    run = make_crystal_run(tmp_path / "run")
    path = run / "phases" / NAME / "stats.json"
    missing = ["only 30 % of the reflections were measured"]
    write_json(path, json.loads(path.read_text()) | {"structure": "unsolved", "missing": missing, "r1": None})
    text = Page(build_report(gather(run))).text
    assert missing[0] in text
    assert "not solved" in text


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\nnonsense", b"{}"])
def test_a_damaged_file_is_named_and_the_rest_is_shown(tmp_path, content):
    run = make_crystal_run(tmp_path / "run")
    files = Files.of(1)
    broken = [files.series, files.spots, files.reflections, Files.of(2).crystal]
    broken += [f"phases/{NAME}/{f}" for f in ("merged.hkl", "solution.cif", "solution.ccp4")]
    for name in broken:
        (run / name).write_bytes(content)
    page = Page(build_report(gather(run)))
    assert "Files that could not be read" in page.text
    for name in ("series.h5", "crystal.json"):
        assert name in page.text
    assert {"p1", "p2", "p3", "phase1"} <= set(page.ids)
    (run / "phases" / NAME / "stats.json").write_bytes(content)
    assert "No particles were merged" in Page(build_report(gather(run))).text
    assert summarise(gather(run))["phases"] == []


def test_only_the_best_are_shown_in_detail():
    found = {k: Found(crystals=(replace(crystal(), n_indexed=k),)) for k in range(1, 501)}
    assert detailed(Crystallography(True, particles=found)) == list(range(501 - DETAILED, 501))


def test_a_long_series_takes_little_room(tmp_path):
    run = make_crystal_run(tmp_path / "run")
    alpha, one = np.linspace(-70, 70, 400), crystal(lengths=(9.1, 11.3, 15.2), lattice="oP")
    write_record(run / "particles/p0001/spots.h5", seen(one, alpha, reach=0.02))
    write_crystals(run / "particles/p0001/crystal.json", [one])
    facts = gather(run)
    facts = replace(facts, crystals=replace(facts.crystals, geometry=None))
    detail = read_detail(run, facts.crystals, 1, [])
    assert len(detail.spots) > 3000
    hkl = np.stack(np.meshgrid(*[np.arange(-15, 16)] * 3, indexing="ij"), -1).reshape(-1, 3).astype("i4")
    n, rng = len(hkl), np.random.default_rng(0)
    every = Reflections(hkl, rng.exponential(9.0, n), np.ones(n), rng.uniform(-70, 70, n), np.zeros(n, "i4"))
    detail = replace(detail, reflections=every)
    pictures = {t: (why, "data:,") for t, why in telling_tilts(detail).items()}
    size = len(lattice_part(facts, 1, detail, pictures).encode())
    counts = np.random.default_rng(0).poisson(0.3, (LARGE, LARGE)).astype("f4")
    pattern = len(data_uri(ink(counts, 40.0, 2.0), LARGE_QUALITY))
    assert DETAILED * (size + 3 * pattern) < 8_000_000  # of a page of 20 MB
    table = lattice_part(facts, 1, None, {})
    assert 500 * len(table.encode()) < 800_000


def test_no_axis_title_is_longer_than_its_chart(html):
    charts = re.findall(r'<svg class="chart[^>]*viewBox="0 0 \d+ (\d+)"(.*?)</svg>', html, re.DOTALL)
    assert len(charts) > 5
    for height, drawn in charts:
        for title in re.findall(r"rotate\(-90\)\">([^<]*)<", drawn):
            assert 6.2 * len(title) <= int(height)  # a letter is about so wide


@pytest.mark.parametrize(
    ("phasing", "words"),
    [
        (
            {"method": "charge flipping", "agreeing_starts": 3, "skewness": [1.0, 4.24], "correlation": None},
            "charge flipping, 3 of 5 starts agree, skewness of the map 4.2",
        ),
        (
            {"method": "dual-space recycling", "agreeing_starts": 1, "skewness": [1.0], "correlation": 0.652},
            "dual-space recycling, 1 of 5 starts agree, correlation of |E| 0.65",
        ),
        (None, "Phases–"),  # solved before these were kept
    ],
)
def test_figures_of_merit_of_the_phases_are_told(run, tmp_path, phasing, words):
    text = Page(build_report(changed(run, tmp_path, phasing=phasing, starts=5))).text
    assert words in text.replace(chr(10), "")


def test_particles_and_phases_have_their_shells_and_views(run, html):
    rows = sum(
        1 for line in (run / "phases" / NAME / "merged.hkl").read_text().splitlines() if line[:12].split() != ["0"] * 3
    )
    assert html.count("Its own intensities by resolution") == 2
    view = re.search(r'aria-label="Merged intensities in reciprocal space".*?json">(.*?)</script>', html)[1]
    merged, beam = json.loads(view)["groups"]
    assert beam["name"] == "beam"
    points = np.array(merged["xyz"]).reshape(-1, 3)
    assert len(points) >= 2 * rows  # equivalents and Friedel mates
    assert {tuple(p) for p in points.tolist()} == {tuple(p) for p in (-points).tolist()}
