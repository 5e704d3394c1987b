"""A synthetic experiment on disk: scans, tilts.csv, experiment.toml, CIFs, and truth.h5 beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.config import Experiment
from stemtomo_dl.errors import BadScan, InputError
from stemtomo_dl.records import Truth, VirtualImages
from stemtomo_dl.store.atomic import write_text, writing
from stemtomo_dl.store.results import write_images
from stemtomo_dl.store.scans.open import open_scan
from stemtomo_dl.store.scans.write import write_scan
from stemtomo_dl.store.truth import write_truth

_ORIGIN, _PLAYABLE = "scene.json", "scene.toml"
_OURS = ("experiment.toml", "tilts.csv", "truth.h5", "images.h5", "scans")  # written; a user may have his own


@dataclass(frozen=True)
class Origin:
    """What an experiment is made from: a folder that holds one of another origin is refused."""

    scene: Mapping[str, Any]  # all its keys, as JSON can hold them
    cifs: Mapping[str, str]  # text of every phase's CIF by the name that the scene gives it
    version: str  # of the program

    def note(self, folder: Path) -> None:
        """Claim a folder, and leave in it the scene, to be played again, and the CIFs.

        Raises
        ------
        InputError
            If the folder holds an experiment of another origin, or cannot be written.
        """
        what = {"scene": {"version": self.version, **self.scene}, "cifs": self.cifs}
        _claim(folder, json.dumps(what, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
        write_text(folder / _PLAYABLE, _toml(self.scene))
        for name, text in self.cifs.items():
            write_text(folder / Path(name).name, text)


def write_experiment(
    folder: Path,
    experiment: Experiment,
    truth: Truth,
    stated_deg: np.ndarray,
    rows: Callable[[int], Iterable[np.ndarray]],
    shape: tuple[int, int, int, int],
    origin: Origin,
    mask: np.ndarray | None = None,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write an experiment, scan by scan; started again on the same folder it skips the scans that are there whole.

    Parameters
    ----------
    folder : Path
        Made if absent.
    experiment : Experiment
        What experiment.toml says; the suffix of its ``scans.files`` is the scans' format.
    stated_deg : (tilt,) array
        Tilt angles as tilts.csv states them.
    rows : callable
        Given a tilt, its scan rows one after another, each (x, qy, qx); they are stored in their own dtype.
    shape : tuple of int
        Shape (y, x, qy, qx) of every scan.
    mask : (qy, qx) bool array or None
        Pixels that the instrument knows to be bad; needed where the experiment names a file for them.
    advance : callable
        Called once for every scan that lies in its place, those that were there already included.

    Raises
    ------
    InputError
        If the folder holds an experiment of another origin, or cannot be written.
    """
    origin.note(folder)
    files = [f"scan_{tilt + 1:04d}{Path(str(experiment.scans.files)).suffix}" for tilt in range(len(stated_deg))]
    angles = "".join(f"{name},{angle:.10g}\n" for name, angle in zip(files, stated_deg, strict=True))
    write_text(folder / "tilts.csv", "scan,alpha_deg\n" + angles)
    write_truth(folder / "truth.h5", truth)
    if experiment.detector.mask is not None and mask is not None:
        with writing(folder / experiment.detector.mask) as temporary, open(temporary, "wb") as file:
            np.save(file, mask)
    write_text(folder / "experiment.toml", experiment_toml(experiment))
    for tilt, name in enumerate(files):
        path = folder / "scans" / name
        if not _is_whole(path, shape):
            blocks = (row[None] for row in rows(tilt))
            first = next(blocks)
            write_scan(path, chain([first], blocks), shape, first.dtype)
        advance()


def write_expected(
    folder: Path,
    tilts: Iterator[tuple[int, VirtualImages]],
    truth: Truth,
    stated_deg: np.ndarray,
    bad_pixels: np.ndarray,
    origin: Origin,
) -> None:
    """Write the virtual images of an experiment whose scans are never made: images.h5 as of a run, and the truth.

    Parameters
    ----------
    tilts : iterator
        Number and images of every tilt.
    stated_deg : (tilt,) array
        Tilt angles as the goniometer states them.
    bad_pixels : (qy, qx) bool array

    Raises
    ------
    InputError
        If the folder holds an experiment of another origin, or cannot be written.
    """
    origin.note(folder)
    write_truth(folder / "truth.h5", truth)
    write_images(folder / "images.h5", tilts, stated_deg, bad_pixels)


def experiment_toml(experiment: Experiment) -> str:
    """The text of an experiment file; what has its default is left out."""
    return _toml(experiment.model_dump(mode="json", exclude_defaults=True))


def _is_whole(path: Path, shape: tuple[int, int, int, int]) -> bool:
    """Whether a scan lies there that can be opened and has the right shape; others are written again."""
    if not path.exists():
        return False
    try:
        return open_scan(path, shape=shape[:2]).shape == shape
    except (BadScan, InputError):
        return False


def _toml(content: Mapping[str, Any]) -> str:
    """Values and tables as TOML; tables within tables go on their line, and what is None is left out."""
    tables = {k: v for k, v in content.items() if isinstance(v, dict)}
    lines = [f"{k} = {_value(v)}" for k, v in content.items() if k not in tables and v is not None]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{k} = {_value(v)}" for k, v in table.items() if v is not None)]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """A value in TOML; strings and numbers are written as JSON writes them."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _claim(folder: Path, text: str) -> None:
    """Note what the folder is made from; scans of another scene must not be taken for this one's."""
    path = folder / _ORIGIN
    try:
        foreign = next((n for n in _OURS if (folder / n).exists()), None)
        if not path.exists() and foreign is not None:
            raise InputError(f"{folder}: holds {foreign} that no scene here has written; give another folder")
    except OSError as e:
        raise InputError(f"{folder}: cannot be used ({e.strerror}); give another folder") from e
    if not path.exists():
        write_text(path, text)
        return
    try:
        there = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: cannot be read ({e}); give another folder or remove it") from e
    if there != text:
        raise InputError(f"{folder}: holds an experiment of another scene; give another folder or empty it")
