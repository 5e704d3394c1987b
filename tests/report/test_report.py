"""The report of a small made-up run: what it holds, and that it stands alone."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stemtomo_dl.config import Experiment
from stemtomo_dl.records import DiffractionSeries, Masks, Tracks, VirtualImages
from stemtomo_dl.report import build_report, gather, summarise
from stemtomo_dl.report.outline import spell, trace
from stemtomo_dl.report.pictures import make_plan
from stemtomo_dl.store import results
from stemtomo_dl.store.atomic import write_json
from stemtomo_dl.store.tracks import Tables, write_tracks

SHAPE, DETECTOR = (24, 40), (32, 48)
ALPHA = np.array([-20.0, -10.0, 0.0, 10.0, 20.0])
SKIPPED = 3
EVIL = """rods </title><script>alert("1")</script> & 'x' <!-- \u2028"""
VOID = {"meta", "link", "img", "br", "input", "hr"}


def settings(title: str, dose: float | None) -> dict:
    table = {
        "title": title,
        "scans": {"files": "scans/*.h5", "tilts": "tilts.csv"},
        "beam": {"voltage_kv": 200, "convergence_mrad": 0.8, "electrons_per_pattern": dose},
        "scan": {"step_nm": 5.0},
        "detector": {"pixel_inv_angstrom": 0.05},
        "stage": {"tilt_axis_deg": 0.0},
    }
    return Experiment.model_validate(table).model_dump(mode="json")


def outlines(particles: int) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles (instance, y, x) and their tilts; the first lies at the scan's border."""
    masks, tilts = [], []
    for tilt in (t for t in range(len(ALPHA)) if t != SKIPPED):
        for k in range(particles):
            m = np.zeros(SHAPE, bool)
            m[4 * k + 2 : 4 * k + 5, 12 * k : 12 * k + 6 + tilt] = True
            masks.append(m)
            tilts.append(tilt)
    return np.array(masks, bool).reshape(-1, *SHAPE), np.array(tilts, int)


def make_run(folder: Path, *, particles: int = 3, title: str = "rods", dose: float | None = 100.0) -> Path:
    """A run of five tilts of which one was skipped; its last particle has no series."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    images = (
        (
            t,
            VirtualImages(
                ("bf", "adf"),
                rng.poisson(9, (2, *SHAPE)).astype("f4"),
                np.hstack([[[24.0], [16.0]], np.zeros((2, 5))]),
                *rng.poisson(3, (2, *DETECTOR)).astype("f4"),
            ),
        )
        for t in range(len(ALPHA))
        if t != SKIPPED
    )
    bad = np.zeros(DETECTOR, bool)
    bad[3, 4] = True
    results.write_images(folder / "images.h5", images, ALPHA, bad)
    full, tilt = outlines(particles)
    masks = Masks.pack(full, tilt, np.ones(len(full)), ALPHA)
    results.write_masks(folder / "masks.h5", masks)
    track = np.tile(np.arange(1, particles + 1), len(np.unique(tilt))).astype("i4")
    centre = np.array([[np.nonzero(m)[1].mean(), np.nonzero(m)[0].mean()] for m in full]).reshape(-1, 2)
    write_tracks(
        Tables.of_run(folder),
        Tracks.plain(
            track=track,
            tilt=tilt.astype("i4"),
            instance=np.arange(len(full), dtype="i4"),
            x_px=centre[:, 0],
            y_px=centre[:, 1],
            area_px=full.sum((1, 2)).astype("f8"),
            alpha_deg=ALPHA,
            drift_px=np.zeros((len(ALPHA), 2)),
            particle=np.arange(1, particles + 1, dtype="i4"),
            position_nm=rng.normal(size=(particles, 3)),
            residual_px=np.full(particles, 0.2),
        ),
    )
    book = {
        "version": "1.2.3",
        "experiment": f"{folder.parent}/exp/experiment.toml",
        "settings": settings(title, dose),
        "alpha_deg": [None if np.isnan(a) else float(a) for a in ALPHA],
        "scans": [f"scans/{i}.h5" for i in range(len(ALPHA))],
        "inputs": {},
        "skipped": [{"tilt": SKIPPED, "scan": "scans/3.h5", "reason": "truncated & <broken>", "stage": "opening"}],
        "stages": {},
    }
    write_json(folder / "run.json", book)
    instrument = Experiment.model_validate(book["settings"]).instrument
    for k in range(1, particles):
        seen = tilt[track == k].astype("i4")
        patterns = rng.normal(size=(len(seen), *DETECTOR)).astype("f4")
        measured = np.ones(patterns.shape, bool)
        measured[:, :2] = False
        results.write_series(
            folder / f"particles/p{k:04d}/series.h5",
            DiffractionSeries(
                instrument,
                patterns,
                measured,
                ALPHA[seen],
                seen,
                np.full(len(seen), 7, "i4"),
                np.full(len(seen), 9, "i4"),
                np.array([24.0, 16.0]),
                None if dose is None else np.full(len(seen), 0.5),
            ),
        )
    return folder


class Page(HTMLParser):
    """Attributes, ids and script contents of a page; tags must nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, k, v or "") for k, v in attrs]
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)
        self.script = dict(attrs).get("id", "") if tag == "script" else None

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.script = None

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[self.script] = self.scripts.get(self.script, "") + data
        elif self.open and self.open[-1] != "style":
            self.text += data

    def data(self, name: str):
        return json.loads(self.scripts[f"data-{name}"])


