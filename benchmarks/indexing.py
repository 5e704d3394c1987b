"""Are lattices found, and how well, in series of one particle each, whose stage, camera and beam are all a little off.

    python benchmarks/indexing.py [--seeds 2] [--first 0] [--case NAME] [--run RUN --truth truth.h5]

Patterns are drawn here and not by the package's forward model: disks of kinematic intensity with a normal rocking curve
on a peaked background, counted by Poisson. The stated tilt axis is off by up to 3°, every tilt by 0.1° about any
axis, every centre by half a pixel beyond a shift of up to 2 px, and the projector is elliptical. Prints one JSON line
a series and one for all. With --run, the particles of a run are indexed instead, each compared with the particle of the
truth whose lattice it comes nearest to.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import cell_of, reciprocal_basis
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.index import index
from stemtomo_dl.crystal.joint import refine_jointly
from stemtomo_dl.crystal.nouns import Crystal
from stemtomo_dl.crystal.spots import find_spots
from stemtomo_dl.records import DiffractionSeries, Instrument
from stemtomo_dl.resources import synthetic
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.store.results import read_series
from stemtomo_dl.store.truth import read_truth

_SIZE = 160
_BACKGROUND = 40.0  # counts at the centre
_WIDTH = 0.0022  # 1/Å, of the rocking curve


class Case(NamedTuple):
    """One kind of series."""

    crystal: str | tuple[float, ...]  # a structure's file, or a cell with intensities drawn by lot
    lattice: str
    pixel: float
    wedge: float = 100.0
    step: float = 1.5
    counts: float = 3000.0  # of the mean reflection, fully excited
    foreign: str | None = None  # a second crystal in the series


CASES = {
    "brookite": Case("brookite.cif", "oP", 0.018),
    "rutile": Case("rutile.cif", "tP", 0.018),
    "anatase": Case("anatase.cif", "tI", 0.018),
    "zirconia": Case("zirconia.cif", "mP", 0.018),
    "kyanite": Case("kyanite.cif", "aP", 0.016),
    "cspbbr3": Case("cspbbr3.cif", "oP", 0.014),
    "gold": Case((4.08, 4.08, 4.08, 90, 90, 90), "cF", 0.02),
    "long axis": Case((4.1, 4.1, 38.0, 90, 90, 90), "tP", 0.008, step=0.6),
    "triclinic": Case((7.1, 9.4, 13.2, 83, 77, 68), "aP", 0.011, step=1.0),
    "two crystals": Case("brookite.cif", "oP", 0.018, foreign="brookite.cif"),
    "low dose": Case("brookite.cif", "oP", 0.018, counts=300.0),
    "wide steps": Case("brookite.cif", "oP", 0.018, step=3.0),
    "wedge of 60": Case("zirconia.cif", "mP", 0.018, wedge=60.0),
    "wedge of 30": Case("zirconia.cif", "mP", 0.018, wedge=30.0),
}


def reflections(crystal: str | tuple[float, ...], d_min: float, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Reciprocal basis (3, 3), indices (n, 3) and |F|² (n,), of mean 1, of a crystal."""
    if isinstance(crystal, str):
        structure = read_structure(crystal, (synthetic() / "structures" / crystal).read_text(), d_min)
        return structure.b, structure.hkl, structure.intensity / structure.intensity.mean()
    b = reciprocal_basis(np.array(crystal, float))
    most = np.floor(np.linalg.norm(np.linalg.inv(b), axis=1) / d_min).astype(int)
    hkl = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in most], indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ b.T, axis=1)
    hkl = hkl[(length > 0) & (length < 1 / d_min)]
    if np.ptp(crystal[:3]) == 0:  # face-centred
        hkl = hkl[np.ptp(hkl % 2, axis=1) == 0]
    _, mate = np.unique(np.abs(hkl) if crystal[3:] == (90, 90, 90) else hkl, axis=0, return_inverse=True)
    length = np.linalg.norm(hkl @ b.T, axis=1)
    strength = rng.exponential(size=mate.max() + 1)[mate] * np.exp(-1.5 * length**2)
    return b, hkl, strength / strength.mean()


