"""Outlines that show two crystals are divided; bent crystals, thickness and noise are not."""

from dataclasses import replace

import numpy as np
import pytest

from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.records import SOURCES, STATES, Masks, Tracks
from stemtomo_dl.track import Tracked, split

ALPHA = np.arange(-40.0, 41.0, 4.0)
AXIS, SHAPE, BINS, STEP_NM = 24.3, (30, 34), 64, 5.0
HIDDEN, CLEAN, OVERLAPPED = (STATES.index(s) for s in ("hidden", "clean", "overlapped"))


def patterns(seed):
    """A crystal's Bragg scattering at every tilt; reflections come and go from tilt to tilt."""
    rng = np.random.default_rng(seed)
    rows = rng.exponential(3.0, (len(ALPHA), BINS)) * (rng.random((len(ALPHA), BINS)) < 0.25)
    return rows - rows.mean(1, keepdims=True)


def scene(crystals, middle, seed=0, apart_nm=(0.0, 30.0, 0.0)):
    """A rod seen at all tilts in one outline: its halves lie at ± half of ``apart_nm`` about ``middle``.

    ``crystals`` (place along the rod from 0 to 1) gives the pattern (tilt, bin) that is there.
    """
    rng = np.random.default_rng(seed)
    half = np.array(apart_nm) / 2
    shift = tilt_rotation(AXIS, ALPHA)[:, :2] @ (half / STEP_NM)
    centre = tilt_rotation(AXIS, ALPHA)[:, :2] @ (np.array(middle) / STEP_NM) + field_centre(SHAPE)
    y, x = np.indices(SHAPE)
    full, looks = [], {}
    for t in range(len(ALPHA)):
        off = np.stack([x, y], -1) - centre[t]
        size = np.linalg.norm(shift[t])
        along = off @ shift[t] / size
        across = off @ np.array([-shift[t, 1], shift[t, 0]]) / size
        full.append((np.abs(along) < 2 * size) & (np.abs(across) < 4))
        place = np.clip((along / size / 2 + 1) / 2, 0, 1)
        thick = full[t] * (0.5 + np.exp(-(across**2) / 8))
        bragg = rng.normal(size=(*SHAPE, BINS)) + thick[..., None] * crystals(place, t)
        looks[t] = bragg.astype("f4"), np.full(SHAPE, BINS, "f4")
    masks = Masks.pack(np.array(full), np.arange(len(ALPHA)), np.ones(len(ALPHA)), ALPHA)
    return Tracked(tracks_of(masks, centre, middle), masks), lambda tilt, free: looks[tilt]


def tracks_of(masks, centre, middle):
    n, xy = len(ALPHA), centre
    return Tracks.plain(
        track=np.ones(n, "i4"),
        tilt=np.arange(n, dtype="i4"),
        instance=np.arange(n, dtype="i4"),
        x_px=xy[:, 0].copy(),
        y_px=xy[:, 1].copy(),
        area_px=np.array([c.sum() for c in masks.crops], float),
        alpha_deg=ALPHA,
        drift_px=np.zeros((n, 2)),
        particle=np.ones(1, "i4"),
        position_nm=np.array([middle], float),
        residual_px=np.zeros(1),
        tilt_axis_deg=AXIS,
        states=np.zeros((1, n), "i1"),
        predicted_px=xy[None].copy(),
    )


def two(seed=1, other=2):
    a, b = patterns(seed), patterns(other)
    return lambda place, t: np.where((place < 0.5)[..., None], a[t], b[t])


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
