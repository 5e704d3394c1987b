"""TinyViT as MobileSAM uses it: convolutions first, then windowed attention, stride 16 at the end.

Wu et al. 2022 (arXiv:2207.10666), Zhang et al. 2023 (arXiv:2306.14289). Batch normalisations are folded into the
convolutions, so that weights exported for inference fit. It takes images of any size that is a multiple of 16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EXPAND = 4  # widening inside the convolutional blocks and the perceptrons


class _Convolutional(nn.Module):
    """Inverted bottleneck beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = channels * _EXPAND
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.conv3 = nn.Conv2d(wide, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class _Merge(nn.Module):
    """To more channels, and to half the size where the stride is 2."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(ins, outs, 1)
        self.conv2 = nn.Conv2d(outs, outs, 3, stride, 1, groups=outs)
        self.conv3 = nn.Conv2d(outs, outs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class _Attention(nn.Module):
    """Attention among the cells of one window; a learned bias for every distance along x and y."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.zeros(heads, window, window))  # by |Δy| and |Δx|
        n = torch.arange(window)
        apart = (n[:, None] - n[None, :]).abs()
        between = apart[:, None, :, None] * window + apart[None, :, None, :]
        self.between: Tensor
        self.register_buffer("between", between.reshape(window**2, window**2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, n, self.heads, -1).transpose(1, 2).chunk(3, -1)
        bias = self.bias.flatten(1)[:, self.between].to(q.dtype)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class _Perceptron(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, channels * _EXPAND)
        self.fc2 = nn.Linear(channels * _EXPAND, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class _Windowed(nn.Module):
    """Attention in windows, a depthwise convolution across them, a perceptron."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = _Attention(channels, heads, window)
        self.local_conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.mlp = _Perceptron(channels)

    def forward(self, x: Tensor) -> Tensor:
        (b, c, h, w), s = x.shape, self.window
        inside = F.pad(x, (0, -w % s, 0, -h % s))
        rows, columns = inside.shape[2] // s, inside.shape[3] // s
        inside = inside.view(b, c, rows, s, columns, s).permute(0, 2, 4, 3, 5, 1).reshape(-1, s * s, c)
        inside = self.attn(inside).view(b, rows, columns, s, s, c).permute(0, 5, 1, 3, 2, 4)
        x = self.local_conv(x + inside.reshape(b, c, rows * s, columns * s)[..., :h, :w])
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of an image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(image, channel, y, x) in and out."""
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """The encoder with 5 million parameters.

    Three planes (image, 3, y, x) in; out come features of strides 4 (64 channels), 8 (128) and 16 (256).
    """

    def __init__(self) -> None:
        super().__init__()
        widths, depths, heads, windows = (64, 128, 160, 320), (2, 2, 6, 2), (0, 4, 5, 10), (0, 7, 14, 7)
        self.patch1, self.patch2 = nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 64, 3, 2, 1)
        self.stages, self.merges = nn.ModuleList(), nn.ModuleList()
        for width, depth, head, window in zip(widths, depths, heads, windows, strict=True):
            blocks = (_Windowed(width, head, window) if window else _Convolutional(width) for _ in range(depth))
            self.stages.append(nn.Sequential(*blocks))
        for ins, outs, stride in zip(widths[:-1], widths[1:], (2, 2, 1), strict=True):
            self.merges.append(_Merge(ins, outs, stride))
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], 256, 1, bias=False),
            ChannelNorm(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            ChannelNorm(256),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of strides 4, 8 and 16."""
        x = self.patch2(F.gelu(self.patch1(x)))
        quarter = self.stages[0](x)
        eighth = self.stages[1](self.merges[0](quarter))
        x = self.stages[2](self.merges[1](eighth))
        return quarter, eighth, self.neck(self.stages[3](self.merges[2](x)))
