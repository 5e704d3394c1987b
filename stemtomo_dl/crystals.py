"""A run's particles, series by series: their lattices with the geometry that they share, and their intensities."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.crystal.goniometer import Geometry, placed
from stemtomo_dl.crystal.index import LEAST_OF_CELL, index_as
from stemtomo_dl.crystal.joint import refine_jointly, with_camera_length, with_free_cells
from stemtomo_dl.crystal.nouns import Crystal, Reflections
from stemtomo_dl.crystal.siblings import astray, attested
from stemtomo_dl.crystal.stretch import with_one_cell
from stemtomo_dl.crystal.twin_law import twin_laws
from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import wavelength
from stemtomo_dl.reduction import Indexed, SeriesSpots, extent, find_lattices, measure, not_enough
from stemtomo_dl.run import Run
from stemtomo_dl.store.cif_pets import write_cif_pets
from stemtomo_dl.store.partial import discard
from stemtomo_dl.store.particle_files import Files
from stemtomo_dl.store.record_h5 import read_record, write_record
from stemtomo_dl.store.reflections import (
    crystal_entry,
    crystal_of,
    read_crystals,
    write_crystals,
    write_hkl,
    write_ins,
)
from stemtomo_dl.store.shared_geometry import SharedGeometry

_MANY = 10  # particles of few spots: less is done before other processes have started
_AS_WELL = 0.95  # of the spots that a lattice explained
_HEAVY_BYTES = 24 << 20  # of all series together: less is done before other processes have started


def series_tracks(run: Run) -> list[int]:
    """Tracks whose series extraction has left.

    Raises
    ------
    InputError
        If extraction has not been done.
    """
    if "extract" not in run.ledger.book["stages"]:
        raise InputError(f"{run.folder}: holds no particle's series; run 'stemtomo extract {run.folder}'")
    return sorted(int(Path(o).parent.name[1:]) for o in run.ledger.outputs("extract") if (run.folder / o).exists())


def crystal_tracks(run: Run) -> list[int]:
    """Tracks that have a lattice and are not integrated because they have one.

    Raises
    ------
    InputError
        If indexing has not been done.
    """
    if not run.ledger.book["stages"].get("index", {}).get("key"):
        raise InputError(f"{run.folder}: its particles are not indexed; run 'stemtomo index {run.folder}'")
    return [k for k in series_tracks(run) if (run.folder / Files.of(k).crystal).exists()]


def index_particles(run: Run, key: str) -> list[str]:
    """Find spots and lattices of every particle, refine what all share, and write spots.h5 and crystal.json.

    Returns
    -------
    list of str
        The files written, by their place in the run. A particle without a lattice has no crystal.json, nor what was
        computed from an earlier one.
    """
    tracks, files = series_tracks(run), {k: Files.of(k) for k in series_tracks(run)}
    before = run.ledger.outputs("index")
    run.ledger.claim("index", [n for f in files.values() for n in (f.spots, f.crystal)])

    def keep(k: int, found: Indexed) -> dict[str, np.ndarray]:
        write_record(run.folder / files[k].spots, found.seen)
        return {"crystals": np.array(json.dumps([crystal_entry(c) for c in found.crystals]))}

    rotation = run.experiment.instrument.rotation_deg
    jobs = {k: (run.folder / files[k].series, rotation) for k in tracks}
    partial, failed = run.per_particle("index", key, jobs, find_lattices, keep, heavy=_heavy(run, tracks))
    done = [k for k in tracks if k not in failed]
    seen = {k: read_record(run.folder / files[k].spots, SeriesSpots) for k in done}
    found = {k: [crystal_of(e) for e in json.loads(str(partial.array(k, "crystals")))] for k in done}
    found = {k: crystals for k, crystals in found.items() if crystals}
    found |= _by_siblings(run, key, {k: seen[k] for k in done if k not in found}, [c[0] for c in found.values()])
    found = {k: found[k] for k in done if k in found}
    found |= _recentred(run, key, seen, found)
    shared, found = _refine_shared({k: seen[k] for k in found}, found)
    notes = failed | {k: not_enough(seen[k].spots) for k in done if k not in found}
    notes |= {k: law for k, crystals in found.items() if (law := twin_laws(crystals))}
    written = [files[k].spots for k in done]
    for k in tracks:
        written += _enter_crystals(run, files[k], found.get(k, []))
    run.ledger.book["indexing"] = {
        "geometry": shared and shared.entry(),
        "particles": [
            {"track": k, "n_spots": len(seen[k].spots) if k in seen else None, "note": notes.get(k)} for k in tracks
        ],
    }
    _remove(run, set(before) | {files[k].spots for k in failed}, written)
    return written


def _by_siblings(
    run: Run, key: str, left: Mapping[int, SeriesSpots], found: Sequence[Crystal]
) -> dict[int, list[Crystal]]:
    """Lattices of particles that show too few spots to find one, of those that others of the run have."""
    left = {k: s for k, s in left.items() if len(s.spots) >= LEAST_OF_CELL}
    siblings, name = attested(found), "index-siblings"
    if not siblings or not left:
        return {}
    axis = float(np.median([c.tilt_axis_deg for c in found]))
    jobs = {k: (s.spots, replace(s.instrument, tilt_axis_deg=axis), s.alpha_deg, siblings) for k, s in left.items()}

    def keep(_: int, crystal: Crystal | None) -> dict[str, np.ndarray]:
        return {"crystals": np.array(json.dumps([] if crystal is None else [crystal_entry(crystal)]))}

    partial, failed = run.per_particle(name, key, jobs, index_as, keep, heavy=len(jobs) > _MANY)
    told = {k: [crystal_of(e) for e in json.loads(str(partial.array(k, "crystals")))] for k in jobs if k not in failed}
    discard(run.folder, name)
    return {k: crystals for k, crystals in told.items() if crystals}


def _recentred(
    run: Run, key: str, seen: Mapping[int, SeriesSpots], found: Mapping[int, list[Crystal]]
) -> dict[int, list[Crystal]]:
    """Particles that have the beam elsewhere than most, where another's lattice fits as well about the others' beam."""
    middle, tracks = astray({k: crystals[0] for k, crystals in found.items()})
    left = {
        k: replace(seen[k], spots=replace(seen[k].spots, center_px=seen[k].spots.center_px + middle)) for k in tracks
    }
    again = _by_siblings(run, key, left, [crystals[0] for k, crystals in found.items() if k not in tracks])
    return {
        k: [replace(one, center_shift_px=one.center_shift_px + middle)]
        for k, (one,) in again.items()
        if one.n_indexed >= _AS_WELL * found[k][0].n_indexed
    }


def _refine_shared(
    seen: Mapping[int, SeriesSpots], found: Mapping[int, list[Crystal]]
) -> tuple[SharedGeometry | None, dict[int, list[Crystal]]]:
    """Refine what all particles share together with their strongest lattices; the others stay as they are."""
    if not found:
        return None, {}
    tilts = np.unique(np.concatenate([s.tilt for s in seen.values()]))
    alpha = np.zeros(len(tilts))
    for s in seen.values():
        alpha[np.searchsorted(tilts, s.tilt)] = s.alpha_deg
    start = Geometry(next(iter(seen.values())).instrument, alpha)
    spots = [placed(s.spots, np.searchsorted(tilts, s.tilt), len(tilts)) for s in seen.values()]
    geometry, first = with_one_cell(spots, *refine_jointly(spots, [found[k][0] for k in seen], start))
    geometry, first = with_camera_length(spots, geometry, first)
    first = with_free_cells(spots, geometry, first)
    others = {k: [c.rescaled(geometry.scale) for c in found[k][1:]] for k in seen}
    return SharedGeometry(tilts, geometry), {k: [c, *others[k]] for k, c in zip(seen, first, strict=True)}


def _enter_crystals(run: Run, files: Files, crystals: list[Crystal]) -> list[str]:
    """Write a particle's crystal.json; where it is another than before, what was measured by that one is removed."""
    path = run.folder / files.crystal
    before = path.read_bytes() if path.exists() else b""
    if crystals:
        write_crystals(path, crystals)
    else:
        run.ledger.remove(files.crystal)
    if before != (path.read_bytes() if crystals else b""):
        for name in files.integrated:
            run.ledger.remove(name)
    return [files.crystal] if crystals else []


