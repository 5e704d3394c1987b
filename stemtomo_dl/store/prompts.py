"""Where a person says that particles are: points and boxes, on the command line or in a CSV file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.store.tables import Column, read_table

POINT = ("x_px", "y_px")
BOX = ("x0_px", "y0_px", "x1_px", "y1_px")


def read_prompts(given: str, columns: tuple[str, ...], option: str) -> np.ndarray:
    """Points or boxes.

    Parameters
    ----------
    given : str
        Numbers with commas between them and a semicolon between prompts, or the path of a .csv file with a header.
    columns : tuple of str
        `POINT` or `BOX`: what the numbers of a prompt are, and what the file's columns are called.
    option : str
        What the user calls it.

    Returns
    -------
    (n, columns) f8 array
        px.

    Raises
    ------
    InputError
        If there is no prompt, one is not of as many finite numbers, or a box has no inside.
    """
    if given.lower().endswith(".csv"):
        if not Path(given).is_file():
            raise InputError(f"{option} {given}: no such file; give its path, or the numbers themselves")
        table = read_table(Path(given), {name: Column() for name in columns})
        prompts = np.stack([table[name] for name in columns], 1)
    else:
        prompts = np.array([_numbers(part, columns, option) for part in given.split(";") if part.strip()])
    if not len(prompts):
        raise InputError(f"{option} {given}: holds none; give {','.join(columns)}, and ; between several")
    for row in prompts.tolist():
        said = ",".join(f"{v:g}" for v in row)
        if not np.isfinite(row).all():
            raise InputError(f"{option} {said}: not finite; give px of the image")
        if len(row) == len(BOX) and not (row[0] < row[2] and row[1] < row[3]):
            raise InputError(f"{option} {said}: has no inside; give {','.join(BOX)} with x0 < x1 and y0 < y1")
    return prompts


def _numbers(part: str, columns: tuple[str, ...], option: str) -> list[float]:
    """The numbers of one prompt."""
    try:
        values = [float(v) for v in part.split(",")]
    except ValueError:
        values = []
    if len(values) != len(columns):
        raise InputError(
            f"{option} {part.strip()}: must be {','.join(columns)}, with ; between several, or a .csv file"
        )
    return values


def check_inside(prompts: np.ndarray, shape: tuple[int, ...], option: str) -> None:
    """Raise `InputError` for the first prompt whose middle is not in an image of this shape (y, x)."""
    middle = prompts.reshape(len(prompts), -1, 2).mean(1)
    for row, (x, y) in zip(prompts.tolist(), middle.tolist(), strict=True):
        if not (-0.5 <= x <= shape[1] - 0.5 and -0.5 <= y <= shape[0] - 0.5):
            said = ",".join(f"{v:g}" for v in row)
            raise InputError(f"{option} {said}: not in the image, which is {shape[1]} px wide and {shape[0]} px high")
