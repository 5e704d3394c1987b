"""Structures solved from files of intensities, or from the merged phases of a run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.export.structure import ccp4_map, cif_text, formula, labels, shelx_files
from stemtomo_dl.run import Progress, Run
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.solve import Intensities, Solution, solve
from stemtomo_dl.solve.checks import bonds, warnings
from stemtomo_dl.solve.naming import Known, likenesses
from stemtomo_dl.solve.solution import STARTS
from stemtomo_dl.store.atomic import write_json, write_text, writing
from stemtomo_dl.store.intensities import read_intensities

_FILES = tuple(f"solution.{form}" for form in ("cif", "res", "ins", "hkl", "ccp4"))
_MAP_A = 0.2  # Å between the points of the map that is written


def phase(
    path: Path,
    folder: Path,
    progress: Progress,
    *,
    cell: str | None = None,
    space_group: str | None = None,
    elements: str | None = None,
    known: list[Path] | None = None,
    seed: int = 0,
) -> str:
    """Solve the structure of a file of intensities; one line that says what came of it.

    Parameters
    ----------
    path : Path
        .hkl with its .ins, or .cif_pets.
    folder : Path
        For solution.cif, .res, .ins, .hkl, .ccp4 and stats.json; unsolved leaves stats.json alone.
    cell, space_group, elements : str or None
        Where the file does not say, or says wrong.
    known : list of Path, optional
        CIFs that the crystal may be of.
    seed : int
        Of the random phases.

    Raises
    ------
    InputError
        If a file cannot be understood, or something is missing.
    """
    data = read_intensities(path, cell, space_group, elements)
    return _solve_into(folder, data, known or [], progress, seed)


def solve_run(run: Run) -> str:
    """Solve every merged phase of a run; one line that says what came of it.

    Raises
    ------
    InputError
        If no phase was merged, or the experiment names no elements.
    """
    places = sorted(p.parent for p in run.folder.glob("phases/*/merged.hkl"))
    if not places:
        raise InputError(f"{run.folder}: holds no merged phase; run 'stemtomo integrate {run.folder}'")
    sample = run.experiment.sample
    elements = ",".join(sample.elements) or None
    known = [Path(run.ledger.book["experiment"]).parent / p for p in sample.phases]
    began, said = time.perf_counter(), []
    for place in places:
        data = read_intensities(place / "merged.hkl", elements=elements)
        run.ledger.claim("solve", [str((place / name).relative_to(run.folder)) for name in _FILES])
        said.append(f"{place.name}: {_solve_into(place, data, known, run.progress, 0)}")
    run.ledger.done("solve", "", time.perf_counter() - began, run.ledger.outputs("solve"))
    return "; ".join(said)


def _solve_into(folder: Path, data: Intensities, known: list[Path], progress: Progress, seed: int) -> str:
    phases = [_known(p, data.d_min) for p in known]
    with progress.stage("solve", STARTS) as advance:
        solution = solve(data, np.random.default_rng(seed), advance)
    best = solution.best
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)  # of an earlier try
    if best is not None and solution.solved:
        write_text(folder / "solution.cif", cif_text(best, "solution", data.wavelength))
        for name, text in shelx_files(best, "solution", data.wavelength).items():
            write_text(folder / name, text)
        with writing(folder / "solution.ccp4") as tmp:
            ccp4_map(best, _MAP_A).write_ccp4_map(str(tmp))
    path = folder / "stats.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    stats = before | _stats(solution, phases)
    write_json(path, stats)
    if not solution.solved or best is None:
        return f"unsolved: {'; '.join(solution.missing)}"
    names = [n["name"] for n in stats["likeness"] if n["named"]]
    what = f" ({names[0]})" if names else ""
    return f"solved: {stats['formula']}{what}, {stats['space_group']}, R1 {best.fit.r1:.3f}: {folder / 'solution.cif'}"


def _known(path: Path, d_min: float) -> Known:
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
    return Known(path.stem, cell, structure.hkl, np.abs(structure.structure_factor))


def _stats(solution: Solution, known: list[Known]) -> dict[str, Any]:
    data, merged, best = solution.intensities, solution.merged, solution.best
    out: dict[str, Any] = {
        "structure": "solved" if solution.solved else "unsolved",
        "missing": list(solution.missing),
        "starts": solution.starts,
        "d_min_angstrom": data.d_min,
        "completeness": solution.completeness,
        "rint": None if np.isnan(merged.rint) else merged.rint,
        "unique_reflections": len(merged.hkl),
        "mean_abs_e2_minus_1": solution.centric_statistic,
        "space_groups": [
            {
                "symbol": t.candidate.group.xhm(),
                "agreement": t.candidate.agreement,
                "absences_log_likelihood": t.candidate.absences,
                "r1": t.r1_total,
            }
            for t in solution.trials
        ],
        "likeness": [vars(n) | {"named": n.named} for n in likenesses(data, merged, known)],
    }
    if best is None:
        return out
    fit, names = best.fit, labels(best.fit.model)
    units, z = formula(fit.model)
    return out | {
        "space_group": best.candidate.group.xhm(),
        "formula": "".join(f"{e}{n:g}" if n != 1 else e for e, n in units.items()),
        "z": z,
        "r1": fit.r1,
        "r1_all": fit.r1_all,
        "wr2": fit.wr2,
        "goof": fit.goof,
        "parameters": fit.n_parameters,
        "anisotropic": fit.model.anisotropic,
        "extinction": fit.extinction,
        "bonds": [[names[b.first], names[b.second], round(b.length, 4), round(b.esd, 4)] for b in bonds(fit)],
        "warnings": warnings(fit, names),
    }
