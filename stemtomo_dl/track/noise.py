"""How far sightings scatter about a solved stage, and what of it is the particles' own motion."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.track.rigid import Fit
from stemtomo_dl.track.series import Series

_RASTER_PX = 0.2  # outlines of small particles keep their pixels, then jump: their median motion says too little
_OWN_NOISES = 4.0  # own motion over the series that is told from noise, as a multiple of a sighting's variance


def measure_noise(series: Series, index: np.ndarray, fitted: Fit) -> tuple[float, float]:
    """Noise of a sighting (px) and variance of own motion per tilt (px²).

    From how the distance, along the axis and less the drift, of two sightings of a track grows with the time
    between: 2σ² at once, and what own motion adds later. Medians, so that wrong links do not count.
    """
    first, growth = _spread(series, index, fitted)
    creep = max(0.0, float(np.median(growth))) if growth else 0.0
    noise = np.sqrt(max(first - creep, 0.2 * first) / 2)
    noise = max(float(noise), _RASTER_PX)
    return noise, creep if creep * index.shape[1] > _OWN_NOISES * noise**2 else 0.0


def slow_motion(series: Series, index: np.ndarray, fitted: Fit) -> float:
    """Variance per tilt, px², of own motion that may be there though it is too little to be told from noise."""
    growth = _spread(series, index, fitted)[1]
    return max(0.0, growth[-1]) if growth else 0.0  # over the longest times, which tell the most


def _spread(series: Series, index: np.ndarray, fitted: Fit) -> tuple[float, list[float]]:
    """Variance of the distance of neighbouring sightings, px², and how much it grows per tilt over longer times."""
    order = np.argsort(fitted.model.time, kind="stable")
    along = np.where(index >= 0, series.xy[index] @ fitted.model.frame[:, 1] - fitted.shift[:, 1], np.nan)[:, order]
    tilts = along.shape[1]
    lags = [h for h in (1, tilts // 16, tilts // 8, tilts // 4, tilts // 2) if h]
    growth, first = [], fitted.model.noise_px**2 * 2
    for lag in dict.fromkeys(lags):
        step = along[:, lag:] - along[:, :-lag]
        step = step[np.isfinite(step)]
        if len(step) < 100:
            continue
        variance = (1.4826 * float(np.median(np.abs(step)))) ** 2
        if lag == 1:
            first = variance
        else:
            growth.append((variance - first) / (lag - 1))
    return first, growth


def track_noise(index: np.ndarray, fitted: Fit) -> np.ndarray:
    """Each track's own noise, (track) px: outlines of large or changing shape scatter more. Drawn to the common one."""
    prior, count = 20.0, (index >= 0).sum(1)
    own = np.array(
        [np.median(row[i >= 0]) if (i >= 0).any() else 0.0 for row, i in zip(fitted.misfit, index, strict=True)]
    )
    common = fitted.model.noise_px**2
    return np.sqrt((prior * common + count * np.maximum((own / 1.1774) ** 2, 0.25 * common)) / (prior + count))
