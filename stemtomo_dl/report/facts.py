"""What a report is made from: the run's records, read once, and the few figures that several sections need."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.config import Experiment
from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.records import SOURCES, Masks, Tracks
from stemtomo_dl.report.chart import span
from stemtomo_dl.report.crystals import Crystallography, gather_crystals
from stemtomo_dl.store import results
from stemtomo_dl.store.linked import read_linked

# an outline further than all three from its predicted place has jumped: px, its radii, and the noise
JUMP_PX, JUMP_RADII, JUMP_SIGMAS = 1.5, 0.4, 4.0
MOVING_PX, MOVING_SIGMAS = 2.0, 4.0  # a particle that moves on the stage by more than both moves by itself
FITTED_DEG = 1e-3  # no error of a tilt angle is smaller: files have four decimals


@dataclass(frozen=True, eq=False)
class Facts:
    """A run's records except its images and patterns, which are read as they are drawn."""

    folder: Path
    experiment: Experiment
    version: str
    skipped: tuple[str, ...]
    names: tuple[str, ...]  # of the scans, by tilt
    alpha_deg: np.ndarray
    good: np.ndarray
    bad_pixels: np.ndarray
    beam_hidden: np.ndarray  # (tilt) bool
    masks: Masks
    tracks: Tracks
    extraction: dict[str, Any] | None = None  # what run.json says of it
    crystals: Crystallography = field(default_factory=Crystallography)
    notes: tuple[str, ...] = ()  # on the input, as run.json has them

    @property
    def n_tilts(self) -> int:
        """Tilts given, whether or not they could be used."""
        return len(self.alpha_deg)

    def sightings(self, track: int) -> np.ndarray:
        """Rows of `Tracks` that show a particle, in the order of the tilt angle."""
        rows = np.flatnonzero(self.tracks.track == track)
        return rows[np.argsort(self.tracks.alpha_deg[self.tracks.tilt[rows]], kind="stable")]

    @cached_property
    def place(self) -> np.ndarray:
        """(sighting) which of the particles each row of `Tracks` shows, counted from 0."""
        return np.searchsorted(self.tracks.particle, self.tracks.track)

    @cached_property
    def angles(self) -> tuple[float, float]:
        """Limits of every chart against the tilt angle."""
        return span(self.alpha_deg, 4.0, 0.03)

    @cached_property
    def axis_deg(self) -> float:
        """The tilt axis as refined, else as stated."""
        refined = self.tracks.tilt_axis_deg
        return refined if np.isfinite(refined) else self.experiment.stage.tilt_axis_deg

    @cached_property
    def coverage(self) -> dict[int, float]:
        """Share of the usable tilts at which each particle was seen; a computed outline is not a sighting."""
        seen = self.tracks.source != SOURCES.index("projected")
        n = np.bincount(self.place[seen], minlength=len(self.tracks.particle))
        usable = max(int(self.good.sum()), 1)
        return {int(k): int(c) / usable for k, c in zip(self.tracks.particle, n, strict=True)}

    @cached_property
    def found(self) -> np.ndarray:
        """(instance) bool: an outline that the segmenter found unasked."""
        return np.ones(len(self.masks), bool) if self.masks.source is None else self.masks.source == 0

    @cached_property
    def stray(self) -> np.ndarray:
        """(instance) bool: a found outline on which no sighting rests."""
        used = np.concatenate([self.tracks.instance, self.tracks.detected])
        return self.found & ~np.isin(np.arange(len(self.masks)), used)

    @cached_property
    def cut(self) -> np.ndarray:
        """(instance) bool: the outline reaches the scan's border, so part of the particle may lie outside."""
        out = np.zeros(len(self.masks), bool)
        height, width = self.masks.shape
        for i in range(len(self.masks)):
            y, x = self.masks.window(i)
            out[i] = y.start == 0 or x.start == 0 or y.stop == height or x.stop == width
        return out

    @cached_property
    def predicted_px(self) -> np.ndarray:
        """(particle, tilt, 2) x, y where the tracker expects each particle.

        Where its files do not say, a rigid sample turned by the stage and shifted by the drift, as the contract has
        it.
        """
        t = self.tracks
        rotation = tilt_rotation(self.axis_deg, t.alpha_deg + t.alpha_offset_deg)[:, :2]
        rigid = np.einsum("tij,pj->pti", rotation, t.position_nm) / self.experiment.scan.step_nm
        rigid += field_centre(self.masks.shape) + t.drift_px
        return np.where(np.isfinite(t.predicted_px), t.predicted_px, rigid)

    @cached_property
    def misfit_px(self) -> np.ndarray:
        """(sighting) distance of each outline's centre from its particle's predicted place."""
        t = self.tracks
        off = np.stack([t.x_px, t.y_px], -1) - self.predicted_px[self.place, t.tilt]
        return np.where(np.isfinite(t.misfit_px), t.misfit_px, np.hypot(off[:, 0], off[:, 1]))

    @cached_property
    def jumps(self) -> np.ndarray:
        """(sighting) bool: far from the particle's predicted place, in pixels, by its own size and by the noise."""
        radius, noise = np.sqrt(self.tracks.area_px / np.pi), np.nan_to_num(self.tracks.noise_px)
        limit = np.maximum(max(JUMP_PX, JUMP_SIGMAS * noise), JUMP_RADII * radius)
        return np.asarray(self.misfit_px > limit) & ~self.cut[self.tracks.instance]

    @cached_property
    def moving(self) -> np.ndarray:
        """(particle) bool: moves on the stage by itself."""
        noise = np.nan_to_num(self.tracks.noise_px)
        return np.asarray(self.tracks.own_motion_px > max(MOVING_PX, MOVING_SIGMAS * noise))

    @property
    def angles_fitted(self) -> bool:
        """Whether tilt angles differ from what was stated."""
        return bool((np.abs(self.tracks.alpha_offset_deg) > FITTED_DEG).any())

    @cached_property
    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (n, 2) of usable tilts next to each other by angle, and by how many px the field moves between."""
        usable = np.flatnonzero(self.good & np.isfinite(self.alpha_deg) & np.isfinite(self.tracks.drift_px).all(1))
        order = usable[np.argsort(self.alpha_deg[usable], kind="stable")]
        step = np.diff(self.tracks.drift_px[order], axis=0)
        return np.stack([order[:-1], order[1:]], -1), np.hypot(step[:, 0], step[:, 1])

    @property
    def jump_limit_px(self) -> float:
        """A step of the field that is longer is a jump."""
        return max(5.0, 0.05 * max(self.masks.shape))


def gather(folder: Path) -> Facts:
    """Read what a run's folder tells, except images and patterns.

    Parameters
    ----------
    folder : Path
        The run's folder; its stages up to tracking must be done.

    Raises
    ------
    InputError
        If a file of the stages up to tracking is missing or cannot be read.
    """
    book = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    experiment = Experiment.model_validate(book["settings"])
    alpha, good, bad = results.read_image_facts(folder / "images.h5")
    return Facts(
        folder,
        experiment,
        book["version"],
        tuple(f"tilt {s['tilt']} ({s['scan']}): {s['reason']}" for s in book["skipped"]),
        tuple(book["scans"]),
        alpha,
        good,
        bad,
        results.read_beam_hidden(folder / "images.h5"),
        *read_linked(folder),
        book.get("extraction"),
        gather_crystals(folder, book),
        tuple(book.get("notes", [])),
    )
