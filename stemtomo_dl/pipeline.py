"""The whole method on one page: each stage as read, call, write; `run_stages` in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from stemtomo_dl.crystals import index_particles, integrate_particles
from stemtomo_dl.errors import BadScan, InputError
from stemtomo_dl.freshness import forget, is_fresh, key_of
from stemtomo_dl.particles import check_space, extraction_facts, within_dose, write_particles
from stemtomo_dl.phases import merge_phases
from stemtomo_dl.records import Masks, VirtualImages
from stemtomo_dl.report import build_report, gather, summarise
from stemtomo_dl.run import Progress, Run, open_run
from stemtomo_dl.segment import open_segmenter, weights_of
from stemtomo_dl.store import results
from stemtomo_dl.store.atomic import write_json, write_text
from stemtomo_dl.store.linked import read_linked
from stemtomo_dl.store.partial import discard
from stemtomo_dl.store.tracks import Tables, stage_facts, write_tracks
from stemtomo_dl.structures import solve_phases
from stemtomo_dl.tilts import Outlined, image, outline, separate
from stemtomo_dl.track import Look, Prompt, Tracked, split, track_masks
from stemtomo_dl.virtual import (
    SECTORS,
    beam_positions,
    bragg,
    describe,
    find_bad_pixels,
    hidden_in_series,
    identity_check,
)


def images(run: Run, key: str) -> list[str]:
    """4D-STEM scans -> virtual images."""
    config = run.experiment.images
    scans = dict(run.series.good())
    try:
        bad = find_bad_pixels(run.series, config)
    except BadScan as e:
        raise InputError(f"{run.folder}: none of the {len(scans)} tilts could be read: {e}") from e

    hidden = hidden_in_series(run.series, bad, config)
    jobs = {t: (scan, run.experiment.instrument, bad, config, hidden) for t, scan in scans.items()}
    partial = run.per_tilt("images", key, jobs, image)

    def finished() -> Iterator[tuple[int, VirtualImages]]:
        for tilt in filter(partial.has, scans):
            arrays = {k: np.array(v) for k, v in partial.load(tilt).items()}
            arrays["sectors"] = arrays["sectors"].astype("f4")
            detectors, hidden = tuple(arrays.pop("detectors").tolist()), bool(arrays.pop("beam_hidden"))
            yield tilt, VirtualImages(detectors=detectors, beam_hidden=hidden, **arrays)

    results.write_images(run.folder / "images.h5", finished(), run.alpha_deg, bad)
    return ["images.h5"]


def segment(run: Run, key: str) -> list[str]:
    """Virtual images -> masks."""
    path = run.folder / "images.h5"
    alpha, good, _ = results.read_image_facts(path)
    if not good.any():
        raise InputError(f"{path}: holds no tilt; run 'stemtomo images {run.folder}'")

    config = run.experiment.segment
    weights = _weights(run)
    run.ledger.book["weights"] = weights and {"file": weights[0].name, "sha256": weights[1]}
    by_file = weights[0] if weights and config.weights is not None else None
    tilts = [int(t) for t in np.flatnonzero(good)]
    jobs = {t: (path, t, config, by_file, weights and weights[1]) for t in tilts}
    partial = run.per_tilt("segment", key, jobs, outline)
    parts = []
    for tilt in tilts:
        arrays = partial.load(tilt)
        full = np.unpackbits(arrays["bits"], axis=-1, count=int(arrays["shape"][1])).astype(bool)
        parts.append(Masks.pack(full, np.full(len(full), tilt), arrays["score"], alpha))
    results.write_masks(run.folder / "masks.h5", Masks.concatenate(parts))
    return ["masks.h5"]


def _weights(run: Run) -> tuple[Path, str] | None:
    """File and SHA-256 of the segmenter's weights; None of the classical one, which has none."""
    try:
        return weights_of(run.experiment.segment)
    except InputError as e:
        raise InputError(f'[segment] {e}; or state model = "classical"') from e


def track(run: Run, key: str) -> list[str]:
    """Masks -> tracks, 3-D positions; outlines where particles were missed or fused (appended to masks.h5)."""
    path, experiment = run.folder / "masks.h5", run.experiment
    stored = results.read_masks(path)
    masks = replace(stored.some(stored.found), source=None)
    _, good, _ = results.read_image_facts(run.folder / "images.h5")
    with run.progress.stage("track", 1) as advance:
        tracks, joined = track_masks(
            masks,
            experiment.instrument.tilt_axis_deg,
            experiment.instrument.step_nm,
            experiment.track,
            recorded=good,
            descriptor=_appearance(run, masks),
            prompt=_prompt(run),
        )
        if experiment.track.split_crystals:
            tracks, joined = split(Tracked(tracks, joined), _look(run), experiment.instrument.step_nm)
        seen = joined.some(tracks.instance)
        order = np.argsort(np.argsort(tracks.alpha_deg, kind="stable"))
        identity = identity_check(_appearance(run, seen), tracks.track, order[tracks.tilt])
        tracks = replace(tracks, identity=identity.astype("f4"))
        if len(joined) > len(masks) or len(stored) > len(masks):
            results.write_masks(path, joined)
        run.ledger.book["stage"] = stage_facts(tracks)
        write_tracks(Tables.of_run(run.folder), tracks)
        advance()
    return _TABLES


