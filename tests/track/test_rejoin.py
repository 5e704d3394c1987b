"""A crystal that is fused with another at some tilts only is one track after the division."""

import numpy as np
import pytest
from fused_rods import ALPHA, AXIS, SHAPE, STEP_NM, patterns, scene, two

from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.records import SOURCES, STATES, Masks, Tracks
from stemtomo_dl.track import Tracked, split
from stemtomo_dl.track.crystals import Sight, differ

ALONE = 6  # tilts at which the segmenter tells the two crystals apart, and finds the one


def fused_later(off_nm=(0.0, 0.0, 0.0)):
    """Track 1 is the fused rod from tilt ``ALONE`` on, track 2 its half at +y before, its place off by ``off_nm``."""
    (tracks, masks), look = scene(two(), (0.0, 0.0, 0.0))
    half = np.array([0.0, 15.0, 0.0])
    motion = tilt_rotation(AXIS, ALPHA)[:, :2] / STEP_NM
    middle, at = motion @ half, motion @ (half + off_nm) + field_centre(SHAPE)
    y, x = np.indices(SHAPE)
    full = np.array([masks.full(t) for t in range(len(ALPHA))])
    for t in range(ALONE):
        full[t] &= (np.stack([x, y], -1) - field_centre(SHAPE)) @ middle[t] > 0
    masks = Masks.pack(full, np.arange(len(ALPHA)), np.ones(len(ALPHA)), ALPHA)
    xy = np.array([np.argwhere(f).mean(0)[::-1] for f in full])
    number = np.where(np.arange(len(ALPHA)) < ALONE, 2, 1)
    order = np.argsort(number, kind="stable")
    tracks = Tracks.plain(
        track=number[order].astype("i4"),
        tilt=order.astype("i4"),
        instance=order.astype("i4"),
        x_px=xy[order, 0],
        y_px=xy[order, 1],
        area_px=full.sum((1, 2))[order].astype(float),
        alpha_deg=ALPHA,
        drift_px=tracks.drift_px,
        particle=np.array([1, 2], "i4"),
        position_nm=np.array([[0.0, 0.0, 0.0], half + off_nm]),
        residual_px=np.zeros(2),
        tilt_axis_deg=AXIS,
        states=np.where(number == [[1], [2]], 0, STATES.index("hidden")).astype("i1"),
        predicted_px=np.stack([tracks.predicted_px[0], at]),
    )
    return Tracked(tracks, masks), look


def test_a_part_fills_the_gaps_of_the_track_of_the_same_particle():
    tracked, look = fused_later()
    tracks, masks = split(tracked, look, STEP_NM)
    assert tracks.particle.tolist() == [1, 2]
    count = np.bincount(tracks.track, minlength=3)[1:]
    assert sorted(count) == [len(ALPHA) - ALONE, len(ALPHA)]
    whole = 1 + int(count.argmax())
    rows = np.flatnonzero(tracks.track == whole)
    assert tracks.tilt[rows].tolist() == list(range(len(ALPHA)))
    source = [SOURCES[s] for s in tracks.source[rows]]
    assert source == ["found"] * ALONE + ["split"] * (len(ALPHA) - ALONE)
    place = np.stack([tracks.x_px, tracks.y_px], 1)[rows]
    np.testing.assert_allclose(place, tracks.predicted_px[whole - 1], atol=1.5)
    np.testing.assert_allclose(tracks.position_nm[whole - 1], (0, 15, 0), atol=1e-9)
    np.testing.assert_allclose(tracks.misfit_px[rows], np.hypot(*(place - tracks.predicted_px[whole - 1]).T))
    assert (tracks.states[whole - 1] == tracks.state[rows]).all()
    rest = tracks.states[2 - whole]
    assert (rest[:ALONE] == STATES.index("hidden")).all()
    assert (rest[ALONE:] != STATES.index("hidden")).all()
    np.testing.assert_allclose([masks.crops[i].sum() for i in tracks.instance[rows]], tracks.area_px[rows])


@pytest.mark.parametrize("off_nm", [(0.0, 0.0, 60.0), (20.0, 0.0, 0.0)])
def test_a_part_elsewhere_is_a_particle_of_its_own(off_nm):
    tracked, look = fused_later(off_nm)
    assert split(tracked, look, STEP_NM).tracks.particle.tolist() == [1, 2, 3]


def test_probes_of_two_crystals_differ_and_those_of_one_do_not():
    rng, first, second = np.random.default_rng(0), patterns(1), patterns(2)

    def sights(pattern, tilts):
        drawn = [rng.normal(size=(20, pattern.shape[1])) + pattern[t] for t in tilts]
        return [
            Sight(ALPHA[t], np.zeros((20, 2)), d, np.full(20, d.shape[1])) for t, d in zip(tilts, drawn, strict=True)
        ]

    every, few = range(len(ALPHA)), range(0, len(ALPHA), 3)
    assert differ(sights(first, every), sights(second, few))
    assert not differ(sights(first, every), sights(first, few))
    assert not differ(sights(first, range(5)), sights(second, range(5, 12)))  # never seen together
    assert not differ(sights(0 * first, every), sights(second, every))  # too faint
