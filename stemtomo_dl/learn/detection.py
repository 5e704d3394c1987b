"""Scores of amodal instance segmentation: average precision, F1 and panoptic quality.

Outlines of one image may overlap, so they are matched as outlines, never as labels of pixels. Average precision is
COCO's (T.-Y. Lin et al., ECCV 2014; matching and 101-point interpolation as in its reference evaluation, with any
number of outlines per image), panoptic quality that of A. Kirillov et al. (CVPR 2019), its matches the one-to-one
assignment of the greatest sum: where outlines overlap, an IoU above ½ alone does not make a match unique.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from stemtomo_dl.learn.overlap import areas, depth, overlaps, visibility
from stemtomo_dl.records import Masks

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
SIZES_PX2 = {"small": (0.0, 144.0), "medium": (144.0, 1024.0), "large": (1024.0, np.inf)}  # 12 and 32 px across
DOSES = {"low": (0.0, 50.0), "medium": (50.0, 500.0), "high": (500.0, np.inf)}  # electrons per pattern
VISIBILITIES = {"clear": (0.9, np.inf), "partial": (0.5, 0.9), "buried": (0.0, 0.5)}


@dataclass(frozen=True, eq=False)
class Case:
    """One image: what was found in it, what is true, and where they overlap.

    Attributes
    ----------
    score : (found,) array
    pairs : (pair, 2) int array
        Found and true outlines with a pixel in common.
    iou : (pair,) array
    counts : (true,) bool array
        False: may be found or not, and neither is an error.
    found_counts : (found,) bool array
        False: no error where it matches nothing.
    area, found_area : (true,), (found,) arrays
        Pixels.
    visible, found_visible : (true,), (found,) arrays
        Shares as by `overlap.visibility`.
    """

    score: np.ndarray
    pairs: np.ndarray
    iou: np.ndarray
    counts: np.ndarray
    found_counts: np.ndarray
    area: np.ndarray
    found_area: np.ndarray
    visible: np.ndarray
    found_visible: np.ndarray

    def within(self, names: str, low: float, high: float) -> Case:
        """The same image, only outlines counting whose ``area`` or ``visible`` is in [low, high)."""
        true, found = getattr(self, names), getattr(self, f"found_{names}")
        return replace(
            self,
            counts=self.counts & (true >= low) & (true < high),
            found_counts=self.found_counts & (found >= low) & (found < high),
        )


def compare(
    found: Masks,
    rows: np.ndarray,
    truth: Masks,
    columns: np.ndarray,
    counts: np.ndarray | None = None,
    least_px: int = 0,
) -> Case:
    """Hold what was found in one image against the truth.

    Parameters
    ----------
    found, truth : Masks
    rows, columns : int arrays
        Instances that belong to this image.
    counts : (len(columns),) bool array, optional
        False for true outlines that may be found or not, such as those that nobody could see; by default all count.
    least_px : int
        Outlines of fewer pixels may be found or not.

    Returns
    -------
    Case
    """
    pairs, iou = overlaps(found, rows, truth, columns)
    piled, area, found_area = depth(truth, columns), areas(truth, columns), areas(found, rows)
    return Case(
        score=found.score[rows].astype(float),
        pairs=pairs,
        iou=iou,
        counts=(np.ones(len(columns), bool) if counts is None else counts) & (area >= least_px),
        found_counts=found_area >= least_px,
        area=area,
        found_area=found_area,
        visible=visibility(truth, columns, piled),
        found_visible=visibility(found, rows, piled),
    )


def scores(cases: Sequence[Case], threshold: float = 0.0) -> dict[str, float | int | None]:
    """Scores over images.

    Parameters
    ----------
    cases : sequence of Case
    threshold : float
        Outlines of this score or a higher one are taken as found by ``f1``, ``pq``, ``sq`` and ``rq``.

    Returns
    -------
    dict
        ``ap``: mean over IoU .50 : .05 : .95; ``ap50``, ``ap75``; ``f1`` at IoU .5, and ``best_f1`` with the
        threshold ``best_f1_score`` that gives it; panoptic quality ``pq`` = ``sq`` · ``rq``; ``n_true``, ``n_found``
        at the threshold. None where nothing is true, or nothing matches.
    """
    n_true = int(sum(c.counts.sum() for c in cases))
    curves = [ranked(cases, t) for t in THRESHOLDS]
    precision = [_average_precision(tp, n_true) for _, tp in curves]
    score, tp = curves[0]
    f1 = 2 * np.cumsum(tp) / np.maximum(np.arange(1, len(tp) + 1) + n_true, 1)
    taken = int((score >= threshold).sum())
    last = np.flatnonzero(np.append(np.diff(score) != 0, True)[: len(score)])  # outlines of one score stand together
    best = last[f1[last].argmax()] if len(last) else None
    values = {
        "ap": float(np.mean(precision)),
        "ap50": precision[0],
        "ap75": precision[5],
        "f1": float(f1[taken - 1]) if taken else 0.0,
        "best_f1": float(f1[best]) if best is not None else 0.0,
        **panoptic_quality(cases, threshold),
    }
    known = {k: round(v, 4) if v is not None and n_true else None for k, v in values.items()}
    threshold_of_best = float(score[best]) if best is not None and n_true else None
    return {**known, "best_f1_score": threshold_of_best, "n_true": n_true, "n_found": taken}


def by_class(cases: Sequence[Case], threshold: float = 0.0) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """`scores` for particles of each size, and for those that others overlap little, partly or mostly.

    What matches nothing counts against the class of its own size, or of the crowd that it lies in.
    """
    kinds = {"size": ("area", SIZES_PX2), "visibility": ("visible", VISIBILITIES)}
    return {
        kind: {k: scores([c.within(names, *span) for c in cases], threshold) for k, span in classes.items()}
        for kind, (names, classes) in kinds.items()
    }


def by_dose(
    cases: Sequence[Case], electrons: Sequence[float], threshold: float = 0.0
) -> dict[str, dict[str, float | int | None]]:
    """`scores` of the images of each dose, given the electrons per pattern of every image."""
    kinds = [dose_class(e) for e in electrons]
    return {
        name: scores([c for c, kind in zip(cases, kinds, strict=True) if kind == name], threshold) for name in DOSES
    }


def dose_class(electrons: float) -> str:
    """Which of `DOSES` a number of electrons per pattern is."""
    return next(name for name, (low, high) in DOSES.items() if low <= electrons < high)


def panoptic_quality(cases: Sequence[Case], threshold: float = 0.0) -> dict[str, float | None]:
    """Panoptic quality ``pq``, and its parts: ``sq``, the mean IoU of the matches, and ``rq``, their F1."""
    total, n_match, n_wrong, n_missed = 0.0, 0, 0, 0
    for c in cases:
        good = (c.iou > 0.5) & (c.score >= threshold)[c.pairs[:, 0]]
        pairs, iou = c.pairs[good], c.iou[good]
        asked = c.counts[pairs[:, 1]]
        overlap = np.zeros((len(c.score), len(c.counts)))
        overlap[pairs[asked, 0], pairs[asked, 1]] = iou[asked]
        rows, columns = linear_sum_assignment(-overlap)
        hit = overlap[rows, columns] > 0
        free = c.found_counts & (c.score >= threshold)
        free[rows[hit]] = False
        free[pairs[~asked, 0]] = False  # it shows a particle that need not be found
        total += overlap[rows, columns].sum()
        n_match += int(hit.sum())
        n_wrong += int(free.sum())
        n_missed += int(c.counts.sum() - hit.sum())
    weight = n_match + (n_wrong + n_missed) / 2
    return {
        "pq": float(total / weight) if weight else None,
        "sq": float(total / n_match) if n_match else None,
        "rq": float(n_match / weight) if weight else None,
    }


def ranked(cases: Sequence[Case], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all outlines that count, the highest first, and whether each matches a true one."""
    score, right = [np.zeros(0)], [np.zeros(0, bool)]
    for c in cases:
        match = _match(c, threshold)
        hit = np.append(c.counts, False)[match]
        judged = np.where(match >= 0, hit, c.found_counts)
        score.append(c.score[judged])
        right.append(hit[judged])
    all_scores = np.concatenate(score)
    order = np.argsort(-all_scores, kind="stable")
    return all_scores[order], np.concatenate(right)[order]


def _match(case: Case, threshold: float) -> np.ndarray:
    """The true outline that each found one takes, (found,) int; −1 none.

    The surest chooses first, among the free ones that overlap enough the one that overlaps most; one that need not
    be found only where no other is left.
    """
    match, taken = np.full(len(case.score), -1), np.zeros(len(case.counts), bool)
    close = case.iou >= min(threshold, 1 - 1e-10)
    candidates: dict[int, list[tuple[bool, float, int]]] = {}
    for (i, j), iou in zip(case.pairs[close].tolist(), case.iou[close].tolist(), strict=True):
        candidates.setdefault(i, []).append((bool(case.counts[j]), iou, j))
    for i in sorted(candidates, key=lambda k: -case.score[k]):
        free = [c for c in candidates[i] if not taken[c[2]]]
        if free:
            match[i] = max(free)[2]
            taken[match[i]] = True
    return match


def _average_precision(right: np.ndarray, n_true: int) -> float:
    """Area under the precision–recall curve, at 101 recalls, precision made to fall monotonically."""
    hits = np.cumsum(right)
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    at = np.searchsorted(hits / max(n_true, 1), _RECALLS, side="left")
    return float(np.append(precision, 0.0)[at].mean())
