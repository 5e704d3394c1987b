"""Networks that propose boxes from a dense head and draw an amodal mask for each, so that masks may overlap.

The dense head is that of CenterNet (Zhou, Wang and Krähenbühl 2019, arXiv:1904.07850): a heat map with a peak at
the middle of every particle's box, and the box itself. What draws a mask for a box is the subclass's: the same
boxes may come from a person or from the tracker.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LOG_SIDE = (-1.0, 7.0)  # limits of the logarithm of a box's half side, px
REGION = 1.4  # masks are drawn within their box, widened by this


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


class Detections(NamedTuple):
    """Particles of one image, the surest first.

    Attributes
    ----------
    boxes : (n, 4) tensor
        x0, y0, x1, y1 in px; a pixel covers from its number to its number + 1.
    heat, quality : (n,) tensors
        Probability of being a particle; expected intersection over union of its mask.
    logits : (n, y / mask_stride, x / mask_stride) tensor
    """

    boxes: Tensor
    heat: Tensor
    quality: Tensor
    logits: Tensor


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

    @torch.inference_mode()
    def detect(self, encoded: Encoded, least_heat: float, most: int, batch: int = 64) -> list[Detections]:
        """Find the particles of every image.

        Peaks of the heat map above ``least_heat``, at most ``most`` of them in an image, are drawn ``batch`` at a
        time.
        """
        heat = encoded.heat.sigmoid()
        peaks = heat * (F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0] == heat)
        found = []
        for i, p in enumerate(peaks):
            value, at = p.flatten().topk(min(most, p.numel()))
            at = at[value >= least_heat]
            y, x = at // p.shape[1], at % p.shape[1]
            image = torch.full_like(at, i)
            boxes = self.boxes_at(encoded, image, y, x)
            found.append(self.draw(encoded, image, boxes, value[: len(at)], batch))
        return found

    @torch.inference_mode()
    def draw(self, encoded: Encoded, image: Tensor, boxes: Tensor, heat: Tensor, batch: int = 64) -> Detections:
        """Draw masks for boxes, some at a time."""
        h, w = (n * self.stride // self.mask_stride for n in encoded.heat.shape[-2:])
        logits, quality = [boxes.new_zeros(0, h, w)], [boxes.new_zeros(0)]
        for part in torch.arange(len(boxes), device=boxes.device).split(batch):
            if len(part):
                m, q = self.masks(encoded, image[part], boxes[part])
                logits.append(m.float())
                quality.append(q.float().sigmoid())
        return Detections(boxes, heat, torch.cat(quality), torch.cat(logits))
