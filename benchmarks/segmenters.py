"""Segmenters side by side: held-out scenes, scenes outside the training ranges, real images, seconds per image.

    python benchmarks/segmenters.py [MODEL_OR_FILE …] [--images N] [--real FOLDER]

A model is a name from `stemtomo weights list`, "classical", or a file of weights. FOLDER holds emps/ and
haadf-catalyst/. Prints one JSON line for every model and data set.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stemtomo_dl.config import SegmentConfig
from stemtomo_dl.learn.data import trial_fields
from stemtomo_dl.learn.detection import Case, by_class, compare, scores
from stemtomo_dl.learn.examples import LEAST_AREA, Shown
from stemtomo_dl.learn.own_images import own_images
from stemtomo_dl.learn.recipe import DataSettings
from stemtomo_dl.records import Masks
from stemtomo_dl.segment import Segmenter, open_segmenter
from stemtomo_dl.simulate.training import TrainingSettings, load_training
from stemtomo_dl.store.pictures import read_picture

Predict = Callable[[dict[str, np.ndarray]], Masks]
SEED = 20_261  # no recipe's


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


def judge(predict: Predict, fields: list[Shown]) -> tuple[list[Case], float]:
    """Cases, and the median of seconds per image."""
    cases, seconds = [], []
    for f in fields:
        began = time.perf_counter()
        found = predict(f.images)
        seconds.append(time.perf_counter() - began)
        cases.append(compare(found, np.arange(len(found)), f.masks, np.arange(len(f.masks)), f.counts, LEAST_AREA))
    return cases, float(np.median(seconds))


def box_recall(predict: Predict, folder: Path) -> dict[str, float]:
    """Share of the boxes (class cx cy w h, relative) that the box of an outline meets at IoU .5."""
    hits = found = there = 0
    began = time.perf_counter()
    pictures = sorted(folder.glob("*.jpg"))
    for path in pictures:
        image = read_picture(path)
        h, w = image.shape
        rows = np.loadtxt(path.with_suffix(".txt"), ndmin=2)[:, 1:] * [w, h, w, h]
        true = np.column_stack([rows[:, :2] - rows[:, 2:] / 2, rows[:, :2] + rows[:, 2:] / 2])
        masks = predict({"grey": image})
        corner = masks.origin[:, ::-1].astype(float)
        size = np.array([c.shape[::-1] for c in masks.crops], float).reshape(-1, 2)
        boxes = np.column_stack([corner, corner + size])
        low = np.maximum(true[:, None, :2], boxes[None, :, :2])
        high = np.minimum(true[:, None, 2:], boxes[None, :, 2:])
        common = np.clip(high - low, 0, None).prod(2)
        areas = (true[:, 2:] - true[:, :2]).prod(1)[:, None] + (boxes[:, 2:] - boxes[:, :2]).prod(1)[None] - common
        good = common / areas >= 0.5
        hits += int(good.any(1).sum()) if good.size else 0
        there += len(true)
        found += len(boxes)
    return {
        "recall": round(hits / max(there, 1), 3),
        "found": found,
        "true": there,
        "s_per_image": round((time.perf_counter() - began) / max(len(pictures), 1), 2),
    }


def figures(predict: Predict, fields: list[Shown]) -> dict[str, float | None]:
    """What the table shows of a data set."""
    cases, seconds = judge(predict, fields)
    every, apart = scores(cases), by_class(cases)["visibility"]
    return {
        "ap": every["ap"],
        "ap50": every["ap50"],
        "ap50_clear": apart["clear"]["ap50"],
        "ap50_overlapping": scores([c.within("visible", 0.0, 0.9) for c in cases])["ap50"],
        "best_f1": every["best_f1"],
        "pq": every["pq"],
        "s_per_image": round(seconds, 3),
    }


def segmenter(name: str) -> Segmenter:
    """By a name, or a file of weights."""
    return open_segmenter(SegmentConfig(weights=name, model="file") if Path(name).suffix else SegmentConfig(model=name))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=["classical", "unet"])
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--real", type=Path)
    arguments = parser.parse_args()
    scenes, data = load_training(), DataSettings(seed=SEED, micrographs=0.0)
    plain = DataSettings(seed=SEED, micrographs=1.0)
    sets = {
        "held out": trial_fields(data, scenes, arguments.images),
        "outside the ranges": trial_fields(data, outside(scenes), arguments.images),
        "plain micrographs": trial_fields(plain, scenes, arguments.images),
    }
    if arguments.real and (arguments.real / "emps").is_dir():
        sets["EMPS"] = [Shown(o.images, o.masks, o.counts) for o in own_images(arguments.real / "emps")]
    for name in arguments.models:
        predict = segmenter(name).predict
        for what, fields in sets.items():
            print(json.dumps({"model": Path(name).name, "on": what, **figures(predict, fields)}), flush=True)
        if arguments.real and (arguments.real / "haadf-catalyst").is_dir():
            boxes = box_recall(predict, arguments.real / "haadf-catalyst")
            print(json.dumps({"model": Path(name).name, "on": "HAADF catalysts", **boxes}), flush=True)


if __name__ == "__main__":
    main()
