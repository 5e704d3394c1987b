"""Tracks in the forms of other programs: napari's tracks layer, the Cell Tracking Challenge, GEFF."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from stemtomo_dl.errors import InputError
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
        piece = _pieces(masks, tracks)
        if piece.max(initial=0) >= 2**16:
            raise InputError(
                f"{out}: {piece.max()} unbroken pieces of tracks, labels of this form end at {2**16 - 1}; "
                "export for napari instead"
            )
        digits = max(3, len(str(len(tracks.alpha_deg) - 1)))
        for tilt in range(len(tracks.alpha_deg)):
            image = np.zeros(masks.shape, "u2")
            here = np.flatnonzero(tracks.tilt == tilt)
            for row in _largest_first(tracks, here):
                crop = masks.crops[tracks.instance[row]]
                image[masks.window(int(tracks.instance[row]))][crop] = piece[row]
            tifffile.imwrite(temporary / f"mask{tilt:0{digits}d}.tif", image, compression="zlib")
        lines: list[str] = []
        last: dict[int, int] = {}
        drawn = np.flatnonzero(piece)
        for rows in np.split(drawn[np.argsort(piece[drawn], kind="stable")], np.cumsum(np.bincount(piece)[1:])[:-1]):
            if len(rows):
                track, tilts = int(tracks.track[rows[0]]), tracks.tilt[rows]
                lines.append(f"{piece[rows[0]]} {tilts.min()} {tilts.max()} {last.get(track, 0)}\n")
                last[track] = int(piece[rows[0]])
        write_text(temporary / "res_track.txt", "".join(lines))
        shutil.rmtree(out, ignore_errors=True)
    return out


def write_geff(folder: Path, _masks: Masks, tracks: Tracks) -> Path:
    """Write tracks.geff, a graph in the Graph Exchange File Format: a node for each sighting, edges along the tracks.

    Nodes have t (tilt), y, x (px), track, instance, alpha_deg and area_px.

    Raises
    ------
    InputError
        If the package geff is not installed.
    """
    try:
        from geff.core_io import write_arrays
        from geff_spec import Axis, GeffMetadata
    except ModuleNotFoundError:
        raise InputError("--tracks geff needs the package geff: pip install 'stemtomo_dl[geff]'") from None
    out = folder / "tracks.geff"
    order = np.lexsort((tracks.tilt, tracks.track))
    node = np.arange(len(order), dtype="u8")
    follows = np.diff(tracks.track[order]) == 0
    values = {"t": tracks.tilt, "y": tracks.y_px, "x": tracks.x_px, "alpha_deg": tracks.alpha_deg[tracks.tilt]}
    values |= {"track": tracks.track, "instance": tracks.instance, "area_px": tracks.area_px}
    about = GeffMetadata(
        directed=True,
        axes=[
            Axis(name="t", type="time", unit="frame"),
            Axis(name="y", type="space", unit="pixel"),
            Axis(name="x", type="space", unit="pixel"),
        ],
        node_props_metadata={},
        edge_props_metadata={},
        track_node_props={"tracklet": "track"},
    )
    with writing(out) as temporary:
        properties = {k: {"values": v[order], "missing": None} for k, v in values.items()}
        write_arrays(temporary, node, properties, np.stack([node[:-1], node[1:]], 1)[follows], {}, about)
        shutil.rmtree(out, ignore_errors=True)
    return out


def _largest_first(tracks: Tracks, rows: np.ndarray) -> np.ndarray:
    """Sightings in the order in which they are drawn."""
    return np.asarray(rows[np.argsort(-tracks.area_px[rows], kind="stable")])


def _pieces(masks: Masks, tracks: Tracks) -> np.ndarray:
    """Number, from 1, of the unbroken run of tilts that each sighting belongs to; rising along a track.

    0 for a sighting of which others, drawn over it, leave nothing to be seen: the form knows no empty labels.
    """
    seen = np.zeros(len(tracks.track), bool)
    for tilt in np.unique(tracks.tilt):
        image = np.full(masks.shape, -1)
        here = _largest_first(tracks, np.flatnonzero(tracks.tilt == tilt))
        for row in here:
            image[masks.window(int(tracks.instance[row]))][masks.crops[tracks.instance[row]]] = row
        seen[here] = np.isin(here, image)
    order = np.lexsort((tracks.tilt, tracks.track))
    order = order[seen[order]]
    k, t = tracks.track[order], tracks.tilt[order]
    out = np.zeros(len(tracks.track), int)
    out[order] = np.cumsum(np.append(True, (np.diff(k) != 0) | (np.diff(t) != 1))[: len(k)])
    return out


WRITERS: dict[str, Callable[[Path, Masks, Tracks], Path]] = {
    "napari": write_napari,
    "ctc": write_ctc,
    "geff": write_geff,
}
