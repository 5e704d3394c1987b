"""Tracks in the forms of other programs: napari's tracks layer, and results of the Cell Tracking Challenge."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from stemtomo_dl.records import Masks, Tracks
from stemtomo_dl.store.atomic import write_text, writing
from stemtomo_dl.store.tables import Column, write_table


def write_napari(folder: Path, _masks: Masks, tracks: Tracks) -> Path:
    """Write napari.csv: track, tilt, y, x as napari's tracks layer takes its rows, by track and then by tilt."""
    path = folder / "napari.csv"
    order = np.lexsort((tracks.tilt, tracks.track))
    columns = dict.fromkeys(("ID", "T", "Y", "X"), Column())
    rows = zip(*(a[order] for a in (tracks.track, tracks.tilt, tracks.y_px, tracks.x_px)), strict=True)
    write_table(path, columns, rows)
    return path


def write_ctc(folder: Path, masks: Masks, tracks: Tracks) -> Path:
    """Write ctc/mask000.tif … and ctc/res_track.txt, a result of the Cell Tracking Challenge.

    In this form a track has no gaps: a run of tilts between gaps is a piece of its
    own, whose parent is the piece before. Nor do labels overlap: the smaller particle is drawn over the larger.
    """
    out = folder / "ctc"
    with writing(out) as temporary:
        temporary.mkdir(parents=True)
        piece = _pieces(tracks)
        digits = max(3, len(str(len(tracks.alpha_deg) - 1)))
        for tilt in range(len(tracks.alpha_deg)):
            image = np.zeros(masks.shape, "u2")
            here = np.flatnonzero(tracks.tilt == tilt)
            for row in here[np.argsort(-tracks.area_px[here], kind="stable")]:
                crop = masks.crops[tracks.instance[row]]
                image[masks.window(int(tracks.instance[row]))][crop] = piece[row]
            tifffile.imwrite(temporary / f"mask{tilt:0{digits}d}.tif", image, compression="zlib")
        lines = []
        for p in range(1, int(piece.max(initial=0)) + 1):
            rows = np.flatnonzero(piece == p)
            before = piece[(tracks.track == tracks.track[rows[0]]) & (tracks.tilt < tracks.tilt[rows].min())]
            lines.append(f"{p} {tracks.tilt[rows].min()} {tracks.tilt[rows].max()} {before.max(initial=0)}\n")
        write_text(temporary / "res_track.txt", "".join(lines))
        shutil.rmtree(out, ignore_errors=True)
    return out


def _pieces(tracks: Tracks) -> np.ndarray:
    """Number, from 1, of the unbroken run of tilts that each sighting belongs to; rising along a track."""
    order = np.lexsort((tracks.tilt, tracks.track))
    k, t = tracks.track[order], tracks.tilt[order]
    out = np.zeros(len(k), int)
    out[order] = np.cumsum(np.append(True, (np.diff(k) != 0) | (np.diff(t) != 1))[: len(k)])
    return out


WRITERS: dict[str, Callable[[Path, Masks, Tracks], Path]] = {
    "napari": write_napari,
    "ctc": write_ctc,
}
