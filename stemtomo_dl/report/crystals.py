"""What indexing, integration and solution have left of a run; a file that cannot be read is noted and passed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Crystal, Reflections, Spots
from stemtomo_dl.crystal.refine import indices
from stemtomo_dl.errors import InputError
from stemtomo_dl.reduction import SeriesSpots
from stemtomo_dl.store.particle_files import Files
from stemtomo_dl.store.phases import PhaseFigures, read_phase
from stemtomo_dl.store.record_h5 import read_record
from stemtomo_dl.store.reflections import read_crystals
from stemtomo_dl.store.shared_geometry import SharedGeometry

T = TypeVar("T")
_OF_PHASE = (  # what of stats.json is shown
    *("lattice", "cell", "cell_esd", "laue_class", "laue_setting", "n_observations", "n_unique", "completeness"),
    *("redundancy", "r_int", "r_meas", "r_pim", "cc_half", "i_over_sigma", "resolution_a", "wilson_e2_minus_1"),
    *("laue_tests", "laue_classes", "absences", "space_groups", "scaling", "n_rejected", "members", "left_out"),
)
DAMAGE = (InputError, OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError)  # of a file, by any reader


@dataclass(frozen=True, eq=False)
class Found:
    """What is known of one particle's lattice; ``phase`` counts the run's phases from 0, −1: of none."""

    n_spots: int | None = None
    note: str = ""  # what went wrong
    crystals: tuple[Crystal, ...] = ()  # the one with most spots first
    n_reflections: int | None = None
    d_min: float = np.nan  # Å
    completeness: float = np.nan
    phase: int = -1
    likeness: tuple[dict[str, Any], ...] = ()  # to the known phases of its cell, by its own intensities, best first

    @property
    def candidate(self) -> dict[str, Any] | None:
        """The known phase that it is by itself; None where it is none of them, or too little tells."""
        return next((e for e in self.likeness if e["named"]), None)


@dataclass(frozen=True, eq=False)
class Crystallography:
    """Lattices and phases of a run, and the geometry that its particles share."""

    tried: bool = False  # whether the run was indexed
    geometry: SharedGeometry | None = None
    particles: dict[int, Found] = field(default_factory=dict)  # by track
    phases: tuple[PhaseFigures, ...] = ()
    damaged: tuple[str, ...] = ()  # one line a file

    @property
    def indexed(self) -> list[int]:
        """Tracks that have a lattice."""
        return [k for k, found in self.particles.items() if found.crystals]

    @property
    def solved(self) -> list[PhaseFigures]:
        """Phases that have a structure."""
        return [p for p in self.phases if p.figures.get("structure") == "solved"]


def gather_crystals(folder: Path, book: dict[str, Any]) -> Crystallography:
    """Read crystal.json of every particle and stats.json of every phase, as run.json lists them.

    Parameters
    ----------
    folder : Path
        The run's.
    book : dict
        What run.json holds.
    """
    damaged: list[str] = []
    indexing, integration = book.get("indexing", {}), book.get("integration", {})
    names = integration.get("phases", [])
    phases = [attempt(damaged, partial(_phase, folder / "phases" / n)) for n in names]
    there = tuple(p for p in phases if p is not None)
    phase_of = {m["track"]: i for i, p in enumerate(there) for m in p.figures.get("members", [])}
    measured = {p["track"]: p for p in integration.get("particles", [])}
    particles = {}
    for entry in indexing.get("particles", []):
        track, path = entry["track"], folder / Files.of(entry["track"]).crystal
        crystals = attempt(damaged, partial(read_crystals, path)) if path.exists() else []
        more = measured.get(track, {})
        particles[track] = Found(
            entry.get("n_spots"),
            entry.get("note") or more.get("note") or ("crystal.json cannot be read" if crystals is None else ""),
            tuple(crystals or ()),
            more.get("n_reflections"),
            _number(more.get("d_min_angstrom")),
            _number(more.get("completeness")),
            phase_of.get(track, -1),
            tuple(more.get("likeness", ())),
        )
    entry = indexing.get("geometry")
    shared = attempt(damaged, lambda: SharedGeometry.of(entry)) if entry else None
    return Crystallography(bool(indexing), shared, particles, there, tuple(damaged))


def _phase(folder: Path) -> PhaseFigures:
    phase = read_phase(folder)
    lacking = [k for k in _OF_PHASE if k not in phase.figures]
    if lacking:
        raise InputError(f"{folder / 'stats.json'}: lacks {', '.join(lacking)}; merge the particles again")
    return phase


def attempt(damaged: list[str], read: Callable[[], T]) -> T | None:
    """What is read; where that fails, None, and why is added to ``damaged``."""
    try:
        return read()
    except DAMAGE as e:
        damaged.append(" ".join(str(e).split()) or type(e).__name__)
        return None


def _number(value: float | None) -> float:
    return np.nan if value is None else value


@dataclass(frozen=True, eq=False)
class Detail:
    """One particle's spots laid on its lattice.

    Attributes
    ----------
    crystals : tuple of Crystal
        ``crystals[0]`` is the one that ``hkl`` and the geometry are of.
    geometry : Geometry
        Of the series' frames, with the crystal's own axis and centre.
    spots : Spots
    tilt : (frame,) array
    hkl : (spot, 3) array
        Of the nearest node.
    fits : (spot,) array of bool
        Whether the spot belongs to it.
    real : (spot, 3) array
        Indices as the spot itself has them, not whole.
    misfit : (spot,) array
        1/Å, in the detector's plane.
    reflections : Reflections or None
    """

    crystals: tuple[Crystal, ...]
    geometry: Geometry
    spots: Spots
    tilt: np.ndarray
    hkl: np.ndarray
    fits: np.ndarray
    real: np.ndarray
    misfit: np.ndarray
    reflections: Reflections | None


def read_detail(folder: Path, known: Crystallography, track: int, damaged: list[str]) -> Detail | None:
    """A particle's spots on its lattice; None, with the reason added to ``damaged``, where a file cannot be read."""
    files, crystals = Files.of(track), known.particles[track].crystals
    seen = attempt(damaged, lambda: read_record(folder / files.spots, SeriesSpots))
    if seen is None:
        return None
    path, reflections = folder / files.reflections, None
    if path.exists():
        reflections = attempt(damaged, lambda: read_record(path, Reflections))
    return attempt(damaged, lambda: _laid_on(seen, known.geometry, crystals, reflections))


def _laid_on(
    seen: SeriesSpots, shared: SharedGeometry | None, crystals: tuple[Crystal, ...], reflections: Reflections | None
) -> Detail:
    plain = Geometry(seen.instrument, seen.alpha_deg) if shared is None else shared.at(seen.tilt)
    geometry = plain.of(crystals[0])
    hkl, fits = indices(seen.spots, plain, crystals[0])
    real = np.nan_to_num(geometry.sample(seen.spots) @ np.linalg.inv(crystals[0].ub).T)
    node = np.einsum("nij,nj->ni", geometry.turns()[seen.spots.frame], hkl @ crystals[0].ub.T)
    off = np.linalg.norm((geometry.lab(seen.spots) - node)[:, :2], axis=1)
    return Detail(crystals, geometry, seen.spots, seen.tilt, hkl, fits, real, off, reflections)
