"""What a report is made from: the run's records, read once, and the few figures that several sections need."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from stemtomo_dl.config import Experiment
from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.records import Masks, Tracks
from stemtomo_dl.store import results
from stemtomo_dl.store.linked import read_linked

JUMP_PX, JUMP_RADII = 1.5, 0.4  # an outline further than both from its predicted place has jumped


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
    masks: Masks
    tracks: Tracks

    @property
    def n_tilts(self) -> int:
        """Tilts given, whether or not they could be used."""
        return len(self.alpha_deg)

    def sightings(self, track: int) -> np.ndarray:
        """Rows of `Tracks` that show a particle, in the order of the tilt angle."""
        rows = np.flatnonzero(self.tracks.track == track)
        return rows[np.argsort(self.tracks.alpha_deg[self.tracks.tilt[rows]], kind="stable")]

    @cached_property
    def coverage(self) -> dict[int, float]:
        """Share of the usable tilts at which each particle was seen."""
        usable = max(int(self.good.sum()), 1)
        return {int(k): len(self.sightings(int(k))) / usable for k in self.tracks.particle}

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
    def misfit_px(self) -> np.ndarray:
        """(sighting) distance of each outline's centre from where the rigid stage and the drift put its particle."""
        t, stage = self.tracks, self.experiment.instrument
        row = np.searchsorted(t.particle, t.track)
        rotation = tilt_rotation(stage.tilt_axis_deg, t.alpha_deg[t.tilt])
        seen = np.einsum("nij,nj->ni", rotation, t.position_nm[row])[:, :2] / stage.step_nm
        seen += field_centre(self.masks.shape) + t.drift_px[t.tilt]
        return np.asarray(np.hypot(t.x_px - seen[:, 0], t.y_px - seen[:, 1]))

    @cached_property
    def jumps(self) -> np.ndarray:
        """(sighting) bool: far from the particle's predicted place, in pixels and by the particle's own size."""
        radius = np.sqrt(self.tracks.area_px / np.pi)
        return np.asarray(self.misfit_px > np.maximum(JUMP_PX, JUMP_RADII * radius)) & ~self.cut[self.tracks.instance]


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
        *read_linked(folder),
    )
