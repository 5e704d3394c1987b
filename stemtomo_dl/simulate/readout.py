"""What a camera makes of counted electrons, drawn for virtual images that have no patterns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_RIVALS = 3  # numbers of electrons, from the greatest down, whose pixels may read most
_STANDING = 1.2  # deviations by which the hottest pixel stands above its mean, typical of disks and halos alike

Reach = tuple[tuple[float, ...], ...]
STAYS: Reach = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


class Readout(NamedTuple):
    """A camera as `detector.Camera` describes it; all but the gain in electrons. The default counts electrons."""

    gain: float = 1.0  # counts per electron
    gain_spread: float = 0.0  # rms of one electron's counts, of the gain
    read_noise: float = 0.0  # rms of a pixel
    offset: float = 0.0  # of a pixel
    shared: float = 1.0  # Σw² of the weights w by which the point spread shares an electron's light among pixels
    core: float = 1.0  # share of the light that the tail of the point spread does not take
    reach: Reach = STAYS  # light in bf, adf, haadf per electron that lands in bf (a row), adf, haadf
    crest: float = 0.0  # light of the tail in the brightest pixel of the dark field per electron that lands in bf


def read_out(images: np.ndarray, camera: Readout, area_px: np.ndarray, rng: np.random.Generator) -> None:
    """Turn images of electrons (bf, adf, haadf, variance, maximum; y, x) into those of counts, in place.

    A pixel of N electrons reads offset + gain·N with the variance gain²(spread²·N + noise²). Means over a detector of
    A pixels so gain (spread²·N/A + noise²)/A; the variance image gains the pixels' own, with its sampling error. The
    hottest pixel is the one that held most electrons, or one of those that held fewer, of which there are more.
    Where light is shared, counting noise and its spread count ``shared`` times in a pixel's variance, and the noise
    by which the hottest pixel stands out shrinks by the root of it. What the tail of the point spread carries from
    one detector into another is even light: of its own noise next to nothing is left.

    Parameters
    ----------
    area_px : (3,) array
        Pixels in bf, adf and haadf.
    """
    if camera == Readout():
        return
    spread, noise, shared = camera.gain_spread**2, camera.read_noise**2, camera.shared
    bf, adf, haadf, variance, maximum = images
    dark, n = area_px[1] + area_px[2], adf * area_px[1] + haadf * area_px[2]
    rim = camera.crest * bf * area_px[0]
    around = _carry(images[:3], camera, area_px)
    hottest = np.maximum(around, rim) + camera.core * n / dark
    hottest += np.sqrt(shared * spread * n / dark + noise) * _greatest(rng, np.array(dark), maximum.shape)
    for fewer in range(_RIVALS):
        # numbers of pixels fall geometrically, from n that hold one electron to one a third of a count above the most
        held = np.maximum(maximum - fewer, 0)
        many = np.maximum(n, 1) ** np.clip((fewer + 1 / 3) / np.maximum(maximum - 2 / 3, 1 / 3), 0, 1)
        standing = np.minimum(held, _STANDING * np.sqrt(held))
        read = around + camera.core * (held - standing) + np.sqrt(shared) * standing
        read += np.sqrt(shared * spread * held + noise) * _greatest(rng, many, maximum.shape)
        hottest = np.maximum(hottest, read)
    variance *= camera.core**2
    own = (shared * (1 + spread) - camera.core**2) * n / dark + noise
    error = np.sqrt(np.maximum(2 * own**2 + 4 * variance * own, 0) / dark) * rng.standard_normal(bf.shape, "f4")
    variance[:] = camera.gain**2 * np.maximum(variance + own + error, 0)
    maximum[:] = camera.gain * (camera.offset + hottest)
    for image, area in zip((bf, adf, haadf), area_px, strict=True):
        error = np.sqrt((spread * image + noise) / area) * rng.standard_normal(image.shape, "f4")
        image[:] = camera.gain * np.maximum(camera.offset + image + error, 0)  # files hold no less


def _carry(fields: np.ndarray, camera: Readout, area_px: np.ndarray) -> np.ndarray:
    """Turn electrons per pixel of bf, adf and haadf (3, y, x) into light, in place; what the tail gives to adf."""
    if camera.reach == STAYS:
        return np.zeros(fields.shape[1:], "f4")
    own = camera.core * fields[1]
    light = np.einsum("kl,kyx->lyx", np.array(camera.reach), fields * area_px[:, None, None])
    fields[:] = light / area_px[:, None, None]
    return np.asarray(fields[1] - own)


def _greatest(rng: np.random.Generator, many: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The greatest of so many normal numbers, by Gumbel's limit; of one, a normal number."""
    b = np.sqrt(2 * np.log(np.maximum(many, 2)))
    middle = b - (np.log(np.log(np.maximum(many, 2))) + np.log(4 * np.pi)) / (2 * b)
    gumbel = middle - np.log(np.maximum(rng.standard_exponential(shape, "f4"), 1e-9)) / b
    return np.where(many < 2, rng.standard_normal(shape, "f4"), gumbel)
