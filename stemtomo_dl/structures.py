"""Structures solved from files of intensities, or from the merged phases of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stemtomo_dl.config import GUESS
from stemtomo_dl.conventional import conventional
from stemtomo_dl.dynamical import project_of, write_project
from stemtomo_dl.errors import InputError
from stemtomo_dl.export.cif import cif_text
from stemtomo_dl.export.structure import ccp4_map, formula, shelx_files
from stemtomo_dl.phases import elements_of, known_phase, likeness_entry, merged_phases
from stemtomo_dl.run import Progress, Run
from stemtomo_dl.solve import Intensities, Solution, solve
from stemtomo_dl.solve.checks import bonds, hand, warnings
from stemtomo_dl.solve.identity import other_elements, with_contents
from stemtomo_dl.solve.naming import Known, likenesses
from stemtomo_dl.solve.restrained import restrained
from stemtomo_dl.solve.rivals import rivals, strangers
from stemtomo_dl.solve.signal import within_signal
from stemtomo_dl.solve.solution import measured_rint, most_starts
from stemtomo_dl.store.atomic import write_json, writing
from stemtomo_dl.store.intensities import read_intensities
from stemtomo_dl.store.phases import read_stats

_FILES = tuple(f"solution.{form}" for form in ("cif", "res", "ins", "hkl", "ccp4"))
_MAP_A = 0.2  # Å between the points of the map that is written
_OF_A_TRY = ("starts", "phasing", "d_min_angstrom", "completeness_p1", "rint", "unique_reflections")
_OF_A_MODEL = (
    *("space_group", "formula", "z", "r1", "r1_all", "wr2", "goof", "parameters", "restraints", "restrained_goof"),
    *("anisotropic", "extinction", "absolute_structure"),
)
_LISTS = ("space_group_trials", "likeness", "assignment", "bonds", "warnings")
# of stats.json before a phase is tried, so that nothing of an earlier try stays
_NOTHING: dict[str, Any] = {**dict.fromkeys((*_OF_A_TRY, *_OF_A_MODEL)), **{k: [] for k in _LISTS}}
_BETTER = 0.85  # of R1, with elements that a candidate lacks, at which it is not that candidate
_PAIR = 2  # elements; with no more than two, a phase of a mixture holds both
_GUESSED = "elements are guessed: O, Si, Ti, Zr and Pb stand for all, and all may be lighter or heavier by one factor"
_NO_ELEMENTS = "[sample] elements is not stated"


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
    restraints: bool = False,
) -> str:
    """Solve the structure of a file of intensities; one line that says what came of it.

    Parameters
    ----------
    path : Path
        .hkl with its .ins, or .cif_pets. A crystal in a reduced or primitive cell is solved in the conventional one.
    folder : Path
        For solution.cif, .res, .ins, .hkl, .ccp4 and stats.json; unsolved leaves stats.json alone.
    cell, space_group, elements : str or None
        Where the file does not say, or says wrong.
    known : list of Path, optional
        CIFs that the crystal may be of.
    seed : int
        Of the random phases.
    restraints : bool
        Refine it on with restraints once it is solved.

    Raises
    ------
    InputError
        If a file cannot be understood, or something is missing.
    """
    given = read_intensities(path, cell, space_group, elements)
    data = conventional(given)
    if not (data.intensity > 0).any():
        raise InputError(f"{path}: no intensity is above 0; give |F|² of a crystal that diffracts")
    with progress.stage("solve", most_starts(data)) as advance:
        found = _solved(data, known or [], seed, advance, restraints=restraints)
        if elements == GUESS:
            _tell_guessed(found)
        said = _write(folder, found)
    told = f"{said}: {folder / 'solution.cif'}" if said.startswith("solved") else said
    return told if data is given else f"{told}; {data.notes[-1]}"


def solve_phases(run: Run, key: str) -> list[str]:
    """Solve every merged phase of a run whose elements are stated; run.json has what came of each under "structures".

    Elements are those of the sample, else of the phases that it may hold. Where a sample of three or more has several
    phases in view, each phase may be without some of them.

    Returns
    -------
    list of str
        The files written, by their place in the run; a phase that is not solved has only its stats.json.

    Raises
    ------
    InputError
        If the particles were not integrated.
    """
    names, known, restraints = merged_phases(run), run.candidates(), run.experiment.solve.restraints
    elements = ",".join(run.experiment.sample.elements or elements_of(known)) or None
    jobs = {
        i: (run.folder / "phases" / name, elements, known, len(names) > 1, restraints)
        for i, name in enumerate(names)
        if elements or _states_elements(run.folder / "phases" / name / "merged.ins")
    }
    projects = {i: project_of(run, names[i]) for i in jobs}
    places = [f"phases/{names[i]}/{f}" for i in jobs for f in _FILES] + [
        p for files in projects.values() for p in files
    ]
    for old in set(run.ledger.outputs("solve")) - set(places):
        run.ledger.remove(old)
    run.ledger.claim("solve", places)

    def keep(i: int, found: Outcome) -> dict[str, np.ndarray]:
        return {"said": np.array(_write(run.folder / "phases" / names[i], found))}

    partial, failed = run.per_particle("solve", key, jobs, _solve_phase, keep, heavy=True)
    said = {names[i]: f"unsolved: {failed[i]}" if i in failed else str(partial.array(i, "said")) for i in jobs}
    for i, name in enumerate(names):
        why = failed.get(i) if i in jobs else _NO_ELEMENTS
        if why is not None:
            _enter(run.folder / "phases" / name, _NOTHING | {"structure": "unsolved", "missing": [why]})
        _renew_project(run, name, projects.get(i, []))
    run.ledger.book["structures"] = {n: said.get(n, f"left out: {_NO_ELEMENTS}") for n in names}
    return [p for p in places if (run.folder / p).exists()]


def _renew_project(run: Run, name: str, places: list[str]) -> None:
    """Write the project of a phase that is solved; of another, what an earlier try left is removed."""
    if places and read_stats(run.folder / "phases" / name).get("structure") == "solved":
        write_project(run, name)
    else:
        for place in places:
            run.ledger.remove(place)


def _states_elements(ins: Path) -> bool:
    return ins.exists() and "SFAC" in ins.read_text(encoding="utf-8", errors="replace")


class Outcome(NamedTuple):
    """What came of a phase: figures for stats.json, and its files by name, none where it was not solved."""

    figures: dict[str, Any]
    files: dict[str, bytes]


def _solve_phase(
    place: Path, elements: str | None, known: list[Path], mixed: bool, restraints: bool = False
) -> Outcome:
    """Solve one phase, on whatever process."""
    data = read_intensities(place / "merged.hkl", elements=elements)
    stats = read_stats(place)
    # Notes say what the reader made of a file from elsewhere; merged.ins names a Laue class because we wrote it so.
    data = replace(data, name=place.name, observations=stats.get("n_observations"), rint=stats.get("r_int"), notes=())
    found = _solved(data, known, 0, mixed=mixed, sample=True, restraints=restraints)
    if elements == GUESS:
        _tell_guessed(found)
    if (wilson := stats.get("wilson_e2_minus_1")) is not None:  # of all observations, not of their means
        found.figures["wilson_e2_minus_1"] = wilson
    return found


def _tell_guessed(found: Outcome) -> None:
    """Warn that elements are guessed, and of how many atoms they are the best guess by far."""
    said, atoms = _GUESSED, found.figures["assignment"]
    if atoms:
        sure = sum(a["sure"] for a in atoms)
        said += f"; {sure} of {len(atoms)} atoms fit clearly worse as any other of the five"
    found.figures["warnings"].insert(0, said)


def _solved(
    data: Intensities,
    known: list[Path],
    seed: int,
    advance: Callable[[], None] = lambda: None,
    *,
    mixed: bool = False,
    sample: bool = False,
    restraints: bool = False,
) -> Outcome:
    """Solve by what is known; ``mixed``: the elements are those of several phases, of which each may lack some.

    ``sample``: they are those of a sample, which may hold more than the crystal does. Restraints come after it is
    solved, so that they do not help a wrong model.
    """
    data = within_signal(data)
    phases = [known_phase(p, data.d_min) for p in known]
    held = with_contents(data, phases, sample=sample)
    solution = solve(held, np.random.default_rng(seed), advance)
    lacks = held.stated.counted and set(held.elements) < set(data.elements)
    unsolved = mixed and not solution.solved and not held.stated.counted and len(data.elements) > _PAIR
    if lacks or unsolved:
        fewer = solve(replace(data, whole=False), np.random.default_rng(seed), advance)
        better = solution.best and fewer.best and fewer.best.r1_total < _BETTER * solution.best.r1_total
        solution = fewer if fewer.solved and (unsolved or better) else solution
    if restraints and solution.solved and solution.best is not None:
        solution = replace(solution, best=restrained(solution.best))
    best, files = solution.best, dict[str, bytes]()
    if best is not None and solution.solved:
        texts = {"solution.cif": cif_text(best, data), **shelx_files(best, data, "solution")}
        files = {name: text.encode() for name, text in texts.items()}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "solution.ccp4")
            ccp4_map(best, _MAP_A).write_ccp4_map(str(path))
            files[path.name] = path.read_bytes()
    return Outcome(_stats(solution, phases), files)


def _likeness_entries(solution: Solution, phases: list[Known]) -> list[dict[str, Any]]:
    """How like the phases the crystal is; it is none that holds other elements than it."""
    found = []
    for like in likenesses(solution.intensities, phases):
        others = other_elements(solution, next(p for p in phases if p.name == like.name))
        found.append(likeness_entry(like) | {"named": like.named and not others, "other_elements": others})
    return found


def _write(folder: Path, found: Outcome) -> str:
    """Write a phase's files in place of those of an earlier try; one line that says what came of it."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    for name, content in found.files.items():
        with writing(folder / name) as tmp:
            tmp.write_bytes(content)
    stats = _enter(folder, found.figures)
    if stats["structure"] != "solved":
        return f"unsolved: {'; '.join(stats['missing'])}"
    names = [n["name"] for n in stats["likeness"] if n["named"]]
    what = f" ({names[0]})" if names else ""
    return f"solved: {stats['formula']}{what}, {stats['space_group']}, R1 {stats['r1']:.3f}"


