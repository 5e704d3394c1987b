"""Linking outlines over the tilts: sure pieces, joint geometry, stitching, prediction, and again until stable."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from stemtomo_dl.config import TrackConfig
from stemtomo_dl.track.angles import refine_angles, refine_axis, refine_scale
from stemtomo_dl.track.border import uncut
from stemtomo_dl.track.companions import absorbed
from stemtomo_dl.track.drift import measure_steps, stretches
from stemtomo_dl.track.features import Features
from stemtomo_dl.track.likeness import Likeness, learn_likeness
from stemtomo_dl.track.noise import measure_noise, track_noise
from stemtomo_dl.track.plain import plain_labels, plain_solution
from stemtomo_dl.track.predict import relink
from stemtomo_dl.track.rigid import Fit, Model, fit, table
from stemtomo_dl.track.series import Series, arrange
from stemtomo_dl.track.settle import axis_error, rigid_solution
from stemtomo_dl.track.solution import Solution
from stemtomo_dl.track.stitch import stitch
from stemtomo_dl.track.survey import Survey, affine_motion, smooth_noise, survey
from stemtomo_dl.track.tracklets import Rules, link_nearest

_ROUNDS, _STABLE = 4, 3e-4  # of linking anew, and the share of entries that may still change
_FEWEST_TILTS, _FEWEST_TRACKS = 5, 4  # below, a rigid stage explains any motion
_PIECE = (2, 4)  # sightings that place a piece of a track in 3-D: half the tilts, within these
_MOST_PIECES = 3000
_AXIS_PIECES, _AXIS_STEP_DEG = 150, 1.5  # tracks that turn the axis, and how far in a round
_LONGER = 1.1  # tracks by nearness against those on a rigid stage: then the stage explains nothing
_OTHER_ORDER = 1.5  # the same, by nearness in the order of the files against that of the angles
_MOST_AFFINE = 2.0  # noises: motion that goes by the particles' places and is not the stage's
_FREE_PIECE, _FREE_PIECES = (3, 10), 150  # sightings and number of the tracks by nearness that a stage is held against
_VAGUE_DEG = 5.0  # standard error beyond which an axis that nobody stated is hardly known
_START_DEG = 7.5  # about the surveyed axis
_STATED_DEG = 3.0  # standard error of a stated axis
_RADIANS = 1.6  # degrees; a series within is hardly one
_LEAST_SHARE = 0.2  # of the tilts at which a particle should be in view
_TOO_FEW = "too few particles could be followed to tell drift from tilt"


class _Linked(NamedTuple):
    """The series, its cut outlines put right by the tracks (track, rank), and their stage."""

    series: Series
    tracks: np.ndarray
    fitted: Fit


class _Found(NamedTuple):
    """Tracks (track, rank), their stage, and the standard error of its axis."""

    tracks: np.ndarray
    fitted: Fit
    axis_error_deg: float


def link(
    seen: Features,
    tilt: np.ndarray,
    alpha_deg: np.ndarray,
    shape: tuple[int, int],
    tilt_axis_deg: float | None,
    config: TrackConfig,
    descriptor: np.ndarray | None = None,
) -> tuple[np.ndarray, Solution]:
    """Which sightings are one particle, and where the particles lie.

    Parameters
    ----------
    seen : Features
        Sightings of all tilts, in any order.
    tilt : (n) int array
        Tilt number of each sighting.
    alpha_deg : (tilts) array
        Stated tilt angles in any order; NaN is a tilt without a place, whose sightings are not linked (unless no
        tilt has an angle: then the tilt numbers are the order).
    shape : (int, int)
        Scan rows and columns.
    tilt_axis_deg : float or None
        The axis as stated, from x toward y; None finds it from nothing.
    config : TrackConfig
    descriptor : (n, bins) array, optional
        Reduced diffraction patterns, every row of zero mean and unit variance; NaN rows where unknown.

    Returns
    -------
    label : (n) int array
        Particle of each sighting, counted from 0 by the number of sightings (most first), -1 for none; at most one
        sighting per particle and tilt.
    solution : Solution
    """
    alpha_deg = np.asarray(alpha_deg, "f8")
    series = arrange(seen, tilt, alpha_deg, shape, descriptor)
    needed = min(config.min_tilts, max(1, len(series.tilts) // 2))
    note, found = _no_geometry(series, alpha_deg), None
    plain, steps, noise = _by_nearness(series, config, needed)
    if not note and (np.diff(series.tilts) < 0).any() and (np.diff(series.tilts) > 0).any():
        filed = arrange(seen, tilt, np.full(len(alpha_deg), np.nan), shape, descriptor)
        other, _, other_noise = _by_nearness(filed, config, needed)
        if _followed(other) > _OTHER_ORDER * _followed(plain):
            series, plain, noise = filed, other, other_noise
            note = "particles move on in the order of the tilts, not of their angles: the angles may be mixed up"
    if not note:
        start = _start(series, 0.0, None, steps, noise)
        note, found = _held_against(series, plain, start, tilt_axis_deg, config, needed)
    if np.isfinite(alpha_deg).any() and (left := int((~np.isfinite(alpha_deg[tilt])).sum())):
        note = "; ".join(filter(None, (note, f"{left} outlines at tilts without an angle are not linked")))
    if found is not None:
        return _labels(series, found.tracks), rigid_solution(series, *found, alpha_deg, note)
    if 0 < np.abs(series.alpha).max(initial=0) < np.radians(_RADIANS):
        note += "; angles are taken to be degrees: are these radians?"
    label = _labels(series, plain)
    return label, plain_solution(series, label, alpha_deg, tilt_axis_deg, noise, note)


def _by_nearness(series: Series, config: TrackConfig, needed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Tracks (track, rank) made without a stage, the field's steps (rank, 2) and the noise of a sighting, px.

    Where a stage is in doubt, so is its foreshortening.
    """
    steps, noise = measure_steps(series, stretches(series, None), config.drift_reach_px)
    label = plain_labels(series, config.max_gap_tilts, steps, noise)
    return _longest(table(series, label), needed), steps, noise


