"""One image -> the outlines of its particles, by a network: all that it finds, or those that it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch

from stemtomo_dl.records import Masks
from stemtomo_dl.segment.flatten import FLAT_PX
from stemtomo_dl.segment.networks.prompted import Drawing, Encoded, PromptedNetwork
from stemtomo_dl.segment.pieces import chosen, distinct, piece, record
from stemtomo_dl.segment.tiles import Tile, tiles

_LEAST_TRUST = 0.75  # a particle whose size is further off a scale's range is left to other scales
_LEAST_ASKED = 0.02  # heat of a box that a point may mean: whoever asks knows that there is a particle
_SMALL_PX, _MOST_LOOKED_AT = 20.0, 200  # median side of particles that are better seen enlarged, of so many of them
_SMALL_IMAGE_PX = 128  # up to here enlarging takes no time worth saving
_TYPICAL_PX = 24.0  # side of a particle in an image in which none is seen


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
    edge : float
        Logit at which outlines are drawn.
    scales : tuple of float
        Enlargements of the image; those that `segment.tiles.tiles` finds unfit are left out.
    """

    least_heat: float = 0.1
    least_score: float = 0.4
    heat_power: float = 0.5
    most_overlap: float = 0.6
    largest_px: float = 120.0
    calibration: tuple[float, float] = (1.0, 0.0)
    edge: float = 0.0
    scales: tuple[float, ...] = (2.0, 1.0, 0.5, 0.25, 0.125)


def outlines(
    network: PromptedNetwork,
    planes: np.ndarray,
    tuning: Tuning,
    boxes: np.ndarray | None = None,
    points: np.ndarray | None = None,
    most: int = 400,
) -> Masks:
    """Find all particles of an image, or draw those that boxes or points ask for.

    Parameters
    ----------
    network : PromptedNetwork
        In evaluation mode, on any device.
    planes : (plane, y, x) f4 array
        As `segment.planes.planes` makes them.
    tuning : Tuning
    boxes : (n, 4) array, optional
        x0, y0, x1, y1 in px. Each is drawn at the scale at which it has a size that the network is used to.
    points : (m, 2) array, optional
        x, y in px, each in a particle: drawn is the surest box that a point lies in, or where the network sees none,
        a square about the point, as large as the particles nearby.
    most : int
        Particles per tile.

    Returns
    -------
    Masks
        All at tilt 0. The surest first; or, where any are asked for, one for each box, then one for each point, in
        their order; an outline of which nothing could be drawn is a single pixel that is not set.
    """
    image = torch.from_numpy(np.ascontiguousarray(planes)).to(next(network.parameters()).device)
    parts = partial(tiles, image, tuning.scales, tuning.largest_px, network.multiple)
    shape = (planes.shape[1], planes.shape[2])
    if boxes is None and points is None:
        scales = _scales(network, image, tuning)
        parts = partial(tiles, image, scales, tuning.largest_px, network.multiple)
        flat = tiles(image, tuning.scales, FLAT_PX, network.multiple, flat=True)
        found = [_found(network, tile, shape, tuning, most) for tile in chain(parts(), flat)]
        found = [record(shape, [], np.zeros(0)), *found]
        return distinct(Masks.concatenate(found), tuning.most_overlap)
    asked = np.zeros((0, 4)) if boxes is None else np.asarray(boxes, float).reshape(-1, 4)
    if points is not None:
        points = np.asarray(points, float).reshape(-1, 2)
        asked = np.concatenate([asked, _about(network, parts(), points, tuning, most)])
    return _asked(network, parts(), asked, shape, tuning.edge)


def _scales(network: PromptedNetwork, image: torch.Tensor, tuning: Tuning) -> tuple[float, ...]:
    """The tuning's scales, but enlargements only where particles are small: they take most of the time."""
    most = max(image.shape[1:])
    plain = tuple(s for s in tuning.scales if s <= 1)
    if most <= _SMALL_IMAGE_PX or not plain or plain == tuning.scales:
        return tuning.scales
    tile = next(tiles(image, (1.0,), tuning.largest_px, network.multiple))
    if max(tile.pixels.shape[1:]) < most:  # too large to be enlarged
        return plain
    with torch.inference_mode():
        seen = network.propose(network.encode(tile.pixels[None]), tuning.least_heat, _MOST_LOOKED_AT)[0]
    sides = _sides(tile.boxes_in_image(seen.boxes))
    return tuning.scales if len(sides) and np.median(sides) < _SMALL_PX else plain


