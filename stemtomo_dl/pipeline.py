"""The whole method on one page: each stage as read, call, write; `run_stages` in order."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stemtomo_dl import __version__
from stemtomo_dl.config import Experiment
from stemtomo_dl.errors import BadScan, InputError
from stemtomo_dl.extract import choose_probes, extract_tilt
from stemtomo_dl.learn.metrics import score_run
from stemtomo_dl.records import DiffractionSeries, Masks, TiltSeries, Tracks, VirtualImages
from stemtomo_dl.report import build_report, gather, summarise
from stemtomo_dl.segment import segment as segment_tilt
from stemtomo_dl.simulate.scene import load_scene
from stemtomo_dl.simulate.series import simulate as simulate_series
from stemtomo_dl.store import results
from stemtomo_dl.store.atomic import write_json, write_text
from stemtomo_dl.store.experiment import write_experiment
from stemtomo_dl.store.fingerprint import fingerprints
from stemtomo_dl.store.ledger import Ledger
from stemtomo_dl.store.partial import Partial, discard
from stemtomo_dl.store.series import open_series
from stemtomo_dl.store.truth import read_truth
from stemtomo_dl.track import track as link
from stemtomo_dl.virtual import beam_positions, find_bad_pixels, virtual_images


class Progress(Protocol):
    """Somebody who is told how far a stage is."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        """Enter a stage of ``total`` steps; the value is called after each."""
        ...


class Run:
    """A run on disk: its folder, its book, and the experiment that it is made from."""

    def __init__(self, folder: Path, ledger: Ledger, progress: Progress, skip_bad: bool) -> None:
        self.folder, self.ledger, self.progress = folder, ledger, progress
        self.skip_bad = skip_bad
        self.experiment = Experiment.model_validate(ledger.book["settings"])

    @cached_property
    def series(self) -> TiltSeries:
        """The raw scans, opened when a stage first asks for them."""
        return open_series(Path(self.ledger.book["experiment"]), self.skip_bad)[1]

    @property
    def alpha_deg(self) -> np.ndarray:
        """Stated tilt angles, NaN where a tilt has none."""
        return np.array([np.nan if a is None else a for a in self.ledger.book["alpha_deg"]])

    def per_tilt(self, stage: str, key: str, todo: list[int], work: Callable[[int], dict[str, np.ndarray]]) -> Partial:
        """Do a stage's work for every tilt that is not done; a bad tilt ends the run or, if asked for, is skipped."""
        partial = Partial(self.folder, stage, key)
        with self.progress.stage(stage, len(todo)) as advance:
            for tilt in todo:
                if not partial.has(tilt):
                    try:
                        partial.save(tilt, **work(tilt))
                    except BadScan as e:
                        if not self.skip_bad:
                            raise BadScan(f"{e}; or add --skip-bad to go on without tilt {tilt}") from e
                        self.ledger.skip([str(e)])
                advance()
        return partial


def start(experiment: Path, folder: Path, progress: Progress, *, skip_bad: bool = False, force: bool = False) -> Run:
    """Open a run for an experiment: a new one, or the one that lies there if it was made from the same.

    Raises
    ------
    InputError
        If the experiment or its scans are wrong, or the folder holds something else.
    """
    settings, series, skipped = open_series(experiment, skip_bad)
    origin = {
        "version": __version__,
        "experiment": str(experiment.resolve()),
        "settings": settings.model_dump(mode="json"),
        "alpha_deg": [None if math.isnan(a) else float(a) for a in series.alpha_deg],
        "scans": list(series.names),
        "inputs": fingerprints(experiment, settings, series),
        "seed": 0,
    }
    ledger = Ledger(folder, origin, force=force)
    ledger.skip(skipped)
    return Run(folder, ledger, progress, skip_bad)


def reopen(folder: Path, progress: Progress, *, skip_bad: bool = False) -> Run:
    """Open a run that exists, to do one of its stages."""
    ledger = Ledger(folder)
    return Run(folder, ledger, progress, skip_bad or bool(ledger.book["skipped"]))


# ------------------------------------------------------------------------------------------------ the stages


