"""Mask R-CNN of torchvision with anchors and limits for small, dense particles.

He et al. 2017 (arXiv:1703.06870). Every box has its own mask, so that masks may overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image

from stemtomo_dl.segment.networks.prompted import Encoded, PromptedNetwork, Proposals

_ANCHORS = ((8,), (16,), (32,), (64,), (128,))  # px, one size for each level of the pyramid
_RATIOS = (0.33, 0.6, 1.0, 1.7, 3.0)
_MOST = 400
_SURE = 30.0  # logits of a mask are limited to this


class MaskRCNN(PromptedNetwork):
    """Proposals, boxes and masks by the two stages of Mask R-CNN.

    Parameters
    ----------
    planes : int
        Planes of the input.
    """

    stride, mask_stride, multiple = 4, 2, 32

    def __init__(self, planes: int) -> None:
        super().__init__()
        norm = cast(Callable[..., nn.Module], nn.BatchNorm2d)
        backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5, norm_layer=norm)
        backbone.body.conv1 = nn.Conv2d(planes, 64, 7, 2, 3, bias=False)
        self.net = TorchvisionMaskRCNN(
            backbone,
            num_classes=2,
            rpn_anchor_generator=AnchorGenerator(_ANCHORS, (_RATIOS,) * len(_ANCHORS)),
            rpn_pre_nms_top_n_train=1000,
            rpn_post_nms_top_n_train=600,
            rpn_pre_nms_top_n_test=1000,
            rpn_post_nms_top_n_test=600,
            rpn_nms_thresh=0.8,
            box_score_thresh=0.05,
            box_nms_thresh=0.7,
            box_detections_per_img=_MOST,
            box_batch_size_per_image=128,
        )

    def encode(self, planes: Tensor) -> Encoded:
        """The pyramid's levels; there is no heat map, so that of `Encoded` has no values."""
        levels = tuple(self.net.backbone(planes).values())
        empty = planes.new_zeros(len(planes), planes.shape[2] // self.stride, planes.shape[3] // self.stride)
        return Encoded(empty, empty[:, None].expand(-1, 4, -1, -1), levels)

    def _levels(self, encoded: Encoded) -> tuple[dict[str, Tensor], ImageList]:
        names = [*(str(n) for n in range(len(encoded.features) - 1)), "pool"]
        h, w = (n * self.stride for n in encoded.heat.shape[1:])
        blank = encoded.heat.new_zeros(len(encoded.heat), 1, h, w)
        return dict(zip(names, encoded.features, strict=True)), ImageList(blank, [(h, w)] * len(blank))

    @torch.inference_mode()
    def propose(self, encoded: Encoded, least_heat: float, most: int) -> list[Proposals]:
        """Boxes as the two stages give them; the heat is the box's score."""
        levels, images = self._levels(encoded)
        proposals, _ = self.net.rpn(images, levels)
        heads = self.net.roi_heads
        logits, moves = heads.box_predictor(heads.box_head(heads.box_roi_pool(levels, proposals, images.image_sizes)))
        boxes, scores, _ = heads.postprocess_detections(logits, moves, proposals, images.image_sizes)
        good = [torch.nonzero(s >= least_heat)[:most, 0] for s in scores]
        return [Proposals(b[g], s[g]) for b, s, g in zip(boxes, scores, good, strict=True)]

    def masks(self, encoded: Encoded, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the particle in each box, by the mask branch alone; the quality is how sure its pixels are."""
        h, w = (n * self.stride // self.mask_stride for n in encoded.heat.shape[1:])
        if not len(boxes):
            return boxes.new_zeros(0, h, w), boxes.new_zeros(0)
        levels, images = self._levels(encoded)
        heads = self.net.roi_heads
        of_image = [torch.nonzero(image == i)[:, 0] for i in range(len(encoded.heat))]
        pooled = heads.mask_roi_pool(levels, [boxes[n] for n in of_image], images.image_sizes)
        p = heads.mask_predictor(heads.mask_head(pooled))[:, 1:].sigmoid()[torch.cat(of_image).argsort()]
        p = paste_masks_in_image(p, boxes / self.mask_stride, (h, w))[:, 0]
        within = (p > 0.5).sum((1, 2)).clamp(min=1)
        quality = (p * (p > 0.5)).sum((1, 2)) / within
        return torch.logit(p, 1e-9).clamp(-_SURE, _SURE), torch.logit(quality, 1e-6)

    def own_losses(self, planes: Tensor, image: Tensor, boxes: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """The losses of both stages, as torchvision adds them up.

        Parameters
        ----------
        planes : (image, plane, y, x) tensor
        image : (n,) int tensor
        boxes : (n, 4) tensor
        masks : (n, y, x) uint8 tensor
        """
        encoded = self.encode(planes)
        levels, images = self._levels(encoded)
        targets = [
            {"boxes": boxes[n], "masks": masks[n], "labels": torch.ones(len(n), dtype=torch.long, device=boxes.device)}
            for i in range(len(planes))
            for n in [torch.nonzero(image == i)[:, 0]]
        ]
        proposals, first = self.net.rpn(images, levels, targets)
        _, second = self.net.roi_heads(levels, proposals, images.image_sizes, targets)
        return {**first, **second}
