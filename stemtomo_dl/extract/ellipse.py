"""Elliptical distortion of the camera, from how the support's scattering departs from rings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.interpolate import CubicSpline

_SMOOTH_PX = 1.0
_LEAST_PIXELS, _LEAST_RINGS = 8, 8
_EDGE_PX = 2
_SURE = 4.0  # standard deviations from a circle
_LEAST_TILTS = 3


class Ellipse(NamedTuple):
    """What a circle becomes: the ratio of its axes, its error, and the long one's azimuth from columns toward rows."""

    ratio: float
    error: float
    azimuth_deg: float


def stretch(pattern: np.ndarray, good: np.ndarray, center_px: np.ndarray, inner_px: float) -> np.ndarray:
    """Stretch (e cos 2φ₀, e sin 2φ₀) of a pattern of rings, r → r (1 + e cos 2(φ − φ₀)), to first order in e.

    I(r, φ) = f(r) − r f′(r) e cos 2(φ − φ₀) − f′(r) (shift of the centre): linear in e and the shift once f is known,
    and fitted by least squares weighted with 1/f, the counts' own variance.

    Parameters
    ----------
    pattern : (qy, qx) array
        Mean pattern of the bare support.
    good : (qy, qx) bool array
    center_px : (2,) array
        Column, row of the beam.
    inner_px : float
        Radius within which the direct beam is.

    Returns
    -------
    (2,) array
        NaN where the pattern does not tell.
    """
    y, x = np.indices(pattern.shape)
    dx, dy = x - center_px[0], y - center_px[1]
    r, phi = np.hypot(dx, dy), np.arctan2(dy, dx)
    edge = min(*center_px, *(np.array(pattern.shape[::-1]) - 1 - center_px)) - _EDGE_PX  # whole rings only
    use = good & (r > inner_px) & (r < edge)
    ring = np.round(r).astype(int)
    n = np.bincount(ring[use], minlength=ring.max() + 1)
    known = np.flatnonzero(n >= _LEAST_PIXELS)
    if len(known) < _LEAST_RINGS:
        return np.full(2, np.nan)
    level = np.bincount(ring[use], pattern[use], len(n))[known] / n[known]
    course = CubicSpline(known, ndimage.gaussian_filter1d(level, _SMOOTH_PX, mode="nearest"))
    use &= course(r) > 0
    f, slope, r, phi, ring = course(r[use]), course(r[use], 1), r[use], phi[use], ring[use]
    turns = (r * np.cos(2 * phi), r * np.sin(2 * phi), np.cos(phi), np.sin(phi))
    columns = np.stack([pattern[use] - f, *(-slope * t for t in turns)], 1)
    n = np.maximum(np.bincount(ring), 1)
    columns -= np.stack([np.bincount(ring, c) / n for c in columns.T], 1)[ring]  # what is wrong with f is of no account
    columns /= np.sqrt(f)[:, None]
    return np.asarray(np.linalg.lstsq(columns[:, 1:], columns[:, 0], rcond=1e-9)[0][:2])


def ellipse(stretches: np.ndarray) -> Ellipse | None:
    """The camera's ellipse from the stretch (tilt, 2) of every tilt; None where it is no more than its error."""
    known = stretches[np.isfinite(stretches).all(1)]
    if len(known) < _LEAST_TILTS:
        return None
    mean = known.mean(0)
    error = float(np.sqrt(known.var(0, ddof=1).sum() / len(known)))
    size = float(np.hypot(*mean))
    if size < _SURE * error:
        return None
    azimuth = float(np.degrees(np.arctan2(mean[1], mean[0])) / 2 % 180)
    return Ellipse((1 + size) / (1 - size), 2 * error, azimuth)
