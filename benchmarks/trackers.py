"""Trackers side by side, on centroid series with each disturbance and on outlines of rendered scenes.

    pip install '.[bench]'
    python benchmarks/trackers.py [PRESET_OR_SCENE …] [--seeds N] [--model NAME_OR_FILE] [--trackers NAME …]
    python benchmarks/trackers.py --speed
    python benchmarks/trackers.py --tune

Names are those of `simulate.sightings.PRESETS`, and of SCENES below ("scene: demo"); without any, all are taken.
Scores are means over the seeds. Peers have the gates in GATES, which --tune measures, and, where a row says "drift
removed", get the series without the field's shift from tilt to tilt as our own vote finds it. Every tracker's tracks
of fewer than five sightings are left out. Scores on centroids ask who is who among the detections; those on outlines
compare with the true ones, so that no tracker is better than the segmenter: "known identities" is what the best could
reach.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import laptrack
import numpy as np
import pandas as pd
import trackpy

from stemtomo_dl.config import SegmentConfig, TrackConfig
from stemtomo_dl.geometry import field_centre
from stemtomo_dl.learn.metrics import match_truth
from stemtomo_dl.learn.tracking_metrics import Encounter, mask_encounters, point_encounters, tracking_scores
from stemtomo_dl.records import Masks, Truth
from stemtomo_dl.segment import Segmenter, open_segmenter
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import simulate
from stemtomo_dl.simulate.sightings import PRESETS, SightingSettings, draw_sightings
from stemtomo_dl.track.assign import assign
from stemtomo_dl.track.drift import vote_shift
from stemtomo_dl.track.features import Features, features
from stemtomo_dl.track.link import link

SCORES = ("idf1", "hota", "assa", "switches", "purity")
SHORTEST = 5
REACH_PX = 1.0  # within which a detection is taken to be the true sighting itself


@dataclass(frozen=True)
class Case:
    """A series to link: detections, their tilts, and how labels of them are judged."""

    seen: Features
    tilt: np.ndarray
    alpha_deg: np.ndarray
    shape: tuple[int, int]
    tilt_axis_deg: float
    judge: Callable[[np.ndarray], list[Encounter]]
    particle: np.ndarray  # that each detection shows, −1 for none
    descriptor: np.ndarray | None = None

    @property
    def frame(self) -> np.ndarray:
        """Rank of each detection's tilt by its angle."""
        rank = np.empty(len(self.alpha_deg), int)
        rank[np.argsort(self.alpha_deg, kind="stable")] = np.arange(len(rank))
        return rank[self.tilt]


Method = Callable[[Case], np.ndarray]


def ours(case: Case) -> np.ndarray:
    """The tilt-aware tracker."""
    arguments = case.alpha_deg, case.shape, case.tilt_axis_deg, TrackConfig(), case.descriptor
    return link(case.seen, case.tilt, *arguments)[0]


def hungarian(case: Case, gate_px: float) -> np.ndarray:
    """Nearest one to one from each tilt to the next."""
    label, frame = np.full(len(case.tilt), -1), case.frame
    before, n = np.empty(0, int), 0
    for t in range(len(case.alpha_deg)):
        here = np.flatnonzero(frame == t)
        squared = ((case.seen.xy[before][:, None] - case.seen.xy[here]) ** 2).sum(2)
        rows, columns = np.nonzero(squared < gate_px**2)
        chosen = assign(rows, columns, squared[rows, columns], gate_px**2)
        label[here[columns[chosen]]] = label[before[rows[chosen]]]
        new = here[label[here] < 0]
        label[new] = n + np.arange(len(new))
        before, n = here, n + len(new)
    return label


