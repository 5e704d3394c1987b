"""Seconds for many long series: from particles' patterns to merged intensities, all cores of this machine.

    python benchmarks/reduction.py [--particles 20] [--frames 300] [--size 256] [--keep DIR]

A run is made whose particles' series are there already: crystals of brookite at any orientation that share a stage and
a camera, both a little off, drawn as in indexing.py at the size asked for. `stemtomo index` and `stemtomo integrate` go
through it. Prints a line of JSON: seconds of both, particles in the right lattice, and how far the worst of them is off
in its cell (percent, degrees) and orientation (degrees); the refined tilt axis (degrees off); and the merged
intensities' figures. With --keep, the run stays in DIR.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from endtoend import call
from indexing import CASES, compare, painted, reflections, stage
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.pipeline import start
from stemtomo_dl.store.reflections import read_crystals
from stemtomo_dl.store.results import series_name, write_series

_CASE = CASES["brookite"]
_PIXEL = 0.0113  # 1/Å: to .7 Å at the edge of 256 pixels
_WEDGE = 100.0  # degrees
_EXPERIMENT = """
[scans]
files = "scans/*.npy"
tilts = {tilts}
[beam]
voltage_kv = 200
convergence_mrad = 0.6
[scan]
step_nm = 5.0
[detector]
pixel_inv_angstrom = {pixel}
[stage]
tilt_axis_deg = {axis:.4f}
[sample]
elements = ["Ti", "O"]
"""


class _Silent:
    @contextmanager
    def stage(self, name: str, total: int) -> Any:
        yield lambda: None


def made(folder: Path, particles: int, size: int, true: Geometry, stated: Geometry) -> list[np.ndarray]:
    """Lay down an experiment and a run on it that has come as far as series; the true UB of each particle."""
    m, n = stated.instrument, len(stated.alpha_deg)
    (folder / "scans").mkdir(parents=True)
    for i in range(n):
        np.save(folder / f"scans/scan_{i:04d}.npy", np.zeros((2, 2, size, size), "u1"))
    text = _EXPERIMENT.format(tilts=stated.alpha_deg.tolist(), pixel=m.pixel_inv_angstrom, axis=m.tilt_axis_deg)
    (folder / "experiment.toml").write_text(text)
    ubs, outputs = [], []
    with start(folder / "experiment.toml", folder / "run", _Silent()) as run:
        for k in range(1, particles + 1):
            rng = np.random.default_rng(k)
            b, hkl, strength = reflections(_CASE.crystal, 1.3 / (size / 2 * m.pixel_inv_angstrom), rng)
            ubs.append(Rotation.random(random_state=rng).as_matrix() @ b)
            series = painted(stated, true, size, [(hkl @ ubs[-1].T, _CASE.counts * strength)], rng)
            path = run.folder / series_name(k)
            path.parent.mkdir(parents=True)
            write_series(path, series)
            outputs.append(series_name(k))
        run.ledger.done("extract", "drawn", 0.0, outputs)
    return ubs


def case_of(frames: int, size: int) -> Any:
    """The case with as many frames over its wedge, whose patterns of any size reach as far."""
    return _CASE._replace(wedge=_WEDGE, step=_WEDGE / (frames - 1), pixel=_PIXEL * 256 / size)


def figures(run: Path, ubs: list[np.ndarray], true: Geometry) -> dict[str, Any]:
    """What came of it."""
    book = json.loads((run / "run.json").read_text())
    line: dict[str, Any] = {v: round(book["stages"][v]["seconds"], 1) for v in ("index", "integrate")}
    line["particles"] = len(ubs)
    files = [run / f"particles/p{k:04d}/crystal.json" for k in range(1, len(ubs) + 1)]
    told = [compare(read_crystals(p)[0], ub) for p, ub in zip(files, ubs, strict=True) if p.exists()]
    right = [t for t in told if t["same"]]
    line["right"] = len(right)
    for key in ("lengths_percent", "angles_deg", "orientation_deg"):
        line[key] = max((t[key] for t in right), default=None)
    axis = book["indexing"]["geometry"]["instrument"]["tilt_axis_deg"]
    line["axis_deg"] = round(abs(axis - true.instrument.tilt_axis_deg), 4)
    for path in sorted(run.glob("phases/*/stats.json")):
        stats = json.loads(path.read_text())
        line[path.parent.name] = {k: stats.get(k) for k in ("laue_class", "completeness", "r_int", "cc_half")}
    return line


def main() -> None:
    """Measure."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--particles", type=int, default=20)
    ask.add_argument("--frames", type=int, default=300)
    ask.add_argument("--size", type=int, default=256)
    ask.add_argument("--keep", type=Path)
    given = ask.parse_args()
    rng = np.random.default_rng(0)
    case = case_of(given.frames, given.size)
    stated, true = stage(case, rng)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary) / "series"
        ubs = made(folder, given.particles, given.size, true, stated)
        for verb in ("index", "integrate"):
            call(verb, str(folder / "run"))
        print(json.dumps(figures(folder / "run", ubs, true)))


if __name__ == "__main__":
    main()
