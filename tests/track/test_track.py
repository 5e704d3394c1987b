"""The tracker: its parts against known answers and scipy, the whole on moving disks."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from stemtomo_dl.config import TrackConfig
from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.records import Instrument, Masks
from stemtomo_dl.track import track_masks
from stemtomo_dl.track.assign import assign
from stemtomo_dl.track.drift import vote_shift
from stemtomo_dl.track.features import features

INSTRUMENT = Instrument(200, 0.8, 0.02, 5.0, 24.3)


def track(masks, instrument, config):
    """The links alone, without outlines filled in."""
    return track_masks(masks, instrument.tilt_axis_deg, instrument.step_nm, config, filling=False).tracks


@pytest.mark.parametrize("share", [0.2, 0.8])  # of pairs that may not be: many compete, or few
@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (1, 1), (0, 3), (3, 0)])
def test_assignment_is_as_cheap_as_scipys(shape, share):
    rng = np.random.default_rng(sum(shape))
    for _ in range(20):
        cost, limit = rng.random(shape), 0.4
        if cost.size:
            cost[rng.random(shape) < share] = np.inf
        rows, columns = np.nonzero(np.isfinite(cost))
        chosen = assign(rows, columns, cost[rows, columns], limit)
        rows, columns = rows[chosen], columns[chosen]
        assert len(set(rows)) == len(rows)
        assert len(set(columns)) == len(columns)
        assert (cost[rows, columns] < limit).all()
        # independent: leaving a pair out costs the limit, so pad with dummies at that price
        n, m = shape
        padded = np.full((n + m, n + m), limit / 2)
        padded[:n, :m] = np.where(cost < limit, cost, 1e3)
        padded[n:, m:] = 0
        i, j = linear_sum_assignment(padded)
        best = padded[i, j].sum()
        ours = cost[rows, columns].sum() + limit / 2 * (n + m - 2 * len(rows))
        assert ours == pytest.approx(best, abs=1e-9)


def test_the_field_shift_wins_the_vote():
    rng = np.random.default_rng(3)
    before = rng.uniform(0, 200, (25, 2))
    area = rng.uniform(50, 400, 25)
    after = before + [11.5, -7.25] + rng.normal(0, 0.4, (25, 2))
    after[:6] = rng.uniform(0, 200, (6, 2))  # some are gone, others came
    order = rng.permutation(25)
    shift = vote_shift(before, after[order], np.log(area), np.log(area[order]), 40.0)
    np.testing.assert_allclose(shift, [11.5, -7.25], atol=0.3)
    assert (vote_shift(np.zeros((0, 2)), before, np.zeros(0), np.log(area), 40.0) == 0).all()


def moving_disks(n=8, alpha=None, gaps=(), drift=None, shape=(90, 110), seed=0):
    """Outlines of spheres on a tilted stage, in shuffled order, with the true identity of each."""
    rng = np.random.default_rng(seed)
    alpha = np.arange(-50, 51, 2.0) if alpha is None else np.asarray(alpha, float)
    drift = np.zeros((len(alpha), 2)) if drift is None else drift
    grid = np.stack(np.meshgrid(np.linspace(-32, 32, 4), np.linspace(-25, 25, 2)), -1).reshape(-1, 2)[:n]
    p = np.concatenate([grid + rng.uniform(-3, 3, grid.shape), rng.normal(0, 3, (len(grid), 1))], 1)
    radius = rng.uniform(3, 6, len(p))
    y, x = np.indices(shape)
    masks, tilts, who = [], [], []
    for t, rotation in enumerate(tilt_rotation(24.3, alpha)):
        seen = (rotation @ p.T).T[:, :2] + field_centre(shape) + drift[t]
        for k in rng.permutation(len(p)):
            if (k, t) not in gaps:
                masks.append(np.hypot(x - seen[k, 0], y - seen[k, 1]) <= radius[k])
                tilts.append(t)
                who.append(k)
    packed = Masks.pack(np.array(masks), np.array(tilts), np.ones(len(tilts)), alpha)
    return packed, np.array(who), p


def identities(tracks, who):
    """The true particles behind each track."""
    return {k: set(who[tracks.instance[tracks.track == k]].tolist()) for k in tracks.particle}


@pytest.mark.parametrize("order", ["up", "down", "shuffled", "uneven"])
def test_every_particle_is_one_track(order):
    alpha = {
        "up": np.arange(-50, 51, 2.0),
        "down": np.arange(50, -51, -2.0),
        "shuffled": np.r_[np.arange(0, 51, 2.0), np.arange(-2, -51, -2.0)],
        "uneven": np.r_[np.arange(-50, -20, 0.5), np.arange(-15, 51, 5.0)],
    }[order]
    rng = np.random.default_rng(4)
    drift = np.zeros((len(alpha), 2))
    rank = np.argsort(alpha)
    drift[rank] = np.cumsum(rng.normal(0, 0.5, (len(alpha), 2)), 0)
    drift[rank[len(rank) // 3 :]] += [14, -9]  # a jump larger than the particles
    masks, who, p = moving_disks(alpha=alpha, drift=drift)
    tracks = track(masks, INSTRUMENT, TrackConfig())
    assert sorted(map(tuple, identities(tracks, who).values())) == [(k,) for k in range(8)]
    assert len(tracks.track) == len(masks)
    order_of = [identities(tracks, who)[k].pop() for k in tracks.particle]
    error = tracks.position_nm / 5.0 - p[order_of]
    assert np.abs(error - error.mean(0)).max() < 0.6


def test_gaps_are_closed():
    gaps = {(2, t) for t in range(18, 31)} | {(5, t) for t in range(0, 51, 3)}
    masks, who, _ = moving_disks(gaps=gaps)
    tracks = track(masks, INSTRUMENT, TrackConfig())
    assert sorted(map(tuple, identities(tracks, who).values())) == [(k,) for k in range(8)]


def test_few_particles_and_none():
    masks, who, _ = moving_disks(n=1)
    assert identities(track(masks, INSTRUMENT, TrackConfig()), who) == {1: {0}}
    empty = Masks.pack(np.zeros((0, 20, 30), bool), np.zeros(0), np.zeros(0), np.arange(4.0))
    tracks = track(empty, INSTRUMENT, TrackConfig())
    assert len(tracks.particle) == 0
    assert tracks.drift_px.shape == (4, 2)
    one_tilt, _, _ = moving_disks(alpha=[12.0])
    assert len(track(one_tilt, INSTRUMENT, TrackConfig()).particle) == 8


def test_features_of_a_rectangle():
    mask = np.zeros((1, 30, 40), bool)
    mask[0, 10:16, 20:32] = True
    f = features(Masks.pack(mask, np.zeros(1), np.ones(1), np.zeros(1)))
    np.testing.assert_allclose(f.xy[0], [25.5, 12.5])
    np.testing.assert_allclose(np.diag(f.covariance[0]), [12**2 / 12, 6**2 / 12])


def test_spurious_outlines_do_not_become_particles():
    """20 random outlines at each tilt, and a third of the particles' own missing."""
    rng = np.random.default_rng(7)
    masks, who, _ = moving_disks()
    keep = rng.random(len(masks)) < 0.7
    y, x = np.indices(masks.shape)
    full = [masks.full(i) for i in np.flatnonzero(keep)]
    tilt, identity = list(masks.tilt[keep]), list(who[keep])
    for t in range(len(masks.alpha_deg)):
        for _ in range(20):
            cx, cy, r = rng.uniform(0, masks.shape[1]), rng.uniform(0, masks.shape[0]), rng.uniform(2, 6)
            full.append(np.hypot(x - cx, y - cy) <= r)
            tilt.append(t)
            identity.append(-1)
    spoiled = Masks.pack(np.array(full), np.array(tilt), np.ones(len(tilt)), masks.alpha_deg)
    tracks = track(spoiled, INSTRUMENT, TrackConfig())
    identity = np.array(identity)
    found = [np.bincount(identity[tracks.instance[tracks.track == k]] + 1, minlength=9) for k in tracks.particle]
    real = [f for f in found if f[1:].sum() > f[0]]
    assert len(found) - len(real) <= 4
    assert {int(f[1:].argmax()) for f in real} == set(range(8))
    assert np.mean([f[1:].max() / f.sum() for f in real]) > 0.9


def test_a_wrong_link_is_undone():
    masks, who, _ = moving_disks()
    moved = np.array([masks.full(i) for i in range(len(masks))])
    first = np.flatnonzero(who == 3)[10]
    moved[first] = np.roll(moved[first], (0, 8), (0, 1))  # an outline where its particle cannot be
    tracks = track(Masks.pack(moved, masks.tilt, masks.score, masks.alpha_deg), INSTRUMENT, TrackConfig())
    assert first not in tracks.instance


def test_many_particles_vote_within_reason():
    rng = np.random.default_rng(0)
    before = rng.uniform(0, 128, (300, 2))
    area = rng.uniform(20, 60, 300)
    shift = vote_shift(before, before + [3.0, -2.0], np.log(area), np.log(area), 40.0)
    np.testing.assert_allclose(shift, [3, -2], atol=0.2)
