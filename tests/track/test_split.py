"""Outlines that show two crystals are divided; bent crystals, thickness and noise are not."""

from dataclasses import replace

import numpy as np
import pytest
from fused_rods import ALPHA, BINS, STEP_NM, patterns, scene, two

from stemtomo_dl.records import SOURCES, STATES
from stemtomo_dl.track import Tracked, split

HIDDEN, CLEAN, OVERLAPPED = (STATES.index(s) for s in ("hidden", "clean", "overlapped"))


def test_two_crystals_in_one_outline_become_two_tracks():
    tracked, look = scene(two(), (4.0, -6.0, 10.0))
    tracks, masks = split(tracked, look, STEP_NM)
    n = len(ALPHA)
    assert tracks.particle.tolist() == [1, 2]
    assert np.bincount(tracks.track).tolist() == [0, n, n]
    for track, sign in zip((1, 2), (1, -1), strict=True):
        rows = np.flatnonzero(tracks.track == track)
        assert tracks.tilt[rows].tolist() == list(range(n))
        offset = tracks.position_nm[track - 1] - (4.0, -6.0, 10.0)
        side = np.sign(offset[1]) or sign
        np.testing.assert_allclose(offset, side * np.array([0.0, 15.0, 0.0]), atol=3.0)
        place = np.stack([tracks.x_px, tracks.y_px], 1)[rows]
        np.testing.assert_allclose(place, tracks.predicted_px[track - 1], atol=1.0)
        np.testing.assert_allclose(tracks.area_px[rows], [masks.crops[i].sum() for i in tracks.instance[rows]])
        assert (tracks.states[track - 1] == tracks.state[rows]).all()
    assert {SOURCES[s] for s in tracks.source} == {"split"}
    assert masks.found.tolist() == list(range(n))
    for row in range(len(tracks.track)):
        whole, part = masks.full(tracks.detected[row]), masks.full(tracks.instance[row])
        assert masks.source[tracks.instance[row]] == SOURCES.index("split")
        assert 0.35 * whole.sum() < part.sum() < 0.65 * whole.sum()
        assert not (part & ~whole).any()


def test_dividing_again_changes_nothing():
    tracked, look = scene(two(), (0.0, 0.0, 0.0))
    once = split(tracked, look, STEP_NM)
    again = split(once, look, STEP_NM)
    assert again.tracks.particle.tolist() == [1, 2]
    np.testing.assert_array_equal(again.tracks.instance, once.tracks.instance)


def test_three_crystals_in_a_row_become_three():
    a, b, c = patterns(1), patterns(2), patterns(3)

    def three(place, t):
        inner = np.where((place < 0.62)[..., None], b[t], c[t])
        return np.where((place < 0.36)[..., None], a[t], inner)

    tracked, look = scene(three, (0.0, 0.0, 0.0), apart_nm=(0.0, 50.0, 0.0))
    tracks, masks = split(tracked, look, STEP_NM)
    assert tracks.particle.tolist() == [1, 2, 3]
    assert masks.found.tolist() == list(range(len(ALPHA)))
    assert len(masks) == len(ALPHA) + len(tracks.track), "outlines of a first division are not kept"


@pytest.mark.parametrize("strength", [1.0, 0.05])
def test_one_crystal_stays_whole(strength):
    a = patterns(1)
    tracked, look = scene(lambda place, t: np.broadcast_to(strength * a[t], (*place.shape, BINS)), (0.0, 0.0, 0.0))
    assert split(tracked, look, STEP_NM).tracks is tracked.tracks


def test_a_bent_crystal_stays_whole():
    """Its ends have nothing in common, but it changes as much between any two neighbouring places."""
    knots = np.stack([patterns(s) for s in range(6)])

    def bent(place, t):
        at = np.clip(place * 5, 0, 4.999)
        low, rest = at.astype(int), (at % 1)[..., None]
        return (1 - rest) * knots[low, t] + rest * knots[low + 1, t]

    tracked, look = scene(bent, (0.0, 0.0, 0.0))
    assert len(split(tracked, look, STEP_NM).tracks.particle) == 1


def test_crystals_too_faint_to_tell_stay_together():
    faint = two()
    tracked, look = scene(lambda place, t: 0.02 * faint(place, t), (0.0, 0.0, 0.0))
    assert len(split(tracked, look, STEP_NM).tracks.particle) == 1


def test_a_stage_that_is_not_rigid_and_tilts_without_angles():
    tracked, look = scene(two(), (0.0, 0.0, 0.0))
    loose = replace(tracked.tracks, rigid=False)
    assert len(split(Tracked(loose, tracked.masks), look, STEP_NM).tracks.particle) == 2
    without = replace(tracked.tracks, alpha_deg=np.full(len(ALPHA), np.nan))
    assert split(Tracked(without, tracked.masks), look, STEP_NM).tracks is without
    assert split(tracked, lambda tilt, free: None, STEP_NM).tracks is tracked.tracks
