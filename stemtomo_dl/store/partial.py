"""Finished tilts or particles of an unfinished stage, so that a killed run goes on where it stopped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from stemtomo_dl.store.atomic import writing

_PARTIAL = ".partial"


class Partial:
    """Results of one stage: a folder of .npy files a tilt, or another item, moved into place when complete.

    Parameters
    ----------
    run : Path
        The run's folder.
    stage, key : str
        Results under another key (other input or settings) are removed.
    item : str
        What they are of: "tilt", or what else is numbered.
    """

    def __init__(self, run: Path, stage: str, key: str, item: str = "tilt") -> None:
        self._item = item
        self._folder = run / _PARTIAL / f"{stage}-{key[:16]}"
        discard(run, stage, keep=self._folder.name)
        self._folder.mkdir(parents=True, exist_ok=True)

    def _place(self, number: int) -> Path:
        return self._folder / f"{self._item}{number:05d}"

    def has(self, number: int) -> bool:
        """Whether an item is finished and each of its arrays is whole."""
        try:
            return bool(self.load(number))
        except (OSError, ValueError, EOFError):
            return False

    def save(self, number: int, **arrays: np.ndarray) -> None:
        """Keep an item's arrays, in place of what may be left of it."""
        shutil.rmtree(self._place(number), ignore_errors=True)
        with writing(self._place(number)) as tmp:
            tmp.mkdir()
            for name, value in arrays.items():
                np.save(tmp / f"{name}.npy", value)

    def load(self, number: int) -> dict[str, np.ndarray]:
        """An item's arrays, mapped from disk rather than read."""
        return {p.stem: np.load(p, mmap_mode="r") for p in sorted(self._place(number).glob("*.npy"))}

    def array(self, number: int, name: str) -> np.ndarray:
        """One of an item's arrays, mapped."""
        mapped: np.ndarray = np.load(self._place(number) / f"{name}.npy", mmap_mode="r")
        return mapped


def discard(run: Path, stage: str, keep: str = "") -> None:
    """Remove a stage's partial results, for instance when it has ended."""
    parent = run / _PARTIAL
    for folder in parent.glob(f"{stage}-*"):
        if folder.name != keep:
            # Out of sight at once: a kill while files go one by one must not leave half an item to resume from.
            os.replace(folder, folder.with_name(f"old-{folder.name}"))
    for folder in parent.glob(f"old-{stage}-*"):
        shutil.rmtree(folder)
    if parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()
