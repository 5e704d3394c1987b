"""Particle contrast: how far every probe stands out from the support, in units of the support's own noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from stemtomo_dl.surfaces import quadratic

_DARK_FIELDS = ("adf", "haadf", "variance")
_LEAST_NOISE = 1e-3  # of an image's greatest value: smaller scatter is not believed
_CEILING = 30.0  # a crystal on a zone axis outshines the rest a hundredfold; beyond this it tells no more
_SPARSE, _SPARSE_PX = 0.35, 2.0  # an image is sparse if this share of it has no counts; then smoothed so
_MODE_WIDTH = 2.0  # of the combined brightness, in which the noise of every image is 1
_LEAST_ABOVE = 0.02  # share of the field that particles on a film cover
_LEAST_MODE = 0.12  # share of the field that a level must have to be the support's


@dataclass(frozen=True)
class Channels:
    """Images in which particles are bright, and which probes show only the support.

    Attributes
    ----------
    stack : (channel, y, x) array
    sparse : (channel) bool array
        Images in which many probes have no counts at all.
    support : (y, x) bool array
    """

    stack: np.ndarray
    sparse: np.ndarray
    support: np.ndarray


def channels(images: dict[str, np.ndarray], smoothing_px: float) -> Channels:
    """What the segmenter looks at.

    Particles take from the bright field and add to the dark fields and to their variance, whatever their
    orientation at this tilt lights up. Dark fields are taken as square roots, in which counting noise is even.
    The support is a level that a good part of the field has in all of them together: a film with holes in it, or
    what is left of it between crowded particles.

    Parameters
    ----------
    images : dict
        (y, x) arrays by name: any of bf, adf, haadf and variance, or only maximum, or only "grey", an image of
        unknown polarity, whose particles are taken to be what differs most from its median.
    smoothing_px : float
        Width of the Gaussian that smooths the images before the support is looked for.

    Raises
    ------
    ValueError
        If none of these is there.
    """
    bright = [np.sqrt(np.maximum(images[c], 0)) for c in _DARK_FIELDS if c in images]
    if "bf" in images:
        bright.insert(0, -images["bf"])
    if not bright and "maximum" in images:
        bright = [np.sqrt(np.maximum(images["maximum"], 0))]
    if not bright and "grey" in images:
        apart = images["grey"] - np.median(images["grey"])
        bright = [apart if np.mean(apart**3) >= 0 else -apart]
    if not bright:
        raise ValueError(f"none of {sorted(images)} is an image in which particles stand out")
    stack = np.stack(bright).astype(float)
    sparse = np.mean(stack == 0, (1, 2)) > _SPARSE
    smooth = _smoothed(stack, sparse, smoothing_px)
    noise = [_pixel_noise(c) for c in smooth]
    brightness = np.sum(
        [np.clip((c - np.median(c)) / n, None, _CEILING) for c, n in zip(smooth, noise, strict=True)], 0
    )
    level = _support_level(brightness.ravel())
    # The lower side shows the support's own scatter, as far down as it reaches: further below are holes.
    below = brightness[(brightness < level) & (brightness > level - 4 * _MODE_WIDTH)] - level
    scatter = float(np.sqrt(np.mean(below**2))) if below.size else 0.0
    # At least a fraction of the noise, for images that have none: the level itself must be support.
    return Channels(stack, sparse, np.abs(brightness - level) <= max(2.5 * scatter, 0.25 * _MODE_WIDTH))


def particle_contrast(seen: Channels, smoothing_px: float) -> np.ndarray:
    """Combined contrast: how far every probe stands out from the support.

    Each image is smoothed, a slowly varying surface is fitted to the support and subtracted, and the rest is
    divided by the support's scatter; positive contrasts, limited, add in quadrature.

    Parameters
    ----------
    seen : Channels
    smoothing_px : float
        Width of the Gaussian that smooths the images; 0 leaves them as they are.

    Returns
    -------
    (y, x) float array, about 1 where there is only support.
    """
    smooth = _smoothed(seen.stack, seen.sparse & (smoothing_px > 0), smoothing_px)
    z = [np.clip(standardised(c, seen.support), 0, _CEILING) for c in smooth]
    return np.sqrt(np.mean(np.square(z), 0))


def standardised(image: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Image minus a quadratic surface through its support, over the support's scatter about it."""
    y, x = np.indices(image.shape)
    design = quadratic(2 * x / max(image.shape[1] - 1, 1) - 1, 2 * y / max(image.shape[0] - 1, 1) - 1)
    rest = image - design @ np.linalg.lstsq(design[support], image[support], rcond=1e-6)[0]
    # An image without noise still has rounding errors, which are no contrast.
    return rest / max(float(np.std(rest[support])), _LEAST_NOISE * float(np.abs(image).max()), 1e-30)


def _smoothed(stack: np.ndarray, sparse: np.ndarray, smoothing_px: float) -> np.ndarray:
    """Images smoothed, the sparse ones so far that their counts become levels."""
    width = np.where(sparse, np.maximum(smoothing_px, _SPARSE_PX), smoothing_px)
    return np.stack([ndimage.gaussian_filter(c, w) for c, w in zip(stack, width, strict=True)])


def _pixel_noise(image: np.ndarray) -> float:
    """Scatter from pixel to pixel, by the median of what differs from the surroundings."""
    rough = image - ndimage.gaussian_filter(image, 2.0)
    return max(1.4826 * float(np.median(np.abs(rough))), 1e-6 * float(np.ptp(image)), 1e-30)


def _support_level(values: np.ndarray) -> float:
    """The darkest mode of the values that holds its share of them.

    Modes are densest half samples (Bickel and Frühwirth 2006): of all values, then, unless that one looks like a
    film already, of those below what belongs to it, as long as enough values are left there.
    """
    values = np.sort(values)
    level = _mode(values)
    while True:
        # A narrow level with something brighter on it is a film with particles, whatever holes there are in it;
        # particles that crowd the field vary in brightness, or are the brightest there is.
        near, around, above = (
            np.mean(k)
            for k in (
                np.abs(values - level) < 1.5 * _MODE_WIDTH,
                np.abs(values - level) < 4 * _MODE_WIDTH,
                values > level + 4 * _MODE_WIDTH,
            )
        )
        if near > 0.6 * around and above > _LEAST_ABOVE:
            return level
        lower = values[values < level - 3 * _MODE_WIDTH]
        if len(lower) < _LEAST_MODE * len(values):
            return level
        deeper = _mode(lower)
        # Below a mode lies its own tail; another mode has its values gathered round it.
        middle = (level + deeper) / 2
        gathered, between = (int((np.abs(values - v) < _MODE_WIDTH).sum()) for v in (deeper, middle))
        if gathered < max(2 * between, _LEAST_MODE * len(values)):
            return level
        level = deeper


def _mode(v: np.ndarray) -> float:
    """Half-sample mode of sorted values: the densest half of the densest half of …"""
    while len(v) > 3:
        half = (len(v) + 1) // 2
        width = v[half - 1 :] - v[: len(v) - half + 1]
        start = int(width.argmin())
        v = v[start : start + half]
    return float(v.mean())