def stage(case: Case, rng: np.random.Generator) -> tuple[Geometry, Geometry]:
    """Tilts, stage and camera as stated, and as they are."""
    alpha = np.arange(-case.wedge / 2, case.wedge / 2 + 1e-6, case.step) + rng.uniform(-5, 5)
    stated = Geometry(Instrument(200.0, 0.6, case.pixel, 5.0, float(rng.uniform(-180, 180))), alpha)
    true = replace(
        stated.with_axis(stated.instrument.tilt_axis_deg + rng.uniform(-3, 3)),
        ellipse=(float(rng.normal(0, 0.003)), float(rng.normal(0, 0.003))),
        shift_px=rng.normal(0, 0.5, (len(alpha), 2)) + rng.uniform(-2, 2, 2),
        turn_rad=np.radians(rng.normal(0, 0.1, (len(alpha), 3))),
    )
    return stated, true


def draw(case: Case, seed: int) -> tuple[DiffractionSeries, np.ndarray, float]:
    """A series as stated, the true UB and the true azimuth of the tilt axis."""
    rng = np.random.default_rng(seed)
    stated, true = stage(case, rng)
    crystals, ub = [], np.zeros((3, 3))
    for crystal in filter(None, (case.foreign, case.crystal)):
        b, hkl, strength = reflections(crystal, 1.3 / (_SIZE / 2 * case.pixel), rng)
        ub = Rotation.random(random_state=rng).as_matrix() @ b
        crystals.append((hkl @ ub.T, case.counts * strength))
    return painted(stated, true, _SIZE, crystals, rng), ub, true.instrument.tilt_axis_deg


def painted(
    stated: Geometry,
    true: Geometry,
    size: int,
    crystals: list[tuple[np.ndarray, np.ndarray]],
    rng: np.random.Generator,
) -> DiffractionSeries:
    """A series of patterns of ``size`` pixels a side, of crystals: reflections g (n, 3) and their counts (n,)."""
    n, center = len(stated.alpha_deg), np.full(2, size / 2)
    far = np.hypot(*(np.indices((size, size)) - size / 2))
    mean = np.tile(_BACKGROUND * (np.exp(-far / 9) + 0.01), (n, 1, 1))
    for g0, counts in crystals:
        _paint(mean, true, center, g0, counts)
    patterns, ones = rng.poisson(mean).astype("f4"), np.ones(n, "i4")
    measured, tilt = np.ones(mean.shape, bool), np.arange(n, dtype="i4")
    return DiffractionSeries(stated.instrument, patterns, measured, stated.alpha_deg, tilt, ones, 0 * ones, center)


def _paint(mean: np.ndarray, true: Geometry, center: np.ndarray, g0: np.ndarray, counts: np.ndarray) -> None:
    """Add a crystal's disks to the mean patterns."""
    assert true.shift_px is not None
    m = true.instrument
    radius = m.convergence_mrad * 1e-3 / true.wavelength_a / true.pixel
    half = int(np.ceil(radius)) + 1
    offset = np.arange(-half, half + 1)
    for f, turn in enumerate(true.turns()):
        g = g0 @ turn.T
        s = true.excitation(g)
        near = np.abs(s) < 4 * _WIDTH
        place = true.to_detector(g[near], center + true.shift_px[f])
        for (x, y), n in zip(place, counts[near] * np.exp(-((s[near] / _WIDTH) ** 2) / 2), strict=True):
            columns, rows = round(x) + offset, round(y) + offset
            if min(columns[0], rows[0]) >= 0 and max(columns[-1], rows[-1]) < mean.shape[1]:
                disk = np.clip(radius + 0.5 - np.hypot(columns[None] - x, rows[:, None] - y), 0, 1)
                mean[f][np.ix_(rows, columns)] += n * disk / disk.sum()


