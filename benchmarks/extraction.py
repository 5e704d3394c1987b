"""Extracted patterns against those of each particle by itself, from the same simulated scene.

    python benchmarks/extraction.py SCENE [TILT …]

A particle's true pattern is rendered without film, neighbours and descan, at forty times the electrons, and averaged
over its true outline. Patterns are compared beyond the direct beam, less their ring means. An extracted pattern is
fitted by its own true one and those of the particles that overlap it: `contamination` is the norm of what the
neighbours contribute over that of its own, `signal_to_noise` the norm of its own over that of the rest, `correlation`
that with its own. Prints medians for each method and share of an outline that other outlines cover, as JSON lines.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stemtomo_dl.config import ExtractConfig
from stemtomo_dl.extract import combine, extract_tilt
from stemtomo_dl.extract.bragg import Region
from stemtomo_dl.extract.separate import Combination
from stemtomo_dl.records import Instrument, Masks, Tile
from stemtomo_dl.simulate.distortion import Descan
from stemtomo_dl.simulate.mixture import View
from stemtomo_dl.simulate.scene import load_scene
from stemtomo_dl.simulate.series import Series, simulate
from stemtomo_dl.virtual import beam_positions, virtual_images

BRIGHTER = 40
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


def tilt_scores(series: Series, tilt: int, instrument: Instrument) -> list[tuple[str, str, tuple[float, float, float]]]:
    """Method, class of coverage and scores of every particle at one tilt, with the true outlines."""
    config, masks, here = ExtractConfig(), series.truth.masks, series.truth.masks.at(tilt)
    bad = series.listed_pixels | series.blind_pixels
    scan = InMemory(series.scan(tilt))
    images = virtual_images(scan, instrument, bad, series.scene.experiment([]).images)
    beam = beam_positions(images.beam_px, masks.shape)
    centre = np.round(beam[masks.shape[0] // 2, masks.shape[1] // 2])
    still, true = np.broadcast_to(centre, beam.shape), {}
    for i in here:
        lone = InMemory(Alone.of(series, int(series.truth.particle[i]), centre).scan(tilt) / np.float32(BRIGHTER))
        under = [plain(np.flatnonzero(masks.full(i)))]
        true[i] = extract_tilt(lone, here[:1], under, still, bad, centre, instrument, config).patterns[0]
    full = {i: masks.full(i) for i in here}
    region, out = Region(centre, bad.shape, instrument), []
    for name, wanted in methods(masks, here, combine(masks, here, here, images, config)).items():
        found = extract_tilt(scan, here, wanted, beam, bad, centre, instrument, config)
        for k, i in enumerate(here):
            near = [j for j in here if j != i and (full[i] & full[j]).any()]
            covered = np.any([full[j] for j in near], axis=0) if near else np.zeros(masks.shape, bool)
            share = (covered & full[i]).sum() / full[i].sum()
            label = next(text for most, text in SHARES if share <= most)
            use = region.beyond & ~bad & found.measured[k]
            out.append(
                (name, label, scores(found.patterns[k], np.stack([true[i], *(true[j] for j in near)]), region, use))
            )
    return out


def main() -> None:
    """Compare."""
    scene, cifs = load_scene(Path(sys.argv[1]))
    series = simulate(scene, cifs)
    instrument = scene.experiment([]).instrument
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for tilt in [int(a) for a in sys.argv[2:]] or range(len(series)):
        for method, label, values in tilt_scores(series, tilt, instrument):
            found[method, label].append(values)
    for (method, label), values in found.items():
        names = ("correlation", "contamination", "signal_to_noise")
        medians = dict(zip(names, np.median(values, axis=0).round(3).tolist(), strict=True))
        print(json.dumps({"method": method, "outline": label, "n": len(values), **medians}), flush=True)


if __name__ == "__main__":
    main()
