"""Extracted patterns against those of each particle by itself, from the same simulated scene.

    python benchmarks/extraction.py SCENE [--masks true|classical|unet …] [--tilts TILT …]

A particle's true pattern is rendered without film, neighbours and descan, at forty times the electrons, and averaged
over its true outline. Patterns are compared beyond the direct beam, less their ring means. An extracted pattern is
fitted by its own true one and those of the particles that overlap it: `contamination` is the norm of what the
neighbours contribute over that of its own, `signal_to_noise` the norm of its own over that of the rest, `correlation`
that with its own; `dose_e_per_A2` is what the scan cost, `probes` how many patterns of the particle it bought. Prints
medians for each method and share of an outline that other outlines cover, as JSON lines; then, for the purity that
extraction gives each frame, how contaminated frames of low and high purity are. With outlines of a segmenter, those
that overlap a true one by half or more (intersection over union) are that particle's, the others are in the way.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stemtomo_dl.config import ExtractConfig, SegmentConfig
from stemtomo_dl.extract import combine, extract_tilt
from stemtomo_dl.extract.bragg import Region
from stemtomo_dl.extract.separate import Combination
from stemtomo_dl.particles import MIXED
from stemtomo_dl.records import Instrument, Masks, Tile, TiltPatterns, VirtualImages
from stemtomo_dl.segment import open_segmenter
from stemtomo_dl.segment.components import with_components
from stemtomo_dl.simulate.distortion import Descan
from stemtomo_dl.simulate.mixture import View
from stemtomo_dl.simulate.scene import load_scene
from stemtomo_dl.simulate.series import Series, simulate
from stemtomo_dl.virtual import beam_positions, virtual_images

BRIGHTER = 40
NAMES = ("correlation", "contamination", "signal_to_noise", "probes", "purity")
SHARES = ((0.0, "alone"), (0.5, "under half covered"), (0.95, "half to 95 % covered"), (1.0, "covered"))


@dataclass
class InMemory:
    """A scan in memory."""

    data: np.ndarray
    name: str = "simulated"

    def __post_init__(self) -> None:
        self.shape, self.dtype = self.data.shape, self.data.dtype

    def tiles(self, budget: int) -> list[Tile]:
        """One tile a row."""
        return [Tile(y, y + 1, 0, self.shape[1]) for y in range(self.shape[0])]

    def read(self, tile: Tile) -> np.ndarray:
        """Patterns of a tile."""
        return self.data[tile.window]


class Alone(Series):
    """A series with one particle and nothing else in view."""

    particle: int
    centre: np.ndarray

    @classmethod
    def of(cls, series: Series, particle: int, centre: np.ndarray) -> Alone:
        """The same series with this particle alone, its beam at ``centre`` throughout."""
        m = series.scene.instrument
        brighter = {"electrons_per_pattern": BRIGHTER * m.electrons, "current_pa": None, "dwell_ms": None}
        microscope = m.model_copy(update={**brighter, "descan": Descan()})
        scene = series.scene.model_copy(update={"instrument": microscope, "overlap": "sum"})
        alone = cls(scene, series.motion, series.cast, series.film, series.truth)
        object.__setattr__(alone, "particle", particle)
        object.__setattr__(alone, "centre", centre)
        return alone

    def _view(self, tilt: int) -> tuple[View, np.ndarray]:
        view, thickness = super()._view(tilt)
        keep = np.flatnonzero(view.particle == self.particle)
        kept = {"particle": view.particle[keep], "thickest": view.thickest[keep], "film_at": 0}
        kept["dose_e_per_A2"] = view.dose_e_per_A2 / BRIGHTER  # the brighter beam does no more damage
        return replace(view, **kept, center_px=self.centre), np.ascontiguousarray(thickness[keep])

    def _film(self, tilt: int) -> np.ndarray:
        return np.zeros(self.shape[:2])


def plain(probes: np.ndarray) -> Combination:
    """The mean over probes."""
    none = np.zeros(0, int)
    share = np.full(len(probes), 1 / len(probes))
    return Combination(probes, share, none, np.zeros(0), np.ones(len(probes), bool), none, True)


def methods(masks: Masks, here: np.ndarray, ours: list[Combination]) -> dict[str, list[Combination]]:
    """How others would sum, and how we do."""
    boxes, whole = [], np.arange(np.prod(masks.shape))
    for i in here:
        box = np.zeros(masks.shape, bool)
        box[masks.window(i)] = True
        boxes.append(plain(np.flatnonzero(box)))
    under = [plain(np.flatnonzero(masks.full(i))) for i in here]
    return {"whole field": [plain(whole)] * len(here), "box": boxes, "under the mask": under, "ours": ours}


def scores(found: np.ndarray, true: np.ndarray, region: Region, use: np.ndarray) -> tuple[float, float, float]:
    """Correlation, contamination and signal to noise of a pattern; ``true`` are its own and its neighbours'."""
    values = np.stack([region.excess(p, use)[use] for p in (found, *true)], 1).astype("f8")
    target, design = values[:, 0], values[:, 1:]
    share = np.linalg.lstsq(design, target, rcond=None)[0]
    size = np.abs(share) * np.linalg.norm(design, axis=0)
    rest = np.linalg.norm(target - design @ share)
    foreign = float(np.hypot.reduce(size[1:])) / size[0] if len(true) > 1 else 0.0
    return float(np.corrcoef(target, design[:, 0])[0, 1]), foreign, float(size[0] / rest)


