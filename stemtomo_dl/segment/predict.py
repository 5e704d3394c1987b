"""One image -> the outlines of its particles, by a network: at several scales, in tiles, duplicates taken out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stemtomo_dl.records import Masks
from stemtomo_dl.segment.networks.prompted import REGION, Detections, Encoded, PromptedNetwork

_TILE, _HALO = 512, 96  # px of the scaled image: what is computed at once, and how far tiles overlap on each side
_LEAST_TRUST = 0.75  # a particle whose size is further off a scale's range is left to other scales
_COARSEST = 64  # px: an image is not shrunk below this


@dataclass(frozen=True)
class Tuning:
    """What was chosen on validation data and lies beside the weights.

    Attributes
    ----------
    least_heat : float
        Peaks of the heat map below this are not drawn.
    least_score : float
        Masks with a lower score are left out.
    heat_power : float
        The raw score is heat^a · quality^(1 − a).
    most_overlap : float
        Of two outlines that overlap more than this (intersection over union), the surer one stays.
    largest_px : float
        Up to this diameter in the scaled image a scale is trusted, down to half of what the next finer one is.
    calibration : pair of float
        Slope and offset of the logit of the probability over that of the raw score.
    scales : tuple of float
        Enlargements of the image; those that would shrink it too far are left out.
    """

    least_heat: float = 0.1
    least_score: float = 0.4
    heat_power: float = 0.5
    most_overlap: float = 0.6
    largest_px: float = 120.0
    calibration: tuple[float, float] = (1.0, 0.0)
    scales: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)


class _Sheet(NamedTuple):
    """A tile of the image at one scale, encoded.

    Attributes
    ----------
    scale : (float, float)
        Enlargement along y and x.
    corner : (int, int)
        Row and column of the tile's first pixel in the scaled image.
    core : (4) array
        x0, y0, x1, y1 in px of the image: what has its middle in here is this tile's to find.
    trusted : (float, float)
        Sides in px of the image that are this scale's to find.
    """

    scale: tuple[float, float]
    corner: tuple[int, int]
    core: np.ndarray
    trusted: tuple[float, float]
    encoded: Encoded


def outlines(
    network: PromptedNetwork, planes: np.ndarray, tuning: Tuning, boxes: np.ndarray | None = None, most: int = 400
) -> Masks:
    """Find all particles of an image, or draw those in given boxes.

    Parameters
    ----------
    network : PromptedNetwork
        In evaluation mode, on any device.
    planes : (plane, y, x) f4 array
        As `segment.planes.planes` makes them.
    tuning : Tuning
    boxes : (n, 4) array, optional
        x0, y0, x1, y1 in px. Each is drawn at the scale at which it has a size that the network is used to.
    most : int
        Particles per tile.

    Returns
    -------
    Masks
        All at tilt 0. The surest first; or, for boxes, one for each in their order.
    """
    shape = (planes.shape[1], planes.shape[2])
    if boxes is None:
        parts = []
        for sheet in _sheets(network, planes, tuning):
            found = network.detect(sheet.encoded, tuning.least_heat, most)[0]
            parts.append(_found(sheet, found, shape, network.mask_stride, tuning))
        return _distinct(Masks.concatenate(parts), tuning)
    boxes = np.asarray(boxes, "f4").reshape(-1, 4)
    middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1), 1))
    middle = np.clip(middle, 0, np.array(shape[::-1]) - 1e-3)
    drawn: dict[int, Masks] = {}
    for sheet in _sheets(network, planes, tuning):
        here = ((middle >= sheet.core[:2]) & (middle < sheet.core[2:])).all(1)
        mine = np.flatnonzero(here & (side >= sheet.trusted[0]) & (side < sheet.trusted[1]))
        mine = np.array([n for n in mine if n not in drawn], int)
        if len(mine):
            sheet_boxes = torch.from_numpy(_to_sheet(boxes[mine], sheet)).to(sheet.encoded.heat.device)
            image = torch.zeros(len(mine), dtype=torch.long, device=sheet_boxes.device)
            found = network.draw(sheet.encoded, image, sheet_boxes, sheet_boxes.new_ones(len(mine)))
            drawn |= dict(zip(mine.tolist(), _drawn(sheet, found, shape, network.mask_stride), strict=True))
    return Masks.concatenate([_masks(shape, [], np.zeros(0)), *(drawn[n] for n in range(len(boxes)))])


def _sheets(network: PromptedNetwork, planes: np.ndarray, tuning: Tuning) -> Iterator[_Sheet]:
    """All tiles at all scales. Every size belongs to the scales that trust it; the outermost take what is beyond."""
    h, w = planes.shape[1:]
    image = torch.from_numpy(np.ascontiguousarray(planes)).to(next(network.parameters()).device)
    scales = sorted((s for s in tuning.scales if s >= 1 or min(h, w) * s >= _COARSEST), reverse=True)
    for finer, scale in zip([None, *scales], scales, strict=False):
        size = (max(round(h * scale), 1), max(round(w * scale), 1))
        scaled = _resized(image, size)
        low = 0.0 if finer is None else tuning.largest_px / finer / 2
        high = np.inf if scale == scales[-1] else tuning.largest_px / scale
        each = (size[0] / h, size[1] / w)
        for y0, y1, top, bottom in _spans(size[0]):
            for x0, x1, left, right in _spans(size[1]):
                core = np.array([left / each[1], top / each[0], right / each[1], bottom / each[0]])
                with torch.inference_mode():
                    encoded = network.encode(_padded(scaled[:, y0:y1, x0:x1], network.multiple)[None])
                yield _Sheet(each, (y0, x0), core, (low, high), encoded)


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


def _to_sheet(boxes: np.ndarray, sheet: _Sheet) -> np.ndarray:
    """Boxes in px of the image as boxes in px of the tile."""
    return np.asarray(boxes * np.array(sheet.scale[::-1] * 2) - np.array(sheet.corner[::-1] * 2), "f4")


def _to_image(boxes: Tensor, sheet: _Sheet) -> np.ndarray:
    """The way back."""
    return np.asarray((boxes.cpu().numpy() + np.array(sheet.corner[::-1] * 2)) / np.array(sheet.scale[::-1] * 2))


def _found(sheet: _Sheet, found: Detections, shape: tuple[int, int], mask_stride: int, tuning: Tuning) -> Masks:
    """Detections of a tile as outlines in the image, without those that are other tiles' or scales' to find."""
    boxes = _to_image(found.boxes, sheet)
    heat, quality = (v.cpu().numpy().astype(float).clip(1e-6, 1) for v in (found.heat, found.quality))
    score = heat**tuning.heat_power * quality ** (1 - tuning.heat_power)
    side = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3), 1))
    low, high = sheet.trusted
    trust = np.minimum(np.clip(side / max(low, 1e-9), 0, 1), np.clip(high / side, 0, 1))
    score = _calibrated(score * trust, tuning.calibration)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    here = ((middle >= sheet.core[:2]) & (middle < sheet.core[2:])).all(1)
    mine = np.flatnonzero(here & (trust > _LEAST_TRUST) & (score >= tuning.least_score))
    logits = found.logits.cpu().numpy()
    pieces = [_crop(logits[n], boxes[n], sheet, shape, mask_stride) for n in mine]
    return _chosen(_masks(shape, pieces, score[mine]), [k for k, (crop, _) in enumerate(pieces) if crop.any()])


def _drawn(sheet: _Sheet, found: Detections, shape: tuple[int, int], mask_stride: int) -> list[Masks]:
    """Detections of a tile as outlines in the image, one by one; the score is the quality."""
    logits, quality = found.logits.cpu().numpy(), found.quality.cpu().numpy()
    boxes = _to_image(found.boxes, sheet)
    pieces = [_crop(one, box, sheet, shape, mask_stride) for one, box in zip(logits, boxes, strict=True)]
    return [_masks(shape, [piece], quality[k : k + 1]) for k, piece in enumerate(pieces)]


def _masks(shape: tuple[int, int], pieces: list[tuple[np.ndarray, tuple[int, int]]], score: np.ndarray) -> Masks:
    """Crops with their first pixels as a record."""
    origin = np.array([at for _, at in pieces], "i4").reshape(-1, 2)
    crops = tuple(crop for crop, _ in pieces)
    return Masks(shape, crops, origin, np.zeros(len(crops), "i4"), score.astype("f4"), np.zeros(1))


def _chosen(masks: Masks, which: np.ndarray | list[int]) -> Masks:
    """Some of the masks, in the order asked for."""
    rows = np.asarray(which, int)
    crops = tuple(masks.crops[i] for i in rows)
    return Masks(masks.shape, crops, masks.origin[rows], masks.tilt[rows], masks.score[rows], masks.alpha_deg)


def _calibrated(score: np.ndarray, line: tuple[float, float]) -> np.ndarray:
    """Probability by a straight line in the logit (Platt 1999)."""
    p = np.clip(score, 1e-6, 1 - 1e-6)
    return np.asarray(1 / (1 + np.exp(-(line[0] * np.log(p / (1 - p)) + line[1]))))


def _crop(
    logits: np.ndarray, box: np.ndarray, sheet: _Sheet, shape: tuple[int, int], mask_stride: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """A mask at the image's own resolution, within its box and some more, as tight as it is."""
    spans, taps = [], []
    for axis in (0, 1):
        low, high = box[1 - axis], box[3 - axis]
        cell = mask_stride / sheet.scale[axis]
        half = max((high - low) / 2 * REGION, (high - low) / 2 + 2 * cell)
        start = int(np.clip(np.floor((low + high) / 2 - half), 0, shape[axis] - 1))
        stop = int(np.clip(np.ceil((low + high) / 2 + half), start + 1, shape[axis]))
        at = ((np.arange(start, stop) + 0.5) * sheet.scale[axis] - sheet.corner[axis]) / mask_stride - 0.5
        at = np.clip(at, 0, logits.shape[axis] - 1)
        first = np.minimum(at.astype(int), logits.shape[axis] - 2)
        spans.append((start, stop))
        taps.append((first, (at - first).astype("f4")))
    (y, fy), (x, fx) = taps
    rows = logits[y] * (1 - fy)[:, None] + logits[y + 1] * fy[:, None]
    mask = rows[:, x] * (1 - fx) + rows[:, x + 1] * fx > 0
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return np.zeros((1, 1), bool), (spans[0][0], spans[1][0])
    tight = mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    return tight, (spans[0][0] + int(ys[0]), spans[1][0] + int(xs[0]))


