"""Open the tilt series that an experiment file describes."""

from __future__ import annotations

import glob
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stemtomo_dl.config import Experiment, load
from stemtomo_dl.errors import BadScan, InputError
from stemtomo_dl.records import Scan, TiltSeries
from stemtomo_dl.store.scans.layout import first_line, natural
from stemtomo_dl.store.scans.open import open_scan
from stemtomo_dl.store.tilts import Tilt, angles_in_order, match, read_tilts


class Opened(NamedTuple):
    """An experiment whose scans are opened, and what is to be said of it."""

    experiment: Experiment
    series: TiltSeries  # a tilt left out has None for its scan, and NaN for its angle if the tilt list has none
    left_out: dict[int, str]  # why, by tilt
    notes: list[str]  # what was assumed or dropped, for the user


def open_series(toml_path: Path, skip_bad: bool = False) -> Opened:
    """Open a tilt series by the headers of its scans.

    Parameters
    ----------
    toml_path : Path
        The experiment file; paths in it are relative to its folder.
    skip_bad : bool
        Leave out tilts whose scan cannot be used, rather than fail on the first.

    Returns
    -------
    Opened
        The series has one tilt per file, in the order of the files.

    Raises
    ------
    InputError
        If the experiment file, the tilt list or the detector mask is wrong, or no scan can be used.
    BadScan
        If a scan cannot be used and ``skip_bad`` is not set.
    """
    experiment = load(Experiment, toml_path)
    folder = toml_path.parent
    tilts = _tilts(toml_path, experiment, _files(toml_path, experiment), skip_bad)
    scans: list[Scan | None] = []
    bad: dict[int, BadScan] = {}
    for i, tilt in enumerate(tilts):
        try:
            scans.append(_open(experiment, tilt))
        except BadScan as e:
            if not skip_bad:
                raise _with_hint(e) from e
            scans.append(None)
            bad[i] = e
    for i, odd in _unlike_most(tilts, scans):
        if not skip_bad:
            raise _with_hint(odd)
        scans[i], bad[i] = None, odd
    good = next((s for s in scans if s is not None), None)
    if good is None:
        raise InputError(f"{toml_path}: none of the {len(tilts)} scans can be used; the first: {bad[0]}")
    names = tuple(_shown(folder, t.path) for t in tilts)
    series = TiltSeries(
        title=experiment.title,
        instrument=experiment.instrument,
        scans=tuple(scans),
        names=names,
        alpha_deg=np.array([t.alpha_deg for t in tilts], "f8"),
        bad_pixels=_mask(toml_path, experiment.detector.mask, good.shape[2:]),
    )
    left_out = {i: reason(str(bad[i]), folder, names[i]) for i in sorted(bad)}
    return Opened(experiment, series, left_out, _notes(scans))


def reason(told: str, folder: Path, name: str) -> str:
    """Why a scan is left out, without its own name and without the place of the experiment on this machine."""
    for home in (folder, folder.absolute()):
        told = told.removeprefix(f"{home / name}: ")
    return without(folder, told).removeprefix(f"{name}: ")


def without(folder: Path, told: str) -> str:
    """A message without the place of a folder on this machine."""
    for home in {folder, folder.absolute(), folder.resolve()}:
        told = told.replace(f"{home}/", "") if str(home) != "." else told
    return told


def _with_hint(e: BadScan) -> BadScan:
    return BadScan(f"{e}; or add --skip-bad to go on without it")


def _files(toml_path: Path, experiment: Experiment) -> list[Path]:
    """The scans' paths: those of a glob in natural order, those of a list as they are."""
    folder, files = toml_path.parent, experiment.scans.files
    if isinstance(files, str):
        found = glob.glob(files, root_dir=folder, recursive=True)
        if not found:
            raise InputError(f"{toml_path}: no file matches '{files}'; correct [scans] files (relative to {folder})")
        return [folder / f for f in sorted(found, key=natural)]
    if not files:
        raise InputError(f"{toml_path}: [scans] files is an empty list; name the scans")
    twice = [f for f, n in Counter(files).items() if n > 1]
    if twice:
        raise InputError(f"{toml_path}: [scans] files names '{twice[0]}' twice; remove one")
    return [folder / f for f in files]


def _tilts(toml_path: Path, experiment: Experiment, files: list[Path], skip_bad: bool) -> list[Tilt]:
    stated = experiment.scans.tilts
    if isinstance(stated, list):
        return angles_in_order(toml_path, stated, files)
    table = toml_path.parent / stated
    in_order = isinstance(experiment.scans.files, list)
    return match(table, read_tilts(table), files, toml_path.parent, keep_order=in_order, skip_bad=skip_bad)


def _open(experiment: Experiment, tilt: Tilt) -> Scan:
    scan = open_scan(tilt.path, experiment.scans.dataset, experiment.scans.shape)
    if np.isnan(tilt.alpha_deg):
        raise BadScan(f"{tilt.path}: the tilt list has no line for it; add one or take it out of [scans] files")
    return scan


def _unlike_most(tilts: list[Tilt], scans: list[Scan | None]) -> list[tuple[int, BadScan]]:
    """Scans that differ from the majority in shape or dtype, and what to say of each."""
    kinds = {i: (s.shape, s.dtype) for i, s in enumerate(scans) if s is not None}
    if len(set(kinds.values())) < 2:
        return []
    (shape, dtype), _ = Counter(kinds.values()).most_common(1)[0]
    usual = f"{_times(shape)} {dtype}"
    return [
        (i, BadScan(f"{tilts[i].path}: is {_times(k[0])} {k[1]}, most scans are {usual}; leave it out or convert it"))
        for i, k in kinds.items()
        if k != (shape, dtype)
    ]


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _mask(toml_path: Path, name: str | None, detector: tuple[int, ...]) -> np.ndarray | None:
    """Bad pixels (qy, qx) bool from the file that [detector] mask names."""
    if name is None:
        return None
    path = toml_path.parent / name
    try:
        mask = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        what = getattr(e, "strerror", None) or first_line(e)
        raise InputError(f"{path}: cannot be read as the detector mask ({what}); save a bool .npy array") from e
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        kind = getattr(mask, "dtype", "several arrays")
        raise InputError(f"{path}: the detector mask holds {kind}; save it as bool, True = bad")
    if mask.shape != tuple(detector):
        raise InputError(
            f"{path}: the detector mask is {_times(mask.shape)}, the patterns are {_times(detector)}; make them agree"
        )
    return mask


def _notes(scans: list[Scan | None]) -> list[str]:
    """What was assumed of the scans' shape, or left out of them."""
    good = [s for s in scans if s is not None]
    guessed = {s.shape[:2] for s in good if getattr(s, "guessed", False)}
    dropped = {int(getattr(s, "flyback", 0)) for s in good} - {0}
    return [
        f"scan shape guessed {_times(shape)} from {shape[0] * shape[1]} frames; set shape = [rows, columns] in [scans]"
        for shape in sorted(guessed)
    ] + [f"{n} flyback frames at the end of every scan line are left out" for n in sorted(dropped)]


def _shown(folder: Path, path: Path) -> str:
    """Path as the user would name it: relative to the experiment file where it can be."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
