"""Merged phases on disk: merged.hkl, merged.ins and stats.json of a folder RUN/phases/NAME."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stemtomo_dl.crystal.laue import proper_half, triplet
from stemtomo_dl.crystal.nouns import Reflections
from stemtomo_dl.crystal.phase import Phase, operator_text
from stemtomo_dl.crystal.statistics import Shell
from stemtomo_dl.errors import InputError
from stemtomo_dl.store.atomic import write_json, write_text
from stemtomo_dl.store.reflections import contents, write_hkl

_LATT = {"P": 1, "I": 2, "R": 3, "F": 4, "A": 5, "B": 6, "C": 7}
_DIGITS = 5


def write_phase(folder: Path, phase: Phase, name: str, wavelength_a: float, elements: Sequence[str] = ()) -> None:
    """Write merged.hkl (HKLF 4), merged.ins and stats.json.

    Parameters
    ----------
    folder : Path
        RUN/phases/NAME.
    phase : Phase
    name : str
        For titles.
    wavelength_a : float
    elements : sequence of str
        For SFAC.
    """
    merged = Reflections(phase.hkl, phase.intensity, phase.sigma, np.full(len(phase.hkl), np.nan))
    write_hkl(folder / "merged.hkl", merged)
    write_text(folder / "merged.ins", _ins(phase, name, wavelength_a, elements))
    write_json(folder / "stats.json", {"name": name, **_figures(phase)})


def _ins(phase: Phase, name: str, wavelength_a: float, elements: Sequence[str]) -> str:
    """The symmorphic group of the Laue class: reflections are merged in it, and the space group is to be chosen."""
    cell, esd = (" ".join(f"{v:.4f}" for v in np.nan_to_num(x)) for x in (phase.cell, phase.cell_esd))
    lines = [f"TITL {name}: {phase.lattice}, Laue class {phase.laue.name}, {len(phase.members)} particles"]
    likely = [g.symbol for g in phase.space_groups if g.verdict != "unlikely"][:8]
    if likely:
        lines.append(f"REM space groups that suit the absences: {'; '.join(likely)}")
    lines += [f"CELL {wavelength_a:.5f} {cell}", f"ZERR 1 {esd}", f"LATT {_LATT[phase.lattice[1]]}"]
    lines += [f"SYMM {triplet(r).upper()}" for r in proper_half(phase.laue.rotations)]
    lines += contents(elements)
    return "\n".join([*lines, "HKLF 4", "END"]) + "\n"


def _figures(phase: Phase) -> dict[str, Any]:
    overall = _plain(phase.overall)
    return {
        "lattice": phase.lattice,
        "cell": _number(phase.cell.tolist()),
        "cell_esd": _number(phase.cell_esd.tolist()),
        "laue_class": phase.laue.name,
        "laue_setting": phase.laue.symbol,
        **overall,
        "resolution_a": _number(phase.resolution_a),
        "shells": [_plain(s) for s in phase.shells],
        "wilson_e2_minus_1": _number(phase.wilson),
        "laue_tests": [_plain(t) for t in phase.operations],
        "laue_classes": [_plain(t) for t in phase.classes],
        "absences": [_plain(a) for a in phase.absences],
        "space_groups": [_plain(g) for g in phase.space_groups],
        "scaling": phase.scaling,
        "error_model": _plain(phase.errors),
        "n_rejected": phase.n_rejected,
        "members": [
            {**_plain(m), "operator": operator_text(m.operator), "curve": _number([list(p) for p in m.curve])}
            for m in phase.members
        ],
        "left_out": [_plain(o) for o in phase.left_out],
    }


def _plain(row: NamedTuple) -> dict[str, Any]:
    return {k: _number(v) for k, v in row._asdict().items()}


def _number(value: Any) -> Any:
    """Rounded to the digits that mean something; None where a figure could not be taken."""
    if isinstance(value, (list, tuple)):
        return [_number(v) for v in value]
    if isinstance(value, np.ndarray):
        return _number(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None
    return value


def read_stats(folder: Path) -> dict[str, Any]:
    """What a phase's stats.json holds; nothing where there is none.

    Raises
    ------
    InputError
        If it cannot be understood.
    """
    path = folder / "stats.json"
    try:
        stats = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if not isinstance(stats, dict):
            raise ValueError("it holds no figures")
    except (OSError, ValueError) as e:
        raise InputError(f"{path}: is no phase's stats.json ({e}); merge the particles again") from e
    return stats


class PhaseFigures(NamedTuple):
    """A phase as its stats.json tells it."""

    name: str
    figures: dict[str, Any]
    shells: list[Shell]


def read_phase(folder: Path) -> PhaseFigures:
    """Read stats.json of a phase; figures that could not be taken are NaN in shells.

    Raises
    ------
    InputError
        If it is not there or cannot be understood.
    """
    path = folder / "stats.json"
    try:
        figures = read_stats(folder)
        shells = [Shell._make(np.nan if s[k] is None else s[k] for k in Shell._fields) for s in figures["shells"]]
        return PhaseFigures(str(figures["name"]), figures, shells)
    except (ValueError, KeyError, TypeError) as e:
        raise InputError(f"{path}: is no phase's stats.json ({e}); merge the particles again") from e
