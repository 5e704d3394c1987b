"""How a plain micrograph is recorded and printed: blur, noise, grey levels, scale bar and letters, JPEG."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from stemtomo_dl.simulate.micrograph_settings import MicrographSettings
from stemtomo_dl.simulate.support import log_between

_LETTERS = tuple("abcdefghABCDEFGH")
_UNITS = ("nm", "nm", "um", "mm")
_SMALL = 8.0  # px: a particle of this size is recorded with half of the noise of a large one
_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Recorded(NamedTuple):
    """A picture in grey levels (y, x), what is written over it (y, x), and the first row of its legend."""

    image: np.ndarray
    covered: np.ndarray
    legend: int


def expose(
    s: MicrographSettings, image: np.ndarray, contrast: float, size_px: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Blur an image (y, x) and add noise.

    Parameters
    ----------
    contrast : float
        Of a typical particle, in the image's unit.
    size_px : float
        Of the same. Small particles are not recorded with so much noise that nobody sees them.

    Returns
    -------
    image : (y, x) array
    noise : float
        Its rms in the image's unit.
    """
    blur = log_between(s.blur_px, rng)
    out = gaussian_filter(image, blur, truncate=3) if blur > 0.2 else image
    noise = 0.0
    if rng.random() >= s.noiseless_share:
        noise = contrast / log_between(s.contrast_to_noise, rng) / (1 + _SMALL / size_px)
        counting = rng.uniform(*s.counting)
        level = out / max(float(out.mean()), 1e-12)
        width = np.sqrt(np.maximum(1 - counting + counting * level, 0))
        out = out + noise * width * _noise(s, image.shape, rng)
    if rng.random() < s.line_share:
        out = out + contrast * rng.uniform(*s.line_noise) * rng.normal(size=(len(out), 1))
    y, x = (np.linspace(-1, 1, n) ** 2 for n in image.shape)
    return np.asarray(out * (1 - rng.uniform(*s.vignetting) * (y[:, None] + x) / 2)), noise


def _noise(s: MicrographSettings, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Noise (y, x) of unit rms, white or correlated."""
    white = rng.standard_normal(shape, dtype=np.float32)
    if rng.random() >= s.correlated_share:
        return white
    alike = gaussian_filter(white, rng.uniform(0.4, 1.2), truncate=3)
    return np.asarray(alike / alike.std())


def publish(s: MicrographSettings, image: np.ndarray, invertible: bool, rng: np.random.Generator) -> Recorded:
    """Turn an image (y, x) into a picture of 8 bits, as papers print it."""
    clipped = rng.uniform(*s.saturated, 2) if rng.random() < s.saturated_share else np.zeros(2)
    low, high = np.quantile(image[::2, ::2], [clipped[0], 1 - clipped[1]])
    grey = np.clip((image - low) / max(high - low, 1e-12), 0, 1) ** log_between(s.gamma, rng)
    if invertible and rng.random() < s.inverted_share:
        grey = 1 - grey
    span = rng.uniform(*s.span)
    grey = np.round(255 * (rng.uniform(0, 1 - span) + span * grey)).astype("u1")
    picture, legend = Image.fromarray(grey), len(grey)
    if rng.random() < s.overlay_share:
        legend = _overlay(picture, rng)
    covered = np.asarray(picture) != grey
    if rng.random() < s.jpeg_share:
        file = io.BytesIO()
        picture.save(file, "jpeg", quality=int(rng.integers(s.jpeg_quality[0], s.jpeg_quality[1] + 1)))
        picture = Image.open(file)
    return Recorded(np.asarray(picture).astype("f4"), covered, legend)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _overlay(picture: Image.Image, rng: np.random.Generator) -> int:
    """Write a scale bar, a letter, a legend or an arrow on a picture; returns the first row of the legend."""
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    dark = np.asarray(picture)[::4, ::4].mean() < 128
    ink = 255 if dark == (rng.random() < 0.85) else 0
    size = int(min(width, height) * rng.uniform(0.05, 0.12)) + 6
    legend = height
    if rng.random() < 0.2:
        legend = int(height * rng.uniform(0.85, 0.95))
        draw.rectangle((0, legend, width, height), fill=255 - ink)
        words = f"{rng.integers(1, 31)} kV  x{rng.integers(5, 300)},000  {_scale(rng)}"
        draw.text((rng.uniform(0, 0.2) * width, legend + 2), words, ink, _font(max((height - legend) * 2 // 3, 6)))
    if rng.random() < 0.7:
        _bar(draw, (width, legend), ink, size, rng)
    if rng.random() < 0.5:
        letter = str(rng.choice(_LETTERS))
        letter = f"({letter})" if rng.random() < 0.5 else letter
        at = rng.uniform(0, 0.04, 2) * width
        if rng.random() < 0.2:
            draw.rectangle((0, 0, at[0] + 1.5 * size, at[1] + 1.3 * size), fill=255 - ink)
        draw.text(tuple(at), letter, ink, _font(size))
    if rng.random() < 0.12:
        _mark(draw, (width, legend), ink, rng)
    return legend


def _scale(rng: np.random.Generator) -> str:
    return f"{rng.choice(_LENGTHS)} {rng.choice(_UNITS)}"


def _bar(draw: ImageDraw.ImageDraw, room: tuple[int, int], ink: int, size: int, rng: np.random.Generator) -> None:
    """A scale bar in a lower corner, with its length above, below or not at all."""
    long, thick = rng.uniform(0.1, 0.35) * room[0], max(round(rng.uniform(0.006, 0.03) * room[1]), 1)
    margin = rng.uniform(0.02, 0.08) * room[0]
    words = _scale(rng)
    x = margin if rng.random() < 0.4 else room[0] - margin - max(long, 0.1 * long + _font(size).getlength(words))
    y = room[1] - margin - thick - (size if rng.random() < 0.5 else 0)
    if rng.random() < 0.1:
        draw.rectangle((x - 4, y - size - 4, x + long + 4, room[1]), fill=255 - ink)
    draw.rectangle((x, y, x + long, y + thick), fill=ink)
    if rng.random() < 0.8:
        below = y + thick + size < room[1]
        draw.text((x + 0.1 * long, y + thick if below else y - 1.3 * size), words, ink, _font(size))


def _mark(draw: ImageDraw.ImageDraw, room: tuple[int, int], ink: int, rng: np.random.Generator) -> None:
    """A circle, a frame or an arrow that points something out."""
    x, y = rng.uniform(0.1, 0.9, 2) * room
    size, wide = rng.uniform(0.03, 0.2) * room[0], int(rng.integers(1, 4))
    match rng.integers(3):
        case 0:
            draw.ellipse((x - size, y - size, x + size, y + size), outline=ink, width=wide)
        case 1:
            draw.rectangle((x - size, y - size, x + size, y + size), outline=ink, width=wide)
        case _:
            phi = rng.uniform(0, 2 * np.pi)
            draw.line((x, y, x + size * np.cos(phi), y + size * np.sin(phi)), fill=ink, width=wide)
            tips = [(x + 0.35 * size * np.cos(phi + a), y + 0.35 * size * np.sin(phi + a)) for a in (-0.4, 0.4)]
            draw.polygon([(x, y), *tips], fill=ink)
