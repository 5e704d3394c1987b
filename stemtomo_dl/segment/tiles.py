"""An image as what networks are shown of it: at several scales, in tiles that overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stemtomo_dl.segment.flatten import flattened, outweighed

_TILE, _HALO = 512, 96  # px of the scaled image: what is computed at once, and how far tiles overlap on each side
_COARSEST = 64  # px: an image is not shrunk below this


class Tile(NamedTuple):
    """A part of the image at one scale.

    Attributes
    ----------
    pixels : (plane, y, x) tensor
        Filled up to the multiple that the network asks for.
    scale : (float, float)
        Enlargement along y and x.
    corner : (int, int)
        Row and column of the first pixel in the scaled image.
    core : (4) array
        x0, y0, x1, y1 in px of the image: what has its middle in here is this tile's to find.
    trusted : (float, float)
        Sides in px of the image that are this scale's to find.
    """

    pixels: Tensor
    scale: tuple[float, float]
    corner: tuple[int, int]
    core: np.ndarray
    trusted: tuple[float, float]

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Whether points (n, 2), x and y in px of the image, are in the core."""
        return np.asarray(((points >= self.core[:2]) & (points < self.core[2:])).all(1))

    def boxes_here(self, boxes: np.ndarray) -> Tensor:
        """Boxes (n, 4) in px of the image as boxes in px of the tile."""
        here = boxes * np.array(self.scale[::-1] * 2) - np.array(self.corner[::-1] * 2)
        return torch.from_numpy(np.asarray(here, "f4")).to(self.pixels.device)

    def boxes_in_image(self, boxes: Tensor) -> np.ndarray:
        """The way back."""
        return np.asarray((boxes.cpu().numpy() + np.array(self.corner[::-1] * 2)) / np.array(self.scale[::-1] * 2))


def tiles(
    image: Tensor, scales: Sequence[float], largest_px: float, multiple: int, flat: bool = False
) -> Iterator[Tile]:
    """All tiles at all scales. Every size belongs to the scales that trust it; the outermost take what is beyond.

    Parameters
    ----------
    image : (plane, y, x) tensor
    scales : sequence of float
        Enlargements; those that would shrink the image too far, or make it larger than one tile, are left out.
    largest_px : float
        Up to this side in the scaled image a scale is trusted, down to half of what the next finer one is.
    multiple : int
        Heights and widths of the tiles are multiples of this.
    flat : bool
        Show the image without all that varies slowly, at those scales only at which this outweighs the rest; what
        is larger than ``largest_px`` at the coarsest scale is then no scale's.
    """
    h, w = image.shape[1:]
    fit = [s for s in scales if s == 1 or (s < 1 and min(h, w) * s >= _COARSEST) or (s > 1 and max(h, w) * s <= _TILE)]
    kept = sorted(fit, reverse=True)
    for finer, scale in zip([None, *kept], kept, strict=False):
        size = (max(round(h * scale), 1), max(round(w * scale), 1))
        scaled = _resized(image, size)
        low = 0.0 if finer is None else largest_px / finer / 2
        high = np.inf if scale == kept[-1] and not flat else largest_px / scale
        if flat:
            if not outweighed(scaled):
                continue
            scaled = flattened(scaled)
        each = (size[0] / h, size[1] / w)
        for y0, y1, top, bottom in _spans(size[0]):
            for x0, x1, left, right in _spans(size[1]):
                core = np.array([left / each[1], top / each[0], right / each[1], bottom / each[0]])
                yield Tile(_padded(scaled[:, y0:y1, x0:x1], multiple), each, (y0, x0), core, (low, high))


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[1:]) == size:
        return image
    smaller = size[0] < image.shape[1]
    return F.interpolate(image[None], size, mode="bilinear", antialias=smaller, align_corners=False)[0]


def _spans(length: int) -> Iterator[tuple[int, int, float, float]]:
    """Tiles along an axis: where each begins and ends, and the part of it that is its own."""
    if length <= _TILE:
        yield 0, length, -np.inf, np.inf
        return
    count = int(np.ceil((length - 2 * _HALO) / (_TILE - 2 * _HALO)))
    starts = np.linspace(0, length - _TILE, count).round().astype(int)
    between = [-np.inf, *((a + _TILE + b) / 2 for a, b in pairwise(starts)), np.inf]
    for n, start in enumerate(starts):
        yield int(start), int(start) + _TILE, between[n], between[n + 1]


def _padded(tile: Tensor, multiple: int) -> Tensor:
    h, w = tile.shape[1:]
    return F.pad(tile[None], (0, -w % multiple, 0, -h % multiple), mode="replicate")[0]