def with_laptrack(case: Case, gate_px: float) -> np.ndarray:
    """Two-step linear assignment with gaps of up to five tilts (Jaqaman et al. 2008)."""
    table = pd.DataFrame({"x": case.seen.xy[:, 0], "y": case.seen.xy[:, 1], "frame": case.frame})
    table["row"] = np.arange(len(table))
    tracker = laptrack.LapTrack(cutoff=gate_px**2, gap_closing_cutoff=gate_px**2, gap_closing_max_frame_count=5)
    found, _, _ = tracker.predict_dataframe(table, ["x", "y"], only_coordinate_cols=False)
    label = np.full(len(table), -1)
    label[found["row"].to_numpy()] = found["track_id"].to_numpy()
    return label


def with_trackpy(case: Case, gate_px: float, memory: int) -> np.ndarray:
    """Nearest neighbours with a memory (Crocker and Grier 1996)."""
    table = pd.DataFrame({"x": case.seen.xy[:, 0], "y": case.seen.xy[:, 1], "frame": case.frame})
    found = trackpy.link(table, gate_px, memory=memory, adaptive_stop=0.5, adaptive_step=0.9)
    return found["particle"].reindex(table.index).to_numpy()


# Gates (px) on centroid series and on outlines: the best, or where wider ones gain nothing, by the IDF1, drift removed,
# on the start of the default series and on the true, spoilt outlines of "scene: demo"; what --tune tries again.
GATES = {"hungarian": (12, 8), "laptrack 5": (12, 8), "trackpy 5": (16, 8), "trackpy 20": (16, 8)}
TRIED = (3, 4, 6, 8, 12, 16)
PEERS: dict[str, Callable[[Case, float], np.ndarray]] = {
    "hungarian": hungarian,
    "laptrack 5": with_laptrack,
    "trackpy 5": partial(with_trackpy, memory=5),
    "trackpy 20": partial(with_trackpy, memory=20),
}


def without_drift(case: Case) -> Case:
    """The series with the voted shifts between neighbouring tilts taken out, for trackers that know of none."""
    xy, log_area, frame = case.seen.xy.copy(), np.log(case.seen.area), case.frame
    before = np.flatnonzero(frame == 0)
    reach = TrackConfig().drift_reach_px
    for t in range(1, len(case.alpha_deg)):
        here = np.flatnonzero(frame == t)
        shift = vote_shift(xy[before], xy[here], log_area[before], log_area[here], reach)
        xy[here] -= shift
        before = here if len(here) else before
    return replace(case, seen=replace(case.seen, xy=xy))


def methods(on_masks: bool) -> dict[str, Method]:
    """All trackers by the name that the table gives them."""
    out: dict[str, Method] = {"ours": ours}
    if on_masks:
        out["known identities"] = lambda case: case.particle
    for name, peer in PEERS.items():
        gated = partial(peer, gate_px=GATES[name][on_masks])
        out[name] = gated
        out[f"{name}, drift removed"] = lambda case, gated=gated: gated(without_drift(case))
    return out


def measure(method: Method, case: Case) -> dict[str, float]:
    """Scores and seconds of a tracker."""
    began = time.perf_counter()
    label = np.asarray(method(case))
    seconds = time.perf_counter() - began
    length = np.bincount(label[label >= 0], minlength=1)
    scores = tracking_scores(case.judge(np.where((label >= 0) & (length[label] >= SHORTEST), label, -1)))
    return {**{k: scores[k] for k in SCORES}, "seconds": seconds}


def centroids(settings: SightingSettings, seed: int) -> Case:
    """A centroid series; each detection shows its largest particle."""
    s = draw_sightings(settings, np.random.default_rng(seed))

    def judge(label: np.ndarray) -> list[Encounter]:
        return point_encounters(s.tilt, s.particle, s.xy, s.tilt, label, s.xy, REACH_PX)

    seen = Features(s.xy, s.area, s.covariance)
    return Case(seen, s.tilt, s.stated_deg, settings.shape, settings.tilt_axis_deg, judge, s.particle, s.descriptor)