def _found(network: PromptedNetwork, tile: Tile, shape: tuple[int, int], tuning: Tuning, most: int) -> Masks:
    """Outlines of a tile's own particles; what can only be left out for its score is not drawn."""
    with torch.inference_mode():
        encoded = network.encode(tile.pixels[None])
    boxes, heat, trust = _proposed(network, encoded, tile, tuning.least_heat, most)
    mine = np.flatnonzero(_score(heat, np.ones_like(heat), trust, tuning) >= tuning.least_score)
    drawn = _drawn(network, encoded, tile, boxes[mine])
    quality = np.array([d.quality for d in drawn], float)
    score = _score(heat[mine], quality, trust[mine], tuning)
    pieces = [
        piece(d, box, tile, shape, network.mask_stride, tuning.edge) for d, box in zip(drawn, boxes[mine], strict=True)
    ]
    kept = [n for n, (crop, _) in enumerate(pieces) if score[n] >= tuning.least_score and crop.any()]
    return chosen(record(shape, pieces, score), kept)


def _proposed(
    network: PromptedNetwork, encoded: Encoded, tile: Tile, least_heat: float, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4) in px of the image that are this tile's to find, their heat, and how far they are trusted."""
    found = network.propose(encoded, least_heat, most)[0]
    boxes, heat = tile.boxes_in_image(found.boxes), found.heat.cpu().numpy().astype(float)
    low, high = tile.trusted
    side = _sides(boxes)
    trust = np.minimum(np.clip(side / max(low, 1e-9), 0, 1), np.clip(high / side, 0, 1))
    mine = tile.holds((boxes[:, :2] + boxes[:, 2:]) / 2) & (trust > _LEAST_TRUST)
    return boxes[mine], heat[mine], trust[mine]


def _about(
    network: PromptedNetwork, parts: Iterable[Tile], points: np.ndarray, tuning: Tuning, most: int
) -> np.ndarray:
    """Boxes (n, 4) of the particles that points (n, 2) lie in."""
    found = [(np.zeros((0, 4)), np.zeros(0))]
    for tile in parts:
        if tile.holds(points).any():
            with torch.inference_mode():
                encoded = network.encode(tile.pixels[None])
            boxes, heat, trust = _proposed(network, encoded, tile, _LEAST_ASKED, most)
            found.append((boxes, heat * trust))
    boxes, heat = (np.concatenate(v) for v in zip(*found, strict=True))
    sure = heat >= tuning.least_heat
    half = (np.median(_sides(boxes[sure])) if sure.any() else _TYPICAL_PX) / 2
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    out = []
    for point in points:
        # 0 in the middle of a box, 1 at its sides: of two that hold the point, the one that it is the middle of.
        off = (np.abs(point - middle) / np.maximum((boxes[:, 2:] - boxes[:, :2]) / 2, 0.5)).max(1, initial=0)
        fit = np.where(off <= 1, heat * (1 - off / 2), 0)
        best = int(fit.argmax()) if fit.any() else None
        out.append(np.concatenate([point - half, point + half]) if best is None else boxes[best])
    return np.array(out).reshape(-1, 4)


def _asked(
    network: PromptedNetwork, parts: Iterable[Tile], boxes: np.ndarray, shape: tuple[int, int], edge: float
) -> Masks:
    """One outline for each box, each drawn in the tile whose it is to find; the score is the quality."""
    middle = np.clip((boxes[:, :2] + boxes[:, 2:]) / 2, 0, np.array(shape[::-1]) - 1e-3)
    side = _sides(boxes)
    drawn: dict[int, Masks] = {}
    for tile in parts:
        here = tile.holds(middle) & (side >= tile.trusted[0]) & (side < tile.trusted[1])
        mine = [n for n in np.flatnonzero(here).tolist() if n not in drawn]
        if mine:
            with torch.inference_mode():
                encoded = network.encode(tile.pixels[None])
            for n, d in zip(mine, _drawn(network, encoded, tile, boxes[mine]), strict=True):
                one = piece(d, boxes[n], tile, shape, network.mask_stride, edge)
                drawn[n] = record(shape, [one], np.array([d.quality]))
    return Masks.concatenate([record(shape, [], np.zeros(0)), *(drawn[n] for n in range(len(boxes)))])


def _drawn(network: PromptedNetwork, encoded: Encoded, tile: Tile, boxes: np.ndarray) -> list[Drawing]:
    """Drawings of boxes (n, 4) in px of the image."""
    here = tile.boxes_here(boxes)
    return network.draw(encoded, torch.zeros(len(here), dtype=torch.long, device=here.device), here)


def _sides(boxes: np.ndarray) -> np.ndarray:
    """Geometric means of the sides, px."""
    return np.asarray(np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3), 1)))


def _score(heat: np.ndarray, quality: np.ndarray, trust: np.ndarray, tuning: Tuning) -> np.ndarray:
    """Probability that an outline is right, by a straight line in the logit (Platt 1999)."""
    raw = heat.clip(1e-6, 1) ** tuning.heat_power * quality.clip(1e-6, 1) ** (1 - tuning.heat_power) * trust
    p = np.clip(raw, 1e-6, 1 - 1e-6)
    slope, offset = tuning.calibration
    return np.asarray(1 / (1 + np.exp(-(slope * np.log(p / (1 - p)) + offset))))
