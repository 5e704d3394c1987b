"""From raw scans to structures: synthetic experiments played, run with no settings, and held against their truth.

    python benchmarks/endtoend.py [--only NAME,NAME] [--keep DIR]

Scenes have two-beam intensities and every error on: angles that the goniometer misses, jumps and drift, a beam that
walks on the detector and is not descanned, an ellipse, calibrations stated wrong, film background, counting noise. Each
is played by `stemtomo simulate` and gone through by `stemtomo run`. With --keep, experiments and runs stay in DIR, and
those that lie there are used again. Prints a line of JSON for each phase of the truth:

`particles` of the truth, `tracked` over most of their tilts, `indexed` in the true lattice, `orientation_deg` median
and worst of these; `named` particles in folders of the phase's name, and `foreign` ones there; `cc` of merged
intensities with |F|², `completeness` and `r_int` as stats.json has them; `said`: what the program says of the
structure, `worst_a` from a known atom to the nearest that was found of its element, Å, `extra` atoms, `group`, and
`right`: every atom within 0.15 Å, nothing extra, the right group. Then a line of seconds per stage.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import gemmi
import numpy as np
from indexing import compare as compare_lattices

from stemtomo_dl.cli import main as stemtomo
from stemtomo_dl.records import Masks, Truth
from stemtomo_dl.simulate.cif import Contents, read_contents
from stemtomo_dl.solve.compare import compare
from stemtomo_dl.solve.model import Model, Symmetry
from stemtomo_dl.store.reflections import read_crystals
from stemtomo_dl.store.results import read_masks
from stemtomo_dl.store.truth import read_truth

_NEAR = 0.15  # Å
_MOST = 0.6  # of its tilts that a tracked particle is followed over
_INSTRUMENT = """
[instrument]
voltage_kv = 200
convergence_mrad = 0.7
electrons_per_pattern = 1500
scan = [52, 52]
step_nm = 5.0
detector = [128, 128]
pixel_inv_angstrom = {pixel}
tilt_axis_deg = {axis}
rotation_deg = {rotation}
beam_offset_px = [8.3, -7.2]
descan = {{ fast_px = [0.6, 0.2], slow_px = [-0.3, 0.7] }}
ellipse = {{ ratio = 1.006, azimuth_deg = 40 }}
camera = {{ kind = "hybrid" }}

[stated]
pixel_inv_angstrom = {stated_pixel:.5f}
tilt_axis_deg = {stated_axis}

[tilts]
start = {start}
stop = {stop}
step = {step}
sigma_deg = 0.05

[drift]
walk_px = 0.3
jumps = [{{ tilt = 30, shift_px = [-3.4, 2.6] }}]
height_nm = 9
beam_walk_px = 0.03