def _enter(folder: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """Add figures to a phase's stats.json; all that it then holds."""
    stats = read_stats(folder) | figures
    write_json(folder / "stats.json", stats)
    return stats


def _phasing(solution: Solution) -> dict[str, Any]:
    """How phases were found, and what tells that they are right: starts that agree, and figures of merit."""
    best = solution.best
    return {
        "method": None if best is None else "dual-space recycling" if best.recycled else "charge flipping",
        "agreeing_starts": 0 if best is None else min(best.times, solution.starts),  # groups of one start agree, too
        "skewness": [round(s, 3) for s in solution.skewness],
        "correlation": best and best.correlation,
    }


def _stats(solution: Solution, known: list[Known]) -> dict[str, Any]:
    data, merged, best = solution.intensities, solution.merged, solution.best
    out: dict[str, Any] = _NOTHING | {
        "structure": "solved" if solution.solved else "unsolved",
        "missing": list(solution.missing),
        "starts": solution.starts,
        "phasing": _phasing(solution),
        "d_min_angstrom": data.d_min,
        "completeness_p1": solution.completeness,
        "rint": measured_rint(data, merged),
        "unique_reflections": len(merged.hkl),
        "wilson_e2_minus_1": None if np.isnan(solution.centric_statistic) else solution.centric_statistic,
        "space_group_trials": [
            {
                "symbol": t.candidate.group.xhm(),
                "agreement": t.candidate.agreement,
                "absences_log_likelihood": t.candidate.absences,
                "r1": t.r1_total,
            }
            for t in solution.trials
        ],
        "likeness": _likeness_entries(solution, known),
        "warnings": list(data.notes),
    }
    if best is None:
        return out
    fit, names = best.fit, best.fit.model.labels
    units, z = formula(best)
    others = strangers(best) if solution.solved and not data.guessed else []
    elements = rivals(best, tuple(o.element for o in others)) if solution.solved else []
    unsure = [
        *(
            f"{o.element} may be another element, as {o.instead}: R1 {fit.r1_all:.3f} falls to {o.r1:.3f}"
            for o in others
        ),
        *(r.told(names[r.atom]) for r in elements if r.close),
    ]
    return out | {
        "space_group": best.candidate.group.xhm(),
        "formula": "".join(f"{e}{n:g}" if n != 1 else e for e, n in units.items()),
        "z": z,
        "r1": fit.r1,
        "r1_all": fit.r1_all,
        "wr2": fit.wr2,
        "goof": fit.goof,
        "parameters": fit.n_parameters,
        "restraints": fit.n_restraints,
        "restrained_goof": fit.restrained_goof,
        "anisotropic": fit.model.anisotropic,
        "extinction": fit.extinction,
        "absolute_structure": hand(fit.model.symmetry),
        "bonds": [[names[b.first], names[b.second], round(b.length, 4), round(b.esd, 4)] for b in bonds(fit)],
        "assignment": [
            {"atom": names[r.atom], "rival": r.element, "r1_all_rise": r.rise, "sure": r.sure} for r in elements
        ],
        "warnings": [*data.notes, *warnings(fit, names), *unsure],
    }
