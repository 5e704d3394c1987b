"""Side by side with DIALS on the same frames: three particles, two-beam and kinematic, every error on; some minutes.

    python benchmarks/dials.py        (Debian: apt-get install --no-install-recommends dials)

Both find spots, lattice and intensities themselves and scale them; DIALS is told the Laue class. Figures are those of
`integration.py`, over all unique reflections that each has and over those that both have (`of`: common). JSON lines.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from integration import LATTICE, ROTATION, Found, found, ours, played, scores
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.equivalents import equivalents
from stemtomo_dl.export import FORMATS
from stemtomo_dl.records import DiffractionSeries, Truth
from stemtomo_dl.store.folder import write_folder

PARTICLES: dict[str, dict[str, Any]] = {
    "brookite": {},
    "rutile": {"cif": "rutile.cif", "seed": 2},
    "kyanite": {"cif": "kyanite.cif", "seed": 3},
}
FRAMES: dict[str, Any] = {"step": 0.3, "span": 40, "detector": 128}  # 267 of them
DIALS = (
    "dials.import one.nxs output.experiments=imported.expt",
    "dials.find_spots imported.expt min_spot_size=2 gain=1 nproc=1",
    "dials.index imported.expt strong.refl indexing.method=fft3d detector.fix=distance {known}",
    "dials.refine indexed.expt indexed.refl detector.fix=distance",
    "dials.integrate refined.expt refined.refl nproc=1",
    "dials.scale integrated.expt integrated.refl",
    "dials.export scaled.expt scaled.refl format=shelx shelx.hklout=scaled.hkl",
)
SYMMETRY = {"brookite": "Pmmm", "rutile": "P4/mmm", "kyanite": "P1"}


def by_dials(series: DiffractionSeries, truth: Truth) -> Found | str:
    """The same frames, exported, by DIALS, which is told the Laue class."""
    known = f"indexing.known_symmetry.space_group={SYMMETRY[truth.phase[0]]}"
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), FORMATS["dials"](series, "one"))
        for command in DIALS:
            environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
            words = command.format(known=known).split()
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                return f"{words[0]} failed"
        content = json.loads((Path(folder) / "scaled.expt").read_text())["crystal"][0]
        lines = (Path(folder) / "scaled.hkl").read_text().splitlines()
    rows = [line for line in lines if len(line) >= 28 and line[:12].split() != ["0", "0", "0"]]
    hkl = np.array([[int(r[i : i + 4]) for i in (0, 4, 8)] for r in rows])
    values = np.array([[float(r[12:20]), float(r[20:28])] for r in rows])
    basis = np.array([content[f"real_space_{a}"] for a in "abc"])
    # DIALS has y up and the beam along −z, in the axes of the detector
    turn = Rotation.from_euler("z", -ROTATION, degrees=True).as_matrix() @ np.diag([1, -1, -1])
    return found("DIALS", (hkl, values[:, 0], values[:, 1]), turn @ np.linalg.inv(basis), truth)


def shared(a: Found, b: Found, truth: Truth) -> tuple[Found, Found]:
    """What both have of the unique reflections."""
    group = equivalents(np.concatenate([a.hkl, b.hkl]), LATTICE[truth.phase[0]])
    one, two = np.split(group, [len(a.hkl)])
    return a.some(np.isin(one, two)), b.some(np.isin(two, one))


def main() -> None:
    """Print figures of both programs, over all that each has and over what both have."""
    if shutil.which("dials.index") is None:
        print("DIALS is not installed (Debian: apt-get install --no-install-recommends dials): nothing to compare with")
        return
    for intensities, (name, setting) in product(("two-beam", "kinematic"), PARTICLES.items()):
        series, truth = played(intensities, **FRAMES, **setting)
        us, them = ours(series, truth), by_dials(series, truth)
        rows: list[tuple[str, str, Found | str]] = [("all", "stemtomo", us), ("all", "DIALS", them)]
        if isinstance(us, Found) and isinstance(them, Found):
            rows += [("common", *each) for each in zip(("stemtomo", "DIALS"), shared(us, them, truth), strict=True)]
        for of, by, each in rows:
            told = scores(each, truth) if isinstance(each, Found) else {"failed": each}
            print(json.dumps({"particle": name, "intensities": intensities, "of": of, "by": by, **told}), flush=True)


if __name__ == "__main__":
    main()
