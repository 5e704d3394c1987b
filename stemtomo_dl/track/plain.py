"""Linking without geometry: the nearest outline of the tilts before, with gap closing."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.track.drift import stretches
from stemtomo_dl.track.likeness import Likeness, learn_likeness
from stemtomo_dl.track.series import Series
from stemtomo_dl.track.solution import Solution, Stage
from stemtomo_dl.track.tracklets import Rules, link_nearest

_LEAST_NOISE_PX = 0.5
_WANDER = 0.5  # of the noise: what a particle may move per tilt besides the field's motion


def plain_labels(series: Series, gap: int, steps: np.ndarray, noise: float) -> np.ndarray:
    """Labels by linking tilt to tilt, gaps closed; steps and noise as `measure_steps` gives them without an axis."""
    stretch, noise = stretches(series, None), max(noise, _LEAST_NOISE_PX, _unvoted(series))
    free = series.rank >= 0
    sure = link_nearest(series, free, stretch, steps, Rules(noise, _WANDER * noise, 1, 3.0), Likeness())
    likeness = learn_likeness(series, sure)
    return link_nearest(series, free, stretch, steps, Rules(noise, _WANDER * noise, gap, 0.0), likeness)


def _unvoted(series: Series) -> float:
    """By how much few sightings a tilt may be off the field's motion, px: each is a large part of the vote on it.

    One by itself may move by about its width, and a vote of two follows one of them. The measured noise knows neither,
    since what was voted for fits.
    """
    count = [len(g) for g in series.groups if len(g)]
    return float(np.median(series.narrow[series.rank >= 0]) / np.mean(count)) if count else 0.0


def plain_solution(
    series: Series, label: np.ndarray, alpha_deg: np.ndarray, tilt_axis_deg: float | None, noise_px: float, note: str
) -> Solution:
    """Each particle at its mean place; its way over the tilts, sightings and straight lines between, as own motion."""
    tilts, particles = len(alpha_deg), int(label.max(initial=-1)) + 1
    time, way = np.arange(tilts), np.zeros((particles, tilts, 2))
    for k in range(particles):
        mine = np.flatnonzero(label == k)
        mine = mine[np.argsort(series.tilts[series.rank[mine]])]
        for axis in range(2):
            way[k, :, axis] = np.interp(time, series.tilts[series.rank[mine]], series.xy[mine, axis])
    place = way.mean(1) if tilts else np.zeros((particles, 2))
    axis_deg = float("nan") if tilt_axis_deg is None else float(tilt_axis_deg)
    return Solution(
        stage=Stage(axis_deg, float("nan"), noise_px, rigid=False, note=note),
        shape=series.shape,
        alpha_deg=np.asarray(alpha_deg, "f8"),
        alpha_offset_deg=np.zeros(tilts),
        drift_px=np.zeros((tilts, 2)),
        position_px=np.concatenate([place, np.zeros((particles, 1))], 1),
        error_px=np.full((particles, 3), np.nan),
        gauge_error_px=np.full(3, np.nan),
        knots=time.astype("f8"),
        creep_px=way - place[:, None],
    )
