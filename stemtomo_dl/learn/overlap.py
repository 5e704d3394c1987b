"""How outlines overlap, computed on their crops: an image may hold hundreds, each on few of its pixels."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.records import Masks


def overlaps(a: Masks, rows: np.ndarray, b: Masks, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of outlines with a pixel in common.

    Parameters
    ----------
    a, b : Masks
        Of images of one shape.
    rows, columns : int arrays
        Instances of ``a`` and of ``b`` to look at.

    Returns
    -------
    pairs : (pair, 2) int array
        Positions in ``rows`` and ``columns``, ordered by the first, then the second.
    iou : (pair,) array
        Intersection over union.
    """
    from_a, to_a, area_a = _boxes(a, rows)
    from_b, to_b, area_b = _boxes(b, columns)
    touching = (from_a[:, None] < to_b[None]).all(2) & (from_b[None] < to_a[:, None]).all(2)
    pairs = np.argwhere(touching)
    common = np.zeros(len(pairs), np.int64)
    for n, (i, j) in enumerate(pairs.tolist()):
        start, stop = np.maximum(from_a[i], from_b[j]), np.minimum(to_a[i], to_b[j])
        part_a = a.crops[rows[i]][_cut(start - from_a[i], stop - from_a[i])]
        part_b = b.crops[columns[j]][_cut(start - from_b[j], stop - from_b[j])]
        common[n] = np.count_nonzero(part_a & part_b)
    pairs, common = pairs[common > 0], common[common > 0]
    union = area_a[pairs[:, 0]] + area_b[pairs[:, 1]] - common
    return pairs, common / union


def iou_matrix(a: Masks, rows: np.ndarray, b: Masks, columns: np.ndarray) -> np.ndarray:
    """Intersection over union of chosen masks of two records, (len(rows), len(columns))."""
    out = np.zeros((len(rows), len(columns)))
    pairs, iou = overlaps(a, rows, b, columns)
    out[pairs[:, 0], pairs[:, 1]] = iou
    return out


def areas(masks: Masks, rows: np.ndarray) -> np.ndarray:
    """Pixels of chosen outlines, (len(rows),) int."""
    return np.array([np.count_nonzero(masks.crops[i]) for i in rows], np.int64)


def depth(masks: Masks, rows: np.ndarray) -> np.ndarray:
    """How many of the chosen outlines cover each pixel, (y, x) int."""
    out = np.zeros(masks.shape, np.int32)
    for i in rows:
        out[masks.window(i)] += masks.crops[i]
    return out


def visibility(masks: Masks, rows: np.ndarray, true_depth: np.ndarray) -> np.ndarray:
    """Share of each chosen outline, (len(rows),), that lies where no two particles overlap.

    For a true outline that is the share which no other particle covers; for one that was found it tells whether it
    lies in a crowd.

    Parameters
    ----------
    masks : Masks
    rows : int array
    true_depth : (y, x) int array
        Of all true outlines, by `depth`.
    """
    seen = [true_depth[masks.window(i)][masks.crops[i]] for i in rows]
    return np.array([np.mean(d <= 1) if len(d) else 1.0 for d in seen], float)


def _boxes(masks: Masks, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First pixel and the one past the last (row, column) of each crop, (n, 2) int, and its area, (n,) int."""
    start = masks.origin[rows].astype(np.int64).reshape(-1, 2)
    sides = np.array([masks.crops[i].shape for i in rows], np.int64).reshape(-1, 2)
    return start, start + sides, areas(masks, rows)


def _cut(start: np.ndarray, stop: np.ndarray) -> tuple[slice, slice]:
    return slice(int(start[0]), int(stop[0])), slice(int(start[1]), int(stop[1]))
