"""How well masks and tracks agree with a truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from stemtomo_dl.learn.detection import by_class, compare, scores
from stemtomo_dl.learn.overlap import iou_matrix
from stemtomo_dl.learn.tracking_metrics import mask_encounters, pattern_purity, tracking_scores
from stemtomo_dl.records import Masks, Tracks, Truth

_LEAST_PX = 10  # smaller outlines are neither asked for nor counted as wrong


def match_truth(masks: Masks, truth: Truth, min_iou: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Which true particle each mask shows, one to one at every tilt.

    Returns
    -------
    particle : (instance) int array
        −1 where no true outline overlaps enough.
    iou : (instance) float array
    """
    particle, iou = np.full(len(masks), -1), np.zeros(len(masks))
    for tilt in range(len(masks.alpha_deg)):
        rows, columns = masks.at(tilt), truth.masks.at(tilt)
        overlap = iou_matrix(masks, rows, truth.masks, columns)
        for i, j in zip(*linear_sum_assignment(-overlap), strict=True):
            if overlap[i, j] >= min_iou:
                particle[rows[i]], iou[rows[i]] = truth.particle[columns[j]], overlap[i, j]
    return particle, iou


def wholly_in_view(truth: Truth) -> np.ndarray:
    """(tilt, particle) bool: the particle is seen and its outline stays clear of the scan's border."""
    n = int(truth.particle.max(initial=-1)) + 1
    out = np.zeros((len(truth.alpha_deg), max(n, len(truth.ub))), bool)
    height, width = truth.masks.shape
    for i in range(len(truth.masks)):
        (y, x), crop = truth.masks.origin[i], truth.masks.crops[i]
        inside = y > 0 and x > 0 and y + crop.shape[0] < height and x + crop.shape[1] < width
        out[truth.masks.tilt[i], truth.particle[i]] = inside and crop.any()
    return out


def score_run(masks: Masks, tracks: Tracks, truth: Truth, good: np.ndarray) -> dict[str, Any]:
    """Scores of segmentation and tracking.

    Parameters
    ----------
    masks, tracks, truth
    good : (tilt) bool array
        Tilts that the run used; the others do not count.

    Returns
    -------
    dict
        ``precision`` and ``recall`` at IoU .5 and the ``mean_iou`` of what matches of the segmenter's own outlines;
        ``hota``, ``deta``, ``assa``, ``idf1``, ``idp``, ``idr``, ``switches``, ``fragmentations``, ``purity`` and
        ``mean_purity`` of the tracks as `tracking_scores` says; ``patterns``: what `pattern_purity` says;
        ``coverage``: per true particle that is wholly in view at all, the share of those tilts at which its best
        track shows it; ``position_rms_nm`` over particles, after the rigid shift and the height offset that drift
        can absorb; ``segmentation``: what `segmentation_scores` says.
    """
    found = masks.some(masks.found)
    particle, iou = match_truth(found, truth)
    seen, n_true = particle >= 0, int(good[truth.masks.tilt].sum())
    links = np.zeros((len(tracks.particle), len(truth.ub)))
    at = match_truth(masks.some(tracks.instance), truth)[0]
    np.add.at(links, (np.searchsorted(tracks.particle, tracks.track[at >= 0]), at[at >= 0]), 1)
    rows, columns = linear_sum_assignment(-links)
    view = wholly_in_view(truth) & good[:, None]
    coverage = {}
    for p in np.flatnonzero(view.any(0)):
        best = 0
        for k in np.unique(tracks.track[at == p]):
            shown = tracks.tilt[(tracks.track == k) & (at == p)]
            best = max(best, int(view[shown, p].sum()))
        coverage[int(p)] = round(best / int(view[:, p].sum()), 4)
    of_tracks = tracking_scores(mask_encounters(masks, tracks.instance, tracks.track, truth, good))
    pairs = [(i, j) for i, j in zip(rows, columns, strict=True) if links[i, j] > 0]
    return {
        "precision": round(float(seen.mean()), 4) if len(seen) else None,
        "recall": round(float(seen.sum() / max(n_true, 1)), 4),
        "mean_iou": round(float(iou[seen].mean()), 4) if seen.any() else None,
        **_rounded({k: v for k, v in of_tracks.items() if not k.endswith("_at")}),
        "patterns": _rounded(pattern_purity(masks, tracks, truth, good)),
        "n_true_particles": len(truth.ub),
        "n_tracks": len(tracks.particle),
        "coverage": coverage,
        "n_covered_80_percent": int(sum(c >= 0.8 for c in coverage.values())),
        "n_wholly_in_view": len(coverage),
        "position_rms_nm": _position_error(tracks, truth, pairs),
        "segmentation": segmentation_scores(found, truth.masks, good),
    }


def segmentation_scores(masks: Masks, truth: Masks, good: np.ndarray) -> dict[str, Any]:
    """Detection scores of a series, every tilt an image.

    Parameters
    ----------
    masks, truth : Masks
    good : (tilt) bool array
        Tilts that count.

    Returns
    -------
    dict
        ``all`` as `detection.scores`, ``size`` and ``visibility`` as `detection.by_class`.
    """
    tilts = np.flatnonzero(good).tolist()
    cases = [compare(masks, masks.at(t), truth, truth.at(t), least_px=_LEAST_PX) for t in tilts]
    return {"all": scores(cases), **by_class(cases)}


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}


def _position_error(tracks: Tracks, truth: Truth, pairs: list[tuple[int, int]]) -> float | None:
    """Rms distance of matched particles' positions after a common shift."""
    if len(pairs) < 2:
        return None
    difference = np.array([tracks.position_nm[i] - truth.positions_nm[j] for i, j in pairs])
    difference -= np.median(difference, 0)
    return round(float(np.sqrt((difference**2).sum(1).mean())), 3)
