"""Segment Anything at any size: an encoder, a dense head that prompts, SAM's own prompt encoder and mask decoder.

Kirillov et al. 2023 (arXiv:2304.02643). SAM's decoder draws whole objects from a box, one by one, so that masks may
overlap. Two things are added: the boxes come from a heat map instead of a person, and features of stride 4 reach
the masks (as in HQ-SAM, Ke et al. 2023, arXiv:2306.01567), without which particles of ten pixels stay blobs.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from stemtomo_dl.segment.networks.prompted import Encoded, PromptedNetwork, ProposalHead
from stemtomo_dl.segment.networks.tinyvit import ChannelNorm, TinyViT

_WIDTH = 256  # of SAM's embeddings
_FRAME = 1024  # px of the frame whose positions SAM has learned; smaller images lie in its corner
_HEAD = 64


class _FineDecoder(MaskDecoder):
    """SAM's mask decoder with finer features added to its last layer."""

    def __init__(self, fine_channels: int) -> None:
        super().__init__(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=_WIDTH, mlp_dim=2048, num_heads=8),
            transformer_dim=_WIDTH,
        )
        self.fine = nn.Conv2d(fine_channels, _WIDTH // 8, 1)
        nn.init.zeros_(self.fine.weight)  # SAM as it was, until training finds use for it
        nn.init.zeros_(cast(Tensor, self.fine.bias))

    def single(
        self, embedding: Tensor, fine: Tensor, place: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Masks (n, y / 4, x / 4) and their quality (n,), both logits, for the prompts of one image."""
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight[:1]])
        tokens = torch.cat([tokens.expand(len(sparse), -1, -1), sparse], 1)
        source = embedding.expand(len(sparse), -1, -1, -1) + dense
        out, source_out = self.transformer(source, place.expand(len(sparse), -1, -1, -1), tokens)
        source_out = source_out.transpose(1, 2).reshape(source.shape)
        grow, norm, _, grow_more, _ = self.output_upscaling
        x = F.gelu(norm(grow(source_out)))
        x = F.gelu(grow_more(x) + self.fine(fine))
        weight = self.output_hypernetworks_mlps[0](out[:, 1])
        mask = (weight[:, None] @ x.flatten(2)).view(-1, *x.shape[-2:])
        return mask, self.iou_prediction_head(out[:, 0])[:, 0]


class Sam(PromptedNetwork):
    """SAM with a small encoder that runs at the image's own size.

    Parameters
    ----------
    planes : int
        Planes of the input; a 1×1 convolution turns them into the three that the encoder knows.
    """

    stride, mask_stride, multiple = 4, 4, 16

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.colours = nn.Conv2d(planes, 3, 1)
        self.encoder = self._encoder()
        self.lateral = nn.ModuleList(nn.Conv2d(c, _HEAD, 1) for c in (64, 128, _WIDTH))
        self.prompt_encoder = PromptEncoder(_WIDTH, (_FRAME // 16,) * 2, (_FRAME,) * 2, 16)
        self.mask_decoder = _FineDecoder(_HEAD)
        self.smooth8 = nn.Sequential(nn.Conv2d(_HEAD, _HEAD, 3, padding=1), ChannelNorm(_HEAD), nn.ReLU(inplace=True))
        self.smooth4 = nn.Sequential(nn.Conv2d(_HEAD, _HEAD, 3, padding=1), ChannelNorm(_HEAD), nn.ReLU(inplace=True))
        self.head = ProposalHead(_HEAD, self.stride)

    def _encoder(self) -> nn.Module:
        """Three planes to features of strides 4 (64 channels), 8 (128) and 16 (256, SAM's embedding)."""
        return TinyViT()

    def encode(self, planes: Tensor) -> Encoded:
        """Planes (image, plane, y, x) to embedding, fine features, heat map and boxes."""
        quarter, eighth, embedding = self.encoder(self.colours(planes))
        fine, middle, coarse = (side(x) for side, x in zip(self.lateral, (quarter, eighth, embedding), strict=True))
        middle = self.smooth8(middle + F.interpolate(coarse, scale_factor=2.0, mode="nearest"))
        fine = self.smooth4(fine + F.interpolate(middle, scale_factor=2.0, mode="nearest"))
        heat, sides = self.head(fine)
        return Encoded(heat, sides, (embedding, fine))

    def masks(self, encoded: Encoded, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the particle in each box, by SAM's decoder."""
        embedding, fine = encoded.features
        h, w = embedding.shape[-2:]
        sparse, dense = self.prompt_encoder(points=None, boxes=boxes, masks=None)
        dense = dense[:, :, :1, :1]
        place = self.prompt_encoder.get_dense_pe()[:, :, :h, :w]
        logits = embedding.new_zeros(len(boxes), 4 * h, 4 * w)
        quality = embedding.new_zeros(len(boxes))
        for i in image.unique().tolist():
            of = image == i
            m, q = self.mask_decoder.single(embedding[i : i + 1], fine[i : i + 1], place, sparse[of], dense[of])
            logits[of], quality[of] = m.to(logits.dtype), q.to(quality.dtype)
        return logits, quality


class _ViT(ImageEncoderViT):
    """SAM's own encoder at any size: positions are those of the frame's corner, as for the small encoder."""

    def __init__(self) -> None:
        super().__init__(
            img_size=_FRAME,
            embed_dim=768,
            depth=12,
            num_heads=12,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=(2, 5, 8, 11),
        )
        self.quarter = nn.Sequential(nn.Conv2d(3, 64, 7, 4, 3), ChannelNorm(64), nn.GELU())
        self.eighth = nn.Sequential(nn.Conv2d(64, 128, 3, 2, 1), ChannelNorm(128), nn.GELU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quarter = self.quarter(x)
        x = self.patch_embed(x)
        assert self.pos_embed is not None
        x = x + self.pos_embed[:, : x.shape[1], : x.shape[2]]
        for block in self.blocks:
            x = block(x)
        return quarter, self.eighth(quarter), self.neck(x.permute(0, 3, 1, 2))


class SamViT(Sam):
    """SAM with its own ViT-B encoder, for the official weights. Images, or tiles of them, up to 1024 px."""

    def _encoder(self) -> nn.Module:
        return _ViT()
