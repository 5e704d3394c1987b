"""What is known of a crystal, on disk: crystal.json, SHELX HKLF 4 and the .ins beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.config import GUESS
from stemtomo_dl.crystal.bravais import cell_of
from stemtomo_dl.crystal.nouns import Crystal, Reflections
from stemtomo_dl.errors import InputError
from stemtomo_dl.scattering import sfac_line
from stemtomo_dl.store.atomic import write_json, write_text

_HIGHEST = 9999.0  # F8.2 holds no more beside a sign
_LATT = {"P": 1, "I": 2, "R": 3, "F": 4, "A": 5, "B": 6, "C": 7}


def write_crystals(path: Path, crystals: Sequence[Crystal]) -> None:
    """Write crystal.json: the lattice with most spots, the others under "more"."""
    first, *more = [crystal_entry(c) for c in crystals]
    write_json(path, {**first, "more": more})


def read_crystals(path: Path) -> list[Crystal]:
    """Read crystal.json, ours or edited: the cell is that of its ``ub``.

    Raises
    ------
    InputError
        If it cannot be understood.
    """
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        return [crystal_of(e) for e in (entry, *entry.get("more", ()))]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, np.linalg.LinAlgError) as e:
        why = " ".join(f"{type(e).__name__}: {e}".split())
        raise InputError(f"{path}: cannot be understood ({why}); make it again with 'stemtomo index'") from e


def crystal_entry(crystal: Crystal) -> dict[str, Any]:
    """A crystal as JSON has it: its fields by their names, null for what is not known."""
    entry = {f.name: _plain(getattr(crystal, f.name)) for f in fields(crystal)}
    return {"cell": [round(float(v), 5) for v in crystal.cell], **{k: v for k, v in entry.items() if k != "cell"}}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value.tolist()] if value.ndim else _plain(value.item())
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def crystal_of(entry: dict[str, Any]) -> Crystal:
    """The crystal of an entry; what it lacks is as by default, else NaN, which null is too.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it holds no crystal.
    """
    ub = np.array(entry["ub"], "f8")
    known: dict[str, Any] = {}
    for f in fields(Crystal):
        value = entry.get(f.name, np.nan if f.default is MISSING else f.default)
        if f.metadata.get("optional") and entry.get(f.name) is None:
            continue
        known[f.name] = (
            np.array(value, f.metadata["dtype"]) if "dtype" in f.metadata else np.nan if value is None else value
        )
    return Crystal(**{**known, "ub": ub, "cell": cell_of(np.linalg.inv(ub))})


def write_hkl(path: Path, reflections: Reflections) -> None:
    """Write HKLF 4: 3I4, 2F8.2, scaled so that the strongest fits; the end is a line of zeros."""
    scale = _HIGHEST / max(float(reflections.intensity.max(initial=0)), 1e-12)
    rows = zip(reflections.hkl.tolist(), reflections.intensity * scale, reflections.sigma * scale, strict=True)
    lines = [f"{h:4d}{k:4d}{n:4d}{max(i, -999.0):8.2f}{np.clip(s, 0.01, _HIGHEST):8.2f}" for (h, k, n), i, s in rows]
    write_text(path, "\n".join([*lines, f"{0:4d}{0:4d}{0:4d}{0:8.2f}{0:8.2f}"]) + "\n")


def contents(elements: Sequence[str]) -> list[str]:
    """SFAC and UNIT of a crystal of which no more than the elements is known; none where they are to be guessed."""
    if not elements or list(elements) == [GUESS]:
        return []
    return [*map(sfac_line, elements), f"UNIT {' '.join('1' for _ in elements)}"]


def write_ins(path: Path, title: str, crystal: Crystal, wavelength_a: float, elements: Sequence[str] = ()) -> None:
    """Write the head of a SHELX .ins: CELL with the electrons' wavelength, LATT, SFAC where elements are known."""
    cell = " ".join(f"{v:.4f}" for v in crystal.cell)
    lines = [f"TITL {title}", f"CELL {wavelength_a:.5f} {cell}", "ZERR 1 0 0 0 0 0 0"]
    lines.append(f"LATT {_LATT[crystal.lattice[1]]}")
    lines += contents(elements)
    write_text(path, "\n".join([*lines, "HKLF 4", "END"]) + "\n")
