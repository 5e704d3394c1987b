"""Masks and tracks as they belong together: both may have been edited by hand or made by another program."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Masks, Tracks
from stemtomo_dl.store import results
from stemtomo_dl.store.tracks import Tables, read_tracks

_ALPHA_DEG = 1e-3  # angles in CSV files have four decimals


def read_linked(folder: Path) -> tuple[Masks, Tracks]:
    """Masks and tracks of a run.

    Raises
    ------
    InputError
        If a file is missing or cannot be read, or the tracks do not fit the masks.
    """
    masks = results.read_masks(folder / "masks.h5")
    tracks = read_tracks(Tables.of_run(folder), folder / "run.json")
    check_tracks(tracks, masks, folder)
    return masks, tracks


def check_tracks(tracks: Tracks, masks: Masks, folder: Path) -> None:
    """Raise `InputError` with the file, the row and what to do where tracks do not fit the masks they link.

    Parameters
    ----------
    tracks : Tracks
    masks : Masks
    folder : Path
        The run's folder, for messages.
    """
    path, again = folder / "tracks.csv", f"correct it, or run 'stemtomo track {folder}' again"
    n_tilts = len(masks.alpha_deg)

    def refuse(wrong: np.ndarray, what: str) -> None:
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            facts = {k: int(getattr(tracks, k)[i]) for k in ("track", "tilt", "instance")}
            raise InputError(f"{path}: row {i + 1}: {what.format(**facts)}; {again}")

    same = len(tracks.alpha_deg) == n_tilts
    if not same or (np.abs(tracks.alpha_deg - masks.alpha_deg) > _ALPHA_DEG).any():
        raise InputError(f"{folder / 'drift.csv'}: its tilts are not those of masks.h5; {again}")
    refuse(tracks.track < 1, "track {track}: tracks count from 1")
    refuse(tracks.tilt >= n_tilts, f"tilt {{tilt}}: masks.h5 has tilts 0 to {n_tilts - 1}")
    refuse(tracks.instance >= len(masks), f"instance {{instance}}: masks.h5 has instances 0 to {len(masks) - 1}")
    refuse(masks.tilt[tracks.instance] != tracks.tilt, "instance {instance} is not of tilt {tilt} in masks.h5")
    refuse(tracks.detected >= len(masks), "detected: masks.h5 has no such outline")
    numbers = np.stack([tracks.x_px, tracks.y_px, tracks.area_px])
    refuse(~np.isfinite(numbers).all(0) | (tracks.area_px < 0), "position or area is no number of pixels")
    refuse(_repeated(tracks.track, tracks.tilt), "track {track} has another row at tilt {tilt}")
    refuse(~np.isin(tracks.track, tracks.particle), "track {track} is not in particles.csv")
    twice = np.flatnonzero(_repeated(tracks.particle, tracks.particle))
    if len(twice):
        raise InputError(f"{folder / 'particles.csv'}: track {tracks.particle[twice[0]]} is listed twice; {again}")
    if not np.isfinite(tracks.position_nm).all():
        raise InputError(f"{folder / 'particles.csv'}: a position is no number; {again}")


def _repeated(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where a pair of numbers has been there before, bool."""
    out = np.ones(len(a), bool)
    out[np.unique(np.stack([a, b], 1), axis=0, return_index=True)[1]] = False
    return out


def outlines_at(masks: Masks, tracks: Tracks, tilt: int) -> np.ndarray:
    """Instances of a tilt that show one particle each, (n) int.

    They are those of the sightings, and what was found and linked to nobody; an outline that shows several
    particles is replaced by theirs, and a filled one that no track has is nobody's.
    """
    here = tracks.tilt == tilt
    found = masks.found[masks.tilt[masks.found] == tilt]
    alone = found[~np.isin(found, tracks.detected[here])]
    return np.union1d(tracks.instance[here], alone)
