"""Finished tilts of an unfinished stage, so that a killed run goes on where it stopped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from stemtomo_dl.store.atomic import writing

_PARTIAL = ".partial"


class Partial:
    """Per-tilt results of one stage: a folder of .npy files a tilt, moved into place when complete.

    Parameters
    ----------
    run : Path
        The run's folder.
    stage, key : str
        Results under another key (other input or settings) are removed.
    """

    def __init__(self, run: Path, stage: str, key: str) -> None:
        self._folder = run / _PARTIAL / f"{stage}-{key[:16]}"
        discard(run, stage, keep=self._folder.name)
        self._folder.mkdir(parents=True, exist_ok=True)

    def _tilt(self, tilt: int) -> Path:
        return self._folder / f"tilt{tilt:05d}"

    def has(self, tilt: int) -> bool:
        """Whether a tilt is finished and each of its arrays is whole."""
        try:
            return bool(self.load(tilt))
        except (OSError, ValueError, EOFError):
            return False

    def save(self, tilt: int, **arrays: np.ndarray) -> None:
        """Keep a tilt's arrays, in place of what may be left of it."""
        shutil.rmtree(self._tilt(tilt), ignore_errors=True)
        with writing(self._tilt(tilt)) as tmp:
            tmp.mkdir()
            for name, value in arrays.items():
                np.save(tmp / f"{name}.npy", value)

    def load(self, tilt: int) -> dict[str, np.ndarray]:
        """A tilt's arrays, mapped from disk rather than read."""
        return {p.stem: np.load(p, mmap_mode="r") for p in sorted(self._tilt(tilt).glob("*.npy"))}

    def array(self, tilt: int, name: str) -> np.ndarray:
        """One of a tilt's arrays, mapped."""
        mapped: np.ndarray = np.load(self._tilt(tilt) / f"{name}.npy", mmap_mode="r")
        return mapped


def discard(run: Path, stage: str, keep: str = "") -> None:
    """Remove a stage's partial results, for instance when it has ended."""
    parent = run / _PARTIAL
    for folder in parent.glob(f"{stage}-*"):
        if folder.name != keep:
            # Out of sight at once: a kill while files go one by one must not leave half a tilt to resume from.
            os.replace(folder, folder.with_name(f"old-{folder.name}"))
    for folder in parent.glob(f"old-{stage}-*"):
        shutil.rmtree(folder)
    if parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()
