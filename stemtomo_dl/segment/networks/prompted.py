"""Networks that propose boxes from a dense head and draw an amodal mask for each, so that masks may overlap.

The dense head is that of CenterNet (Zhou, Wang and Krähenbühl 2019, arXiv:1904.07850): a heat map with a peak at
the middle of every particle's box, and the box itself. What draws a mask for a box is the subclass's: the same
boxes may come from a person or from the tracker.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LOG_SIDE = (-1.0, 7.0)  # limits of the logarithm of a box's half side, px
REGION = 1.4  # masks are drawn within their box, widened by this
_MARGIN = 2  # px of masks around that, so that interpolating meets no rim
_ALIKE = 1.3  # sides of windows that are drawn together may differ by this factor
_MOST_BOXES, _MOST_PX = 64, 1 << 18  # drawn together; px of all of their masks


class Encoded(NamedTuple):
    """What is computed once for a batch of images; h and w are the cells of the heat map.

    Attributes
    ----------
    heat : (image, h, w) tensor
        Logits: does the middle of a particle's box lie in this cell?
    sides : (image, 4, h, w) tensor
        Distances of the box's left, top, right and bottom from the middle of the cell, px.
    features : tuple of tensors
        Whatever the masks are drawn from.
    """

    heat: Tensor
    sides: Tensor
    features: tuple[Tensor, ...]


class Proposals(NamedTuple):
    """Where particles of one image may be, the surest first.

    Attributes
    ----------
    boxes : (n, 4) tensor
        x0, y0, x1, y1 in px; a pixel covers from its number to its number + 1.
    heat : (n,) tensor
        Probability of being a particle.
    """

    boxes: Tensor
    heat: Tensor


class Drawing(NamedTuple):
    """What was drawn for one box.

    Attributes
    ----------
    logits : (y, x) tensor
        In steps of mask_stride, of the part of the image that the widened box covers.
    corner : (int, int)
        Row and column of its first pixel among the mask pixels of the whole image.
    quality : float
        Expected intersection over union.
    """

    logits: Tensor
    corner: tuple[int, int]
    quality: float


def inside(boxes: Tensor, shape: tuple[int, ...], stride: int, widen: float) -> Tensor:
    """1 in cells (n, y, x) within boxes that are widened by a factor and at least by two cells, 0 elsewhere."""
    x0, y0, x1, y1 = boxes.unbind(1)
    out = []
    for low, high, n in ((y0, y1, shape[0]), (x0, x1, shape[1])):
        half = torch.maximum((high - low) / 2 * widen, (high - low) / 2 + 2 * stride)
        at = (torch.arange(n, device=boxes.device) + 0.5) * stride
        out.append((at - ((low + high) / 2)[:, None]).abs() <= half[:, None])
    return (out[0][:, :, None] & out[1][:, None, :]).float()


class ProposalHead(nn.Module):
    """Heat map and boxes from features of one stride."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.trunk = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True))
        self.out = nn.Conv2d(channels, 5, 1)
        nn.init.normal_(self.out.weight, std=0.01)
        start = torch.tensor([-4.0, 2.0, 2.0, 2.0, 2.0])  # nearly every cell is empty; boxes are some pixels wide
        self.out.bias = nn.Parameter(start)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the heat map (image, h, w) and sides of the boxes (image, 4, h, w), px."""
        out = self.out(self.trunk(x)).float()
        return out[:, 0], out[:, 1:].clamp(*_LOG_SIDE).exp()


class PromptedNetwork(nn.Module):
    """Base of the networks that draw masks for boxes."""

    stride: int  # of the heat map, px
    mask_stride: int  # of the masks' logits, px
    multiple: int  # heights and widths must be multiples of this

    @abstractmethod
    def encode(self, planes: Tensor) -> Encoded:
        """Planes (image, plane, y, x) to all that masks are drawn from."""

    @abstractmethod
    def masks(self, encoded: Encoded, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the particle in each box.

        Parameters
        ----------
        encoded : Encoded
        image : (n,) int tensor
            Which image of the batch each box belongs to.
        boxes : (n, 4) tensor
            x0, y0, x1, y1 in px.

        Returns
        -------
        logits : (n, y / mask_stride, x / mask_stride) tensor
        quality : (n,) tensor
            Logits of the expected intersection over union.
        """

    def cells(self, encoded: Encoded, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column of the heat map's cell in which the middle of each box lies."""
        h, w = encoded.heat.shape[-2:]
        x = ((boxes[:, 0] + boxes[:, 2]) / 2 / self.stride).long().clamp(0, w - 1)
        y = ((boxes[:, 1] + boxes[:, 3]) / 2 / self.stride).long().clamp(0, h - 1)
        return y, x

    def boxes_at(self, encoded: Encoded, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """The boxes (n, 4) that the head sees from cells."""
        left, top, right, bottom = encoded.sides[image, :, y, x].unbind(1)
        cx, cy = (x + 0.5) * self.stride, (y + 0.5) * self.stride
        return torch.stack([cx - left, cy - top, cx + right, cy + bottom], 1)

    def patches(
        self, encoded: Encoded, image: Tensor, boxes: Tensor, rows: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `masks`, at some pixels only: rows (n, y) and columns (n, x) of the mask of each box."""
        logits, quality = self.masks(encoded, image, boxes)
        each = torch.arange(len(boxes), device=boxes.device)[:, None, None]
        return logits[each, rows[:, :, None], columns[:, None, :]], quality

    @torch.inference_mode()
    def propose(self, encoded: Encoded, least_heat: float, most: int) -> list[Proposals]:
        """Peaks of every image's heat map that are not below ``least_heat``, at most ``most`` in an image."""
        heat = encoded.heat.sigmoid()
        peaks = heat * (F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0] == heat)
        found = []
        for i, p in enumerate(peaks):
            value, at = p.flatten().topk(min(most, p.numel()))
            at = at[value >= least_heat]
            y, x = at // p.shape[1], at % p.shape[1]
            found.append(Proposals(self.boxes_at(encoded, torch.full_like(at, i), y, x), value[: len(at)]))
        return found

    @torch.inference_mode()
    def draw(self, encoded: Encoded, image: Tensor, boxes: Tensor) -> list[Drawing]:
        """Draw masks for boxes, in their order.

        They are drawn only where the widened boxes are, boxes of about one size together: over the whole image it
        would take many times as long as encoding.
        """
        shape = [n * self.stride // self.mask_stride for n in encoded.heat.shape[-2:]]
        first, count = _windows(boxes, shape, self.mask_stride)
        drawn: dict[int, Drawing] = {}
        for part in _alike(count):
            size = count[part].amax(0)
            at = torch.minimum(first[part], torch.tensor(shape, device=boxes.device) - size)
            rows, columns = (at[:, k, None] + torch.arange(int(size[k]), device=boxes.device) for k in (0, 1))
            logits, quality = self.patches(encoded, image[part], boxes[part], rows, columns)
            made = zip(logits.float(), at.tolist(), quality.float().sigmoid().tolist(), strict=True)
            drawn |= {n: Drawing(m, (y, x), q) for n, (m, (y, x), q) in zip(part.tolist(), made, strict=True)}
        return [drawn[n] for n in range(len(boxes))]


def _windows(boxes: Tensor, shape: list[int], stride: int) -> tuple[Tensor, Tensor]:
    """First pixels (n, 2) of the masks of widened boxes, and how many rows and columns (n, 2) they have."""
    first, count = [], []
    for low, high, n in ((boxes[:, 1], boxes[:, 3], shape[0]), (boxes[:, 0], boxes[:, 2], shape[1])):
        half = torch.maximum((high - low) / 2 * REGION, (high - low) / 2 + 2 * stride)
        middle = (low + high) / 2
        start = (((middle - half) / stride).floor().long() - _MARGIN).clamp(0, n - 1)
        stop = (((middle + half) / stride).ceil().long() + _MARGIN).clamp(1, n)
        first.append(start)
        count.append((stop - start).clamp(min=min(2, n)))
    return torch.stack(first, 1), torch.stack(count, 1)


def _alike(count: Tensor) -> Iterator[Tensor]:
    """Numbers of windows that are drawn together: of about one size, and not too many pixels of them."""
    side = count.amax(1)
    order = side.argsort()
    start, sides = 0, side[order].tolist()
    while start < len(order):
        fit = bisect_right(sides, sides[start] * _ALIKE + 1) - start
        stop = start + max(min(fit, _MOST_BOXES, _MOST_PX // int(sides[start + fit - 1] ** 2)), 1)
        yield order[start:stop]
        start = stop
