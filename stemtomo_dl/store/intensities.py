"""Intensities of a crystal from files: SHELX HKLF 4 with its .ins, and .cif_pets."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np

from stemtomo_dl.config import GUESS
from stemtomo_dl.errors import InputError
from stemtomo_dl.scattering import scattering_factor
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.store.hklf4 import read_hklf4

_LATTICE = {1: "P", 2: "I", 3: "R", 4: "F", 5: "A", 6: "B", 7: "C"}  # SHELX's LATT
_PALETTE = ("O", "Si", "Ti", "Zr", "Pb")  # each stands for those of about its atomic number
_FEWEST = 5  # reflections; gold has eight to 1 Å
_WAVELENGTH = 0.0251  # Å, 200 kV, where no file says


def read_intensities(
    path: Path, cell: str | None = None, space_group: str | None = None, elements: str | None = None
) -> Intensities:
    """Read reflections; what the user gives comes before what files say.

    Parameters
    ----------
    path : Path
        .hkl (HKLF 4, or h k l F² σ with blanks between), with the .ins of the same name beside it where there is
        one, or .cif_pets.
    cell : str or None
        a,b,c,α,β,γ in Å and degrees.
    space_group : str or None
        Symbol; None: as the .ins says, else to be found.
    elements : str or None
        Symbols with commas between, or a formula, of however much of the crystal: Ti,O or TiO2; "guess": any, of
        which few stand for all.

    Raises
    ------
    InputError
        If the file cannot be understood, or cell or elements are neither given nor in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        beside = path.with_suffix(".ins")
        ins = beside.read_text(encoding="utf-8-sig", errors="replace") if beside.exists() else ""
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); give a .hkl or .cif_pets file") from e
    if path.suffix.lower() == ".cif_pets" or text.lstrip().startswith(("data_", "#")):
        stated, table = _pets(path, text)
    else:
        stated, table = _ins(beside, ins), read_hklf4(path, text)
    if len(table) < _FEWEST:
        raise InputError(f"{path}: holds {len(table)} reflections; give HKLF 4 (3I4,2F8) or .cif_pets")
    if cell is not None:
        stated["cell"] = _cell("--cell", re.split(r"[,\s]+", cell.strip()))
    if "cell" not in stated:
        raise InputError(f"{path}: the cell is not known; give --cell a,b,c,α,β,γ or put {beside.name} beside it")
    if elements is not None:
        guess = tuple((e, 0.0) for e in _PALETTE)
        stated["composition"] = guess if elements == GUESS else _composition("--elements", elements)
        stated["per_cell"] = False
    if not stated.get("composition"):
        raise InputError(f"{path}: the elements are not known; give --elements, as Ti,O, or guess")
    if {e for e, _ in stated["composition"]} <= {"H", "D"}:
        raise InputError(
            f"{path}: hydrogen alone is stated, and is not looked for; give the other elements (--elements)"
        )
    for element, _ in stated["composition"]:
        scattering_factor(element, np.zeros(1))
    operations = stated.get("operations")
    if space_group is not None:
        operations = _group(space_group, stated["cell"])
    stood_in = 0.1 * np.abs(table[:, 3]) + 0.01 * np.abs(table[:, 3]).mean()
    sigma, notes = np.where(table[:, 4] > 0, table[:, 4], stood_in), []
    if without := int((table[:, 4] <= 0).sum()):
        notes.append(f"{without} reflections have no σ above 0, and were given 0.1 |I| + 0.01 <|I|>")
    if "wavelength" not in stated:
        notes.append(f"no wavelength is stated: that of 200 kV, {_WAVELENGTH} Å, was taken")
    data = Intensities(
        name=path.stem,
        cell=stated["cell"],
        wavelength=stated.get("wavelength", _WAVELENGTH),
        operations=operations,
        composition=stated["composition"],
        hkl=table[:, :3].astype("i4"),
        intensity=np.ascontiguousarray(table[:, 3]),
        sigma=np.ascontiguousarray(sigma),
        cell_esd=(0.0,) * 6 if cell is not None else stated.get("cell_esd", (0.0,) * 6),
        whole=elements != GUESS,
        per_cell=stated.get("per_cell", True),
        guessed=elements == GUESS,
    )
    _check_symmetry(path, data)
    if space_group is None and (lattice_only := _is_lattice_only(data)):
        notes.append(
            "LATT without SYMM states no more than a lattice: the group was looked for (--space-group keeps one)"
        )
    elif space_group is None and data.operations is not None and _holosymmetric(data):
        notes.append(
            "the stated group only names a Laue class, as files do before a group is known: it was looked for "
            "(--space-group keeps one)"
        )
    opened = space_group is None and (lattice_only or _holosymmetric(data))
    return replace(data, operations=None if opened else data.operations, notes=tuple(notes))