def _distinct(found: Masks, tuning: Tuning) -> Masks:
    """The outlines in falling order of their scores, without those that a surer one has drawn already."""
    found = _chosen(found, np.argsort(-found.score, kind="stable"))
    low = found.origin.astype(int)
    high = low + np.array([c.shape for c in found.crops], int).reshape(-1, 2)
    area = np.array([c.sum() for c in found.crops], float)
    kept: list[int] = []
    for n in range(len(area)):
        before = np.array(kept, int)
        common = np.prod(np.clip(np.minimum(high[before], high[n]) - np.maximum(low[before], low[n]), 0, None), 1)
        bound = np.minimum(common, np.minimum(area[before], area[n]))  # the outlines' overlap is no larger
        close = before[bound > tuning.most_overlap * (area[before] + area[n] - bound)]
        if all(_iou(found, n, int(m), area) <= tuning.most_overlap for m in close):
            kept.append(n)
    return _chosen(found, np.array(kept, int))


def _iou(found: Masks, a: int, b: int, area: np.ndarray) -> float:
    low = np.maximum(found.origin[a], found.origin[b])
    high = np.minimum(found.origin[a] + found.crops[a].shape, found.origin[b] + found.crops[b].shape)
    if (high <= low).any():
        return 0.0
    pieces = [
        found.crops[n][
            low[0] - found.origin[n, 0] : high[0] - found.origin[n, 0],
            low[1] - found.origin[n, 1] : high[1] - found.origin[n, 1],
        ]
        for n in (a, b)
    ]
    common = float((pieces[0] & pieces[1]).sum())
    return common / max(area[a] + area[b] - common, 1.0)
