"""Tracking scores against trackeval, and answers known beforehand."""

import numpy as np
import pytest
from trackeval.metrics import CLEAR, HOTA, Identity

from stemtomo_dl.learn.overlap import iou_matrix
from stemtomo_dl.learn.tracking_metrics import (
    Encounter,
    mask_encounters,
    pattern_purity,
    point_encounters,
    tracking_scores,
)
from stemtomo_dl.records import Masks, Tracks, Truth


def oracle(encounters):
    """What trackeval says."""
    particles, tracks = (np.unique(np.concatenate([getattr(e, k) for e in encounters])) for k in ("particle", "track"))
    data = {
        "gt_ids": [np.searchsorted(particles, e.particle) for e in encounters],
        "tracker_ids": [np.searchsorted(tracks, e.track) for e in encounters],
        "similarity_scores": [e.similarity for e in encounters],
        "num_gt_ids": len(particles),
        "num_tracker_ids": len(tracks),
        "num_gt_dets": sum(len(e.particle) for e in encounters),
        "num_tracker_dets": sum(len(e.track) for e in encounters),
        "num_timesteps": len(encounters),
    }
    quiet = {"PRINT_CONFIG": False}
    hota, identity, clear = (m.eval_sequence(data) for m in (HOTA(), Identity({**quiet}), CLEAR({**quiet})))
    return {
        **{f"{k.lower()}_at": hota[k] for k in ("HOTA", "DetA", "AssA")},
        **{k.lower(): hota[k].mean() for k in ("HOTA", "DetA", "AssA")},
        **{k.lower(): identity[k] for k in ("IDF1", "IDP", "IDR")},
        "switches": clear["IDSW"],
        "fragmentations": clear["Frag"],
    }


def agrees(encounters):
    ours, theirs = tracking_scores(encounters), oracle(encounters)
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, atol=1e-12, err_msg=key)
    return ours


def series(rng, tilts=25, particles=12, loss=0.2, swaps=0.1, noise=1.5, false=2):
    """Points that wander, are lost, change their names and are joined by false ones."""
    xy, name = rng.uniform(0, 40, (particles, 2)), np.arange(particles)
    true, found = [], []
    for t in range(tilts):
        xy = xy + rng.normal(0, 2, xy.shape)
        if rng.random() < swaps * 3:
            i, j = rng.choice(particles, 2, replace=False)
            name[[i, j]] = name[[j, i]]
        if rng.random() < swaps:
            name[rng.integers(particles)] = name.max() + 1
        for p in np.flatnonzero(rng.random(particles) > loss):
            true.append((t, p, *xy[p]))
        for p in np.flatnonzero(rng.random(particles) > loss):
            found.append((t, name[p], *(xy[p] + rng.normal(0, noise, 2))))
        for _ in range(rng.poisson(false)):
            found.append((t, 1000 + rng.integers(5) if rng.random() < 0.5 else -1, *rng.uniform(0, 40, 2)))
    found = np.array(found)
    _, once = np.unique(found[:, :2] - [0, 0.5] * (found[:, 1:2] < 0), axis=0, return_index=True)
    return np.array(true), found[np.sort(once)]


def encounters_of(true, found, reach=8.0):
    return point_encounters(
        true[:, 0].astype(int), true[:, 1].astype(int), true[:, 2:],
        found[:, 0].astype(int), found[:, 1].astype(int), found[:, 2:], reach,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_points_score_as_trackeval_says(seed):
    rng = np.random.default_rng(seed)
    s = agrees(encounters_of(*series(rng, loss=0.05 * seed, noise=0.5 * seed)))
    assert 0 < s["hota"] < 1
    assert s["switches"] > 0


def test_tilts_without_truth_or_tracks_score_as_trackeval_says():
    true, found = series(np.random.default_rng(3))
    agrees(encounters_of(true[~np.isin(true[:, 0], [4, 5, 6, 20])], found[~np.isin(found[:, 0], [0, 6, 7, 15])]))


def test_perfect_tracks_score_one():
    true, _ = series(np.random.default_rng(0))
    s = agrees(encounters_of(true, true))
    assert [s[k] for k in ("hota", "deta", "assa", "idf1", "idp", "idr", "purity", "mean_purity")] == [1] * 8
    assert s["switches"] == 0


def test_a_name_changed_halfway_costs_half_the_identity():
    true = np.array([(t, 0, 10.0 * t, 5.0) for t in range(10)])
    found = true.copy()
    found[5:, 1] = 7
    s = agrees(encounters_of(true, found))
    assert s["idf1"] == pytest.approx(0.5)
    assert s["assa"] == pytest.approx(0.5)
    assert s["deta"] == 1
    assert (s["switches"], s["fragmentations"], s["purity"]) == (1, 0, 1)


def test_one_track_of_two_particles_is_half_pure():
    true = np.array([(t, int(t >= 6), 10.0 * t, 5.0) for t in range(10)])
    found = true.copy()
    found[:, 1] = 3
    s = tracking_scores(encounters_of(true, found))
    assert s["purity"] == pytest.approx(0.6)
    assert s["switches"] == 0


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_scores_nothing(n, m):
    s = tracking_scores([Encounter(np.arange(n), np.arange(m), np.zeros((n, m)))] * 2)
    assert s["hota"] == s["idf1"] == s["switches"] == 0
    assert tracking_scores([])["idf1"] == 0


def discs(rng, tilts, particles, loss, shake):
    """Discs that move and overlap: full masks, tilts, particles."""
    y, x = np.mgrid[:60, :60]
    at, full, tilt, who = rng.uniform(10, 50, (particles, 2)), [], [], []
    for t in range(tilts):
        at = at + rng.normal(0, 1, at.shape)
        for p in np.flatnonzero(rng.random(particles) >= loss):
            cx, cy = at[p] + shake * rng.normal(size=2)
            mask = np.hypot(x - cx, y - cy) < 6
            if mask.any():
                full.append(mask)
                tilt.append(t)
                who.append(p)
    return Masks.pack(np.array(full), np.array(tilt), np.ones(len(full)), np.arange(float(tilts))), np.array(who, "i4")


def truth_of(masks, particle):
    n, zeros = particle.max() + 1, np.zeros((len(masks.alpha_deg), 2))
    return Truth(masks, particle, np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 3)), masks.alpha_deg, zeros, zeros)


