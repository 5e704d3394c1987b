"""The tilt axis's azimuth from the spots alone, before any lattice is known.

Differences of reciprocal vectors point along few directions where the vectors lie on a lattice, and along fewer the
better the tilt axis is: the variance of a histogram of these directions is greatest at the true azimuth (Kolb et al.
2009; Palatinus et al. 2019).
"""

from __future__ import annotations

import numpy as np

_POINTS = 300
_LEVELS = ((1.0, (180, 90)), (0.25, (360, 180)), (0.0625, (720, 360)))  # deg between trials, bins of the directions


def find_azimuth(
    lab: np.ndarray, turns: np.ndarray, strength: np.ndarray, reach_deg: float = 8.0
) -> tuple[float, float]:
    """How far, in degrees, the tilt axis is from the stated one, toward y from x, and how sharp that makes the picture.

    Parameters
    ----------
    lab : (n, 3) array
        Lab vectors of spots, 1/Å.
    turns : (n, 3, 3) array
        Rotations from the sample to the lab frame about the stated axis.
    strength : (n,) array
        The strongest spots are used.
    reach_deg : float
        How far the stated axis may be off.
    """
    use = np.argsort(-strength, kind="stable")[:_POINTS]
    i, j = np.triu_indices(len(use), 1)
    middle = 0.0
    half, best = reach_deg, 0.0
    for step, bins in _LEVELS:
        trials = middle + np.arange(-half, half + step / 2, step)
        scores = [_sharpness(_turned(lab[use], turns[use], t), i, j, bins) for t in trials]
        middle, best = float(trials[int(np.argmax(scores))]), max(scores)
        half = 2 * step
    return middle, best


def _turned(lab: np.ndarray, turns: np.ndarray, off_deg: float) -> np.ndarray:
    """Vectors (n, 3) in the sample frame, seen from a frame whose x axis is the tilt axis's stated direction."""
    # R(ω + δ) = Z(δ) R(ω) Z(δ)ᵀ: turning the vectors back by δ beforehand is turning the axis on by it
    c, s = np.cos(np.radians(off_deg)), np.sin(np.radians(off_deg))
    back = lab @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return np.asarray(np.einsum("nji,nj->ni", turns, back))


def _sharpness(q: np.ndarray, i: np.ndarray, j: np.ndarray, bins: tuple[int, int]) -> float:
    """Variance of the histogram of the directions of differences, in longitude and the sine of latitude."""
    d = q[i] - q[j]
    length = np.maximum(np.linalg.norm(d, axis=1), 1e-9)
    d = np.where((d[:, 2] < 0)[:, None], -d, d) / length[:, None]
    lon = ((np.arctan2(d[:, 1], d[:, 0]) / (2 * np.pi) + 0.5) * bins[0]).astype(int) % bins[0]
    lat = np.minimum((d[:, 2] * bins[1]).astype(int), bins[1] - 1)
    return float(np.bincount(lon * bins[1] + lat, minlength=bins[0] * bins[1]).var())
