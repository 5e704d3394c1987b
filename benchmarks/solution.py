"""How often known structures are solved from imperfect intensities, and how well.

    python benchmarks/solution.py [--sets kinematic,dynamical,broken] [--only NAME,NAME] [--seeds 3]

Prints a row for each set: whether the program calls it solved, whether it is (every atom within 0.15 Å of its own
element, nothing extra), the worst distance, atoms too many, the space group, R1 and the seconds of CPU.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
from bloch_sets import dynamical, kinematic, text_of

from stemtomo_dl import resources
from stemtomo_dl.simulate.cif import Contents, read_contents
from stemtomo_dl.solve import solve
from stemtomo_dl.solve.compare import compare
from stemtomo_dl.solve.nouns import Intensities

_NEAR = 0.15  # Å
# published structures, rounded: cell, group, atoms
KNOWN = {
    "quartz": ("4.913 4.913 5.405 90 90 120", "P 32 2 1", "Si .4697 0 .6666667; O .4135 .2669 .7858"),
    "corundum": ("4.759 4.759 12.993 90 90 120", "R -3 c:H", "Al 0 0 .3522; O .3063 0 .25"),
    "zincite": ("3.250 3.250 5.207 90 90 120", "P 63 m c", "Zn .3333333 .6666667 0; O .3333333 .6666667 .3819"),
    "forsterite": (
        "4.756 10.207 5.980 90 90 90",
        "P b n m",
        "Mg 0 0 0; Mg .9915 .2774 .25; Si .4262 .0940 .25; O .7657 .0913 .25; O .2215 .4474 .25; O .2777 .1628 .0331",
    ),
    "diopside": (
        "9.746 8.899 5.251 90 105.63 90",
        "C 1 2/c 1",
        "Ca 0 .3015 .25; Mg 0 .9082 .25; Si .2862 .0933 .2293; O .1156 .0873 .1422; O .3611 .2500 .3180; "
        "O .3505 .0176 .9953",
    ),
    "zircon": ("6.607 6.607 5.982 90 90 90", "I 41/a m d:2", "Zr 0 .75 .125; Si 0 .75 .625; O 0 .0661 .1953"),
    "spinel": ("8.083 8.083 8.083 90 90 90", "F d -3 m:2", "Mg .125 .125 .125; Al .5 .5 .5; O .2624 .2624 .2624"),
    "cristobalite": ("4.971 4.971 6.922 90 90 90", "P 41 21 2", "Si .3003 .3003 0; O .2392 .1044 .1787"),
}
SHIPPED = ("brookite", "anatase", "rutile", "cspbbr3", "zirconia", "kyanite")
THICK = (200.0, 500.0)  # Å
# what a user may take for the elements that are there
_HEAVIER = {"O": "S", "Ti": "Zr", "Zr": "Ce", "Si": "Ti", "Al": "Fe", "Mg": "Ca", "Zn": "Cd", "Ca": "Sr", "Cs": "Na",
            "Pb": "Sn", "Br": "Cl"}  # fmt: skip


def contents_of(name: str) -> Contents:
    """The known structure of a name."""
    if name in KNOWN:
        return read_contents(name, text_of(*KNOWN[name]))
    return read_contents(name, (resources.synthetic() / f"structures/{name}.cif").read_text(encoding="utf-8"))


def row(what: str, contents: Contents, data: Intensities, seed: int) -> tuple[bool, bool]:
    """Solve a set and print what came of it: whether it was called solved, whether it is."""
    began = time.process_time()
    solution = solve(data, np.random.default_rng(seed))
    spent = time.process_time() - began
    elements = tuple(s.element.name for s in contents.sites)
    sites = np.array([s.fract.tolist() for s in contents.sites])
    best = solution.best
    if best is None:
        print(f"{what:44} nothing {spent:6.1f} s", flush=True)
        return False, False
    match = compare(best.fit.model, elements, sites)
    group = best.candidate.group.xhm()
    same = best.candidate.group.operations() and len(best.fit.model.symmetry.rotations) == len(contents.operations)
    right = match.worst < _NEAR and match.extra == 0
    print(
        f"{what:44} {'solved' if solution.solved else 'unsolved':8} {'right' if right else 'WRONG':5} "
        f"{match.worst:6.3f} Å  {match.extra:2d} extra  {group:12} {'=' if same else '≠'}  R1 {best.fit.r1:.3f}  "
        f"{len(best.data.hkl)}/{best.fit.n_parameters} refl./par.  {spent:6.1f} s",
        flush=True,
    )
    return solution.solved, right


def broken(data: Intensities, rng: np.random.Generator) -> dict[str, Intensities]:
    """Data that something is wrong with; of the first three nothing may be called solved."""
    order = np.argsort(np.linalg.norm(data.hkl @ data.reciprocal, axis=1))
    shells = np.concatenate([rng.permutation(s) for s in np.array_split(order, max(1, len(order) // 30))])
    shuffled = np.empty_like(data.intensity)
    shuffled[order] = data.intensity[shells]
    some = rng.random(len(data.hkl)) < 0.4
    heavier = tuple((_HEAVIER[e], n) for e, n in data.composition)
    return {
        "shuffled": replace(data, intensity=shuffled),
        "indexed in another cell": replace(data, hkl=np.ascontiguousarray(data.hkl[:, [1, 2, 0]])),
        "other elements": replace(data, composition=heavier),
        "40 % of it": replace(data, hkl=data.hkl[some], intensity=data.intensity[some], sigma=data.sigma[some]),
    }


def main() -> None:
    """Run the sets asked for."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--sets", default="kinematic,dynamical")
    ask.add_argument("--only", default="")
    ask.add_argument("--seeds", type=int, default=1)
    asked = ask.parse_args()
    counts: list[tuple[bool, bool]] = []
    for name in (*SHIPPED, *KNOWN):
        if asked.only and name not in asked.only.split(","):
            continue
        contents = contents_of(name)
        for seed in range(asked.seeds):
            rng = np.random.default_rng(seed)
            if "kinematic" in asked.sets:
                for d_min, share in ((0.6, 0.6), (0.8, 0.8), (1.0, 1.0)):
                    data = kinematic(contents, d_min, share, 0.2, rng)
                    counts.append(row(f"{name} {seed} kinematic {d_min} Å {share:.0%}", contents, data, seed))
            if "dynamical" in asked.sets:
                for thickness in THICK:
                    data = dynamical(contents, 0.7, thickness, 0.1, rng)
                    counts.append(row(f"{name} {seed} Bloch {thickness:.0f} Å", contents, data, seed))
            if "broken" in asked.sets:
                data = dynamical(contents, 0.7, THICK[0], 0.1, rng)
                for what, worse in broken(data, rng).items():
                    counts.append(row(f"{name} {seed} {what}", contents, worse, seed))
    said, right = np.array(counts).T
    print(
        f"{len(counts)} sets: {said.sum()} called solved, {right.sum()} right, {(said & ~right).sum()} falsely solved"
    )


if __name__ == "__main__":
    main()