def _pets(path: Path, text: str) -> tuple[dict, np.ndarray]:
    """Cell and wavelength, and h k l I σ (reflection, 5), of a .cif_pets."""
    try:
        block = gemmi.cif.read_string(text)[0]
        names = ["index_h", "index_k", "index_l", "intensity_meas", "intensity_sigma"]
        rows = [list(row) for row in block.find("_refln_", names)]
    except (ValueError, RuntimeError, IndexError) as e:
        raise InputError(f"{path}: not a CIF: {' '.join(str(e).split())}") from e
    stated: dict = {}
    tags = [f"_cell_{t}" for t in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")]
    values = [block.find_value(t) for t in tags]
    if all(v is not None for v in values):
        stated["cell"] = _cell(str(path), [re.sub(r"\(.*\)", "", str(v)) for v in values])
        stated["cell_esd"] = tuple(_esd(str(v)) for v in values)
    wavelength = block.find_value("_diffrn_radiation_wavelength")
    if wavelength is not None and 0 < (number := gemmi.cif.as_number(wavelength)) < 1:
        stated["wavelength"] = number
    formula = block.find_value("_chemical_formula_sum")
    if formula is not None and not gemmi.cif.is_null(formula):
        units = gemmi.cif.as_number(block.find_value("_cell_formula_units_Z") or "?")
        parts = _composition(f"{path}: _chemical_formula_sum", gemmi.cif.as_string(formula))
        stated["composition"] = tuple((e, (n or 1.0) * (units if units > 0 else 1.0)) for e, n in parts)
        stated["per_cell"] = units > 0
    return stated, _finite(path, rows)


def _finite(path: Path, rows: list[list[str]]) -> np.ndarray:
    """Numbers (reflection, 5) of rows of words; left out are those that say they are not known, and 0 0 0."""
    kept = [row for row in rows if not any(map(gemmi.cif.is_null, row))]
    table = np.array([[gemmi.cif.as_number(v) for v in row] for row in kept], float).reshape(-1, 5)
    bad = np.flatnonzero(~np.isfinite(table).all(1) | (table[:, :3] % 1 != 0).any(1))
    if len(bad):
        raise InputError(f"{path}: '{' '.join(kept[bad[0]])}' is no reflection h k l I σ; mend it or take it out")
    return np.asarray(table[table[:, :3].any(1)])


def _esd(value: str) -> float:
    """0.0004 of 0.1289(4); 0 where none is written."""
    parts = re.fullmatch(r"[-+]?\d*(?:\.(\d*))?\((\d+)\)", value)
    return int(parts[2]) * 10.0 ** -len(parts[1] or "") if parts else 0.0


def _ins(path: Path, text: str) -> dict:
    """Cell, wavelength, symmetry and contents of the cell, as a SHELX instruction file states them."""
    try:
        return _instructions(path, text)
    except (ValueError, IndexError) as e:
        raise InputError(f"{path}: an instruction is not SHELX's ({e}); correct it") from e


def _check_form(path: Path, words: list[str]) -> None:
    """Refuse forms of the reflection file that mean something else than HKLF 4 does."""
    form, matrix = words[1] if len(words) > 1 else "4", [float(w) for w in words[3:12]]
    if form.lstrip("-") != "4":
        raise InputError(f"{path}: HKLF {form} is not read; write HKLF 4 (one domain, F² and σ)")
    if len(matrix) == 9 and matrix != [1, 0, 0, 0, 1, 0, 0, 0, 1]:
        raise InputError(f"{path}: HKLF 4 with a matrix is not read; write the indices as they are in the cell")


def _instructions(path: Path, text: str) -> dict:
    stated: dict = {}
    symbols: list[str] = []
    lattice, triplets = 1, []
    for line in re.sub(r"=\s*\n", " ", text).splitlines():
        words = line.split("!")[0].split()
        match words[0].upper() if words else "":
            case "CELL":
                stated["wavelength"] = float(words[1])
                stated["cell"] = _cell(f"{path}: CELL", words[2:8])
            case "ZERR" if len(words) >= 8:
                stated["cell_esd"] = tuple(max(float(w), 0.0) for w in words[2:8])
            case "LATT":
                lattice = int(words[1])
            case "SYMM":
                triplets.append("".join(words[1:]))
            case "SFAC":
                short = not re.fullmatch(r"[-+.\d]+(?:[eE][-+]?\d+)?", words[2]) if len(words) > 2 else True
                symbols += [re.sub(r"\d*[-+]$", "", w).capitalize() for w in (words[1:] if short else words[1:2])]
            case "UNIT":
                counts = [float(w) for w in words[1:]]
                counts = [] if set(counts) == {1.0} else counts  # a list of elements, as files that are not solved have
                stated["composition"] = tuple(zip(symbols, counts, strict=False))
            case "HKLF":
                _check_form(path, words)
    if symbols and not stated.get("composition"):
        stated["composition"] = tuple((s, 0.0) for s in symbols)
    if "cell" in stated:
        stated["operations"] = _operations(path, lattice, triplets)
    return stated


def _operations(path: Path, lattice: int, triplets: list[str]) -> tuple[str, ...]:
    """Operations of LATT and SYMM: a negative LATT has no inversion centre at the origin."""
    try:
        ops = [gemmi.Op("x,y,z"), *(gemmi.Op(t.lower()) for t in triplets)]
        if lattice > 0:
            ops.append(gemmi.Op("-x,-y,-z"))
        letter = _LATTICE[abs(lattice)]
        centred = gemmi.SpaceGroup("R 3:H" if letter == "R" else f"{letter} 1").operations()
        ops += [op for op in centred if op not in ops]
        group = gemmi.GroupOps(ops)
        group.add_missing_elements()
    except (RuntimeError, ValueError, KeyError) as e:
        raise InputError(f"{path}: LATT and SYMM do not form a space group; correct them") from e
    return tuple(op.triplet() for op in group)


def _group(symbol: str, cell: tuple[float, ...]) -> tuple[str, ...]:
    numbered = gemmi.find_spacegroup_by_number(int(symbol)) if symbol.isdigit() else None
    found = gemmi.find_spacegroup_by_name(numbered.hm if numbered else symbol, cell[3], cell[5])  # of R, on these axes
    if found is None:
        raise InputError(f"--space-group '{symbol}' is unknown; give a symbol as P 21/c")
    if found.ext == "1":  # where an inversion centre is at the origin, phases are 0 or π
        found = gemmi.find_spacegroup_by_name(f"{found.hm}:2")
    return tuple(op.triplet() for op in found.operations())


def _check_symmetry(path: Path, data: Intensities) -> None:
    if data.operations is None:
        return
    lengths = np.sqrt(np.diag(data.metric))
    for triplet in data.operations:
        r = np.array(gemmi.Op(triplet).rot) // gemmi.Op.DEN
        if (np.abs(r.T @ data.metric @ r - data.metric) > 0.05 * np.outer(lengths, lengths)).any():
            raise InputError(f"{path}: the cell does not have the symmetry of the space group; correct one of them")


def _holosymmetric(data: Intensities) -> bool:
    """Whether the stated group only names a Laue class, as a merged file does before its space group is known."""
    if data.operations is None:
        return True
    group = gemmi.find_spacegroup_by_ops(gemmi.GroupOps([gemmi.Op(t) for t in data.operations]))
    return group is not None and group.is_symmorphic() and group.is_centrosymmetric()


def _is_lattice_only(data: Intensities) -> bool:
    """Whether the stated group is P1, or that with centring: programs write it before a group is known."""
    return data.operations is not None and all(
        np.array_equal(gemmi.Op(t).rot, gemmi.Op("x,y,z").rot) for t in data.operations
    )


def _cell(where: str, words: list[str]) -> tuple[float, ...]:
    try:
        values = tuple(float(w) for w in words)
    except ValueError:
        values = ()
    if len(values) != 6 or min(values) <= 0 or not gemmi.UnitCell(*values).volume > 1:
        raise InputError(f"{where}: '{' '.join(words)}' is no cell; give a,b,c,α,β,γ in Å and degrees")
    return values


def _composition(where: str, text: str) -> tuple[tuple[str, float], ...]:
    """Elements and numbers of 'TiO2' or 'Ti O2', in which no number is 1; of 'Ti,O', without any, they are 0."""
    parts = re.findall(r"([A-Z][a-z]?)\s*(\d*\.?\d*)", text)
    if not parts or re.sub(r"[A-Z][a-z]?\s*\d*\.?\d*|[,;\s]", "", text):
        raise InputError(f"{where} '{text}': give chemical symbols with commas between, as Ti,O, or a formula, as TiO2")
    unsaid = 1.0 if any(number for _, number in parts) else 0.0
    total: dict[str, float] = {}
    for symbol, number in parts:
        total[symbol] = total.get(symbol, 0.0) + float(number or unsaid)
    return tuple(total.items())
