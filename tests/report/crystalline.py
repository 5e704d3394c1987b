"""A small run whose particles have lattices, intensities and a solved phase, made without any stage."""

import json
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
from crystal.powder import Truth, particle
from report.test_report import ALPHA, make_run, settings

from stemtomo_dl.config import Experiment
from stemtomo_dl.crystal.bravais import cell_of
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.merge import merge_particles
from stemtomo_dl.crystal.nouns import Crystal, FrameIntensities, Reflections, Spots
from stemtomo_dl.crystal.predict import predict
from stemtomo_dl.reduction import SeriesSpots
from stemtomo_dl.store.atomic import write_json
from stemtomo_dl.store.phases import write_phase
from stemtomo_dl.store.record_h5 import write_record
from stemtomo_dl.store.reflections import write_crystals
from stemtomo_dl.store.shared_geometry import SharedGeometry

NAME = "rutile & <co>"
CENTER = np.array([24.0, 16.0])
CIF = """data_solution
_cell_length_a 4.594
_cell_length_b 4.594
_cell_length_c 2.959
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P 42/m n m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
Ti1 Ti 0 0 0 0.005(1)
O1 O 0.3050(4) 0.3050(4) 0 0.006(1)
"""
SOLVED = {
    "structure": "solved",
    "missing": [],
    "formula": "O2Ti",
    "z": 2,
    "space_group": "P 42/m n m",
    **{"r1": 0.05, "r1_all": 0.06, "wr2": 0.12, "goof": 1.1, "parameters": 8, "anisotropic": False, "extinction": 0.0},
    "unique_reflections": 100,
    "d_min_angstrom": 0.8,
    "bonds": [["Ti1", "O1", 1.9488, 0.001], ["Ti1", "O1", 1.98, 0.001], ["Ti1", "Ti1", 2.959, 0.0]],
    "warnings": [],
    "space_group_trials": [{"symbol": "P 42/m n m", "agreement": 0.9, "absences_log_likelihood": 3.0, "r1": 0.05}],
    "likeness": [{"name": "rutile", "cell_misfit": 0.001, "correlation": 0.98, "merit": 0.97, "named": True}],
}


def crystal(lattice: str = "tP", lengths: tuple[float, float, float] = (4.594, 4.594, 2.959)) -> Crystal:
    """One turned by a fixed rotation."""
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    ub = turn * np.sign(np.linalg.det(turn)) @ np.diag(1 / np.array(lengths))
    cell = cell_of(np.linalg.inv(ub))
    return Crystal(lattice, 0.9, 40, 0.004, 0.0, 0.001, 0.01, ub, cell, np.zeros(2))


def seen(which: Crystal, alpha: np.ndarray = ALPHA, reach: float = 0.02, pixel: float = 0.05) -> SeriesSpots:
    """Spots just where reflections near the sphere put them, in a series with a frame a tilt."""
    table = make_settings()
    instrument = replace(table.instrument, pixel_inv_angstrom=pixel)
    geometry = Geometry(instrument, alpha)
    hkl = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    hkl = hkl[hkl.any(1)]
    empty = Spots(
        2.0, *(np.zeros(0, "i4"), np.zeros((0, 2)), np.zeros(0), np.zeros(0)), np.tile(CENTER, (len(alpha), 1))
    )
    at = predict(hkl, np.full(len(hkl), reach), empty, geometry, which)
    strength = 10.0 + 1000 / (1 + np.abs(hkl[at.row]).sum(1))
    spots = Spots(2.0, at.frame.astype("i4"), at.px, strength, np.ones(len(at.row)), empty.center_px)
    return SeriesSpots(instrument, spots, np.arange(len(alpha), dtype="i4"), alpha)


def make_settings() -> Experiment:
    """The experiment that `make_run` is of."""
    return Experiment.model_validate(settings("rods", 100.0))


def measured(n: int = 40) -> Reflections:
    """Passages of three frames each, on a Gaussian of known width."""
    rng = np.random.default_rng(1)
    hkl = np.repeat(np.unique(rng.integers(1, 9, (n, 3)), axis=0).astype("i4"), 3, axis=0)
    s = np.tile([-0.002, 0.0005, 0.003], len(hkl) // 3)
    area = np.repeat(rng.uniform(1, 9, len(hkl) // 3), 3)
    counts = area * np.exp(-((s / 0.002) ** 2) / 2) / (0.002 * np.sqrt(2 * np.pi))
    frame = np.tile(np.arange(3, dtype="i4"), len(hkl) // 3)
    turns = np.tile(np.eye(3), (len(ALPHA), 1, 1))
    frames = FrameIntensities(0.002, 0.0, hkl, frame, counts, np.ones(len(s)), s, ALPHA, turns)
    one = np.ones(len(hkl) // 3)
    return Reflections(hkl[1::3], area[1::3], one, 0 * one, one.astype("i4"), frames, "fit")


def make_crystal_run(folder: Path, particles: int = 3) -> Path:
    """Particles 1 and 2 have lattices and are merged; the last one has neither, and says why."""
    make_run(folder, particles=particles)
    book = json.loads((folder / "run.json").read_text())
    one, entries = crystal(), []
    for k in range(1, particles + 1):
        place = folder / f"particles/p{k:04d}"
        place.mkdir(parents=True, exist_ok=True)
        if k < particles:
            write_record(place / "spots.h5", seen(one))
            write_crystals(place / "crystal.json", [one])
            write_record(place / "reflections.h5", measured())
        note = None if k < particles else "its 7 spots are not enough to tell a lattice"
        entries.append({"track": k, "n_spots": 7, "note": note})
    shared = SharedGeometry(np.arange(len(ALPHA)), Geometry(make_settings().instrument, ALPHA))
    book["indexing"] = {"geometry": shared.entry(), "particles": entries}
    figures = [
        {"track": k, "n_reflections": 40, "d_min_angstrom": 0.8, "completeness": 0.4, "note": None} for k in (1, 2)
    ]
    book["integration"] = {"particles": figures, "phases": [NAME]}
    book["notes"] = ["scans <1> and 2 are the same file"]
    write_json(folder / "run.json", book)
    write_solved_phase(folder / "phases" / NAME)
    return folder


def write_solved_phase(place: Path) -> None:
    """A merged phase of particles 1 and 2, with a solution whose map has its maximum on the titanium."""
    place.mkdir(parents=True)
    truth, rng = Truth("P 42/m n m", (4.594, 4.594, 2.959, 90, 90, 90)), np.random.default_rng(2)
    hkl = truth.all_hkl(1.0)
    table = hkl, truth.intensity(hkl)
    phase = merge_particles([particle(truth, n, "tP", rng, table=table) for n in (1, 2)])[0]
    write_phase(place, phase, NAME, 0.02508, ["Ti", "O"])
    stats = json.loads((place / "stats.json").read_text())
    write_json(place / "stats.json", stats | SOLVED)
    (place / "solution.cif").write_text(CIF)
    grid = gemmi.Ccp4Map()
    grid.grid = gemmi.FloatGrid(12, 12, 8)
    grid.grid.set_unit_cell(gemmi.UnitCell(4.594, 4.594, 2.959, 90, 90, 90))
    grid.grid.spacegroup = gemmi.SpaceGroup("P 1")
    grid.grid.set_value(0, 0, 0, 5.0)
    grid.update_ccp4_header()
    grid.write_ccp4_map(str(place / "solution.ccp4"))
