"""A run's particles handed to other programs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.errors import InputError
from stemtomo_dl.export import FORMATS, Files
from stemtomo_dl.records import DiffractionSeries
from stemtomo_dl.run import Progress, Run, reopen
from stemtomo_dl.store import results
from stemtomo_dl.store.folder import write_folder
from stemtomo_dl.store.ledger import Ledger
from stemtomo_dl.store.linked import read_linked
from stemtomo_dl.store.shared_geometry import SharedGeometry
from stemtomo_dl.store.track_formats import WRITERS


def export_particles(folder: Path, formats: Sequence[str], particles: Sequence[int] | None, progress: Progress) -> int:
    """Write the series of particles in the formats of other programs, beside series.h5; how many particles.

    Where the run has been indexed, they state the tilt axis and the reciprocal pixel that all crystals together have
    refined: series.h5 has the tracker's axis, which outlines tell less well.

    Parameters
    ----------
    folder : Path
        The run's folder.
    formats : sequence of str
        Of `export.FORMATS`; each becomes a folder of that name.
    particles : sequence of int or None
        Tracks; None: all that have a series.

    Raises
    ------
    InputError
        If a format or a particle is not there, or the disk is full.
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown or not formats:
        what = f"no such format '{unknown[0]}'" if unknown else "no format named"
        raise InputError(f"--formats: {what}; choose from {', '.join(FORMATS)}")
    with reopen(folder, progress) as run:
        tracks = _tracks(run, particles)
        refined = _refined(run)
        began = time.perf_counter()
        with progress.stage("export", len(tracks) * len(formats)) as advance:
            for track in tracks:
                series = _with(refined, results.read_series(folder / results.series_name(track)))
                for name in formats:
                    place = f"{results.series_name(track).rpartition('/')[0]}/{name}"
                    files: Files = FORMATS[name](series, f"p{track:04d}")
                    run.ledger.claim("export", [f"{place}/{f}" for f in files])
                    write_folder(folder / place, files)
                    advance()
        run.ledger.done("export", "", time.perf_counter() - began, run.ledger.outputs("export"))
    return len(tracks)


def _refined(run: Run) -> Geometry | None:
    """The geometry that all crystals together have refined; None: nothing is indexed."""
    entry = run.ledger.book.get("indexing", {}).get("geometry")
    lattices = [o for o in run.ledger.outputs("index") if o.endswith("/crystal.json")]
    if not entry or not any((run.folder / o).exists() for o in lattices):
        return None
    return SharedGeometry.of(entry).geometry


def _with(geometry: Geometry | None, series: DiffractionSeries) -> DiffractionSeries:
    """A series from its file, where its axis is that on the detector, with axis and pixel of a geometry, if any."""
    if geometry is None:
        return series
    axis = geometry.instrument.tilt_axis_deg + geometry.instrument.rotation_deg
    pixel = series.instrument.pixel_inv_angstrom * geometry.scale
    return replace(series, instrument=replace(series.instrument, tilt_axis_deg=axis, pixel_inv_angstrom=pixel))


def _tracks(run: Run, asked: Sequence[int] | None) -> list[int]:
    """The tracks to write, each once."""
    there = [int(p.parent.name[1:]) for p in sorted(run.folder.glob("particles/p*/series.h5"))]
    if not there:
        raise InputError(f"{run.folder}: holds no particle's series; run 'stemtomo extract {run.folder}'")
    missing = [t for t in asked or () if t not in there]
    if missing:
        raise InputError(f"--particles: {run.folder} has no series of particle {missing[0]}; see particles.csv")
    return there if asked is None else sorted(set(asked))


def export_tracks(folder: Path, form: str) -> Path:
    """Write a run's tracks for another program; where they are.

    Raises
    ------
    InputError
        If the form is not known, the run has no tracks, or another process works on it.
    """
    if form not in WRITERS:
        raise InputError(f"--tracks {form}: no such form; choose one of {', '.join(WRITERS)}")
    ledger = Ledger(folder)
    try:
        return WRITERS[form](folder / "export", *read_linked(folder))
    finally:
        ledger.close()