def tracks_of(masks, track):
    rows = np.flatnonzero(track > 0).astype("i4")
    names, some = np.unique(track[rows]).astype("i4"), np.ones(len(rows))
    return Tracks.plain(
        track=track[rows].astype("i4"),
        tilt=masks.tilt[rows],
        instance=rows,
        x_px=some,
        y_px=some,
        area_px=some,
        alpha_deg=masks.alpha_deg,
        drift_px=np.zeros((len(masks.alpha_deg), 2)),
        particle=names,
        position_nm=np.zeros((len(names), 3)),
        residual_px=np.zeros(len(names)),
    )


def test_outlines_score_as_trackeval_says_and_bad_tilts_do_not_count():
    true, particle = discs(np.random.default_rng(1), 15, 8, 0.0, 0.0)
    found, label = discs(np.random.default_rng(1), 15, 8, 0.0, 1.5)
    name = label + 1 + 8 * (found.tilt > 9) * (label < 4)
    good = np.arange(15) != 7
    encounters = mask_encounters(found, np.arange(len(found)), name, truth_of(true, particle), good)
    assert len(encounters) == 14
    s = agrees(encounters)
    assert s["switches"] > 0
    rows, columns = found.at(3), true.at(3)
    np.testing.assert_allclose(encounters[3].similarity.T, iou_matrix(found, rows, true, columns))


def strips(columns, tilts=4):
    """Outlines of one row of ten pixels: each from a first column to the one before a last."""
    full = np.zeros((len(columns) * tilts, 3, 10), bool)
    for i, (a, b) in enumerate(columns * tilts):
        full[i, 1, a:b] = True
    tilt = np.repeat(np.arange(tilts), len(columns))
    return Masks.pack(full, tilt, np.ones(len(full)), np.arange(float(tilts)))


def test_pattern_purity_counts_the_probes_that_show_the_tracks_particle():
    masks = strips([(0, 4), (5, 9)])
    particle = np.tile([0, 1], 4).astype("i4")
    truth, good = truth_of(masks, particle), np.ones(4, bool)
    right = pattern_purity(masks, tracks_of(masks, particle + 1), truth, good)
    assert right == {"purity": 1, "least_purity": 1, "mixed": 0}
    name = particle + 1
    name[-2:] = 2, 1  # they swap names at the last of four tilts
    swapped = pattern_purity(masks, tracks_of(masks, name), truth, good)
    assert swapped["purity"] == swapped["least_purity"] == pytest.approx(3 / 4)
    assert pattern_purity(masks, tracks_of(masks, name), truth, np.arange(4) < 3)["purity"] == 1


def test_pattern_purity_leaves_out_probes_that_two_outlines_share_and_bare_support():
    true = strips([(0, 5), (4, 9)])  # both cover column 4
    particle = np.tile([0, 1], 4).astype("i4")
    good, name = np.ones(4, bool), np.tile([1, 2], 4)
    knows = strips([(0, 5), (4, 10)])  # column 4 is seen to be shared, column 9 is support
    assert pattern_purity(knows, tracks_of(knows, name), truth_of(true, particle), good) == {
        "purity": 1,
        "least_purity": 1,
        "mixed": 0,
    }
    strays = strips([(0, 6), (7, 9)])  # the first takes columns 4 (shared) and 5 (the other's)
    found = pattern_purity(strays, tracks_of(strays, name), truth_of(true, particle), good)
    assert found["least_purity"] == pytest.approx(5 / 6)
    assert found["purity"] == pytest.approx(7 / 8)
    assert found["mixed"] == pytest.approx(1 / 8)