def integrate_particles(run: Run, key: str) -> tuple[list[str], dict[int, tuple[Crystal, Reflections]]]:
    """Measure the intensities of every indexed particle, and write reflections.h5, .hkl, .ins and .cif_pets.

    Returns
    -------
    list of str
        The files written, by their place in the run.
    dict
        Crystal and reflections by track.
    """
    tracks = crystal_tracks(run)
    files = {k: Files.of(k) for k in tracks}
    before = [n for n in run.ledger.outputs("integrate") if n.startswith("particles/")]
    run.ledger.claim("integrate", [n for f in files.values() for n in f.integrated])
    elements, voltage = run.experiment.sample.elements, run.experiment.beam.voltage_kv
    seen = {k: read_record(run.folder / files[k].spots, SeriesSpots) for k in tracks}
    lattices = {k: read_crystals(run.folder / files[k].crystal) for k in tracks}
    crystals = {k: found[0] for k, found in lattices.items()}

    def keep(k: int, reflections: Reflections) -> dict[str, np.ndarray]:
        write_record(run.folder / files[k].reflections, reflections)
        write_hkl(run.folder / files[k].hkl, reflections)
        write_ins(run.folder / files[k].ins, f"p{k:04d}", crystals[k], wavelength(voltage), elements)
        if reflections.frames is not None:
            write_cif_pets(
                run.folder / files[k].pets, crystals[k], reflections.frames, voltage, seen[k].spots.radius_px
            )
        return {"done": np.array(True)}

    shared = SharedGeometry.of(run.ledger.book["indexing"]["geometry"]) if tracks else None
    jobs = {
        k: (run.folder / files[k].series, s.spots, shared.at(s.tilt), lattices[k]) for k, s in seen.items() if shared
    }
    _, failed = run.per_particle("integrate", key, jobs, measure, keep, heavy=_heavy(run, tracks))
    done = [k for k in tracks if k not in failed]
    measured = {k: (crystals[k], read_record(run.folder / files[k].reflections, Reflections)) for k in done}
    written = [n for k in done for n in files[k].integrated]
    _remove(run, set(before) | {n for k in failed for n in files[k].integrated}, written)
    run.ledger.book["integration"] = {
        "particles": [_figures(k, measured.get(k), failed.get(k)) | {"n_lattices": len(lattices[k])} for k in tracks]
    }
    return written, measured


def _figures(track: int, measured: tuple[Crystal, Reflections] | None, note: str | None) -> dict[str, Any]:
    """What run.json says of a particle's intensities."""
    if measured is None:
        return {"track": track, "note": note}
    crystal, reflections = measured
    reach = extent(reflections, crystal)
    known = {n: round(v, 4) if np.isfinite(v) else None for n, v in reach._asdict().items()}
    return {
        "track": track,
        "n_reflections": len(reflections.hkl),
        "d_min_angstrom": known["d_min"],
        "completeness": known["completeness"],
        "note": note,
    }


def _heavy(run: Run, tracks: list[int]) -> bool:
    return sum((run.folder / Files.of(k).series).stat().st_size for k in tracks) > _HEAVY_BYTES


def _remove(run: Run, before: set[str], written: list[str]) -> None:
    """Remove files of ours that were not written again."""
    for name in sorted(before - set(written)):
        run.ledger.remove(name)