def segmented(model: str, images: VirtualImages, series: Series, here: np.ndarray) -> tuple[Masks, np.ndarray]:
    """A segmenter's outlines, and which of them (particle) is each true one's, −1 for none."""
    found = open_segmenter(SegmentConfig(model=model)).predict(with_components(images))
    full = np.array([found.full(i) for i in range(len(found))], bool).reshape(len(found), -1)
    true = np.array([series.truth.masks.full(i) for i in here]).reshape(len(here), -1)
    common = true.astype("f4") @ full.T.astype("f4")
    agreed = common / np.maximum(true.sum(1)[:, None] + full.sum(1)[None] - common, 1)
    best = agreed.argmax(1) if len(found) else np.zeros(len(here), int)
    mutual = [len(found) and agreed[k, j] >= 0.5 and agreed[:, j].argmax() == k for k, j in enumerate(best)]
    return found, np.where(mutual, best, -1)


@dataclass
class Setting:
    """One tilt of a series: its scan, outlines, and what each particle alone would show."""

    series: Series
    instrument: Instrument
    images: VirtualImages
    scan: InMemory
    beam: np.ndarray
    centre: np.ndarray
    bad: np.ndarray
    here: np.ndarray

    @classmethod
    def of(cls, series: Series, tilt: int) -> Setting:
        """Record a tilt."""
        instrument = series.scene.experiment([]).instrument
        bad = series.listed_pixels | series.blind_pixels
        scan = InMemory(series.scan(tilt))
        images = virtual_images(scan, instrument, bad, series.scene.experiment([]).images)
        beam = beam_positions(images.beam_px, series.truth.masks.shape)
        centre = np.round(beam[beam.shape[0] // 2, beam.shape[1] // 2])
        return cls(series, instrument, images, scan, beam, centre, bad, series.truth.masks.at(tilt))

    def extract(self, scan: InMemory, wanted: list[Combination], beam: np.ndarray) -> TiltPatterns:
        """Patterns of these combinations."""
        numbers = np.arange(len(wanted))
        return extract_tilt(scan, numbers, wanted, beam, self.bad, self.centre, self.instrument, ExtractConfig())

    def true_patterns(self) -> dict[int, np.ndarray]:
        """What each particle by itself shows over its true outline."""
        masks, still = self.series.truth.masks, np.broadcast_to(self.centre, self.beam.shape)
        out = {}
        for i in self.here:
            alone = Alone.of(self.series, int(self.series.truth.particle[i]), self.centre)
            lone = InMemory(alone.scan(int(masks.tilt[i])) / np.float32(BRIGHTER))
            out[int(i)] = self.extract(lone, [plain(np.flatnonzero(masks.full(i)))], still).patterns[0]
        return out


def tilt_scores(setting: Setting, models: list[str]) -> list[tuple[str, str, str, tuple[float, ...]]]:
    """Outlines, method, class of coverage and scores of every particle at one tilt."""
    truth, here, true = setting.series.truth.masks, setting.here, setting.true_patterns()
    full = {int(i): truth.full(i) for i in here}
    region, out = Region(setting.centre, setting.bad.shape, setting.instrument), []
    for model in models:
        masks, which = truth, here
        if model != "true":
            masks, which = segmented(model, setting.images, setting.series, here)
        chosen = which >= 0
        instances, everyone = which[chosen], here if model == "true" else np.arange(len(masks))
        ours = combine(masks, instances, everyone, setting.images, ExtractConfig())
        for name, wanted in methods(masks, instances, ours).items():
            found = setting.extract(setting.scan, wanted, setting.beam)
            for k, i in enumerate(here[chosen].tolist()):
                near = [j for j in full if j != i and (full[i] & full[j]).any()]
                covered = np.any([full[j] for j in near], axis=0) if near else np.zeros(truth.shape, bool)
                label = next(text for most, text in SHARES if (covered & full[i]).sum() / full[i].sum() <= most)
                use = region.beyond & ~setting.bad & found.measured[k]
                values = scores(found.patterns[k], np.stack([true[i], *(true[j] for j in near)]), region, use)
                out.append((model, name, label, (*values, float(found.n_probes[k]), float(found.purity[k]))))
    return out


def purity_lines(rows: list[tuple[str, str, str, tuple[float, ...]]]) -> list[dict[str, object]]:
    """How contaminated frames are that purity calls mixed, and those that it calls pure."""
    out: list[dict[str, object]] = []
    for method in ("under the mask", "ours"):
        values = np.array([v for _, name, _, v in rows if name == method])
        for text, chosen in (("below", values[:, 4] < MIXED), ("above", values[:, 4] >= MIXED)):
            if chosen.any():
                low, middle, high = np.quantile(values[chosen, 1], (0.1, 0.5, 0.9)).round(3).tolist()
                spread = {"contamination_10": low, "contamination_50": middle, "contamination_90": high}
                out.append({"method": method, "purity": f"{text} {MIXED}", "n": int(chosen.sum()), **spread})
    return out


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description="extraction against particles by themselves")
    parser.add_argument("scene", type=Path)
    parser.add_argument("--tilts", type=int, nargs="+")
    parser.add_argument("--masks", nargs="+", default=["true"])
    asked = parser.parse_args()
    scene, cifs = load_scene(asked.scene)
    series = simulate(scene, cifs)
    dose = scene.experiment([]).instrument.dose_e_per_A2
    rows = [
        row for tilt in asked.tilts or range(len(series)) for row in tilt_scores(Setting.of(series, tilt), asked.masks)
    ]
    for key in dict.fromkeys(row[:3] for row in rows):
        values = np.array([row[3] for row in rows if row[:3] == key])
        known = {n: np.nanmedian(v) if np.isfinite(v).any() else None for n, v in zip(NAMES, values.T, strict=True)}
        rounded = {n: None if v is None else round(float(v), 3) for n, v in known.items()}
        named = dict(zip(("outlines", "method", "covered"), key, strict=True))
        print(json.dumps({**named, "n": len(values), **rounded, "dose_e_per_A2": dose}), flush=True)
    for line in purity_lines(rows):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