def _appearance(run: Run, masks: Masks) -> np.ndarray:
    """What the diffraction of each outline looks like, (instance, sector) f4; NaN rows where that is not known."""
    instrument, rows = run.experiment.instrument, np.full((len(masks), SECTORS), np.nan, "f4")
    for tilt in np.unique(masks.tilt):
        sectors = results.read_images(run.folder / "images.h5", int(tilt)).sectors
        if sectors is not None:
            here = masks.at(int(tilt))
            rows[here] = describe(sectors, masks.some(here), instrument.tilt_axis_deg + instrument.rotation_deg)
    return rows


def _look(run: Run) -> Look:
    """How a tilt's probes show crystals."""

    def look(tilt: int, free: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        sectors = results.read_images(run.folder / "images.h5", tilt).sectors
        return None if sectors is None else bragg(sectors, free)

    return look


def _prompt(run: Run) -> Prompt | None:
    """How the run's segmenter is asked for particles in boxes; None where it cannot be."""
    if weights_of(run.experiment.segment) is None:
        return None
    segmenter = open_segmenter(run.experiment.segment)

    def ask(tilt: int, boxes: np.ndarray) -> Masks:
        return segmenter.predict(results.read_images(run.folder / "images.h5", tilt).by_name, boxes)

    return ask


def extract(run: Run, key: str) -> list[str]:
    """Tracks and scans -> one diffraction series per particle."""
    config, path = run.experiment.extract, run.folder / "images.h5"
    masks, tracks = read_linked(run.folder)
    _, good, bad = results.read_image_facts(path)
    center = _middle_beam(results.read_beam(path)[good], masks.shape)
    instrument = run.experiment.instrument
    scans = {i: s for i, s in run.series.good() if good[i]}

    todo = [t for t in within_dose(instrument, list(scans), config) if (tracks.tilt == t).any()]
    check_space(run, tracks, todo, key, (bad.shape[0], bad.shape[1]))
    common = (bad, center, instrument, config)
    jobs = {t: (scans[t], path, t, Outlined.of(masks, tracks, t), *common) for t in todo}
    done = run.per_tilt("extract", key, jobs, separate)
    run.ledger.book["extraction"] = extraction_facts(tracks, done, run)
    return write_particles(run, tracks, done, center)


def _middle_beam(beam: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Whole detector pixel (column, row) where the beam of most tilts is, at the scan's centre."""
    at_centre = [beam_positions(b, shape)[shape[0] // 2, shape[1] // 2] for b in beam]
    return np.asarray(np.round(np.median(at_centre, axis=0)), float)


def integrate(run: Run, key: str) -> list[str]:
    """Particles' series and lattices -> their intensities, and the phases that they make together."""
    written, measured = integrate_particles(run, key)
    return written + merge_phases(run, measured)


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
    "index": index_particles,
    "integrate": integrate,
    "solve": solve_phases,
    "report": report,
}
_TABLES = ["tracks.csv", "particles.csv", "states.csv", "drift.csv"]


def start(experiment: Path, folder: Path, progress: Progress, *, skip_bad: bool = False, force: bool = False) -> Run:
    """Open a run for an experiment as `open_run` does.

    Where ``force`` takes a run over to other settings or data, stages that they do not touch keep their results;
    from the first that they touch on, results are removed, so that none stands beside what it was not made from.
    """
    run = open_run(experiment, folder, progress, skip_bad=skip_bad, force=force)
    try:
        if run.ledger.changed:
            names = list(STAGES)
            stale = next((i for i, n in enumerate(names) if not is_fresh(run, n)), len(names))
            forget(run, names[stale:])
    except BaseException:
        run.ledger.close()
        raise
    return run


def do_stage(run: Run, name: str, *, again: bool = False) -> bool:
    """Do one stage unless it is fresh; True if it was done."""
    if again and name in ("images", "extract"):
        _ = run.series  # before the key is taken: scans that could not be read before may be taken in
    key = key_of(run, name)
    if run.ledger.fresh(name, key) and not again:
        discard(run.folder, name)  # a kill between the stage's end and its tidying leaves them
        return False
    if name == "segment" and "track" in run.ledger.book["stages"]:
        run.ledger.claim("track", [])  # what it has added to masks.h5 is about to be lost
    began = time.perf_counter()
    outputs = STAGES[name](run, key)
    run.ledger.done(name, key, time.perf_counter() - began, outputs)
    discard(run.folder, name)
    return True


def run_stages(run: Run, until: str = "report") -> list[str]:
    """Do all stages up to one, in order, leaving alone those that are fresh; the names of those done."""
    names = list(STAGES)
    todo = names[: names.index(until) + 1]
    if "segment" in todo and "segment" not in run.ledger.book["stages"]:
        _weights(run)  # a segmenter that is not there is told now, and not when all images are made
    return [n for n in todo if do_stage(run, n)]
