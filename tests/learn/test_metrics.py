"""Scores with known answers, and matching against a brute-force search."""

import itertools

import numpy as np
import pytest

from stemtomo_dl.learn.metrics import match_truth, score_run, wholly_in_view
from stemtomo_dl.learn.overlap import iou_matrix
from stemtomo_dl.records import Masks, Tracks, Truth

N_TILTS, N = 6, 3
GOOD = np.ones(N_TILTS, bool)


def boxes():
    """Three squares that move to the right; the third leaves the field after tilt 2."""
    full, tilt, who = [], [], []
    for t, k in itertools.product(range(N_TILTS), range(N)):
        m = np.zeros((30, 40), bool)
        x = 2 + 2 * t if k < 2 else 28 + 3 * t
        m[2 + 9 * k : 8 + 9 * k, x : x + 6] = True
        if m.any():
            full.append(m)
            tilt.append(t)
            who.append(k)
    return np.array(full), np.array(tilt), np.array(who)


def truth_and_masks():
    full, tilt, who = boxes()
    masks = Masks.pack(full, tilt, np.ones(len(full)), np.arange(float(N_TILTS)))
    positions = np.array([[0, 0, 0], [10, 5, 1.0], [-4, 3, 2]])
    zeros = np.zeros((N_TILTS, 2))
    ub = np.tile(np.eye(3), (N, 1, 1))
    return Truth(masks, who.astype("i4"), ub, positions, np.arange(float(N_TILTS)), zeros, zeros, ("a",) * N), masks


def tracks_of(masks, label, positions):
    instance = np.flatnonzero(label > 0).astype("i4")
    track = label[instance].astype("i4")
    particle = np.unique(track)
    some = np.ones(len(track))
    return Tracks.plain(
        track=track,
        tilt=masks.tilt[instance],
        instance=instance,
        x_px=some,
        y_px=some,
        area_px=some,
        alpha_deg=masks.alpha_deg,
        drift_px=np.zeros((N_TILTS, 2)),
        particle=particle,
        position_nm=positions[: len(particle)],
        residual_px=np.zeros(len(particle)),
    )


def test_a_perfect_run_scores_one():
    truth, masks = truth_and_masks()
    tracks = tracks_of(masks, truth.particle + 1, truth.positions_nm + [100, -7, 3])
    s = score_run(masks, tracks, truth, GOOD)
    assert [s[k] for k in ("precision", "recall", "mean_iou", "idf1", "mean_purity")] == [1] * 5
    assert s["coverage"] == {0: 1.0, 1: 1.0, 2: 1.0}
    assert s["position_rms_nm"] == pytest.approx(0)
    assert [s["segmentation"]["all"][k] for k in ("ap", "ap50", "f1", "pq")] == [1] * 4


def test_known_losses_give_known_scores():
    truth, masks = truth_and_masks()
    label = truth.particle + 1
    label[(label < 3) & (masks.tilt >= 4)] = 3 - label[(label < 3) & (masks.tilt >= 4)]  # 1 and 2 swap for 2 of 6 tilts
    s = score_run(masks, tracks_of(masks, label, truth.positions_nm), truth, GOOD)
    n = len(masks)
    assert s["idf1"] == pytest.approx(2 * (n - 4) / (2 * n), abs=1e-4)
    assert s["coverage"][0] == pytest.approx(4 / 6, abs=1e-4)
    assert s["mean_purity"] == pytest.approx((4 / 6 + 4 / 6 + 1) / 3, abs=1e-4)
    half = np.flatnonzero(masks.tilt % 2 == 0)  # every second tilt's masks are missing
    found = Masks(
        masks.shape,
        tuple(masks.crops[i] for i in half),
        masks.origin[half],
        masks.tilt[half],
        masks.score[half],
        masks.alpha_deg,
    )
    s = score_run(found, tracks_of(found, truth.particle[half] + 1, truth.positions_nm), truth, GOOD)
    assert s["recall"] == pytest.approx(len(half) / n, abs=1e-4)
    assert s["precision"] == 1
    assert s["segmentation"]["all"]["f1"] == pytest.approx(2 * len(half) / (len(half) + n), abs=1e-4)
    even = score_run(
        found, tracks_of(found, truth.particle[half] + 1, truth.positions_nm), truth, np.arange(N_TILTS) % 2 == 0
    )
    assert even["recall"] == 1  # tilts that were left out do not count


def test_whole_in_view_ends_at_the_border():
    truth, _ = truth_and_masks()
    # columns 28 + 3 t … 33 + 3 t of 40: whole and clear of the border at tilts 0 and 1 only
    np.testing.assert_array_equal(wholly_in_view(truth)[:, 2], [True, True, False, False, False, False])


def test_matching_is_the_best_one_to_one():
    rng = np.random.default_rng(0)
    truth, masks = truth_and_masks()
    shifted = np.array([np.roll(masks.full(i), rng.integers(-3, 4, 2), (0, 1)) for i in range(len(masks))])
    found = Masks.pack(shifted, masks.tilt, masks.score, masks.alpha_deg)
    particle, iou = match_truth(found, truth, min_iou=0.2)
    for t in range(N_TILTS):
        rows, columns = found.at(t), masks.at(t)
        overlap = iou_matrix(found, rows, masks, columns)
        plain = [
            [(found.full(i) & masks.full(j)).sum() / (found.full(i) | masks.full(j)).sum() for j in columns]
            for i in rows
        ]
        np.testing.assert_allclose(overlap, plain, rtol=1e-6)
        best = max(
            sum(overlap[i, p] for i, p in enumerate(order) if overlap[i, p] >= 0.2)
            for order in itertools.permutations(range(len(columns)))
        )
        assert iou[rows].sum() == pytest.approx(best)
    assert set(particle) <= {-1, 0, 1, 2}