[film]
thickness_nm = 8
"""


class Case(NamedTuple):
    """What is particular to a scene."""

    seed: int
    particles: tuple[str, ...]  # [[particles]] tables, without their heads
    axis: float
    pixel: float = 0.0195
    step: float = 1.6
    span: float = 52.0

    def text(self, title: str) -> str:
        """The scene file."""
        head = f'title = "{title}"\nseed = {self.seed}\nintensities = "two-beam"\nfield_fraction = 0.85\n'
        instrument = _INSTRUMENT.format(
            pixel=self.pixel,
            stated_pixel=self.pixel * 1.012,
            axis=self.axis,
            stated_axis=self.axis + 1.5,
            rotation=11.0,
            start=-self.span,
            stop=self.span,
            step=self.step,
        )
        return head + instrument + "".join(f"\n[[particles]]\n{p}\n" for p in self.particles)


_CASES = {
    "cspbbr3": Case(
        11,
        (
            'cif = "cspbbr3.cif"\ncount = 9\nsize_nm = 26\nsize_sigma = 0.15\nrounding = 0.1\nmin_gap_nm = 6\n'
            "faces = [{ hkl = [1, 1, 0] }, { hkl = [0, 0, 1] }]\n"
            'orientation = { kind = "upright", plane = [1, 1, 0], spread_deg = 4 }',
        ),
        62.0,
        pixel=0.018,
    ),
    "anatase": Case(
        5,
        (
            'cif = "anatase.cif"\ncount = 9\nsize_nm = 24\nsize_sigma = 0.15\nirregularity = 0.04\nmin_gap_nm = 6\n'
            "faces = [{ hkl = [1, 0, 1] }, { hkl = [0, 0, 1], distance = 1.2 }]",
        ),
        5.2,
    ),
    "zirconia": Case(
        23,
        (
            'cif = "zirconia.cif"\ncount = 9\nsize_nm = 26\nsize_sigma = 0.15\nirregularity = 0.08\nrounding = 0.3\n'
            'habit = "truncated-octahedron"\nmin_gap_nm = 6',
        ),
        -78.0,
    ),
    "kyanite": Case(
        29,
        (
            'cif = "kyanite.cif"\ncount = 9\nsize_nm = 26\nsize_sigma = 0.15\nirregularity = 0.05\nrounding = 0.2\n'
            'habit = "truncated-octahedron"\nmin_gap_nm = 6',
        ),
        33.0,
        pixel=0.0185,
    ),
    "mixture": Case(
        7,
        (
            'cif = "anatase.cif"\ncount = 4\nsize_nm = 24\nsize_sigma = 0.15\nirregularity = 0.04\nmin_gap_nm = 5\n'
            "faces = [{ hkl = [1, 0, 1] }, { hkl = [0, 0, 1], distance = 1.2 }]",
            'cif = "brookite.cif"\ncount = 5\nsize_nm = 20\nsize_sigma = 0.15\nhabit = "rod"\naspect = 2.0\n'
            "irregularity = 0.04\nmin_gap_nm = 5",
            'cif = "rutile.cif"\ncount = 4\nsize_nm = 22\nsize_sigma = 0.15\nrounding = 0.1\nmin_gap_nm = 5\n'
            "faces = [{ hkl = [1, 1, 0] }, { hkl = [1, 0, 1], distance = 1.6 }]",
        ),
        -40.0,
    ),
}


def played(name: str, folder: Path) -> tuple[Path, Path]:
    """Play a scene and go through it, unless that lies there; folders of experiment and run."""
    experiment, run = folder / name / "experiment", folder / name / "run"
    if not (experiment / "truth.h5").exists():
        scene = folder / name / "scene.toml"
        scene.parent.mkdir(parents=True, exist_ok=True)
        scene.write_text(_CASES[name].text(name), encoding="utf-8")
        call("simulate", str(scene), "-o", str(experiment))
    call("run", str(experiment / "experiment.toml"), "-o", str(run), "--force")
    return experiment, run


def call(*arguments: str) -> None:
    """Go through a verb of the command."""
    sys.argv = ["stemtomo", *arguments]
    try:
        stemtomo()
    except SystemExit as done:
        if done.code:
            raise


class Followed(NamedTuple):
    """A particle of a run: whose it is, whether over most tilts, and how its lattice compares."""

    particle: int
    whole: bool
    lattice: dict[str, Any]


def followed(run: Path, truth: Truth) -> dict[int, Followed]:
    """Particles of the truth by the tracks that follow them, by the overlap of outlines tilt by tilt."""
    masks = read_masks(run / "masks.h5")
    table = np.genfromtxt(run / "tracks.csv", delimiter=",", names=True)
    out = {}
    for track in np.unique(table["track"]).astype(int):
        seen = table["instance"][table["track"] == track]
        votes = np.bincount([v for i in seen if (v := _beneath(masks, int(i), truth)) >= 0], minlength=len(truth.ub))
        best = int(votes.argmax())
        in_view = int((truth.particle == best).sum())
        path = run / f"particles/p{track:04d}/crystal.json"
        lattice = {"same": False}
        if path.exists():
            lattice = compare_lattices(read_crystals(path)[0], truth.ub[best])
        out[int(track)] = Followed(best, bool(votes[best] >= _MOST * in_view), lattice)
    return out


def _beneath(masks: Masks, instance: int, truth: Truth) -> int:
    """The particle whose outline an instance overlaps best, −1 where by less than half."""
    mine = masks.full(instance)
    there = truth.masks.at(int(masks.tilt[instance]))
    if not len(there):
        return -1
    full = np.array([truth.masks.full(int(i)) for i in there])
    overlap = (full & mine).sum((1, 2)) / np.maximum((full | mine).sum((1, 2)), 1)
    return int(truth.particle[there[overlap.argmax()]]) if overlap.max() > 0.5 else -1


def scored(run: Path, experiment: Path) -> list[dict[str, Any]]:
    """A line for each phase of the truth."""
    truth = read_truth(experiment / "truth.h5")
    known = followed(run, truth)
    stats = {p.parent.name: json.loads(p.read_text()) for p in sorted(run.glob("phases/*/stats.json"))}
    lines = []
    for phase in dict.fromkeys(truth.phase):
        mine = {k: f for k, f in known.items() if truth.phase[f.particle] == phase}
        right = [f for f in mine.values() if f.lattice["same"]]
        off = [f.lattice["orientation_deg"] for f in right] or [np.nan]
        line: dict[str, Any] = {
            "phase": phase,
            "particles": truth.phase.count(phase),
            "tracked": len({f.particle for f in mine.values() if f.whole}),
            "indexed": len({f.particle for f in right}),
            "orientation_deg": [round(float(np.median(off)), 3), max(off)],
        }
        folders = [n for n in stats if n == phase or n.startswith(f"{phase}_")]
        members = [m for n in folders for m in stats[n]["members"]]
        line["named"] = sum(m["track"] in mine for m in members)
        line["foreign"] = len(members) - line["named"]
        of_phase = {n: sum(m["track"] in mine for m in s["members"]) for n, s in stats.items()}
        best = max(of_phase, key=lambda n: of_phase[n], default=None)
        if best is not None and of_phase[best]:
            cif = read_contents(phase, (experiment / f"{phase}.cif").read_text(encoding="utf-8"))
            line |= {"folder": best} | _structure(run / "phases" / best, stats[best], mine, truth, cif)
        lines.append(line)
    return lines


def _structure(
    folder: Path, stats: dict[str, Any], known: dict[int, Followed], truth: Truth, contents: Contents
) -> dict[str, Any]:
    """Figures of a merged phase and of what was solved from it."""
    line: dict[str, Any] = {"laue": stats["laue_class"]}
    line |= {k: stats[k] for k in ("completeness", "r_int") if k in stats}
    indexed = [m for m in stats["members"] if m["track"] in known and known[m["track"]].lattice["same"]]
    if not indexed:
        return line | {"said": stats.get("structure"), "right": False}
    member = max(indexed, key=lambda m: m["observations"])
    particle = known[member["track"]].particle
    crystal = read_crystals(folder.parents[1] / f"particles/p{member['track']:04d}/crystal.json")[0]
    whole = np.rint(np.linalg.inv(crystal.ub) @ truth.ub[particle])  # h of the particle from the true ones
    operator = operator_matrix(member["operator"])
    line["cc"] = round(_correlation(folder / "merged.hkl", np.linalg.inv(operator @ whole), truth, particle), 3)
    line["said"] = stats.get("structure") if stats.get("structure") == "solved" else stats.get("missing")
    cif = folder / "solution.cif"
    if not cif.exists():
        return line | {"right": False}
    found = read_contents("solution", cif.read_text(encoding="utf-8"))
    turn = np.linalg.inv(operator @ whole).T  # of coordinates, as h of the phase = operator · whole · true h
    elements, sites = _all_atoms(contents)
    symmetry = Symmetry(found.operations, found.cell.parameters)
    of = [s.element.name for s in found.sites]
    model = Model.of(symmetry, tuple(of), [s.fract.tolist() for s in found.sites], [s.u_iso for s in found.sites])
    match = compare(model, elements, sites @ turn.T)
    groups = [gemmi.find_spacegroup_by_ops(c.operations) for c in (found, contents)]
    same = groups[0] is not None and groups[1] is not None and groups[0].number == groups[1].number
    line |= {
        "r1": stats["r1"],
        "formula": stats["formula"],
        "group": stats["space_group"],
        "group_right": same,
        "worst_a": round(match.worst, 3),
        "extra": match.extra,
    }
    return line | {"right": bool(match.worst < _NEAR and match.extra == 0 and same)}


def operator_matrix(text: str) -> np.ndarray:
    """The matrix of a change of indices as stats.json writes it."""
    return np.array(gemmi.Op(text.translate(str.maketrans("hkl", "xyz"))).rot) / gemmi.Op.DEN


def _correlation(path: Path, turn: np.ndarray, truth: Truth, particle: int) -> float:
    """Of merged intensities with |F|²; ``turn`` leads from the phase's indices to the true ones."""
    rows = [line for line in path.read_text().splitlines() if line.strip()]
    table = np.array([[int(r[:4]), int(r[4:8]), int(r[8:12]), float(r[12:20])] for r in rows])
    table = table[table[:, :3].any(1)]
    known = {tuple(h): v for h, v in zip(*(a.tolist() for a in truth.reflections[truth.phase[particle]]), strict=True)}
    indices = np.rint(table[:, :3] @ turn.T).astype(int).tolist()
    true = [known.get(tuple(h), known.get((-h[0], -h[1], -h[2]), 0.0)) for h in indices]
    return float(np.corrcoef(table[:, 3], true)[0, 1])


def _all_atoms(contents: Contents) -> tuple[tuple[str, ...], np.ndarray]:
    """Elements and places (atom, 3) of all atoms in the cell."""
    symmetry = Symmetry(contents.operations, contents.cell.parameters)
    elements, places = [], []
    for site in contents.sites:
        at = symmetry.snap(np.array(site.fract.tolist()))
        images = (symmetry.rotations @ at + symmetry.shifts) % 1
        apart = np.abs((d := images[:, None] - images) - np.round(d)).max(-1) < 1e-3
        images = images[apart.argmax(1) == np.arange(len(images))]
        places.append(images)
        elements += [site.element.name] * len(images)
    return tuple(elements), np.concatenate(places)


def main() -> None:
    """Play, run and score."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--only", default=",".join(_CASES))
    ask.add_argument("--keep", type=Path)
    given = ask.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.only.split(","):
            experiment, run = played(name, given.keep or Path(temporary))
            for line in scored(run, experiment):
                print(json.dumps({"scene": name} | line), flush=True)
            book = json.loads((run / "run.json").read_text())
            seconds = {k: round(v["seconds"], 1) for k, v in book["stages"].items() if "seconds" in v}
            print(json.dumps({"scene": name, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