def unspell(loop: list) -> np.ndarray:
    """Corners of a loop as the page's script reads them."""
    x, y, letters = loop
    steps = [ord(c) - 97 if c >= "a" else 64 - ord(c) for c in letters]
    moves = np.array([(s, 0) if i % 2 == 0 else (0, s) for i, s in enumerate(steps)])
    return np.vstack([[x, y], [x, y] + np.cumsum(moves, 0)])


def fill(loops: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Mask whose borders are the loops: crossings of vertical sides to the left of a pixel's centre, odd or even."""
    toggles = np.zeros((shape[0], shape[1] + 1), int)
    for loop in loops:
        for (x, y), (x2, y2) in zip(loop, np.roll(loop, -1, 0), strict=True):
            if x == x2:
                toggles[min(y, y2) : max(y, y2), x] += 1
    return np.cumsum(toggles, 1)[:, :-1] % 2 == 1


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("a") / "run")


@pytest.fixture(scope="module")
def html(run) -> str:
    return build_report(gather(run))


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_stands_alone(html, page):
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith(("data:", "#")), f"{tag} {name}={value[:60]}"
    visible = html.replace("http://www.w3.org/2000/svg", "")  # a name, not an address: nothing is fetched
    assert not re.search(r"https?:|@import|url\(|//cdn", visible)
    assert len(set(page.ids)) == len(page.ids)
    links = {v[1:] for t, k, v in page.attributes if t == "a" and k == "href" and "=" not in v}
    assert links <= set(page.ids)


def test_says_what_happened(page):
    assert "3 particles were followed over 4 of 5 tilts, −20.0° to 20.0°" in page.text
    assert "Left out: tilt 3 (10.0°)." in page.text
    assert "(scans/3.h5): truncated & <broken>" in page.text
    assert "/exp/" not in page.text
    assert {"p1", "p2", "p3"} <= set(page.ids)
    assert "This particle has no series.h5" in page.text
    assert page.text.count("Dose over these tilts") == 2


def test_outlines_lie_on_the_masks(page, run):
    data, masks = page.data("series"), results.read_masks(run / "masks.h5")
    assert data["shape"] == list(SHAPE)
    assert data["alpha"] == ALPHA.tolist()
    assert data["tilts"] == [0, 1, 2, 3, 4]
    assert data["outlines"][SKIPPED] == []
    for tilt in (0, 1, 2, 4):
        shown = {o[0]: fill([unspell(loop)[:-1] for loop in o[5]], SHAPE) for o in data["outlines"][tilt]}
        assert sorted(shown) == [1, 2, 3]
        for track, i in enumerate(masks.at(tilt), 1):
            np.testing.assert_array_equal(shown[track], masks.full(i))
    assert data["outlines"][0][0][4] in (0, 1, 2)
    assert {o[0]: o[4] for o in data["outlines"][0]}[1] == 1  # cut by the scan's border


def test_pictures_are_the_images(page, run):
    pictures = page.data("bf")
    assert pictures[SKIPPED] == ""
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[2]))).convert("L"), float)
    image = results.read_images(run / "images.h5", 2)["bf"]
    assert shown.shape == SHAPE
    inside = (shown > 0) & (shown < 255)
    slope, start = np.polyfit(image[inside], shown[inside], 1)
    np.testing.assert_allclose(shown[inside], slope * image[inside] + start, atol=1)


def test_same_run_same_bytes(html, tmp_path):
    assert build_report(gather(make_run(tmp_path / "run"))) == html


def test_titles_cannot_break_out(tmp_path):
    run = make_run(tmp_path / "run", title=EVIL)
    html = build_report(gather(run))
    page = Page(html)
    assert "<script>alert" not in html
    assert EVIL in page.text
    assert set(page.scripts) == {"", "data-series", "data-bf", "data-adf", "data-space"}


def test_no_particle(tmp_path):
    run = make_run(tmp_path / "run", particles=0, dose=None)
    page = Page(build_report(gather(run)))
    assert "No particle was followed" in page.text
    assert "e/Å²" not in page.text
    assert page.data("series")["outlines"] == [[]] * 5
    assert summarise(gather(run))["n_particles"] == 0


def test_summary_agrees(run):
    summary = summarise(gather(run))
    json.dumps(summary, allow_nan=False)
    assert (summary["n_tilts"], summary["n_tilts_used"], summary["n_particles"]) == (5, 4, 3)
    assert [p["n_tilts"] for p in summary["particles"]] == [4, 4, 4]
    assert [p["n_tilts_cut"] for p in summary["particles"]] == [4, 0, 0]


def test_a_small_budget_is_kept(run):
    plan = make_plan(gather(run), budget=2000)
    assert plan.step > 1
    assert make_plan(gather(run)).step == 1


@pytest.mark.parametrize("seed", range(20))
def test_traced_borders_rebuild_any_mask(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 61)) < rng.choice([0.2, 0.5, 0.9])
    mask[4, 5:58] = True  # steps longer than one letter holds
    loops = trace(mask)
    np.testing.assert_array_equal(fill(loops, mask.shape), mask)
    for loop in loops:
        spelt = unspell(spell(loop))
        np.testing.assert_array_equal(spelt[-1], spelt[0])
        np.testing.assert_array_equal(fill([spelt[:-1]], mask.shape), fill([loop], mask.shape))


def test_trace_keeps_pixels_apart_that_touch_at_a_corner():
    loops = sorted(loop.tolist() for loop in trace(np.eye(2, dtype=bool)))
    assert loops == [[[0, 0], [1, 0], [1, 1], [0, 1]], [[1, 1], [2, 1], [2, 2], [1, 2]]]
