"""What `predict` leaves for an image: its outlines as in masks.h5, and a picture of them on the image."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image

from stemtomo_dl.records import Masks
from stemtomo_dl.store.atomic import writing
from stemtomo_dl.store.results import write_masks

_SIDE = 768  # px; smaller pictures are enlarged to about this, so that outlines do not hide what they surround
_GOLDEN = 0.61803398875  # steps of the hue by this share of the circle keep neighbours in the list apart


def write_prediction(folder: Path, name: str, image: np.ndarray, masks: Masks) -> tuple[Path, Path]:
    """Write NAME.h5 and NAME.png.

    Parameters
    ----------
    folder : Path
        Made where it is not there.
    name : str
    image : (y, x) array
        What was segmented.
    masks : Masks
        The outlines, at tilt 0.

    Returns
    -------
    masks, overlay : Path

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    stored, shown = folder / f"{name}.h5", folder / f"{name}.png"
    write_masks(stored, masks)
    with writing(shown) as temporary:
        Image.fromarray(overlay(image, masks)).save(temporary, "PNG")
    return stored, shown


def overlay(image: np.ndarray, masks: Masks) -> np.ndarray:
    """The image in grey with every outline in a colour of its own, where outlines overlap too.

    Parameters
    ----------
    image : (y, x) array
    masks : Masks
        Of the image's shape.

    Returns
    -------
    (y, x, 3) u1 array
        Enlarged by a whole number where the image is small.
    """
    scale = max(1, _SIDE // max(image.shape))
    out = np.repeat(_grey(image)[..., None], 3, -1).repeat(scale, 0).repeat(scale, 1)
    for i, crop in enumerate(masks.crops):
        big = np.pad(crop.repeat(scale, 0).repeat(scale, 1), 1)
        inner = big[1:-1, 1:-1] & big[:-2, 1:-1] & big[2:, 1:-1] & big[1:-1, :-2] & big[1:-1, 2:]
        rows, columns = (slice(w.start * scale, w.stop * scale) for w in masks.window(i))
        colour = np.array(colorsys.hsv_to_rgb(i * _GOLDEN % 1, 0.85, 1.0)) * 255
        out[rows, columns][big[1:-1, 1:-1] & ~inner] = colour.round().astype("u1")
    return out


def _grey(image: np.ndarray) -> np.ndarray:
    """8-bit grey between black and white points that a few outlying pixels do not move; NaN is black."""
    low, high = np.nanpercentile(np.where(np.isfinite(image), image, np.nan), [0.3, 99.7])
    scaled = np.clip((image - low) / (high - low if high > low else 1.0), 0, 1)
    return np.asarray(np.nan_to_num(scaled * 255).round(), "u1")
