"""The tilt list: which angle belongs to which scan."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from stemtomo_dl.errors import InputError
from stemtomo_dl.store.scans.layout import natural

HEADER = ("scan", "alpha_deg")


class Tilt(NamedTuple):
    """One tilt; the file may be absent, and alpha_deg is NaN where the list has no line for it."""

    path: Path
    alpha_deg: float


class Line(NamedTuple):
    """One line of the list."""

    number: int  # in the file, from 1
    scan: str
    alpha_deg: float


def angles_in_order(toml_path: Path, angles: list[float], files: list[Path]) -> list[Tilt]:
    """Angles in the order of the files.

    Raises
    ------
    InputError
        If there are more or fewer of them than files.
    """
    if len(angles) != len(files):
        raise InputError(
            f"{toml_path}: [scans] tilts has {len(angles)} angles, but there are {len(files)} scans; make them agree"
        )
    return [Tilt(f, a) for f, a in zip(files, angles, strict=True)]


def read_tilts(path: Path) -> list[Line]:
    """Read a CSV with the columns scan and alpha_deg; further columns are ignored.

    Raises
    ------
    InputError
        If the file or its header is missing, an angle is no number, or a scan stands there twice.
    """
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        what = getattr(e, "strerror", None) or e
        raise InputError(f"{path}: the tilt list cannot be read ({what}); correct [scans] tilts") from e
    cells = [(n, [c.strip() for c in row]) for n, row in enumerate(rows, 1) if any(c.strip() for c in row)]
    if not cells or not set(HEADER) <= set(cells[0][1]):
        raise InputError(f"{path}: the first line must be '{','.join(HEADER)}'; add it")
    scan, alpha = (cells[0][1].index(h) for h in HEADER)
    lines = [_line(path, number, row, scan, alpha) for number, row in cells[1:]]
    if not lines:
        raise InputError(f"{path}: lists no tilts; add a line scan,alpha_deg for every scan")
    twice = [s for s, n in Counter(line.scan for line in lines).items() if n > 1]
    if twice:
        raise InputError(f"{path}: scan '{twice[0]}' is listed twice; remove one line")
    return lines


def _line(path: Path, number: int, row: list[str], scan: int, alpha: int) -> Line:
    name = row[scan] if scan < len(row) else ""
    text = row[alpha] if alpha < len(row) else ""
    try:
        angle = float(text)
    except ValueError:
        angle = math.nan
    if not name or not math.isfinite(angle):
        raise InputError(
            f"{path}: line {number}: expected a scan and an angle in degrees, got '{','.join(row)}'; correct it"
        )
    return Line(number, name, angle)


def match(
    table: Path, lines: list[Line], files: list[Path], folder: Path, *, keep_order: bool, skip_bad: bool
) -> list[Tilt]:
    """Give every scan its angle.

    A line names its scan by path relative to the experiment's folder, by file name, by stem, by the number at the
    end of the stem, or by place in the list of files (from 0 if 0 occurs, else from 1).

    Parameters
    ----------
    table : Path
        The list's file, for messages.
    lines : list of Line
    files : list of Path
    folder : Path
        The experiment's folder.
    keep_order : bool
        Whether the files' order is the user's own; otherwise scans that are listed but absent are sorted in.
    skip_bad : bool
        Allow scans without a line (their angle is NaN) and lines without a scan (their file is absent).

    Raises
    ------
    InputError
        If scans and lines do not belong to each other one to one.
    """
    where = _by_name(table, lines, files, folder)
    if not any(i is not None for i in where) and all(line.scan.isdecimal() for line in lines):
        where = _by_number(lines, files) or _by_place(table, lines, files)
    _check_twice(table, lines, files, where)
    absent = [line for line, i in zip(lines, where, strict=True) if i is None]
    alphas = {i: line.alpha_deg for line, i in zip(lines, where, strict=True) if i is not None}
    unlisted = [f for i, f in enumerate(files) if i not in alphas]
    if (absent or unlisted) and not skip_bad:
        raise InputError(_mismatch(table, len(lines), len(files), absent, unlisted))
    tilts = [Tilt(f, alphas.get(i, math.nan)) for i, f in enumerate(files)]
    tilts += [Tilt(_would_be(line.scan, files, folder), line.alpha_deg) for line in absent]
    return tilts if keep_order or not absent else sorted(tilts, key=lambda t: natural(t.path.as_posix()))


def _by_name(table: Path, lines: list[Line], files: list[Path], folder: Path) -> list[int | None]:
    """Place of each line's file by path, else by name, else by stem; None where there is none."""
    forms: tuple[Callable[[Path], str], ...] = (_relative(folder), lambda f: f.name, lambda f: f.stem)
    places = [_places(form(f) for f in files) for form in forms]
    found: list[int | None] = []
    for line in lines:
        name = line.scan.replace("\\", "/").removeprefix("./")
        hits = next((p[name] for p in places if name in p), [])
        if len(hits) > 1:
            raise InputError(
                f"{table}: line {line.number}: '{line.scan}' may be {files[hits[0]]} or {files[hits[1]]}; give its path"
            )
        found.append(hits[0] if hits else None)
    return found


