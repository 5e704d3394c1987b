"""A compact U-Net whose masks are drawn by filters that each particle brings along.

Masks as in CondInst (Tian, Shen and Chen 2020, arXiv:2003.05664): every cell of the heat map predicts the weights of
three tiny 1×1 convolutions, which turn shared features and the place relative to the particle's box into its mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stemtomo_dl.segment.networks.prompted import Encoded, PromptedNetwork, ProposalHead

_SHARED, _HIDDEN, _PLACE = 8, 8, 4  # features that masks are made from; of the tiny layers; x, y and their squares
_LAYERS = ((_SHARED + _PLACE, _HIDDEN), (_HIDDEN, _HIDDEN), (_HIDDEN, 1))
_CONTROLS = sum(i * o + o for i, o in _LAYERS)


def _conv(i: int, o: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)), inplace=True)


class UNet(PromptedNetwork):
    """The compact network.

    Parameters
    ----------
    planes : int
        Planes of the input.
    widths : sequence of int
        Channels at strides 2, 4, 8, 16 and so on.
    blocks : sequence of int
        Residual blocks at each of these strides.
    """

    stride, mask_stride = 4, 2

    def __init__(
        self,
        planes: int,
        widths: tuple[int, ...] = (24, 64, 96, 128, 160),
        blocks: tuple[int, ...] = (0, 2, 2, 2, 2),
    ) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        ins = (planes, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(_conv(i, o, 2), *(_Residual(o) for _ in range(n)))
            for i, o, n in zip(ins, widths, blocks, strict=True)
        )
        width = widths[1]
        self.lateral = nn.ModuleList(nn.Conv2d(w, width, 1) for w in widths[1:])
        self.smooth = nn.ModuleList(_conv(width, width) for _ in widths[2:])
        self.head = ProposalHead(width, self.stride)
        self.control = nn.Sequential(_conv(width, width), nn.Conv2d(width, _CONTROLS + 1, 1))
        self.to_fine = nn.Conv2d(width, widths[0], 1)
        self.fine = nn.Sequential(_conv(widths[0], widths[0]), nn.Conv2d(widths[0], _SHARED, 1))

    def encode(self, planes: Tensor) -> Encoded:
        """Planes (image, plane, y, x) to heat map, boxes, filter weights and shared features."""
        levels = []
        for stage in self.down:
            planes = stage(planes)
            levels.append(planes)
        laterals = [side(x) for side, x in zip(self.lateral, levels[1:], strict=True)]
        x = laterals[-1]
        for below, smooth in zip(laterals[-2::-1], self.smooth, strict=True):
            x = smooth(below + F.interpolate(x, scale_factor=2.0, mode="nearest"))
        heat, sides = self.head(x)
        shallow = F.interpolate(self.to_fine(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        return Encoded(heat, sides, (self.control(x).float(), self.fine(levels[0] + shallow).float()))

    def masks(self, encoded: Encoded, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the particle in each box, by the filters of the cell at its middle."""
        shared = encoded.features[1]
        y, x = (torch.arange(n, device=boxes.device).expand(len(boxes), -1) for n in shared.shape[-2:])
        return self._drawn(encoded, image, boxes, shared[image], y, x)

    def patches(
        self, encoded: Encoded, image: Tensor, boxes: Tensor, rows: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `masks`, at some pixels only; nothing is computed elsewhere."""
        seen = encoded.features[1].permute(0, 2, 3, 1)[image[:, None, None], rows[:, :, None], columns[:, None, :]]
        return self._drawn(encoded, image, boxes, seen.permute(0, 3, 1, 2), rows, columns)

    def _drawn(
        self, encoded: Encoded, image: Tensor, boxes: Tensor, seen: Tensor, rows: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Masks from the shared features (n, feature, y, x) at rows (n, y) and columns (n, x)."""
        own = encoded.features[0][image, :, *self.cells(encoded, boxes)]
        x = torch.cat([seen, _place(boxes, rows, columns, self.mask_stride)], 1).flatten(2)
        start = 1
        for n, (i, o) in enumerate(_LAYERS):
            weight = own[:, start : start + i * o].view(-1, o, i)
            bias = own[:, start + i * o : start + i * o + o, None]
            start += i * o + o
            x = torch.baddbmm(bias, weight, x)
            x = F.relu(x) if n + 1 < len(_LAYERS) else x
        return x.view(-1, *seen.shape[-2:]), own[:, 0]


def _place(boxes: Tensor, rows: Tensor, columns: Tensor, stride: int) -> Tensor:
    """Where pixels lie relative to each box (n, 4, y, x): −1 and 1 at its sides, limited; then the squares."""
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    x = ((2 * columns + 1) * stride - (x0 + x1)) / (x1 - x0).clamp(min=1.0)
    y = ((2 * rows + 1) * stride - (y0 + y1)) / (y1 - y0).clamp(min=1.0)
    x, y = (v.clamp(-3, 3) for v in (x, y))
    h, w = rows.shape[1], columns.shape[1]
    x, y = x[:, None, :].expand(-1, h, w), y[:, :, None].expand(-1, h, w)
    return torch.stack([x, y, x * x, y * y], 1)
