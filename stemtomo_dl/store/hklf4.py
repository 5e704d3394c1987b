"""Reflections of SHELX's HKLF 4, and of tables with blanks between the numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from stemtomo_dl.errors import InputError

_ENDS, _WIDTH = 28, 8  # column where σ ends in HKLF 4, and its width


def read_hklf4(path: Path, text: str) -> np.ndarray:
    """H k l F² σ (reflection, 5), up to the line of zeros: in SHELX's columns (3I4,2F8), or with blanks between.

    Numbers wider than SHELX's columns are cut by them without notice, so blanks decide where they part every line
    into five numbers or more; columns without blanks between them do not.

    Raises
    ------
    InputError
        If a line before the line of zeros is no reflection: what follows it would be lost otherwise.
    """
    lines = text.splitlines()
    rows: list[list[float]] = []
    by_columns, alike = False, True  # alike: all lines yet say the same in both ways
    for number, line in enumerate(lines, 1):
        shelx, free = _by_columns(line), None if by_columns else _by_blanks(line)
        if free is None and alike:
            by_columns = by_columns or shelx is not None
            free = shelx
        alike = by_columns or (alike and shelx == free)
        if free is None and not line.strip() and not any(_by_columns(r) or _by_blanks(r) for r in lines[number:]):
            break  # an empty line ends a file, too
        if free is not None and not any(free[:3]):
            break  # some programs write remarks after the reflections
        if free is None or not np.isfinite(free).all():
            raise InputError(
                f"{path}: line {number} is not HKLF 4 (3I4,2F8) nor h k l F² σ with blanks between: "
                f"'{line[:40]}'; mend it or take it out{_why(line)}"
            )
        rows.append(free)
    else:
        if lines and not text.endswith(("\n", "\r")) and _is_cut(lines):
            raise InputError(
                f"{path}: line {len(lines)}, the last, is cut short: '{lines[-1][:40]}'; copy the file again"
            )
    return np.array(rows, float).reshape(-1, 5)


def _by_columns(line: str) -> list[float] | None:
    if len(line.rstrip()) < _ENDS:  # columns are filled from the right
        return None
    try:
        return [int(line[0:4]), int(line[4:8]), int(line[8:12]), float(line[12:20]), float(line[20:28])]
    except ValueError:
        return None


def _by_blanks(line: str) -> list[float] | None:
    words = list(re.finditer(r"\S+", line))[:5]
    if len(words) < 5 or (words[3].end() == _ENDS and len(words[3][0]) > _WIDTH):  # F² and σ touch
        return None
    try:
        return [*(int(w[0]) for w in words[:3]), *(float(w[0]) for w in words[3:])]
    except ValueError:
        return None


def _why(line: str) -> str:
    """What is known of the reason, in words."""
    if not line.strip():
        return " (an empty line, with reflections after it)"
    return " (asterisks stand for a number that was too wide: write intensities on a smaller scale)" * ("**" in line)


def _is_cut(lines: list[str]) -> bool:
    """Whether the last line has fewer words than any other, or is the only short one of a table of equal lines."""
    last, others = lines[-1].rstrip(), [line.rstrip() for line in lines[:-1]]
    lengths = {len(line) for line in others}
    fewer = len(last.split()) < min((len(line.split()) for line in others), default=0)
    return fewer or (len(lengths) == 1 and len(last) < min(lengths))
