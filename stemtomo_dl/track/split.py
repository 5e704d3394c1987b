"""Tracks whose outlines show two crystals become two tracks, each with outlines of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import ndimage

from stemtomo_dl.records import Masks, Tracks
from stemtomo_dl.track.crystals import Sight, amounts, fitted, spread, two_crystals
from stemtomo_dl.track.outline import Outline
from stemtomo_dl.track.parts import Part, divided
from stemtomo_dl.track.tracked import Tracked

Look = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray] | None]
"""Bragg scattering (y, x, bin) of a tilt in units of its counting noise, and that noise's variance (y, x), given where
on the scan no particle is; None where it is not known. A probe may stand for several neighbouring ones."""

_ROUNDS = 3  # of dividing: up to eight crystals in an outline
_FEWEST_PROBES = 12  # of a sighting, for its patterns to count
_MOST_BYTES = 512 << 20  # of patterns at a time
_SHARE = 0.3  # of what a probe shows, for it to belong to a crystal
_LEAST_PART = 0.1  # of an outline; less of a crystal is not seen
_WIDTH = 1.0  # probes over which amounts are averaged


def split(tracked: Tracked, look: Look, step_nm: float) -> Tracked:
    """Divide the tracks whose outlines show two crystals at once, as their diffraction over all tilts tells.

    The larger part keeps the track's number, the other one gets a new number after all others. Both have outlines
    of source "split", which may overlap, and rest on the outline that was found for both.

    Parameters
    ----------
    tracked : Tracked
    look : callable
    step_nm : float
        Of the scan.

    Returns
    -------
    Tracked
        The same tracks and masks where nothing is to be divided, or no tilt angles are known.
    """
    if not np.isfinite(tracked.tracks.alpha_deg).any():
        return tracked
    todo, before = tracked.tracks.particle, tracked
    for _ in range(_ROUNDS):
        known = tracked.tracks.particle
        for batch in _batches(tracked.tracks, todo):
            for track, sights in _sights(tracked, batch, look).items():
                parts = _parts(tracked, track, sights)
                if parts is not None:
                    tracked = divided(tracked, track, parts, step_nm)
        changed = tracked.tracks.particle[len(known) :]
        if not len(changed):
            break
        todo = np.union1d(changed, _shrunk(before.tracks, tracked.tracks))
        before = tracked
    return _tidy(tracked)


def _batches(tracks: Tracks, todo: np.ndarray, bins: int = 64) -> list[np.ndarray]:
    """Tracks in groups whose patterns can be held in memory together."""
    size = np.array([tracks.area_px[tracks.track == k].sum() * bins * 8 for k in todo])
    group = (np.cumsum(size) // _MOST_BYTES).astype(int)
    return [todo[group == g] for g in np.unique(group)]


def _shrunk(before: Tracks, after: Tracks) -> np.ndarray:
    """Tracks whose outlines are others than before."""
    rows = ~np.isin(before.instance, after.instance)
    return np.unique(before.track[rows])


def _sights(tracked: Tracked, batch: np.ndarray, look: Look) -> dict[int, list[Sight]]:
    """What the probes of some tracks show that are in no other outline, by rising angle."""
    masks, tracks = tracked.masks, tracked.tracks
    out: dict[int, list[Sight]] = {int(k): [] for k in batch}
    for tilt in np.argsort(tracks.alpha_deg, kind="stable").tolist():
        rows = np.flatnonzero((tracks.tilt == tilt) & np.isin(tracks.track, batch))
        alpha = float(tracks.alpha_deg[tilt])
        if not len(rows) or not np.isfinite(alpha):
            continue
        seen = look(tilt, _depth(masks, masks.at(tilt)) == 0)
        if seen is None:
            continue
        alone = _depth(masks, tracks.instance[tracks.tilt == tilt]) == 1
        for row in rows.tolist():
            sight = _sight(masks, tracks, row, alpha, alone, *seen)
            if len(sight.xy) >= _FEWEST_PROBES:
                out[int(tracks.track[row])].append(sight)
    return out


def _depth(masks: Masks, instances: np.ndarray) -> np.ndarray:
    """How many of some outlines lie on each probe (y, x)."""
    depth = np.zeros(masks.shape, "i4")
    for i in instances.tolist():
        depth[masks.window(i)] += masks.crops[i]
    return depth


def _sight(
    masks: Masks, tracks: Tracks, row: int, alpha: float, alone: np.ndarray, bragg: np.ndarray, noise: np.ndarray
) -> Sight:
    """The probes of one sighting that are in no other outline."""
    together = -(-masks.shape[0] // bragg.shape[0])
    instance = int(tracks.instance[row])
    yx = np.argwhere(masks.crops[instance] & alone[masks.window(instance)]) + masks.origin[instance]
    y, x = np.unique(yx // together, axis=0).T
    xy = np.stack([x, y], 1) * together + (together - 1) / 2 - _place(tracks, row)
    return Sight(alpha, xy, bragg[y, x].astype("f8"), noise[y, x].astype("f8"))


def _place(tracks: Tracks, row: int) -> np.ndarray:
    """Predicted place (x, y) of a sighting's track."""
    k = np.searchsorted(tracks.particle, tracks.track[row])
    return np.asarray(tracks.predicted_px[k, tracks.tilt[row]])


