"""Links, standings and filled outlines -> the record of the tracks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stemtomo_dl.config import TrackConfig
from stemtomo_dl.records import SOURCES, STATES, Masks, Tracks
from stemtomo_dl.track.features import Features, features
from stemtomo_dl.track.fill import Filled, Prompt, append, fill
from stemtomo_dl.track.link import link
from stemtomo_dl.track.outline import Outline
from stemtomo_dl.track.overlap import Standing, is_met, overlap_share, stand
from stemtomo_dl.track.solution import Solution

_CLEAN, _OVERLAPPED, _MERGED, _HIDDEN, _OUTSIDE = range(len(STATES))


class Tracked(NamedTuple):
    """Tracks, and the masks that they refer to: those that were found, then those that were filled in."""

    tracks: Tracks
    masks: Masks


def track_masks(
    masks: Masks,
    tilt_axis_deg: float | None,
    step_nm: float,
    config: TrackConfig,
    *,
    recorded: np.ndarray | None = None,
    descriptor: np.ndarray | None = None,
    prompt: Prompt | None = None,
    filling: bool = True,
) -> Tracked:
    """Link outlines into particles, say how each particle stands at each tilt, fill in what was missed.

    Parameters
    ----------
    masks : Masks
        Outlines of all tilts, as the segmenter found them.
    tilt_axis_deg : float or None
        As stated; None finds it from nothing.
    step_nm : float
        Of the scan; NaN where it is not known, and then positions in nm are not, either.
    config : TrackConfig
    recorded : (tilt) bool array, optional
        Tilts of which there is an image; by default all.
    descriptor : (instance, bins) f4 array, optional
        Reduced diffraction patterns, as `link` takes them.
    prompt : callable, optional
        Asks the segmenter for particles that it missed.
    filling : bool
        False where the masks must stay as they are: only detections are sightings then.

    Returns
    -------
    Tracked
        Tracks numbered from 1 by the number of outlines found, most first.
    """
    seen = features(masks)
    label, solution = link(seen, masks.tilt, masks.alpha_deg, masks.shape, tilt_axis_deg, config, descriptor)
    placed = np.isfinite(masks.alpha_deg)
    taken = np.ones(len(placed), bool) if recorded is None else recorded
    if placed.any():
        taken = taken & placed
    return track_record(masks, seen, label, solution, taken, step_nm, prompt, filling=filling)


def track_record(
    masks: Masks,
    seen: Features,
    label: np.ndarray,
    solution: Solution,
    recorded: np.ndarray,
    step_nm: float,
    prompt: Prompt | None = None,
    *,
    filling: bool = True,
) -> Tracked:
    """`track_masks` after the linking: `label` and `solution` are what `link` gives for the masks' features ``seen``.

    ``recorded`` is a (tilt) bool array.
    """
    standing = stand(masks, label, solution, recorded)
    filled = fill(masks, standing, prompt) if filling else []
    joined = append(masks, filled) if filled else masks
    return Tracked(_record(joined, seen, solution, standing, filled, recorded, step_nm), joined)


def _record(
    masks: Masks,
    known: Features,
    solution: Solution,
    standing: Standing,
    filled: list[Filled],
    taken: np.ndarray,
    step_nm: float,
) -> Tracks:
    """All that is known of particles and sightings.

    An outline cut from a shared one takes that one's place; else the shared one is a sighting of all whom it shows.
    """
    label = standing.label
    n_found, replaced = len(label), {(f.particle, f.tilt) for f in filled}
    kept = [i for i in np.flatnonzero(label >= 0) if (int(label[i]), int(masks.tilt[i])) not in replaced]
    among = [
        (int(p), int(standing.shared[p, t]))
        for p, t in np.argwhere(standing.shared >= 0)
        if label[standing.shared[p, t]] != p and (int(p), int(t)) not in replaced
    ]
    particle = np.array([*label[kept], *(p for p, _ in among), *(f.particle for f in filled)], int)
    instance = np.array([*kept, *(i for _, i in among), *range(n_found, len(masks))], int)
    detected = np.array([*kept, *(i for _, i in among), *(f.detected for f in filled)], int)
    tilt = masks.tilt[instance].astype(int)
    order = np.lexsort((tilt, particle))
    particle, instance, detected, tilt = (a[order] for a in (particle, instance, detected, tilt))

    states = _states(masks, standing, particle, tilt, instance, taken)
    predicted = standing.expected.predicted_px
    xy, area = _places(masks, known, instance)
    merged = (states[particle, tilt] == _MERGED) & (instance < n_found)
    for row in np.flatnonzero(merged):  # what all together show is nobody's place
        xy[row] = predicted[particle[row], tilt[row]]
        area[row] = standing.expected.outline(int(particle[row]), int(tilt[row])).inside(masks.shape).area
    misfit = np.hypot(*(xy - predicted[particle, tilt]).T)
    source = np.zeros(len(masks), "i1") if masks.source is None else masks.source
    own = (source[instance] == SOURCES.index("found")) & ~merged
    state = states[particle, tilt]
    n, count = len(predicted), np.bincount(particle, minlength=len(predicted))
    shared = np.isin(state, (_OVERLAPPED, _MERGED))
    return Tracks.plain(
        track=(particle + 1).astype("i4"),
        tilt=tilt.astype("i4"),
        instance=instance.astype("i4"),
        x_px=xy[:, 0],
        y_px=xy[:, 1],
        area_px=area,
        state=state,
        source=source[instance],
        misfit_px=misfit,
        detected=detected.astype("i4"),
        alpha_deg=masks.alpha_deg,
        alpha_offset_deg=solution.alpha_offset_deg,
        drift_px=solution.drift_px,
        particle=np.arange(1, n + 1, dtype="i4"),
        position_nm=solution.position_px * step_nm,
        position_error_nm=solution.error_px * step_nm,
        gauge_error_nm=solution.gauge_error_px * step_nm,
        residual_px=np.sqrt(_mean(particle[own], misfit[own] ** 2, n)),
        usable_deg=_usable(particle, masks.alpha_deg[tilt], np.isin(state, (_CLEAN, _OVERLAPPED)), n),
        overlap_share=np.bincount(particle, shared, n) / np.maximum(count, 1),
        own_motion_px=solution.own_motion_px,
        states=states,
        predicted_px=predicted,
        tilt_axis_deg=solution.stage.tilt_axis_deg,
        tilt_axis_error_deg=solution.stage.tilt_axis_error_deg,
        noise_px=solution.stage.noise_px,
        rigid=solution.stage.rigid,
        note=solution.stage.note,
    )


def _places(masks: Masks, known: Features, instance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (n, 2) and areas (n) of instances, of which ``known`` are measured and the later ones are not."""
    added = features(masks.some(np.arange(len(known.xy), len(masks))))
    xy, area = np.concatenate([known.xy, added.xy]), np.concatenate([known.area, added.area])
    return xy[instance], area[instance]


