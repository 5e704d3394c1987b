"""A run's particles of one lattice as a phase: merged, named, on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stemtomo_dl.crystal.merge import merge_particles
from stemtomo_dl.crystal.nouns import Crystal, Reflections
from stemtomo_dl.crystal.phase import Member, Phase
from stemtomo_dl.errors import InputError
from stemtomo_dl.extract import CameraLength, camera_length
from stemtomo_dl.geometry import wavelength
from stemtomo_dl.run import Run
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.solve.naming import Known, Likeness, likenesses
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.store.atomic import write_json
from stemtomo_dl.store.phases import read_stats, write_phase

_COARSE = 2.0  # Å; contents of a cell do not depend on it
_FILES = ("merged.hkl", "merged.ins", "stats.json")


def merge_phases(run: Run, measured: Mapping[int, tuple[Crystal, Reflections]]) -> list[str]:
    """Merge the particles that are alike, and write RUN/phases/NAME for each phase.

    A phase that comes out as before keeps its solution. Phases of an earlier pass that are no more are removed.

    Returns
    -------
    list of str
        The files written, by their place in the run.
    """
    before = {o for s in ("integrate", "solve") for o in run.ledger.outputs(s) if o.startswith("phases/")}
    wave, elements = wavelength(run.experiment.beam.voltage_kv), run.experiment.sample.elements
    with run.progress.stage("merge", 1) as advance:
        _enter_likenesses(run, measured, wave)
        phases = merge_particles([Member(k, c, r) for k, (c, r) in measured.items()])
        like = [_candidate(p, run.candidates(), wave) for p in phases]
        names = _names(phases, like)
        written = [f"phases/{name}/{f}" for name in names for f in _FILES]
        run.ledger.claim("integrate", written)
        jobs = zip(names, phases, like, strict=True)
        kept = {_write(run, name, p, n and n.camera_length, wave, elements) for name, p, n in jobs}
        advance()
    for name in sorted(before - set(written)):
        if "/".join(name.split("/")[:2]) not in kept:
            run.ledger.remove(name)
    run.ledger.book["integration"]["phases"] = names
    return written


def _enter_likenesses(run: Run, measured: Mapping[int, tuple[Crystal, Reflections]], wave: float) -> None:
    """Tell in run.json how like each candidate every particle is by its own intensities, merged or not."""
    crystals = {k: c for k, (c, r) in measured.items() if len(r.hkl)}
    data = {k: _intensities(f"p{k:04d}", crystals[k].cell, wave, measured[k][1]) for k in crystals}
    finest = min((d.d_min for d in data.values()), default=_COARSE)
    known = [known_phase(path, finest) for path in run.candidates()] if data else []
    for entry in run.ledger.book["integration"]["particles"]:
        one = data.get(entry["track"])
        like = likenesses(one, known) if one else []
        entry["likeness"] = [likeness_entry(n) for n in like]


def _intensities(name: str, cell: np.ndarray, wave: float, measured: Reflections | Phase) -> Intensities:
    edges = tuple(float(v) for v in cell)
    return Intensities(name, edges, wave, None, (), measured.hkl, measured.intensity, measured.sigma)


def likeness_entry(n: Likeness) -> dict[str, Any]:
    """A likeness as run.json and stats.json have it."""
    return vars(n) | {"named": n.named}


def _write(
    run: Run, name: str, phase: Phase, scale: CameraLength | None, wave: float, elements: list[str]
) -> str | None:
    """Write a phase; its folder if what was solved from it before still stands."""
    place = f"phases/{name}"
    merged, stats = run.folder / place / "merged.hkl", run.folder / place / "stats.json"
    before = merged.read_bytes() if merged.exists() and stats.exists() else b""
    try:
        figures = read_stats(run.folder / place)
    except InputError:  # cut short: nothing of it can stand
        before, figures = b"", {}
    write_phase(run.folder / place, phase, name, wave, elements)
    stands = bool(before) and before == merged.read_bytes()
    now = read_stats(run.folder / place) | {"camera_length": scale and scale._asdict()}
    write_json(stats, figures | now if stands else now)
    return place if stands else None


class _Named(NamedTuple):
    """The candidate that a phase is, and what the cell of the one says of the other's."""

    name: str
    camera_length: CameraLength


def _names(phases: list[Phase], like: list[_Named | None]) -> list[str]:
    """A name for each phase: the candidate that it is, else its lattice and cell."""
    names = [n.name if n else _label(p) for p, n in zip(phases, like, strict=True)]
    earlier = [names[:i].count(n) for i, n in enumerate(names)]
    return [f"{n}_{k + 1}" if k else n for n, k in zip(names, earlier, strict=True)]


def _label(phase: Phase) -> str:
    """As oP_5.15_5.45_9.18; angles that the lattice leaves free follow."""
    free = {"a": 6, "m": 5}.get(phase.lattice[0], 3)
    oblique = phase.cell[3:][np.argmax(np.abs(phase.cell[3:] - 90))]  # the unique axis need not be b
    angles = [f"{v:.1f}" for v in phase.cell[3:free]] if free == 6 else [f"{oblique:.1f}"] * (free == 5)
    return "_".join([phase.lattice, *(f"{v:.2f}" for v in phase.cell[:3]), *angles])


def _candidate(phase: Phase, candidates: list[Path], wave: float) -> _Named | None:
    data = _intensities("merged", phase.cell, wave, phase)
    known = {k.name: k for k in (known_phase(path, data.d_min) for path in candidates)}
    found = likenesses(data, list(known.values()))
    best = next((n for n in found if n.named), None)
    if best is None:
        return None
    return _Named(best.name, camera_length(data.cell, known[best.name].cell, np.array(best.turn)))


def known_phase(path: Path, d_min: float) -> Known:
    """Reflections of the structure in a CIF.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); give a CIF of a phase that the crystal may be") from e
    structure = read_structure(path.stem, text, d_min)
    metric = structure.direct.T @ structure.direct
    lengths = np.sqrt(np.diag(metric))
    cosines = metric / np.outer(lengths, lengths)
    angles = np.degrees(np.arccos([cosines[1, 2], cosines[0, 2], cosines[0, 1]]))
    cell = tuple(float(v) for v in (*lengths, *angles))
    composition = tuple((s.element, s.density * structure.volume) for s in structure.species)
    return Known(path.stem, cell, composition, structure.hkl, np.abs(structure.structure_factor))


def elements_of(paths: list[Path]) -> list[str]:
    """Elements of the phases in CIFs.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    return sorted({e for p in paths for e, _ in known_phase(p, _COARSE).composition})


def merged_phases(run: Run) -> list[str]:
    """Names of the phases of a run, those of earlier integration or put there by hand.

    Raises
    ------
    InputError
        If there is none and the particles have not been integrated.
    """
    found = sorted(p.parent.name for p in run.folder.glob("phases/*/merged.hkl"))
    if not found and not run.ledger.book["stages"].get("integrate", {}).get("key"):
        raise InputError(f"{run.folder}: holds no merged phase; run 'stemtomo integrate {run.folder}'")
    return found
