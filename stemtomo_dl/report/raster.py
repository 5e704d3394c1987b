"""Images for the page: contrast, reduction, and compact encoding as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

_LINEAR = ("bf",)


def tone(detector: str, image: np.ndarray) -> np.ndarray:
    """Values that a virtual image is shown by.

    Dark fields span decades as crystals pass Bragg conditions: by their square roots, faint particles are seen
    beside bright ones.
    """
    return image if detector in _LINEAR else np.sqrt(np.maximum(image, 0))


def limits(values: np.ndarray) -> tuple[float, float]:
    """Black and white points that a few outlying pixels do not move."""
    lo, hi = np.nanpercentile(values, [0.3, 99.7])
    return float(lo), float(hi if hi > lo else lo + 1)


def grey(values: np.ndarray, black_white: tuple[float, float]) -> np.ndarray:
    """Values as 8-bit grey; NaN is mid-grey."""
    lo, hi = black_white
    scaled = np.clip((values - lo) / (hi - lo), 0, 1)
    return np.asarray(np.nan_to_num(scaled * 255, nan=128).round(), dtype="u1")


def block(image: np.ndarray, side: int) -> int:
    """How many pixels have to become one for no side to be longer than ``side``."""
    return -(-max(image.shape) // side)


def reduce_mean(image: np.ndarray, side: int) -> np.ndarray:
    """Image averaged over square blocks until no side is longer than ``side``."""
    return _blocks(image, block(image, side)).mean((1, 3))


def reduce_max(image: np.ndarray, side: int) -> np.ndarray:
    """As `reduce_mean`, but by the maximum: a diffraction spot of one pixel must not fade."""
    return _blocks(image, block(image, side)).max((1, 3))


def _blocks(image: np.ndarray, k: int) -> np.ndarray:
    """(rows / k, k, columns / k, k) view of an image whose last rows and columns are repeated to whole blocks."""
    padded = np.pad(image, ((0, -image.shape[0] % k), (0, -image.shape[1] % k)), mode="edge")
    return padded.reshape(padded.shape[0] // k, k, padded.shape[1] // k, k)


def ink(pattern: np.ndarray, scale: float, soft: float) -> np.ndarray:
    """Diffraction intensities as dark on white, (y, x) 8-bit: linear near ``soft``, logarithmic up to ``scale``."""
    dark = np.arcsinh(np.maximum(pattern, 0) / soft) / np.arcsinh(max(scale, soft) / soft)
    return np.asarray((255 * (1 - np.clip(dark, 0, 1))).round(), dtype="u1")


def tint(shades: np.ndarray, where: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    """Grey image as colour, with some pixels in one colour."""
    out = np.repeat(shades[..., None], 3, -1)
    out[where] = rgb
    return out


def encode(image: np.ndarray, quality: int | None) -> bytes:
    """8-bit image as WebP, lossless where quality is None."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    if quality is None:
        picture.save(buffer, "WEBP", lossless=True, quality=50, method=2)
    else:
        picture.save(buffer, "WEBP", quality=quality, method=3)
    return buffer.getvalue()


def base64_text(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def data_uri(image: np.ndarray, quality: int | None = None) -> str:
    """8-bit image as a data URI."""
    return "data:image/webp;base64," + base64_text(encode(image, quality))