def images(run: Run, key: str) -> list[str]:
    """4D-STEM scans -> virtual images."""
    config = run.experiment.images
    bad = find_bad_pixels(run.series, config)
    scans = dict(run.series.good())

    def work(tilt: int) -> dict[str, np.ndarray]:
        v = virtual_images(scans[tilt], run.experiment.instrument, bad, config)
        return {
            "detectors": np.array(v.detectors),
            "images": v.images,
            "beam_px": v.beam_px,
            "mean_pattern": v.mean_pattern,
            "max_pattern": v.max_pattern,
        }

    partial = run.per_tilt("images", key, list(scans), work)

    def finished() -> Iterator[tuple[int, VirtualImages]]:
        for tilt in filter(partial.has, scans):
            arrays = {k: np.array(v) for k, v in partial.load(tilt).items()}
            yield tilt, VirtualImages(detectors=tuple(arrays.pop("detectors").tolist()), **arrays)

    results.write_images(run.folder / "images.h5", finished(), run.alpha_deg, bad)
    return ["images.h5"]


def segment(run: Run, key: str) -> list[str]:
    """Virtual images -> masks."""
    path = run.folder / "images.h5"
    alpha, good, _ = results.read_image_facts(path)

    def work(tilt: int) -> dict[str, np.ndarray]:
        found = segment_tilt(results.read_images(path, tilt), tilt, alpha, run.experiment.segment)
        full = np.array([found.full(i) for i in range(len(found))], bool).reshape(-1, *found.shape)
        return {"bits": np.packbits(full, axis=-1), "shape": np.array(found.shape), "score": found.score}

    tilts = [int(t) for t in np.flatnonzero(good)]
    partial = run.per_tilt("segment", key, tilts, work)
    parts = []
    for tilt in tilts:
        arrays = partial.load(tilt)
        full = np.unpackbits(arrays["bits"], axis=-1, count=int(arrays["shape"][1])).astype(bool)
        parts.append(Masks.pack(full, np.full(len(full), tilt), arrays["score"], alpha))
    results.write_masks(run.folder / "masks.h5", Masks.concatenate(parts))
    return ["masks.h5"]


def track(run: Run, key: str) -> list[str]:
    """Masks -> tracks and 3-D positions."""
    with run.progress.stage("track", 1) as advance:
        tracks = link(results.read_masks(run.folder / "masks.h5"), run.experiment.instrument, run.experiment.track)
        results.write_tracks(run.folder, tracks)
        advance()
    return ["tracks.csv", "particles.csv", "drift.csv"]


