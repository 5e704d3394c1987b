"""A synthetic experiment on disk: scans, tilts.csv, experiment.toml, CIFs, and truth.h5 beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.config import Experiment
from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Truth
from stemtomo_dl.store.atomic import write_text, writing
from stemtomo_dl.store.scans.write import write_scan
from stemtomo_dl.store.truth import write_truth

_ORIGIN = "scene.json"


def write_experiment(
    folder: Path,
    experiment: Experiment,
    truth: Truth,
    stated_deg: np.ndarray,
    rows: Callable[[int], Iterable[np.ndarray]],
    shape: tuple[int, int, int, int],
    origin: Mapping[str, Any],
    cifs: Mapping[str, str],
    mask: np.ndarray | None = None,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write an experiment, scan by scan; started again on the same folder it skips the scans that are there.

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
    origin : mapping
        The scene, as JSON can hold it; kept with the CIFs as scene.json, and a folder of another origin is refused.
    cifs : mapping
        Text of every phase's CIF by its name; a folder in the name is dropped.
    mask : (qy, qx) bool array or None
        Pixels that the instrument knows to be bad; needed where the experiment names a file for them.
    advance : callable
        Called once for every scan that lies in its place, those that were there already included.

    Raises
    ------
    InputError
        If the folder holds an experiment of another origin, or cannot be written.
    """
    _claim(folder, {"scene": origin, "cifs": cifs})
    for name, text in cifs.items():
        write_text(folder / Path(name).name, text)
    files = [f"scan_{tilt + 1:04d}{Path(str(experiment.scans.files)).suffix}" for tilt in range(len(stated_deg))]
    angles = "".join(f"{name},{angle:.10g}\n" for name, angle in zip(files, stated_deg, strict=True))
    write_text(folder / "tilts.csv", "scan,alpha_deg\n" + angles)
    write_truth(folder / "truth.h5", truth)
    if experiment.detector.mask is not None and mask is not None:
        with writing(folder / experiment.detector.mask) as temporary, open(temporary, "wb") as file:
            np.save(file, mask)
    write_text(folder / "experiment.toml", experiment_toml(experiment))
    (folder / "scans").mkdir(exist_ok=True)
    for tilt, name in enumerate(files):
        path = folder / "scans" / name
        if not path.exists():
            blocks = (row[None] for row in rows(tilt))
            first = next(blocks)
            write_scan(path, chain([first], blocks), shape, first.dtype)
        advance()


def experiment_toml(experiment: Experiment) -> str:
    """The text of an experiment file; what has its default is left out."""
    content = experiment.model_dump(mode="json", exclude_defaults=True)
    tables = {k: v for k, v in content.items() if isinstance(v, dict)}
    lines = [_line(k, v) for k, v in content.items() if k not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(_line(k, v) for k, v in table.items())]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any) -> str:
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"  # JSON strings, numbers and lists of them are TOML too


def _claim(folder: Path, origin: Mapping[str, Any]) -> None:
    """Note what the folder is made from; scans of another scene must not be taken for this one's."""
    path, text = folder / _ORIGIN, json.dumps(origin, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if path.exists():
        if path.read_text(encoding="utf-8") != text:
            raise InputError(f"{folder}: holds an experiment of another scene; give another folder or empty it")
    else:
        write_text(path, text)