def crossings(scene: Scene) -> Scene:
    """More particles on a wavy film, to higher tilts: they pass before one another."""
    film = scene.film.model_copy(update={"wrinkles": load_scene(Path("mixture"))[0].film.wrinkles})
    film = film.model_copy(update={"wrinkles": film.wrinkles.model_copy(update={"height_nm": 25.0})})
    crowd = scene.particles[0].model_copy(update={"count": 22, "size_nm": 20, "min_gap_nm": None})
    tilts = scene.tilts.model_copy(update={"start": -61.0, "stop": 61.0})
    return scene.model_copy(update={"film": film, "particles": [crowd], "tilts": tilts})


SCENES: dict[str, tuple[str, Callable[[Scene], Scene]]] = {
    "scene: demo": ("demo", lambda s: s),
    "scene: agglomerates": ("mixture", lambda s: s),
    "scene: crossings": ("demo", crossings),
    "scene: dropouts": ("demo", lambda s: s),  # outlines are taken away after segmentation
    "scene: low dose": ("lowdose", lambda s: s),
}


def rendered(name: str, seed: int, segmenter: Segmenter) -> dict[str, Case]:
    """Outlines of a scene: those that the segmenter finds, and the true ones spoilt."""
    file, change = SCENES[name]
    scene, cifs = load_scene(Path(file))
    scene = change(scene).model_copy(update={"seed": seed})
    series, rng = simulate(scene, cifs), np.random.default_rng(seed)
    parts = []
    for t in range(len(series)):
        found = segmenter.predict(series.images(t).by_name)
        parts.append(replace(found, tilt=np.full(len(found), t, "i4"), alpha_deg=series.stated_deg))
    axis = scene.stated.tilt_axis_deg
    axis = scene.instrument.tilt_axis_deg if axis is None else axis
    masks, truth = Masks.concatenate(parts), series.truth
    if name == "scene: dropouts":
        masks = _some(masks, ~_dropped(masks, rng))
    spoilt = replace(_spoilt(truth, rng), alpha_deg=series.stated_deg)
    return {f"{name}, {what}": outlines(m, truth, axis) for what, m in (("segmented", masks), ("true, spoilt", spoilt))}


def outlines(masks: Masks, truth: Truth, tilt_axis_deg: float) -> Case:
    """A series of outlines."""

    def judge(label: np.ndarray) -> list[Encounter]:
        rows = np.flatnonzero(label >= 0)
        return mask_encounters(masks, rows, label[rows], truth, np.ones(len(truth.alpha_deg), bool))

    return Case(
        features(masks), masks.tilt, masks.alpha_deg, masks.shape, tilt_axis_deg, judge, match_truth(masks, truth)[0]
    )


def _some(masks: Masks, keep: np.ndarray) -> Masks:
    rows = np.flatnonzero(keep)
    crops = tuple(masks.crops[i] for i in rows)
    return Masks(masks.shape, crops, masks.origin[rows], masks.tilt[rows], masks.score[rows], masks.alpha_deg)