def extract(run: Run, key: str) -> list[str]:
    """Tracks and scans -> one diffraction series per particle."""
    config, path = run.experiment.extract, run.folder / "images.h5"
    masks, tracks = results.read_masks(run.folder / "masks.h5"), results.read_tracks(run.folder)
    _, good, bad = results.read_image_facts(path)
    center = np.array([bad.shape[1] // 2, bad.shape[0] // 2], float)
    scans = {i: s for i, s in run.series.good() if good[i]}

    def work(tilt: int) -> dict[str, np.ndarray]:
        here = np.flatnonzero(tracks.tilt == tilt)
        probes = choose_probes(masks, tracks.instance[here], tracks.track[here], tilt, config)
        beam = beam_positions(results.read_images(path, tilt).beam_px, masks.shape)
        p = extract_tilt(scans[tilt], probes, beam, bad, center, config)
        return {"track": p.track, "patterns": p.patterns, "measured": p.measured, "n_probes": p.n_probes}

    todo = [t for t in scans if (tracks.tilt == t).any()]
    partial = run.per_tilt("extract", key, todo, work)
    return _assemble_series(run, tracks, partial, center)


def _assemble_series(run: Run, tracks: Tracks, partial: Partial, center: np.ndarray) -> list[str]:
    """Turn the tilts' patterns into particles' series."""
    instrument = run.experiment.instrument
    dose = None
    if instrument.electrons_per_pattern is not None:
        dose = instrument.electrons_per_pattern / (10 * instrument.step_nm) ** 2
    written = []
    with run.progress.stage("write", len(tracks.particle)) as advance:
        for k in tracks.particle:
            frames = []
            for tilt in np.sort(tracks.tilt[tracks.track == k]):
                if partial.has(tilt):
                    arrays = partial.load(tilt)
                    at = int(np.flatnonzero(arrays["track"] == k)[0])
                    frames.append((tilt, *(arrays[n][at] for n in ("patterns", "measured", "n_probes"))))
            advance()
            if not frames:
                continue
            tilt, patterns, measured, n = (np.array(c) for c in zip(*frames, strict=True))
            name = f"particles/p{k:04d}/series.h5"
            results.write_series(
                run.folder / name,
                DiffractionSeries(
                    instrument,
                    patterns,
                    measured,
                    run.alpha_deg[tilt],
                    tilt.astype("i4"),
                    n.astype("i4"),
                    center,
                    None if dose is None else np.full(len(tilt), dose),
                ),
            )
            written.append(name)
    for old in (run.folder / "particles").glob("p*"):  # of an earlier tracking
        if f"particles/{old.name}/series.h5" not in written:
            shutil.rmtree(old)
    return written


def report(run: Run, key: str) -> list[str]:
    """Everything -> summary.json for a program, report.html for a person."""
    with run.progress.stage("report", 2) as advance:
        facts = gather(run.folder)
        write_json(run.folder / "summary.json", summarise(facts))
        advance()
        write_text(run.folder / "report.html", build_report(facts))
        advance()
    return ["summary.json", "report.html"]


STAGES: dict[str, Callable[[Run, str], list[str]]] = {
    "images": images,
    "segment": segment,
    "track": track,
    "extract": extract,
    "report": report,
}
_READS: dict[str, list[str]] = {  # beside the settings and the raw scans
    "images": [],
    "segment": ["images.h5"],
    "track": ["masks.h5"],
    "extract": ["images.h5", "masks.h5", "tracks.csv"],
    "report": ["images.h5", "masks.h5", "tracks.csv", "particles.csv"],
}


def do_stage(run: Run, name: str, *, again: bool = False) -> bool:
    """Do one stage unless it is fresh; True if it was done."""
    book = run.ledger.book
    settings = [book["settings"].get(name), run.experiment.instrument.__dict__, book["inputs"]]
    key = run.ledger.key(settings, _READS[name])
    if run.ledger.fresh(name, key) and not again:
        discard(run.folder, name)  # a kill between the stage's end and its tidying leaves them
        return False
    began = time.perf_counter()
    outputs = STAGES[name](run, key)
    run.ledger.done(name, key, time.perf_counter() - began, outputs)
    discard(run.folder, name)
    return True


def run_stages(run: Run, until: str = "report") -> list[str]:
    """Do all stages up to one, in order, leaving alone those that are fresh; the names of those done."""
    names = list(STAGES)
    return [n for n in names[: names.index(until) + 1] if do_stage(run, n)]


# -------------------------------------------------------------------------------------------- known answers


def simulate(scene: str, folder: Path, progress: Progress) -> int:
    """Write a synthetic experiment with its truth; the number of its scans.

    Parameters
    ----------
    scene : str
        Path of a scene file, or the name of one that comes with the package.
    """
    described, cifs = load_scene(Path(scene))
    series = simulate_series(described, cifs)
    experiment = described.experiment(series.elements)
    origin = {"version": __version__, **described.model_dump(mode="json")}
    with progress.stage("simulate", len(series)) as advance:
        write_experiment(
            folder,
            experiment,
            series.truth,
            series.stated_deg,
            series.rows,
            series.shape,
            origin,
            cifs,
            advance=advance,
        )
    return len(series)


def evaluate(folder: Path, truth: Path) -> dict[str, Any]:
    """Scores of a run's masks and tracks against a truth."""
    known = read_truth(truth)
    _, good, _ = results.read_image_facts(folder / "images.h5")
    if len(good) != len(known.alpha_deg):
        raise InputError(
            f"{truth}: has {len(known.alpha_deg)} tilts, {folder} has {len(good)}; they do not belong together"
        )
    return score_run(results.read_masks(folder / "masks.h5"), results.read_tracks(folder), known, good)
