"""A track that shows two crystals, as two tracks: their sightings, places and states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from stemtomo_dl.geometry import tilt_rotation
from stemtomo_dl.records import SOURCES, STATES, Masks, Tracks
from stemtomo_dl.track.features import features
from stemtomo_dl.track.fill import Filled, append
from stemtomo_dl.track.outline import Outline
from stemtomo_dl.track.overlap import is_met, overlap_share
from stemtomo_dl.track.tracked import Tracked

_CLEAN, _OVERLAPPED, _MERGED, _HIDDEN = (STATES.index(s) for s in ("clean", "overlapped", "merged", "hidden"))
_PER_SIGHTING = (
    *("track", "tilt", "instance", "x_px", "y_px", "area_px"),
    *("state", "source", "misfit_px", "detected", "identity"),
)
_PER_PARTICLE = (
    *("particle", "position_nm", "position_error_nm", "residual_px", "usable_deg"),
    *("overlap_share", "own_motion_px", "states", "predicted_px"),
)


class Part(NamedTuple):
    """A crystal's outline in one sighting of its track."""

    row: int  # of the tracks' sightings
    outline: Outline


def divided(tracked: Tracked, track: int, parts: tuple[list[Part], list[Part]], step_nm: float) -> Tracked:
    """Tracks of which one has been divided: the first part keeps its number, the other one comes after all others.

    Parameters
    ----------
    tracked : Tracked
    track : int
    parts : (list of Part, list of Part)
    step_nm : float
        Of the scan.
    """
    old, masks = tracked
    new, source = int(old.particle.max()) + 1, SOURCES.index("split")
    filled = [
        Filled(k, int(old.tilt[p.row]), p.outline, source, int(old.detected[p.row]), _score(old, masks, p.row))
        for k, crystal in zip((track, new), parts, strict=True)
        for p in crystal
    ]
    joined = append(masks, filled)
    instance = np.arange(len(masks), len(joined), dtype="i4")
    seen = features(joined.some(instance))
    known = {
        "track": [f.particle for f in filled],
        "instance": instance,
        "source": source,
        "x_px": seen.xy[:, 0],
        "y_px": seen.xy[:, 1],
        "area_px": seen.area,
    }
    rows = np.array([p.row for crystal in parts for p in crystal])
    tracks = _with_sightings(old, track, rows, known)
    again = np.append(np.arange(len(old.particle)), np.searchsorted(old.particle, track))  # it begins as a copy
    particles = {n: getattr(old, n)[again] for n in _PER_PARTICLE}
    particles["particle"][-1] = new
    tracks = replace(tracks, **particles)
    for one in (track, new):
        tracks = _standing(_placed(tracks, one, step_nm), joined, one)
    return Tracked(tracks, joined)


def _score(tracks: Tracks, masks: Masks, row: int) -> float:
    return float(masks.score[tracks.instance[row]])


def _with_sightings(old: Tracks, track: int, rows: np.ndarray, known: dict[str, Any]) -> Tracks:
    """Tracks without a track's sightings, and with copies of ``rows`` of them in which some things are ``known``."""
    kept = np.flatnonzero(old.track != track)
    values = {n: getattr(old, n)[np.concatenate([kept, rows])] for n in _PER_SIGHTING}
    for name, value in known.items():
        values[name][len(kept) :] = value
    order = np.lexsort((values["tilt"], values["track"]))
    return replace(old, **{n: v[order] for n, v in values.items()})


def _placed(tracks: Tracks, track: int, step_nm: float) -> Tracks:
    """Tracks with the place of a part found from how it moves about the predicted place of the whole."""
    k, rows = int(np.searchsorted(tracks.particle, track)), np.flatnonzero(tracks.track == track)
    tilt = tracks.tilt[rows]
    motion = np.broadcast_to(np.eye(2, 3), (len(tracks.alpha_deg), 2, 3))
    if tracks.rigid:
        motion = tilt_rotation(tracks.tilt_axis_deg, np.nan_to_num(tracks.alpha_deg + tracks.alpha_offset_deg))[:, :2]
    seen = np.stack([tracks.x_px[rows], tracks.y_px[rows]], 1)
    design, off = motion[tilt].reshape(-1, 3), (seen - tracks.predicted_px[k, tilt]).ravel()
    shift = np.linalg.lstsq(design, off, rcond=1e-3)[0]
    error = np.std(off - design @ shift) * np.sqrt(np.diag(np.linalg.pinv(design.T @ design, rcond=1e-6)))
    changed = {n: getattr(tracks, n).copy() for n in (*_PER_PARTICLE, "misfit_px")}
    changed["position_nm"][k] += shift * step_nm
    changed["position_error_nm"][k] = np.hypot(changed["position_error_nm"][k], error * step_nm)
    changed["predicted_px"][k] += motion @ shift
    changed["misfit_px"][rows] = np.hypot(*(seen - changed["predicted_px"][k, tilt]).T)
    changed["residual_px"][k] = np.sqrt(np.mean(changed["misfit_px"][rows] ** 2))
    return replace(tracks, **changed)


def _standing(tracks: Tracks, masks: Masks, track: int) -> Tracks:
    """Tracks with the states of a part: hidden where the whole was seen and the part is not."""
    k, rows = int(np.searchsorted(tracks.particle, track)), np.flatnonzero(tracks.track == track)
    tilt = tracks.tilt[rows]
    changed = {n: getattr(tracks, n).copy() for n in ("state", "states", "usable_deg", "overlap_share")}
    for row in rows[tracks.state[rows] != _MERGED].tolist():
        others = tracks.instance[(tracks.tilt == tracks.tilt[row]) & (tracks.track != track)]
        outlines = [Outline.of(masks, int(i)) for i in (tracks.instance[row], *others)]
        met = is_met(overlap_share(outlines, masks.shape))[0]
        changed["state"][row] = _OVERLAPPED if met else _CLEAN
    states = changed["states"][k]
    states[np.isin(states, (_CLEAN, _OVERLAPPED, _MERGED))] = _HIDDEN
    states[tilt] = changed["state"][rows]
    changed["usable_deg"][k] = np.nanmin(tracks.alpha_deg[tilt]), np.nanmax(tracks.alpha_deg[tilt])
    changed["overlap_share"][k] = np.mean(states[tilt] != _CLEAN)
    return replace(tracks, **changed)