def _held_against(
    series: Series,
    plain: np.ndarray,
    start: Model,
    stated_deg: float | None,
    config: TrackConfig,
    needed: int,
) -> tuple[str, _Found | None]:
    """What is to be said, and tracks and stage, if a rigid one explains the tracks by nearness; or why not."""
    free = _free(series, plain)
    if len(free) >= _FEWEST_TRACKS:
        looked = survey(series, free, start, stated_deg, config.axis_reach_deg)
    elif stated_deg is not None:
        looked = Survey(stated_deg, 1.0, "")
    else:
        return _TOO_FEW, None
    series = replace(series, alpha=series.alpha * looked.scale)
    linked = _link_rigidly(series, looked.axis_deg, config, needed)
    if linked is None:
        return _TOO_FEW, None
    series, index, fitted = linked
    if _is_longer(plain, index):
        return "particles do not move as on one rigid stage: nearness alone follows them over longer stretches", None
    noise = smooth_noise(series, free)
    wrong = affine_motion(series, free, replace(fitted.model, noise_px=noise))
    if wrong > _MOST_AFFINE * noise:
        return (
            f"particles do not move as on one rigid stage: {wrong:.1f} px of their motion go by their places, which "
            "wrong tilt angles do"
        ), None
    jumps = np.flatnonzero(np.hypot(*fitted.model.steps.T) > config.drift_reach_px)
    notes = [looked.note] if looked.note else []
    notes += [f"the field jumps by {np.hypot(*fitted.model.steps[r]):.0f} px at tilt {series.tilts[r]}" for r in jumps]
    believed = stated_deg
    if stated_deg is not None and abs(looked.axis_deg - stated_deg) > config.axis_reach_deg:
        believed = None
    found = _with_axis(series, index, fitted, believed)
    if stated_deg is None and not found.axis_error_deg <= _VAGUE_DEG:
        notes.append("the particles hardly tell the tilt axis: state it")
    return "; ".join(notes), found


