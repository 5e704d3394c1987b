"""Linking outlines over the tilts: sure pieces, joint geometry, stitching, prediction, and again until stable."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.config import TrackConfig
from stemtomo_dl.track.features import Features
from stemtomo_dl.track.plain import plain_labels, plain_solution
from stemtomo_dl.track.series import arrange
from stemtomo_dl.track.solution import Solution


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
    series = arrange(seen, tilt, np.asarray(alpha_deg, float), shape, descriptor)
    label, noise = plain_labels(series, tilt_axis_deg, config.max_gap_tilts, config.drift_reach_px)
    label = numbered(series, label, needed_tilts(config, len(series.tilts)))
    return label, plain_solution(series, label, alpha_deg, tilt_axis_deg, noise, "not yet")


def needed_tilts(config: TrackConfig, tilts: int) -> int:
    """Fewest sightings of a track: as configured, or half the tilts where there are few."""
    return min(config.min_tilts, max(1, tilts // 2))


def numbered(series: object, label: np.ndarray, needed: int) -> np.ndarray:
    """Labels counted from 0 by the number of sightings, most first; shorter tracks than needed dropped."""
    count = np.bincount(label[label >= 0])
    order = np.argsort(-count, kind="stable")
    new = np.full(len(count), -1)
    kept = order[count[order] >= needed]
    new[kept] = np.arange(len(kept))
    return np.where(label >= 0, new[label], -1)
