"""What a training run shows of itself: examples with their outlines, and the curves."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib
import numpy as np

from stemtomo_dl.learn.examples import Example
from stemtomo_dl.records import Masks
from stemtomo_dl.store.atomic import writing

matplotlib.use("Agg")
_ACROSS, _MOST = 6, 24
_CURVES = (("train/loss", "train/heat", "train/box", "train/mask"), ("valid/ap", "valid/ap50", "valid/best_f1"))


def draw_examples(path: Path, examples: list[Example], found: list[Masks] | None = None) -> None:
    """A sheet of examples: true outlines in green (thin where they need not be found), found ones in magenta."""
    from matplotlib.figure import Figure

    shown = examples[:_MOST]
    rows = -(-len(shown) // _ACROSS)
    figure = Figure(figsize=(2.4 * _ACROSS, 2.4 * rows), layout="constrained")
    for n, (e, axes) in enumerate(zip(shown, figure.subplots(rows, _ACROSS, squeeze=False).flat, strict=False)):
        axes.imshow(_brightest(e.planes), cmap="gray", interpolation="nearest")
        for mask, counts in zip(e.masks, e.counts, strict=True):
            axes.contour(_framed(mask), [0.5], colors="lime", linewidths=0.8 if counts else 0.3, origin=None)
        for i in range(len(found[n]) if found else 0):
            assert found is not None
            axes.contour(_framed(found[n].full(i)), [0.5], colors="magenta", linewidths=0.6)
    for axes in figure.axes:
        axes.axis("off")
    with writing(path) as tmp:
        figure.savefig(tmp, dpi=110, format="png")


def draw_curves(path: Path, metrics: Path) -> None:
    """Losses and validation figures over the steps, from Lightning's metrics.csv."""
    from matplotlib.figure import Figure

    with metrics.open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for names, axes in zip(_CURVES, figure.subplots(1, 2), strict=True):
        for name in names:
            points = np.array([(float(r["step"]), float(r[name])) for r in rows if r.get(name)]).reshape(-1, 2)
            axes.plot(*points.T, label=name, linewidth=1)
        axes.set_xlabel("step")
        axes.legend(frameon=False)
    figure.axes[0].set_yscale("log")
    with writing(path) as tmp:
        figure.savefig(tmp, dpi=110, format="png")


def _brightest(planes: np.ndarray) -> np.ndarray:
    """The plane that shows most of a sample: the first that is there of adf, haadf, grey and the rest."""
    for k in (1, 2, 5, 0, 3, 4):
        if planes[k].any():
            return np.asarray(planes[k])
    return np.asarray(planes[0])


def _framed(mask: np.ndarray) -> np.ndarray:
    """A mask whose outline closes at the image's border."""
    mask = mask.astype(float)
    mask[[0, -1]] *= 0.4
    mask[:, [0, -1]] *= 0.4
    return mask