def compare(found: Crystal, ub: np.ndarray) -> dict[str, Any]:
    """Whether a lattice is the true one, and what its cell (relative, degrees) and orientation (degrees) are off."""
    relation = np.linalg.inv(found.ub) @ ub
    whole = np.rint(relation)
    same = np.abs(relation - whole).max() < 0.3 and abs(round(float(np.linalg.det(whole)))) == 1
    if not same:
        return {"same": False}
    there = found.ub @ whole
    cell, true = cell_of(np.linalg.inv(there)), cell_of(np.linalg.inv(ub))
    u, _, vt = np.linalg.svd(there @ np.linalg.inv(ub))
    ratio = cell[:3] / true[:3]
    return {
        "same": True,
        "lengths_percent": round(float(100 * np.abs(ratio - 1).max()), 3),
        "angles_deg": round(float(np.abs(cell[3:] - true[3:]).max()), 3),
        "orientation_deg": round(float(np.degrees(Rotation.from_matrix(u @ vt).magnitude())), 3),
    }


def series_line(name: str, case: Case, seed: int) -> dict[str, Any]:
    """One series: drawn, searched and compared."""
    series, ub, axis = draw(case, seed)
    began = time.process_time()
    spots = find_spots(series)
    found = index(spots, series.instrument, series.alpha_deg, most=2 if case.foreign else 1)
    stated = Geometry(series.instrument, series.alpha_deg)
    found = [refine_jointly([spots], [c], stated)[1][0] for c in found]
    line: dict[str, Any] = {"case": name, "seed": seed, "spots": len(spots), "lattices": len(found)}
    line["processor_s"] = round(time.process_time() - began, 1)
    told = [(c, compare(c, ub)) for c in found]
    best, how = next(((c, t) for c, t in told if t["same"]), told[0] if told else (None, {"same": False}))
    if best is not None:
        line |= {"lattice": best.lattice, "cell": [round(float(v), 2) for v in best.cell]}
        line |= how | {"right": how["same"] and best.lattice == case.lattice}
        line["axis_deg"] = round(abs(best.tilt_axis_deg - axis), 3)
    return line


def run_line(path: Path, ubs: np.ndarray) -> dict[str, Any]:
    """One particle of a run."""
    series = read_series(path)
    spots = find_spots(series)
    found = index(spots, series.instrument, series.alpha_deg, most=1)
    line: dict[str, Any] = {"case": path.parent.name, "spots": len(spots), "lattices": len(found)}
    if not found:
        return line
    flat = series.instrument.tilt_axis_deg
    told = [t for ub in ubs if (t := compare(found[0], ub))["same"]]
    best = min(told, key=lambda t: t["orientation_deg"], default={"same": False})
    cell = [round(float(v), 2) for v in found[0].cell]
    moved = round(found[0].tilt_axis_deg - flat, 3)
    return line | {"lattice": found[0].lattice, "cell": cell, "right": best["same"], "axis_moved_deg": moved} | best


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--truth", type=Path)
    given = parser.parse_args()
    lines = []
    if given.run:
        ubs = read_truth(given.truth).ub
        todo = (lambda p=p: run_line(p, ubs) for p in sorted(given.run.glob("particles/*/series.h5")))
    else:
        names = [given.case] if given.case else list(CASES)
        todo = (
            lambda n=n, s=s: series_line(n, CASES[n], s)
            for n in names
            for s in range(given.first, given.first + given.seeds)
        )
    for work in todo:
        lines.append(work())
        print(json.dumps(lines[-1]), flush=True)
    told = [r for r in lines if r["spots"] >= 60]
    right = [r for r in told if r.get("right")]
    summary: dict[str, Any] = {"series": len(lines), "of_60_spots": len(told), "right": len(right)}
    for key in ("lengths_percent", "angles_deg", "orientation_deg", "axis_deg"):
        values = [r[key] for r in right if key in r]
        if values:
            summary[key] = {"median": float(np.median(values)), "worst": max(values)}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
