"""Frames that a camera has dropped: empty ones where their neighbours count plenty."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_PLENTY = 20.0  # counts expected, so that one empty frame in 10⁸ is so by chance
_NEAR_PX, _LEAST_WEIGHT = 1.0, 0.1  # of the Gaussian about a dropped frame, and the weight that it must meet
_CHI2_MEDIAN = 0.455  # of one degree of freedom


def dropped_frames(counts: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Which frames (y, x) of a scan are dropped ones, bool.

    A frame without any count is dropped where so few are not expected by chance. What is expected is the mean of the
    frames about it that are not empty, in units of their scatter from one probe to the next, which holds for counts as
    for values of any scale: at low dose a true frame may well be empty.

    Parameters
    ----------
    counts : (y, x) array
        Sum of every frame over the detectors, the direct beam among them.
    empty : (y, x) bool array
        Frames without any count.
    """
    if not empty.any() or empty.all():
        return np.zeros(empty.shape, bool)
    expected = filled(counts[None], empty)[0]
    return np.asarray(empty & (expected >= _PLENTY * _gain(counts, ~empty)))


def _gain(counts: np.ndarray, known: np.ndarray) -> float:
    """Variance over mean of a frame's counts, by neighbours along both directions; 1 where there are none."""
    ratio = []
    for axis in (0, 1):
        a, b = np.moveaxis(counts, axis, 0)[:-1], np.moveaxis(counts, axis, 0)[1:]
        both = np.moveaxis(known, axis, 0)[:-1] & np.moveaxis(known, axis, 0)[1:] & (a + b > 0)
        ratio.append((a - b)[both] ** 2 / (a + b)[both])
    every = np.concatenate(ratio)
    return float(np.median(every)) / _CHI2_MEDIAN if len(every) else 1.0


def filled(images: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Images with the Gaussian-weighted mean of the nearest known pixels where pixels are gone.

    Parameters
    ----------
    images : (n, y, x) array
    gone : (y, x) bool array

    Returns
    -------
    (n, y, x) array
        Of the images' type.
    """
    out, todo, width = images.copy(), gone.copy(), _NEAR_PX
    if gone.all():
        return out
    while todo.any():
        weight = ndimage.gaussian_filter((~gone).astype(float), width, mode="constant")
        here = todo & (weight > (_LEAST_WEIGHT if width < max(gone.shape) else 0))
        if here.any():
            for image, result in zip(images, out, strict=True):
                around = ndimage.gaussian_filter(np.where(gone, 0.0, image), width, mode="constant")
                result[here] = around[here] / weight[here]
        todo &= ~here
        width *= 2
    return out
