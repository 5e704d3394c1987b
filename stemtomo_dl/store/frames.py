"""A folder of diffraction frames -> one series: frames as TIFF, SMV, mini-CBF or MRC, and a list of their angles."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import DiffractionSeries
from stemtomo_dl.store.facts import brightest, stated_instrument
from stemtomo_dl.store.frame_files import READERS, Frame, read_frame
from stemtomo_dl.store.scans.layout import natural
from stemtomo_dl.store.tilts import Line, match, read_tilts

GEOMETRY = "geometry.toml"  # beside the frames or above them, as `stemtomo export` writes it
_MASKS = "masks"  # folder beside that of the frames: images of the same names, 0 where a pixel was not measured


def read_frames(folder: Path, tilts: Path | None, stated: Mapping[str, Any]) -> DiffractionSeries:
    """Read a folder of frames, one file a tilt.

    Facts are taken from ``stated``, else from a geometry.toml (keys of an experiment file) in the folder or above it,
    else from the frames' headers. Frames without any measured pixel are left out.

    Parameters
    ----------
    folder : Path
    tilts : Path or None
        A list with the header scan,alpha_deg, or one angle a line in the files' order; None: as the headers have it.
    stated : mapping
        What is given beside the files: attributes of a series.h5, and ``center_px`` (column, row).

    Returns
    -------
    DiffractionSeries

    Raises
    ------
    InputError
        If frames, angles or facts are missing or do not fit each other.
    """
    files = _files(folder)
    frames = [read_frame(f) for f in files]
    odd = next((f for f, x in zip(files, frames, strict=True) if x.values.shape != frames[0].values.shape), None)
    if odd is not None:
        raise InputError(f"{odd}: is of another shape than {files[0].name}; frames of one size are needed")
    alpha = _header_angles(folder, frames) if tilts is None else _listed_angles(tilts, files)
    known = {**frames[0].stated, **_geometry(folder), **stated}
    instrument = stated_instrument(known, folder, option=True)
    measured = np.stack([f.measured & _mask(p, f.values.shape) for p, f in zip(files, frames, strict=True)])
    patterns = np.where(measured, np.stack([f.values for f in frames]), np.float32(0))
    there = measured.any((1, 2))
    if not there.any():
        raise InputError(f"{folder}: no frame holds a measured pixel; write the frames anew")
    center = known.get("center_px", frames[0].center_px)
    n = int(there.sum())
    return DiffractionSeries(
        instrument=instrument,
        patterns=patterns[there],
        measured=measured[there],
        alpha_deg=alpha[there],
        tilt=np.arange(n, dtype="i4"),
        n_probes=np.ones(n, "i4"),
        n_support=np.zeros(n, "i4"),
        center_px=brightest(patterns[there]) if center is None else np.asarray(center, "f8"),
    )


def _files(folder: Path) -> list[Path]:
    try:
        files = sorted((p for p in folder.iterdir() if p.suffix.lower() in READERS), key=lambda p: natural(p.name))
    except OSError as e:
        raise InputError(f"{folder}: cannot be read ({e.strerror}); give a folder of frames") from e
    kinds = sorted({p.suffix.lower() for p in files})
    if not files:
        raise InputError(f"{folder}: holds no frames ({', '.join(READERS)}); give the folder that they lie in")
    if len(kinds) > 1:
        raise InputError(f"{folder}: holds frames of several kinds ({', '.join(kinds)}); leave those of one series")
    return files


def _header_angles(folder: Path, frames: list[Frame]) -> np.ndarray:
    angles = np.array([f.stated.get("alpha_deg", np.nan) for f in frames])
    if not np.isfinite(angles).all():
        raise InputError(f"{folder}: the frames do not state their angles; give a list of them with --tilts FILE")
    return angles


def _listed_angles(table: Path, files: list[Path]) -> np.ndarray:
    lines = _bare_angles(table)
    if lines is None:
        files, home = [f.resolve() for f in files], table.parent.resolve()
        found = match(table, read_tilts(table), files, home, keep_order=True, skip_bad=False)
        return np.array([t.alpha_deg for t in found[: len(files)]])
    if len(lines) != len(files):
        raise InputError(f"{table}: lists {len(lines)} angles for {len(files)} frames; make them agree")
    return np.array([line.alpha_deg for line in lines])


def _bare_angles(table: Path) -> list[Line] | None:
    """The angles of a file that has nothing but one number a line; None where it is another list."""
    try:
        rows = [r.strip() for r in table.read_text(encoding="utf-8-sig").splitlines() if r.strip()]
        out = [Line(n, str(n), float(r)) for n, r in enumerate(rows, 1)]
    except (OSError, ValueError):
        return None  # `read_tilts` says what is wrong with it
    return out if out and all(np.isfinite(line.alpha_deg) for line in out) else None


def _geometry(folder: Path) -> dict[str, Any]:
    """Facts of a geometry.toml, whose tables do not matter."""
    path = next((p for p in (folder / GEOMETRY, folder.resolve().parent / GEOMETRY) if p.is_file()), None)
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise InputError(f"{path}: cannot be understood ({e}); correct or remove it") from e
    return {k: v for table in content.values() if isinstance(table, dict) for k, v in table.items()}


def _mask(frame: Path, shape: tuple[int, ...]) -> np.ndarray:
    path = frame.resolve().parent.parent / _MASKS / frame.name
    if frame.resolve().parent.name == _MASKS or not path.is_file():
        return np.ones(shape, bool)
    mask = read_frame(path).values > 0
    if mask.shape != shape:
        raise InputError(f"{path}: is of another shape than its frame; remove or correct it")
    return mask
