"""CSV files with a header: typed columns in, one clear line for a cell that is wrong."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.store.atomic import write_text


@dataclass(frozen=True)
class Column:
    """What the cells of a column may be: numbers, whole numbers from ``least``, or one of ``words``.

    A column with a ``default`` may be absent, and its cells empty.
    """

    whole: bool = False
    least: int = 0
    words: tuple[str, ...] = ()
    default: float | None = None

    def value(self, text: str | None) -> float:
        """A cell as a number (of a word: its place); ValueError says what it must be."""
        text = (text or "").strip()
        if not text and self.default is not None:
            return self.default
        if self.words:
            if text not in self.words:
                raise ValueError(f"one of {', '.join(self.words)}")
            return self.words.index(text)
        try:
            value = float(text)
        except ValueError:
            value = None
        if value is None or (self.whole and not (value.is_integer() and self.least <= value < 2**31)):
            raise ValueError(f"a whole number from {self.least}" if self.whole else "a number")
        return value


def write_table(path: Path, columns: Mapping[str, Column], rows: Iterable[Iterable[Any]]) -> None:
    """Write rows under the columns' names; floats get four decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([f"{v:.4f}" if isinstance(v, float) else v for v in row] for row in rows)
    write_text(path, text.getvalue())


def read_table(path: Path, columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
    """Named columns as f8 arrays; others are passed over.

    Raises
    ------
    InputError
        If the file is missing or no CSV, a column without a default is not there, or a cell is wrong.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            rows = [(reader.line_num, row) for row in reader]
            there = tuple(reader.fieldnames or ())
    except OSError as e:
        raise InputError(f"{path}: is missing; correct the path, or run the stage that writes it") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"{path}: is not a CSV file ({e}); run the stage that writes it again") from e
    needed = [name for name, column in columns.items() if column.default is None]
    lacking = [name for name in needed if name not in there]
    if lacking:
        raise InputError(f"{path}: column '{lacking[0]}' is missing; columns needed: {', '.join(needed)}")
    out = {name: np.zeros(len(rows)) for name in columns}
    for i, (line, row) in enumerate(rows):
        for name, column in columns.items():
            try:
                out[name][i] = column.value(row.get(name))
            except ValueError as e:
                raise InputError(
                    f"{path}: line {line}: {name} must be {e}, got '{row.get(name) or ''}'; correct it"
                ) from e
    return out
