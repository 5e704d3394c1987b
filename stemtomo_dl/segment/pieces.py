"""Outlines of single particles put together: from a network's drawings to a record without duplicates."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.records import Masks
from stemtomo_dl.segment.networks.prompted import REGION, Drawing
from stemtomo_dl.segment.tiles import Tile

Piece = tuple[np.ndarray, tuple[int, int]]  # an outline as tight as it is; row and column of its first pixel


def piece(
    drawing: Drawing, box: np.ndarray, tile: Tile, shape: tuple[int, int], mask_stride: int, edge: float = 0.0
) -> Piece:
    """A drawing at the image's own resolution, within its box and some more.

    Parameters
    ----------
    drawing : Drawing
    box : (4) array
        x0, y0, x1, y1 in px of the image.
    tile : Tile
        That it was drawn in.
    shape : (int, int)
        Of the image.
    mask_stride : int
        Of the network, px.
    edge : float
        Logit at the outline.
    """
    logits = drawing.logits.cpu().numpy()
    spans, taps = [], []
    for axis in (0, 1):
        low, high = box[1 - axis], box[3 - axis]
        cell = mask_stride / tile.scale[axis]
        half = max((high - low) / 2 * REGION, (high - low) / 2 + 2 * cell)
        start = int(np.clip(np.floor((low + high) / 2 - half), 0, shape[axis] - 1))
        stop = int(np.clip(np.ceil((low + high) / 2 + half), start + 1, shape[axis]))
        at = ((np.arange(start, stop) + 0.5) * tile.scale[axis] - tile.corner[axis]) / mask_stride - 0.5
        at = np.clip(at - drawing.corner[axis], 0, logits.shape[axis] - 1)
        first = np.minimum(at.astype(int), logits.shape[axis] - 2)
        spans.append((start, stop))
        taps.append((first, (at - first).astype("f4")))
    (y, fy), (x, fx) = taps
    rows = logits[y] * (1 - fy)[:, None] + logits[y + 1] * fy[:, None]
    mask = rows[:, x] * (1 - fx) + rows[:, x + 1] * fx > edge
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return np.zeros((1, 1), bool), (spans[0][0], spans[1][0])
    tight = mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    return tight, (spans[0][0] + int(ys[0]), spans[1][0] + int(xs[0]))


def record(shape: tuple[int, int], pieces: list[Piece], score: np.ndarray) -> Masks:
    """Pieces with their scores as a record, at tilt 0."""
    origin = np.array([at for _, at in pieces], "i4").reshape(-1, 2)
    crops = tuple(crop for crop, _ in pieces)
    return Masks(shape, crops, origin, np.zeros(len(crops), "i4"), np.asarray(score, "f4"), np.zeros(1))


def chosen(masks: Masks, which: np.ndarray | list[int]) -> Masks:
    """Some of the masks, in the order asked for."""
    rows = np.asarray(which, int)
    crops = tuple(masks.crops[i] for i in rows)
    return Masks(masks.shape, crops, masks.origin[rows], masks.tilt[rows], masks.score[rows], masks.alpha_deg)


def distinct(found: Masks, most_overlap: float) -> Masks:
    """The outlines in falling order of their scores, without those that a surer one has drawn already.

    Parameters
    ----------
    found : Masks
    most_overlap : float
        Of two outlines that overlap more than this (intersection over union), the surer one stays.
    """
    found = chosen(found, np.argsort(-found.score, kind="stable"))
    low = found.origin.astype(int)
    high = low + np.array([c.shape for c in found.crops], int).reshape(-1, 2)
    area = np.array([c.sum() for c in found.crops], float)
    kept: list[int] = []
    for n in range(len(area)):
        before = np.array(kept, int)
        common = np.prod(np.clip(np.minimum(high[before], high[n]) - np.maximum(low[before], low[n]), 0, None), 1)
        bound = np.minimum(common, np.minimum(area[before], area[n]))  # the outlines' overlap is no larger
        close = before[bound > most_overlap * (area[before] + area[n] - bound)]
        if all(_iou(found, n, int(m), area) <= most_overlap for m in close):
            kept.append(n)
    return chosen(found, np.array(kept, int))


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