def _states(
    masks: Masks,
    standing: Standing,
    particle: np.ndarray,
    tilt: np.ndarray,
    instance: np.ndarray,
    taken: np.ndarray,
) -> np.ndarray:
    """State of every particle at every tilt, (particle, tilt) i1; −1 where nothing was recorded.

    Particles that were not seen still stand in the way of those that were, where they are expected.
    """
    states = np.full(standing.own.shape, -1, "i1")
    states[:, taken] = _HIDDEN
    states[standing.outside] = _OUTSIDE
    sighted = set(zip(particle.tolist(), tilt.tolist(), strict=True))
    unseen: dict[int, list[Outline]] = {}
    for (p, t), outline in standing.lost.items():
        if (p, t) not in sighted:
            unseen.setdefault(t, []).append(outline)
    for t in np.unique(tilt).tolist():
        rows = np.flatnonzero(tilt == t)
        outlines = [Outline.of(masks, int(i)) for i in instance[rows]]
        share = overlap_share(outlines + unseen.get(t, []), masks.shape)[: len(rows)]
        states[particle[rows], t] = np.where(is_met(share), _OVERLAPPED, _CLEAN)
    states[standing.shared >= 0] = _MERGED
    return states


def _mean(at: np.ndarray, value: np.ndarray, n: int) -> np.ndarray:
    """Mean of the values of each of n groups; 0 where there is none."""
    return np.asarray(np.bincount(at, value, n) / np.maximum(np.bincount(at, minlength=n), 1))


def _usable(particle: np.ndarray, alpha_deg: np.ndarray, good: np.ndarray, n: int) -> np.ndarray:
    """Least and greatest angle of each particle's good sightings, (n, 2); NaN where it has none."""
    low, high, good = np.full(n, np.inf), np.full(n, -np.inf), good & np.isfinite(alpha_deg)
    np.minimum.at(low, particle[good], alpha_deg[good])
    np.maximum.at(high, particle[good], alpha_deg[good])
    wedge = np.stack([low, high], 1)
    return np.where(np.isfinite(wedge), wedge, np.nan)
