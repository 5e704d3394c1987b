"""What the networks that draw masks for boxes are asked for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stemtomo_dl.learn.examples import Example
from stemtomo_dl.segment.networks.prompted import REGION, Encoded, PromptedNetwork, inside
from stemtomo_dl.segment.networks.rcnn import MaskRCNN

_SPREAD, _LEAST_SPREAD = 0.12, 0.6  # of a peak of the heat map: of the box's sides, and in cells at least
_NEAR = 0.3  # cells this high on a peak learn the box, too
_JITTER = 0.2  # of boxes that are given as prompts, of their sides
_OWN_SHARE, _OWN_IOU = 0.6, 0.3  # prompts that the network itself gives, as long as they are about the particle


class Targets(NamedTuple):
    """A batch of examples, as tensors.

    Attributes
    ----------
    planes : (image, plane, y, x) tensor
    heat : (image, h, w) tensor
        What the heat map shall be; −1 in cells where anything is right.
    owner : (image, h, w) int tensor
        Row of ``boxes`` whose middle is near a cell; −1 elsewhere.
    image : (n,) int tensor
        Image of each particle that is asked for.
    boxes : (n, 4) tensor
    masks : (n, y, x) uint8 tensor
    """

    planes: Tensor
    heat: Tensor
    owner: Tensor
    image: Tensor
    boxes: Tensor
    masks: Tensor


def collate(examples: list[Example], stride: int) -> Targets:
    """Examples of one size as a batch for networks whose heat map has this stride."""
    h, w = (n // stride for n in examples[0].planes.shape[1:])
    heat = np.zeros((len(examples), h, w), "f4")
    owner = np.full(heat.shape, -1)
    images, boxes, masks, start = [], [], [], 0
    for i, e in enumerate(examples):
        box = e.boxes
        for n in np.flatnonzero(e.counts):
            peak = _peak(box[n], h, w, stride)
            owner[i][(peak > _NEAR) & (peak > heat[i])] = start
            heat[i] = np.maximum(heat[i], peak)
            images.append(i)
            boxes.append(box[n])
            masks.append(e.masks[n])
            start += 1
        for n in np.flatnonzero(~e.counts):
            peak = _peak(box[n], h, w, stride)
            heat[i][(peak > _NEAR) & (peak > heat[i])] = -1
    side = examples[0].planes.shape[1:]
    return Targets(
        planes=torch.from_numpy(np.stack([e.planes for e in examples])),
        heat=torch.from_numpy(heat),
        owner=torch.from_numpy(owner),
        image=torch.tensor(images, dtype=torch.long),
        boxes=torch.from_numpy(np.array(boxes, "f4").reshape(-1, 4)),
        masks=torch.from_numpy(np.array(masks, bool).reshape(-1, *side).view(np.uint8)),
    )


def _peak(box: np.ndarray, h: int, w: int, stride: int) -> np.ndarray:
    """A Gaussian over the cells, 1 in the one that holds the middle of the box."""
    x0, y0, x1, y1 = box / stride
    column, row = int((x0 + x1) / 2), int((y0 + y1) / 2)
    across, down = max(_SPREAD * (x1 - x0), _LEAST_SPREAD), max(_SPREAD * (y1 - y0), _LEAST_SPREAD)
    x, y = np.arange(w) - min(column, w - 1), np.arange(h) - min(row, h - 1)
    return np.asarray(np.exp(-0.5 * ((x / across) ** 2 + (y / down)[:, None] ** 2)), "f4")


def losses(network: PromptedNetwork, targets: Targets, most: int) -> dict[str, Tensor]:
    """The parts of the loss; they are added up as they are.

    Parameters
    ----------
    most : int
        Masks drawn for a batch at most: which, is drawn by lot.
    """
    if isinstance(network, MaskRCNN):
        return network.own_losses(targets.planes, targets.image, targets.boxes, targets.masks)
    encoded = network.encode(targets.planes)
    out = {"heat": heat_loss(encoded.heat, targets.heat), "box": box_loss(network, encoded, targets)}
    lot = torch.randperm(len(targets.boxes), device=targets.boxes.device)[:most]
    if not len(lot):
        zero = encoded.heat.sum() * 0
        return out | {"mask": zero, "quality": zero}
    boxes, truth = targets.boxes[lot], targets.masks[lot].float()
    logits, quality = network.masks(encoded, targets.image[lot], prompts(network, encoded, targets.image[lot], boxes))
    logits, quality = logits.float(), quality.float()
    truth = F.avg_pool2d(truth[:, None], network.mask_stride)[:, 0]
    region = inside(boxes, truth.shape[-2:], network.mask_stride, REGION)
    mask, iou = mask_loss(logits, truth, region)
    return out | {"mask": mask, "quality": 0.3 * F.binary_cross_entropy_with_logits(quality, iou)}


def heat_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """Focal loss of CenterNet: cells near a peak are punished less for being warm."""
    p = logits.sigmoid().clamp(1e-5, 1 - 1e-5)
    here = heat >= 0.999
    hit = -((1 - p) ** 2) * p.log() * here
    miss = -((1 - heat.clamp(min=0)) ** 4) * p**2 * (1 - p).log() * ((heat >= 0) & ~here)
    return (hit.sum() + miss.sum()) / here.sum().clamp(min=len(heat))


def box_loss(network: PromptedNetwork, encoded: Encoded, targets: Targets) -> Tensor:
    """Distances to the sides, by their logarithms, and the overlap of the boxes."""
    image, y, x = torch.nonzero(targets.owner >= 0, as_tuple=True)
    if not len(image):
        return encoded.sides.sum() * 0
    seen = network.boxes_at(encoded, image, y, x)
    true = targets.boxes[targets.owner[image, y, x]]
    size, true_size = (torch.stack([b[:, 2] - b[:, 0], b[:, 3] - b[:, 1]], 1).clamp(min=1) for b in (seen, true))
    apart = (seen - true).abs() / true_size.repeat(1, 2)
    overlap = _box_iou(seen, true)
    return (apart.clamp(max=2).sum(1) + (size / true_size).log().abs().sum(1) + (1 - overlap)).mean()


def _box_iou(a: Tensor, b: Tensor) -> Tensor:
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    areas = [(v[:, 2:] - v[:, :2]).clamp(min=0).prod(1) for v in (a, b)]
    return common / (areas[0] + areas[1] - common).clamp(min=1e-6)


def mask_loss(logits: Tensor, truth: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
    """Dice and cross-entropy within a region; and the intersection over union (n,) that was reached."""
    p = logits.sigmoid() * region
    dice = 1 - (2 * (p * truth).sum((1, 2)) + 1) / ((p**2).sum((1, 2)) + (truth**2).sum((1, 2)) + 1)
    cross = F.binary_cross_entropy_with_logits(logits, truth, weight=region, reduction="none").sum((1, 2))
    cross = cross / region.sum((1, 2)).clamp(min=1)
    with torch.no_grad():
        found, there = (logits > 0) & (region > 0), truth > 0.5
        iou = (found & there).sum((1, 2)) / (found | there).sum((1, 2)).clamp(min=1)
    return (dice + cross).mean(), iou


def prompts(network: PromptedNetwork, encoded: Encoded, image: Tensor, boxes: Tensor) -> Tensor:
    """Boxes (n, 4) from which masks are to be drawn: most as the network's own head gives them, with its errors.

    A mask must be right, and its quality known, for the boxes that there will be, not for true ones.
    """
    given = jittered(boxes)
    with torch.no_grad():
        own = network.boxes_at(encoded, image, *network.cells(encoded, given))
        usable = _box_iou(own, boxes) > _OWN_IOU
    chosen = usable & (torch.rand(len(boxes), device=boxes.device) < _OWN_SHARE)
    return torch.where(chosen[:, None], own, given)


def jittered(boxes: Tensor) -> Tensor:
    """Boxes as a head, a tracker or a person might give them: moved and resized a little."""
    size = torch.cat([boxes[:, 2:] - boxes[:, :2]] * 2, 1)
    moved = boxes + (torch.randn_like(boxes) * _JITTER / 2).clamp(-_JITTER, _JITTER) * size
    return torch.cat([torch.minimum(moved[:, :2], moved[:, 2:] - 1), moved[:, 2:]], 1)
