"""From the tilts' patterns to the particles' folders: what extraction leaves on disk."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.config import ExtractConfig
from stemtomo_dl.errors import InputError
from stemtomo_dl.extract import ellipse, fading
from stemtomo_dl.extract.dose import UNKNOWN
from stemtomo_dl.records import DiffractionSeries, Instrument, Tracks
from stemtomo_dl.run import Run
from stemtomo_dl.store import results
from stemtomo_dl.store.atomic import sha256
from stemtomo_dl.store.partial import Partial
from stemtomo_dl.store.particle_files import Files

_OURS = re.compile(r"particles/p(\d{4,})/series\.h5")
_PARTIAL_BYTES, _SERIES_BYTES = 9, 8  # per pixel: two f4 and a bool; two f4 (the bool is compressed)
_FIGURES = ("track", "n_probes", "separated", "bragg_signal", "purity")
MIXED = 0.9  # purity of a frame below which it shows more than one crystal
_PER_FRAME = ("patterns", "variance", "measured", "n_probes", "n_support", "separated", "bragg_signal", "purity")


def check_space(run: Run, tracks: Tracks, todo: list[int], key: str, detector: tuple[int, int]) -> None:
    """Raise `InputError` where the disk cannot hold the tilts' patterns and the particles' series beside them."""
    partial = Partial(run.folder, "extract", key)
    pixels, seen = detector[0] * detector[1], np.isin(tracks.tilt, todo)
    ahead = np.isin(tracks.tilt, [t for t in todo if not partial.has(t)])
    need = pixels * (int(ahead.sum()) * _PARTIAL_BYTES + int(seen.sum()) * _SERIES_BYTES)
    known = (run.folder / name for name in run.ledger.outputs("extract"))
    need -= sum(p.stat().st_size for p in known if p.exists())  # they are replaced one by one
    free = shutil.disk_usage(run.folder).free
    if need > free:
        raise InputError(
            f"{run.folder}: the patterns of {len(tracks.particle)} particles need {need / 1e9:.1f} GB while they are "
            f"extracted, {free / 1e9:.1f} GB are free; free the disk or choose another folder"
        )


def accumulated_dose(instrument: Instrument, tilt: np.ndarray) -> np.ndarray | None:
    """Dose (frame) in e/Å² that the sample has taken at the end of each of these scans; None where it is not known.

    Every scan of the series exposes all particles in view, also those that are left out of the run; the scans are
    taken to have been recorded in the order of the experiment file.
    """
    dose = instrument.dose_e_per_A2
    return None if dose is None else dose * (np.asarray(tilt) + 1.0)


def within_dose(instrument: Instrument, tilts: list[int], config: ExtractConfig) -> list[int]:
    """The tilts whose frames are wanted, by the dose that the sample has taken at their end.

    Raises
    ------
    InputError
        If there is a limit, and the dose is not known or no tilt is within it.
    """
    taken, most = accumulated_dose(instrument, np.array(tilts)), config.most_dose_e_per_A2
    if most is None:
        return tilts
    if taken is None:
        raise InputError(
            "[extract] most_dose_e_per_A2 needs the dose of a scan; give electrons_per_pattern, or current_pa and "
            "dwell_ms, in [beam]"
        )
    if tilts and taken.min() > most:
        raise InputError(
            f"[extract] most_dose_e_per_A2 = {most:g} leaves no tilt, the first ends at {taken.min():.3g} e/Å²; "
            "raise it"
        )
    return [t for t, d in zip(tilts, taken, strict=True) if d <= most]


def write_particles(run: Run, tracks: Tracks, partial: Partial, center_px: np.ndarray) -> list[str]:
    """Write every particle's series from the tilts' patterns, and remove our files of particles that are no more.

    Returns
    -------
    list of str
        The series that were written, by their place in the run.
    """
    here = {t: partial.array(t, "track").tolist() for t in np.unique(tracks.tilt).tolist() if partial.has(t)}
    tilts = {int(k): [t for t in _tilts(tracks, int(k)) if k in here.get(t, ())] for k in tracks.particle}
    written = {results.series_name(k): k for k, seen in tilts.items() if seen}
    before = run.ledger.outputs("extract")
    run.ledger.claim("extract", written)
    with run.progress.stage("write", len(written)) as advance:
        for name, k in written.items():
            rows = [(t, here[t].index(k)) for t in tilts[k]]
            _replace(run, name, k, _series(run, _refined(run, tracks), partial, rows, center_px))
            advance()
    for old in before:
        ours = _OURS.fullmatch(old)
        if ours and old not in written:
            _remove_derived(run, int(ours[1]))
            run.ledger.remove(old)
    return list(written)


def extraction_facts(tracks: Tracks, partial: Partial, run: Run) -> dict[str, Any]:
    """What extraction has found out, as run.json has it under "extraction"; null is what is not known.

    ``exposure_s`` is how long the beam stood on a particle over its frames; a frame is mixed where its purity is below
    `MIXED`.
    """
    tilts = [t for t in np.unique(tracks.tilt).tolist() if partial.has(t)]
    if not tilts:
        return {"particles": []}
    found = {n: np.concatenate([partial.array(t, n) for t in tilts]) for n in _FIGURES}
    tilt = np.repeat(tilts, [len(partial.array(t, "track")) for t in tilts])
    taken, dwell = accumulated_dose(run.experiment.instrument, tilt), run.experiment.beam.dwell_ms
    rows = [(int(k), np.flatnonzero(found["track"] == k)) for k in tracks.particle]
    total = found["bragg_signal"] * found["n_probes"]
    faded = UNKNOWN if taken is None else fading(total, taken, found["track"])
    shape = ellipse(np.stack([partial.array(t, "stretch") for t in tilts]))
    names = ("half_dose_e_per_A2", "half_dose_from_e_per_A2", "half_dose_to_e_per_A2")
    return {
        "camera_gain": _rounded(np.median([float(partial.array(t, "gain")) for t in tilts])),
        "ellipse": None if shape is None else {k: _rounded(v) for k, v in shape._asdict().items()},
        **{n: v if v is None else _rounded(v) for n, v in zip(names, faded, strict=True)},
        "particles": [
            {
                "track": k,
                "n_frames": len(r),
                "n_not_separated": int((~found["separated"][r]).sum()),
                "n_mixed": int((found["purity"][r] < MIXED).sum()),
                "purity": _rounded(np.median(known)) if len(known := _finite(found["purity"][r])) else None,
                "accumulated_dose_e_per_A2": None if taken is None else _rounded(taken[r].max()),
                "exposure_s": None if dwell is None else _rounded(found["n_probes"][r].sum() * dwell * 1e-3),
            }
            for k, r in rows
            if len(r)
        ],
    }


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _rounded(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.4g}")


def _tilts(tracks: Tracks, track: int) -> list[int]:
    return sorted(tracks.tilt[tracks.track == track].tolist())


def _refined(run: Run, tracks: Tracks) -> Instrument:
    """The instrument with the tilt axis that the tracks show, where they show one."""
    stated = run.experiment.instrument
    return replace(stated, tilt_axis_deg=tracks.tilt_axis_deg) if np.isfinite(tracks.tilt_axis_deg) else stated


def _series(
    run: Run, instrument: Instrument, partial: Partial, rows: list[tuple[int, int]], center_px: np.ndarray
) -> DiffractionSeries:
    """A particle's series from its row in the patterns of each of its tilts."""
    frames = {n: np.stack([partial.array(t, n)[row] for t, row in rows]) for n in _PER_FRAME}
    tilt = np.array([t for t, _ in rows], "i4")
    taken = accumulated_dose(instrument, tilt)
    return DiffractionSeries(
        instrument=instrument,
        **frames,
        alpha_deg=run.alpha_deg[tilt],
        tilt=tilt,
        center_px=center_px,
        dose_e_per_A2=None if taken is None else np.full(len(tilt), instrument.dose_e_per_A2),
        accumulated_dose_e_per_A2=taken,
    )


def _replace(run: Run, name: str, track: int, series: DiffractionSeries) -> None:
    """Write a series; if it is another than before, what was computed from that one is removed."""
    path = run.folder / name
    before = _digest(path)
    results.write_series(path, series)
    if before and before != _digest(path):
        _remove_derived(run, track)


def _digest(path: Path) -> str:
    return sha256(path) if path.exists() else ""


def _remove_derived(run: Run, track: int) -> None:
    """Remove what was computed from a particle's series: the files that later stages entered, and the contract's."""
    series = results.series_name(track)
    folder = series.rpartition("/")[0] + "/"
    entered = {o for stage in run.ledger.book["stages"] for o in run.ledger.outputs(stage) if o.startswith(folder)}
    for output in (entered | set(Files.of(track).derived)) - {series}:
        run.ledger.remove(output)