def _free(series: Series, plain: np.ndarray) -> np.ndarray:
    """The longest tracks by nearness; where the series or all its tracks are short, shorter ones have to do.

    Outlines that the scan's edge cuts move otherwise than their particles; they are left out if enough remains.
    """
    kept = np.where((plain >= 0) & (series.cut[plain] > 0), -1, plain)
    for index in (kept, plain):
        length = (index >= 0).sum(1)
        least, most = _FREE_PIECE
        if len(length) >= _FEWEST_TRACKS:
            most = min(most, int(length.max()) // 2, int(np.sort(length)[-_FEWEST_TRACKS]))
        free = _longest(index, max(least, most))[:_FREE_PIECES]
        if len(free) >= _FEWEST_TRACKS:
            break
    return free


def _with_axis(series: Series, index: np.ndarray, fitted: Fit, stated_deg: float | None) -> _Found:
    """Tracks and stage, its axis the mean of the refined and the stated one (None: not to be counted), by their errors.

    Outlines that are all wrong alike turn the axis farther than a stated one is usually off.
    """
    refined, error = fitted.model.axis_deg, axis_error(series, index, fitted)
    if stated_deg is None:
        return _Found(index, fitted, error)
    trust = 1 / error**2 if np.isfinite(error) else 0.0
    total = trust + 1 / _STATED_DEG**2
    axis = (trust * refined + stated_deg / _STATED_DEG**2) / total
    fitted = _refit(series, index, replace(fitted.model, axis_deg=axis), axis=False)
    return _Found(index, fitted, float(total**-0.5))


def _no_geometry(series: Series, alpha_deg: np.ndarray) -> str:
    """Why a rigid stage cannot be solved for; empty if it may be."""
    if not np.isfinite(alpha_deg).any():
        return "no tilt angles are known"
    if len(np.unique(series.alpha)) < _FEWEST_TILTS:
        return f"fewer than {_FEWEST_TILTS} different tilt angles"
    if sum(len(g) > 0 for g in series.groups) < _FEWEST_TILTS:
        return f"outlines at fewer than {_FEWEST_TILTS} tilts"
    return ""


def _is_longer(plain: np.ndarray, rigid: np.ndarray) -> bool:
    """Whether tracks by nearness are longer than those on a stage: as many of them, or all that last half of the tilts.

    What a stage drops counts, but for the short pieces into which nearness links false outlines.
    """
    lasting = plain[(plain >= 0).sum(1) >= plain.shape[1] / 2]
    return max(_followed(plain[: len(rigid)]), _followed(lasting)) > _LONGER * _followed(rigid)


def _followed(index: np.ndarray) -> float:
    """Over how many sightings particles are followed: the sum of the tracks' squared lengths."""
    return float(((index >= 0).sum(1) ** 2).sum())


def _labels(series: Series, index: np.ndarray) -> np.ndarray:
    """Track of each sighting from the table (track, rank), -1 for none."""
    label = np.full(len(series.xy), -1)
    track, rank = np.nonzero(index >= 0)
    label[index[track, rank]] = track
    return label


def _link_rigidly(series: Series, axis_deg: float, config: TrackConfig, needed: int) -> _Linked | None:
    """Tracks and the solved stage, or None where there is too little to solve for one."""
    stretch = stretches(series, axis_deg)
    steps, noise = measure_steps(series, stretch, config.drift_reach_px)
    wander = 0.2 * noise + 0.05 * max(series.shape) * float(np.median(np.diff(series.alpha)))
    rules, raw = Rules(noise, wander, gap=2, margin=3.0), series

    def with_rest(index: np.ndarray) -> np.ndarray:
        """Tracks, and pieces of what is in none of them."""
        rest = (series.rank >= 0) & (_labels(series, index) < 0)
        found = table(series, link_nearest(series, rest, stretch, steps, replace(rules, margin=1.0), likeness))
        return np.concatenate([index[(index >= 0).sum(1) >= 2], _longest(found, piece)])

    label = link_nearest(series, series.rank >= 0, stretch, steps, rules, Likeness())
    likeness = learn_likeness(series, label)
    piece = int(np.clip(len(series.alpha) // 2, *_PIECE))
    index = _longest(table(series, label), piece)
    if len(index) < _FEWEST_TRACKS:
        return None
    model = refine_axis(series, index[:_AXIS_PIECES], _start(series, axis_deg, axis_deg, steps, noise), _START_DEG)
    fitted = fit(series, index, model)
    noise, creep = measure_noise(series, index, fitted)
    fitted = replace(fitted, model=replace(model, noise_px=noise, creep=creep))
    for turn in range(_ROUNDS):
        index = _joined(series, index, fitted, piece)
        if len(index) < _FEWEST_TRACKS:
            return None
        series = uncut(raw, index)
        fitted = _refit(series, index, fitted.model, axis=turn < 2)
        index = absorbed(series, index, fitted)
        fitted = fit(series, index, fitted.model)
        before, index = index, table(series, relink(series, index, fitted, likeness), len(index))
        if turn == _ROUNDS - 1 or (turn > 1 and (index != before).mean() < _STABLE):
            break
        index = with_rest(index)
        fitted = fit(series, index, fitted.model)
    index = with_rest(index)
    index = _joined(series, index, fit(series, index, fitted.model), piece)
    index = absorbed(series, index, fit(series, index, fitted.model))
    series = uncut(raw, index)
    fitted = fit(series, index, fitted.model)
    index = index[_in_view_enough(series, index, fitted, needed)]
    if len(index) < _FEWEST_TRACKS:
        return None
    return _Linked(series, index, _refit(series, index, fitted.model, axis=True))


def _start(series: Series, axis_deg: float, shrunk_deg: float | None, steps: np.ndarray, noise: float) -> Model:
    """A stage as stated; the steps were voted after shrinking across ``shrunk_deg``, None: without."""
    ratio = np.ones(len(series.alpha))
    if shrunk_deg is not None:
        ratio[1:] = np.cos(series.alpha[1:]) / np.maximum(np.cos(series.alpha[:-1]), 0.05)
    spread = np.array([2.0, 0.15]) * max(series.shape)
    return Model(axis_deg, series.alpha, 1.0, series.tilts.astype(float), steps, ratio, noise, 0.0, spread)


def _refit(series: Series, index: np.ndarray, model: Model, *, axis: bool) -> Fit:
    """Solve anew with noise, own motion, tilt angles and, if asked, the axis as the tracks show them."""
    still = replace(model, creep=0.0)
    if axis:
        still = refine_axis(series, index[:_AXIS_PIECES], still, _AXIS_STEP_DEG)
        still = refine_scale(series, index[:_AXIS_PIECES], still)
    fitted = fit(series, index, still)
    noise, creep = measure_noise(series, index, fitted)
    if creep:
        fitted = fit(series, index, replace(still, noise_px=noise, creep=creep), 2, weight=fitted.weight)
    model = replace(refine_angles(series, index, fitted), noise_px=noise, creep=creep)
    return fit(series, index, model, 3, noise=track_noise(index, fitted), weight=fitted.weight)


def _longest(index: np.ndarray, least: int) -> np.ndarray:
    """Rows with enough sightings, most first, no more of them than are needed."""
    count = (index >= 0).sum(1)
    order = np.argsort(-count, kind="stable")
    return index[order[count[order] >= least][:_MOST_PIECES]]


def _joined(series: Series, index: np.ndarray, fitted: Fit, piece: int) -> np.ndarray:
    """Tracks (track, rank) of stitched pieces, most sightings first; where two pieces collide the better one stays."""
    label = stitch(series, index, fitted)
    out = np.full((int(label.max(initial=-1)) + 1, index.shape[1]), -1)
    row, rank = np.nonzero(index >= 0)
    best_last = np.argsort(-fitted.misfit[row, rank], kind="stable")
    row, rank = row[best_last], rank[best_last]
    out[label[row], rank] = index[row, rank]
    return _longest(out, piece)


def _in_view_enough(series: Series, index: np.ndarray, fitted: Fit, needed: int) -> np.ndarray:
    """Which tracks are long enough, and were seen at a fair share of the tilts at which they should have been in view.

    What was not is no particle, but outlines that happened to lie where one could be.
    """
    half = np.array(series.shape[::-1]) / 2
    looked = np.array([len(g) > 0 for g in series.groups])
    in_view = (np.abs(fitted.predict()[0]) <= half).all(-1) & looked
    count = (index >= 0).sum(1)
    return count >= np.maximum(needed, _LEAST_SHARE * in_view.sum(1))
