"""Outlines as crops anywhere on the plane; where a particle is expected to have one at a tilt at which it was lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from stemtomo_dl.records import Masks
from stemtomo_dl.track.solution import Solution

_AREA_WINDOW, _AREA_SPREAD = 15, 1.3  # sightings on each side with which an outline's area must agree, and how well


@dataclass(frozen=True)
class Outline:
    """A crop (y, x) bool whose first pixel is at ``row``, ``column`` of the scan; it may reach beyond the scan."""

    crop: np.ndarray
    row: int
    column: int

    @classmethod
    def of(cls, masks: Masks, instance: int) -> Outline:
        """An instance's outline."""
        return cls(masks.crops[instance], int(masks.origin[instance, 0]), int(masks.origin[instance, 1]))

    @property
    def area(self) -> int:
        """Pixels."""
        return int(self.crop.sum())

    @property
    def box(self) -> np.ndarray:
        """x0, y0, x1, y1; a pixel covers from its number to its number + 1."""
        height, width = self.crop.shape
        return np.array([self.column, self.row, self.column + width, self.row + height], float)

    def inside(self, shape: tuple[int, int]) -> Outline:
        """The part of it on a scan of this shape; an empty one has no pixel."""
        return self.cut(Outline(np.broadcast_to(True, shape), 0, 0))

    def cut(self, other: Outline) -> Outline:
        """What it has in common with another."""
        top, left = max(self.row, other.row), max(self.column, other.column)
        bottom = min(self.row + self.crop.shape[0], other.row + other.crop.shape[0])
        right = min(self.column + self.crop.shape[1], other.column + other.crop.shape[1])
        if bottom <= top or right <= left:
            return Outline(np.zeros((0, 0), bool), top, left)
        mine, its = (o.crop[top - o.row : bottom - o.row, left - o.column : right - o.column] for o in (self, other))
        return Outline(mine & its, top, left)

    def grown(self, by: int) -> Outline:
        """It and everything within some pixels of it."""
        return Outline(ndimage.binary_dilation(np.pad(self.crop, by), iterations=by), self.row - by, self.column - by)

    def moved(self, shift_px: np.ndarray, stretch: np.ndarray) -> Outline:
        """Stretched about its middle by a (2, 2) matrix on (x, y), then shifted by (x, y)."""
        size = np.array(self.crop.shape)
        half = np.abs(stretch[::-1, ::-1]) @ (size / 2) + 1
        middle = np.array([self.row, self.column]) + (size - 1) / 2
        target = middle + shift_px[::-1]
        first = np.floor(target - half).astype(int)
        shape = np.ceil(target + half).astype(int) - first + 1
        back = np.linalg.inv(stretch)[::-1, ::-1]
        offset = (size - 1) / 2 - back @ (target - first)
        # "constant" would lose what lies within a pixel of the crop's edge
        crop, mode = self.crop.astype("f4"), "grid-constant"
        value = ndimage.affine_transform(crop, back, offset, tuple(shape), order=1, mode=mode)
        return Outline(value > 0.5, int(first[0]), int(first[1])).tight()

    def tight(self) -> Outline:
        """The same without empty margins."""
        rows, columns = np.flatnonzero(self.crop.any(1)), np.flatnonzero(self.crop.any(0))
        if not len(rows):
            return Outline(np.zeros((0, 0), bool), self.row, self.column)
        crop = self.crop[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return Outline(crop, self.row + int(rows[0]), self.column + int(columns[0]))


def meeting(outline: Outline, masks: Masks, rows: np.ndarray) -> np.ndarray:
    """Those of some instances whose boxes meet an outline's; no other can have a pixel in common with it."""
    low = masks.origin[rows]
    high = low + np.array([masks.crops[i].shape for i in rows], int).reshape(-1, 2)
    first = np.array([outline.row, outline.column])
    return rows[((low < first + outline.crop.shape) & (high > first)).all(1)]


def near(outline: Outline, others: list[Outline], boxes: np.ndarray) -> list[Outline]:
    """Those of the others, of boxes (n, 4), whose boxes meet an outline's."""
    box = outline.box
    met = ((boxes[:, :2] < box[2:]) & (boxes[:, 2:] > box[:2])).all(1)
    return [others[i] for i in np.flatnonzero(met)]


def agreement(a: Outline, b: Outline) -> float:
    """Intersection over union."""
    common = a.cut(b).area
    return common / max(a.area + b.area - common, 1)


class Expected:
    """Outlines that particles should have: the nearest sure one, moved to the prediction.

    Parameters
    ----------
    masks : Masks
    own : (particle, tilt) int array
        Each particle's instance at each tilt, −1 where it has none.
    solution : Solution
    doubtful : (instance) bool array
        Outlines that may show more or less than the particle. Those whose area is not like that of their
        neighbours are doubtful too; where a particle has no other, all count.
    """

    def __init__(self, masks: Masks, own: np.ndarray, solution: Solution, doubtful: np.ndarray) -> None:
        self._masks, self._own, self._solution = masks, own, solution
        self.predicted_px = solution.predict(np.arange(own.shape[1]))
        rigid = solution.stage.rigid
        self._angle = solution.alpha_deg + solution.alpha_offset_deg if rigid else np.zeros(own.shape[1])
        known = np.isfinite(solution.alpha_deg)
        self.order = np.where(known, solution.alpha_deg, np.inf) if known.any() else np.arange(float(own.shape[1]))
        area = np.array([c.sum() for c in masks.crops], float)
        self._sure = [self._trusted(p, area, doubtful) for p in range(len(own))]

    def _trusted(self, particle: int, area: np.ndarray, doubtful: np.ndarray) -> np.ndarray:
        """Tilts at which a particle's outline is sure, in the order of their angles."""
        tilts = np.flatnonzero(self._own[particle] >= 0)
        tilts = tilts[np.argsort(self.order[tilts], kind="stable")]
        instances = self._own[particle, tilts]
        usual = ndimage.median_filter(np.log(np.maximum(area[instances], 1)), 2 * _AREA_WINDOW + 1, mode="nearest")
        alike = np.abs(np.log(np.maximum(area[instances], 1)) - usual) < np.log(_AREA_SPREAD)
        good = alike & ~doubtful[instances]
        return tilts[good] if good.any() else tilts

    def in_reach(self, particle: int, shape: tuple[int, int]) -> np.ndarray:
        """Tilts (tilt) bool at which some of a particle's outline may lie on a scan of this shape."""
        own = self._own[particle]
        reach = 2 * max(max(self._masks.crops[i].shape) for i in own[own >= 0])
        x, y = self.predicted_px[particle].T
        return np.asarray((x > -reach) & (x < shape[1] + reach) & (y > -reach) & (y < shape[0] + reach))

    def nearest(self, particle: int, tilt: int) -> int:
        """The tilt of the sure outline that is nearest in angle, of two the one before."""
        sure = self._sure[particle]
        return int(sure[np.argmin(np.abs(self.order[sure] - self.order[tilt]))])

    def outline(self, particle: int, tilt: int) -> Outline:
        """The outline expected at a tilt; it may reach beyond the scan.

        Across the axis it is foreshortened as a flat particle is, by the ratio of the cosines: over the few degrees
        to the nearest sure outline a thick one differs little.
        """
        at = self.nearest(particle, tilt)
        shift = self.predicted_px[particle, tilt] - self.predicted_px[particle, at]
        cosines = np.cos(np.radians(self._angle[[at, tilt]]))
        ratio = cosines[1] / cosines[0] if (cosines > 0).all() else 1.0  # NaN, too, has no foreshortening
        axis = np.radians(self._solution.stage.tilt_axis_deg) if ratio != 1 else 0.0
        across = np.array([-np.sin(axis), np.cos(axis)])
        stretch = np.eye(2) + (ratio - 1) * np.outer(across, across)
        return Outline.of(self._masks, int(self._own[particle, at])).moved(shift, stretch)