def _parts(tracked: Tracked, track: int, sights: list[Sight]) -> tuple[list[Part], list[Part]] | None:
    """Outlines of a track's two crystals, the larger one first; None where it is one."""
    tracks, masks = tracked
    axis = tracks.tilt_axis_deg if tracks.rigid else np.nan
    cut = two_crystals(sights, axis)
    if cut is None:
        return None
    found = amounts(sights, cut, axis, _WIDTH)
    fits = [fitted(s.bragg, f) for s, f in zip(sights, found, strict=True)]
    parts: tuple[list[Part], list[Part]] = ([], [])
    for row in np.flatnonzero(tracks.track == track).tolist():
        outline = Outline.of(masks, int(tracks.instance[row]))
        yx = np.argwhere(outline.crop)
        xy = yx[:, ::-1] + [outline.column, outline.row] - _place(tracks, row)
        alpha = float(tracks.alpha_deg[tracks.tilt[row]])
        amount = spread(sights, fits, alpha if np.isfinite(alpha) else 0.0, xy, _WIDTH)
        share = amount / np.maximum(amount.sum(1, keepdims=True), 1e-12)
        for i in (0, 1):
            crop = np.zeros(outline.crop.shape, bool)
            crop[tuple(yx.T)] = share[:, i] >= _SHARE
            crop = _whole(crop, outline.crop)
            if crop.sum() >= max(_LEAST_PART * len(yx), 1):
                parts[i].append(Part(row, Outline(crop, outline.row, outline.column).tight()))
    if not parts[0] or not parts[1]:
        return None
    size = [sum(p.outline.area for p in ps) for ps in parts]
    return parts if size[0] >= size[1] else parts[::-1]


def _whole(crop: np.ndarray, within: np.ndarray) -> np.ndarray:
    """The largest piece of a crop, holes within an outline filled."""
    number, n = ndimage.label(crop)
    if n > 1:
        crop = number == 1 + np.argmax(np.bincount(number.ravel())[1:])
    return np.asarray(ndimage.binary_fill_holes(crop) & within)


def _tidy(tracked: Tracked) -> Tracked:
    """Without outlines that were computed and that no track has any more."""
    tracks, masks = tracked
    kept = np.union1d(masks.found, tracks.instance)
    if len(kept) == len(masks):
        return tracked
    instance = np.searchsorted(kept, tracks.instance).astype("i4")
    detected = np.where(tracks.detected >= 0, np.searchsorted(kept, tracks.detected), -1).astype("i4")
    return Tracked(replace(tracks, instance=instance, detected=detected), masks.some(kept))