def _dropped(masks: Masks, rng: np.random.Generator) -> np.ndarray:
    """Outlines to take away, (instance) bool: here and there one, and all within a spot of the field for some tilts."""
    xy, out = features(masks).xy, rng.random(len(masks)) < 0.08
    for _ in range(len(masks.alpha_deg) // 2):
        begin, length = rng.integers(len(masks.alpha_deg)), rng.geometric(1 / 6)
        spot = rng.uniform(0, 2 * field_centre(masks.shape))
        near = np.hypot(*(xy - spot).T) < 0.15 * max(masks.shape)
        out |= near & (masks.tilt >= begin) & (masks.tilt < begin + length)
    return out


def _spoilt(truth: Truth, rng: np.random.Generator) -> Masks:
    """True outlines moved by up to a pixel along x or y, some taken away, half of those that overlap much joined."""
    whole, gone = truth.masks, _dropped(truth.masks, rng)
    full, tilt = [], []
    for t in range(len(truth.alpha_deg)):
        frame = [whole.full(int(i)) for i in whole.at(t) if not gone[i]]
        while frame:
            mask, *frame = frame
            for other in [f for f in frame if (f & mask).sum() > 0.3 * min(f.sum(), mask.sum())]:
                if rng.random() < 0.5:
                    mask = mask | other
                    frame = [f for f in frame if f is not other]
            full.append(np.roll(mask, rng.integers(-1, 2), rng.integers(2)))
            tilt.append(t)
    return Masks.pack(np.array(full), np.array(tilt), np.ones(len(full)), truth.alpha_deg)


def compare(what: str, cases: list[Case], trackers: list[str], on_masks: bool) -> None:
    """One block of the table."""
    chosen = {k: m for k, m in methods(on_masks).items() if k.startswith(tuple(trackers))}
    for name, method in chosen.items():
        got = [measure(method, case) for case in cases]
        mean = {k: float(np.mean([g[k] for g in got])) for k in got[0]}
        figures = " ".join(f"{mean[k]:6.3f}" for k in ("idf1", "hota", "assa", "purity"))
        print(f"{what:28s} {name:28s} {figures} {mean['switches']:8.0f} {mean['seconds']:8.2f}", flush=True)


def speed(seeds: int) -> None:
    """Seconds of ours, and what the drift's removal alone takes."""
    small = PRESETS["default"]
    tilts = small.tilts.model_copy(update={"step": 120 / 999})
    large = small.model_copy(update={"tilts": tilts, "particles": 600, "shape": (890, 890)})
    for what, settings in (("300 tilts × 100", small), ("1000 tilts × 300", large)):
        for seed in range(seeds):
            case = centroids(settings, seed)
            began = time.process_time()
            got = measure(ours, case)
            spent = time.process_time() - began
            print(f"{what:20s} {len(case.tilt):7d} detections  {got['seconds']:6.1f} s  {spent:6.1f} s of processor  "
                  f"IDF1 {got['idf1']:.3f}", flush=True)  # fmt: skip


def tune(segmenter: Segmenter) -> None:
    """IDF1 of every peer at every gate, with the drift removed and not."""
    start = PRESETS["default"].tilts.model_copy(update={"stop": -40.0})  # where particles move fastest
    settings = PRESETS["default"].model_copy(update={"tilts": start})
    series = [centroids(settings, 0), rendered("scene: demo", 0, segmenter)["scene: demo, true, spoilt"]]
    for case in series:
        still = without_drift(case)
        for name, peer in PEERS.items():
            for what, given in (("", case), (", drift removed", still)):
                got = [measure(partial(peer, gate_px=g), given)["idf1"] for g in TRIED]
                table = " ".join(f"{g}: {v:.3f}" for g, v in zip(TRIED, got, strict=True))
                print(f"{name + what:28s} {table}", flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=[*PRESETS, *SCENES])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--model", default="unet")
    parser.add_argument("--trackers", nargs="+", default=["ours", "known", *PEERS])
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--tune", action="store_true")
    arguments = parser.parse_args()
    trackpy.quiet()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    model = arguments.model
    segmenter = open_segmenter(SegmentConfig(**({"weights": model} if Path(model).suffix else {"model": model})))
    if arguments.tune:
        return tune(segmenter)
    if arguments.speed:
        return speed(arguments.seeds)
    ours(centroids(PRESETS["coarse"], 0))  # compiled code is not part of the seconds
    print(f"{'series':28s} {'tracker':28s}   IDF1   HOTA   AssA purity switches  seconds")
    for name in arguments.names:
        seeds = range(arguments.seeds)
        if name in SCENES:
            drawn = [rendered(name, seed, segmenter) for seed in seeds]
            for what in drawn[0]:
                compare(what, [d[what] for d in drawn], arguments.trackers, on_masks=True)
        else:
            compare(name, [centroids(PRESETS[name], seed) for seed in seeds], arguments.trackers, on_masks=False)


if __name__ == "__main__":
    main()