def _relative(folder: Path) -> Callable[[Path], str]:
    return lambda f: f.relative_to(folder).as_posix() if f.is_relative_to(folder) else f.as_posix()


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    return places


def _by_number(lines: list[Line], files: list[Path]) -> list[int | None] | None:
    """Place of each line's file by the number its stem ends with; None where the numbers do not fit the files.

    They fit if no two stems end alike and one of the two sets holds the other: then a missing file or line
    leaves the rest in place, which counting places would not.
    """
    numbers = [re.search(r"(\d+)$", f.stem) for f in files]
    places = {int(n[1]): i for i, n in enumerate(numbers) if n}
    listed = {int(line.scan) for line in lines}
    if len(places) < len(files) or not (listed <= places.keys() or places.keys() <= listed):
        return None
    return [places.get(int(line.scan)) for line in lines]


def _by_place(table: Path, lines: list[Line], files: list[Path]) -> list[int | None]:
    numbers = [int(line.scan) for line in lines]
    first = 0 if 0 in numbers else 1
    beyond = next((line for line in lines if not first <= int(line.scan) < first + len(files)), None)
    if beyond is not None:
        # Which scan is missing cannot be told from places alone, so this stays an error.
        raise InputError(
            f"{table}: lists {len(lines)} tilts, but there are {len(files)} scans: line {beyond.number} names scan "
            f"{beyond.scan}; make them agree, or name the scans by file name"
        )
    return [n - first for n in numbers]


def _check_twice(table: Path, lines: list[Line], files: list[Path], where: list[int | None]) -> None:
    seen: dict[int, Line] = {}
    for line, i in zip(lines, where, strict=True):
        if i is None:
            continue
        if i in seen:
            raise InputError(f"{table}: lines {seen[i].number} and {line.number} both mean {files[i].name}; remove one")
        seen[i] = line


def _mismatch(table: Path, n_lines: int, n_files: int, absent: list[Line], unlisted: list[Path]) -> str:
    counts = f"lists {n_lines} tilts for {n_files} scans: " if n_lines != n_files else ""
    if absent:
        what = f"line {absent[0].number} names '{absent[0].scan}', which is not among the scans"
    else:
        what = f"{unlisted[0].name} has no line"
    return f"{table}: {counts}{what}; make the list and [scans] files agree"


def _would_be(scan: str, files: list[Path], folder: Path) -> Path:
    """Path that an absent scan would have, judging by its siblings."""
    like = files[0]
    if scan.isdecimal() and (end := re.search(r"\d+$", like.stem)):
        return like.with_name(like.stem[: end.start()] + scan.zfill(len(end[0])) + like.suffix)
    path = folder / scan if "/" in scan else like.parent / scan
    return path if path.suffix == like.suffix else path.with_name(path.name + like.suffix)
