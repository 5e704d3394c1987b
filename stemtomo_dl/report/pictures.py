"""One pass over images.h5: the series as compact pictures, the particles' surroundings, and the beam's path.

Pictures share one black and white point a detector over the whole series, so that a change in brightness is one.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from stemtomo_dl.records import VirtualImages
from stemtomo_dl.report import raster
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.store import results
from stemtomo_dl.virtual import beam_positions

_BUDGET, _LEAST = 7_000_000, 2_500_000  # bytes of all pictures of the series
_BYTES_AN_OUTLINE = 80  # what an outline takes away from that
_OUTLINES = 4_500_000  # bytes of all outlines; where they are more, tilts are left out
_PREFERRED = ("adf", "bf", "variance", "haadf", "maximum")
_CROP_SIDE = 160
_SAMPLE = 12  # tilts that contrast and size are judged by


@dataclass(frozen=True)
class Plan:
    """How the series is shown within the page's size: detectors, every how many tilts, and how finely."""

    detectors: tuple[str, ...]
    limits: dict[str, tuple[float, float]]
    step: int = 1
    side: int = 512  # longest side of a picture
    quality: int | None = None  # None: lossless

    def encode(self, images: VirtualImages, detector: str) -> bytes:
        """One picture."""
        values = raster.reduce_mean(raster.tone(detector, images[detector]), self.side)
        return raster.encode(raster.grey(values, self.limits[detector]), self.quality)


@dataclass(frozen=True)
class Crop:
    """Surroundings of a particle at one tilt: 8-bit pixels from scan pixel (x, y) on, each ``block`` wide and high."""

    pixels: np.ndarray
    x: int
    y: int
    block: int


@dataclass
class Pictures:
    """What the pass leaves; ``shown`` maps a detector to base64 pictures by tilt."""

    plan: Plan
    shown: dict[str, dict[int, str]]
    beam_px: np.ndarray  # (tilt, 2) column, row of the direct beam at the scan's centre
    crops: dict[tuple[int, int], Crop] = field(default_factory=dict)  # by track and tilt


def make_plan(facts: Facts, budget: int | None = None) -> Plan:
    """Fix the contrast, and show as much of the series as the budget allows: first less finely, then less of it.

    Parameters
    ----------
    facts : Facts
    budget : int, optional
        Bytes of all pictures; by default what keeps the page near 15 MB beside its outlines.
    """
    if budget is None:
        budget = max(_LEAST, _BUDGET - _BYTES_AN_OUTLINE * len(facts.masks))
    tilts = np.flatnonzero(facts.good)
    some = tilts[np.unique(np.linspace(0, len(tilts) - 1, min(_SAMPLE, len(tilts))).round().astype(int))]
    images = [results.read_images(facts.folder / "images.h5", int(t), sectors=False) for t in some]
    every = images[0].detectors
    best = tuple(sorted(every, key=lambda d: (_PREFERRED.index(d) if d in _PREFERRED else 99, d)))
    limits = {d: raster.limits(np.array([raster.tone(d, v[d]) for v in images])) for d in every}
    step = max(1, math.ceil(_BYTES_AN_OUTLINE * len(facts.masks) / _OUTLINES))
    ladder = [
        Plan(best, limits),
        Plan(best, limits, quality=85),
        Plan(best, limits, side=384, quality=65),
        Plan(best, limits, side=256, quality=60),
        Plan(best[:2], limits, side=256, quality=60),
        Plan(best[:1], limits, side=256, quality=50),
    ]
    for plan in ladder:
        sizes = [len(plan.encode(v, d)) for v in images for d in plan.detectors]
        total = float(np.mean(sizes)) * len(plan.detectors) * len(tilts) / step
        if total <= budget:
            return replace(plan, step=step)
    return Plan(best[:1], limits, step * math.ceil(total / budget), 256, 50)


def take_pictures(facts: Facts, plan: Plan, chosen: dict[int, list[int]], boxes: dict[int, int]) -> Pictures:
    """Read every tilt once.

    Parameters
    ----------
    facts : Facts
    plan : Plan
    chosen : dict
        Tilts at which each track's surroundings are wanted.
    boxes : dict
        Side of each track's surroundings, in pixels.
    """
    tilts = [int(t) for t in np.flatnonzero(facts.good)]
    centre = (facts.masks.shape[0] // 2, facts.masks.shape[1] // 2)
    out = Pictures(plan, {d: {} for d in plan.detectors}, np.full((facts.n_tilts, 2), np.nan))

    def work(tilt: int) -> tuple[np.ndarray, dict[str, bytes], dict[tuple[int, int], Crop]]:
        images = results.read_images(facts.folder / "images.h5", tilt, sectors=False)
        beam = beam_positions(images.beam_px, facts.masks.shape)[centre]
        shown = {d: plan.encode(images, d) for d in plan.detectors} if tilt % plan.step == 0 else {}
        tracks = [k for k, wanted in chosen.items() if tilt in wanted]
        return beam, shown, {(k, tilt): _crop(facts, images, plan, k, tilt, boxes[k]) for k in tracks}

    with ThreadPoolExecutor(2) as pool:  # encoding leaves the interpreter free
        for tilt, (beam, shown, crops) in zip(tilts, pool.map(work, tilts), strict=True):
            out.beam_px[tilt] = beam
            out.crops |= crops
            for detector, data in shown.items():
                out.shown[detector][tilt] = raster.base64_text(data)
    return out


def _crop(facts: Facts, images: VirtualImages, plan: Plan, track: int, tilt: int, side: int) -> Crop:
    """The best detector's picture about a particle, cut off where the scan ends."""
    t = facts.tracks
    at = np.flatnonzero((t.track == track) & (t.tilt == tilt))[0]
    x, y = box_corner(float(t.x_px[at]), float(t.y_px[at]), side)
    detector = plan.detectors[0]
    window = raster.tone(detector, images[detector])[max(y, 0) : y + side, max(x, 0) : x + side]
    block = raster.block(window, _CROP_SIDE)
    return Crop(raster.grey(raster.reduce_mean(window, _CROP_SIDE), plan.limits[detector]), max(x, 0), max(y, 0), block)


def box_corner(x_px: float, y_px: float, side: int) -> tuple[int, int]:
    """First pixel (x, y) of a square about a point; it may lie outside the scan."""
    return round(x_px - (side - 1) / 2), round(y_px - (side - 1) / 2)
