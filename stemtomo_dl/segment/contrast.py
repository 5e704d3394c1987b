"""Particle contrast: how far every probe stands out from the support, in units of the support's own noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from stemtomo_dl.records import VirtualImages

_CEILING = 30.0  # a crystal on a zone axis outshines the rest a hundredfold; beyond this it tells no more


def particle_contrast(images: VirtualImages, smoothing_px: float) -> np.ndarray:
    """Combined contrast of the virtual images.

    Particles take from the bright field and add to the dark fields and to their variance, whatever their
    orientation at this tilt lights up. Dark fields are taken as square roots, in which counting noise is even.
    Each image is smoothed, a slowly varying support is fitted and subtracted, and the rest is divided by the
    support's scatter; positive contrasts, limited, add in quadrature.

    Parameters
    ----------
    images : VirtualImages
    smoothing_px : float
        Width of the Gaussian that smooths them.

    Returns
    -------
    (y, x) float array, about 1 where there is only support.
    """
    channels = [-images["bf"], *(np.sqrt(np.maximum(images[c], 0)) for c in ("adf", "haadf", "variance"))]
    total = np.zeros(images.images.shape[1:])
    for channel in channels:
        z = standardised(ndimage.gaussian_filter(channel.astype(float), smoothing_px))
        total += np.clip(z, 0, _CEILING) ** 2
    return np.sqrt(total / len(channels))


def standardised(image: np.ndarray) -> np.ndarray:
    """Image minus its support, over the support's scatter."""
    level = np.full(image.shape, _mode(image.ravel()))
    noise = 0.0
    for _ in range(6):
        rest = image - level
        below = rest[rest < 0]  # particles only ever add, so the lower side shows the support's own scatter
        noise = float(np.sqrt(np.mean(below**2))) if below.size else 0.0
        support = np.abs(rest) <= 2.5 * noise
        if support.sum() < 0.02 * image.size:
            break
        level = _surface(image, support)
    return (image - level) / max(noise, 1e-6 * float(np.ptp(image)), 1e-30)


def _mode(values: np.ndarray) -> float:
    """Half-sample mode: the densest half of the densest half of … (Bickel and Frühwirth 2006)."""
    v = np.sort(values)
    while len(v) > 3:
        half = (len(v) + 1) // 2
        width = v[half - 1 :] - v[: len(v) - half + 1]
        start = int(width.argmin())
        v = v[start : start + half]
    return float(v.mean())


def _surface(image: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Quadratic surface through the support: film thickness and detector response vary slowly over a field."""
    y, x = np.indices(image.shape, float)
    y, x = y / max(image.shape[0] - 1, 1) - 0.5, x / max(image.shape[1] - 1, 1) - 0.5
    design = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    coef = np.linalg.lstsq(design[support], image[support], rcond=1e-6)[0]
    return design @ coef
