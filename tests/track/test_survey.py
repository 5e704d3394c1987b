"""What the tracker says and does where the series is not what was stated; known answers of drawn centroids."""

import numpy as np
import pytest

from stemtomo_dl.config import TrackConfig
from stemtomo_dl.simulate.motion import Tilts
from stemtomo_dl.simulate.sightings import PRESETS, draw_sightings
from stemtomo_dl.track.features import Features
from stemtomo_dl.track.link import link


def drawn(seed=0, **changes):
    changes = {"particles": 60, "tilts": Tilts(start=-60, stop=60, step=2.0), **changes}
    return draw_sightings(PRESETS["default"].model_copy(update=changes), np.random.default_rng(seed))


def linked(s, axis_deg=20.0, alpha_deg=None, tilt=None, edge=None, xy=None):
    seen = Features(s.xy if xy is None else xy, s.area, s.covariance, edge)
    alpha, tilt = s.stated_deg if alpha_deg is None else alpha_deg, s.tilt if tilt is None else tilt
    return link(seen, tilt, alpha, s.settings.shape, axis_deg, TrackConfig())


def purely(s, label, least=40):
    """Share of the sightings of long tracks that show the track's particle."""
    long = np.flatnonzero(np.bincount(label[label >= 0]) > least)
    own = [np.bincount(s.particle[label == k] + 1).max() for k in long]
    return sum(own) / np.isin(label, long).sum(), len(long)


def axis_error(s, found):
    return abs((found.stage.tilt_axis_deg - s.tilt_axis_deg + 90) % 180 - 90)


@pytest.mark.parametrize("jump_px", [100.0, 250.0])
def test_the_field_may_jump_by_any_part_of_itself(jump_px):
    s = drawn(jumps=2, jump_px=jump_px, particles=120)
    label, found = linked(s)
    assert found.stage.rigid
    assert found.stage.note.count("the field jumps by") == 2
    assert axis_error(s, found) < 0.2
    share, long = purely(s, label, 30)
    assert share > 0.98
    assert long > 20
    step = np.hypot(*np.diff(found.drift_px, axis=0).T)
    true = np.hypot(*np.diff(s.drift_px, axis=0).T)
    np.testing.assert_allclose(step[true > 60], true[true > 60], atol=8)


@pytest.mark.parametrize("off_deg", [18.0, -50.0, 88.0])
def test_an_axis_stated_far_off_is_found_and_named(off_deg):
    s = drawn()
    _, found = linked(s, s.tilt_axis_deg + off_deg)
    assert axis_error(s, found) < 0.2
    assert "from the stated one" in found.stage.note


@pytest.mark.parametrize("scale", [0.75, 1.1, 1.3])
def test_scaled_angles_are_found_and_named(scale):
    s = drawn()
    _, found = linked(s, alpha_deg=s.stated_deg * scale)
    assert found.stage.rigid
    assert axis_error(s, found) < 0.2
    assert "times the stated" in found.stage.note
    np.testing.assert_allclose(found.alpha_deg + found.alpha_offset_deg, s.alpha_deg, atol=1.0)


def test_mixed_up_angles_state_no_axis():
    s = drawn()
    label, found = linked(s, alpha_deg=np.random.default_rng(3).permutation(s.stated_deg))
    assert not found.stage.rigid
    assert np.isnan(found.stage.tilt_axis_error_deg)
    assert "mixed up" in found.stage.note
    assert purely(s, label, 20)[0] > 0.9


def test_angles_that_no_scale_mends_state_no_axis():
    s = drawn()
    _, found = linked(s, alpha_deg=s.stated_deg / 57.3)
    assert not found.stage.rigid
    assert found.stage.note


def test_files_in_any_order_are_no_matter():
    s = drawn()
    order = np.random.default_rng(1).permutation(len(s.stated_deg))
    label, found = linked(s, alpha_deg=s.stated_deg[order], tilt=np.argsort(order)[s.tilt])
    assert found.stage.rigid
    assert found.stage.note == ""
    assert axis_error(s, found) < 0.2
    assert purely(s, label)[0] > 0.98


def test_without_a_stated_axis_the_hand_is_said_to_be_open():
    s = drawn()
    _, found = linked(s, None)
    assert axis_error(s, found) < 0.2
    assert "hand" in found.stage.note


def test_the_axis_is_as_good_as_stated_with_own_motion_too():
    pull = []
    for seed in range(3):
        for creep in (0.0, 3.0):
            s = drawn(seed, creep_px=creep)
            _, found = linked(s)
            pull.append((found.stage.tilt_axis_deg - s.tilt_axis_deg) / found.stage.tilt_axis_error_deg)
    assert 0.3 < np.sqrt(np.mean(np.square(pull))) < 2


def test_outlines_that_the_edge_cuts_do_not_turn_the_axis():
    """Near the left edge the middles are drawn inward, as those of cut outlines are."""
    s = drawn(3, particles=30, reach=1.0, noise_px=0.3, drift_px=0.0, jumps=0)
    x, radius = s.xy[:, 0], 1.5 * np.sqrt(s.area / np.pi)
    cut = x < radius
    xy = s.xy.copy()
    xy[cut, 0] += (radius - x)[cut] / 2
    wide = s.covariance * 1.5**2
    off = []
    for edge in (None, cut):
        seen = Features(xy, s.area, wide, edge)
        _, found = link(seen, s.tilt, s.stated_deg, s.settings.shape, 20.0, TrackConfig())
        off.append(axis_error(s, found))
    assert off[1] < 0.2
    assert off[1] <= off[0] + 0.02


def test_a_poor_refined_axis_is_drawn_to_the_stated_one():
    """Noise as large as what the tilts move eight particles by: the motion hardly tells the axis."""
    tilts = Tilts(start=-15, stop=15, step=3.0)
    s = drawn(1, particles=8, tilts=tilts, noise_px=4.0, reach=1.0, drift_px=0.3, jumps=0)
    alone, stated = linked(s, None)[1].stage, linked(s, s.tilt_axis_deg + 2.0)[1].stage
    assert "hand" in alone.note
    assert alone.tilt_axis_error_deg > 3
    trust = np.array([1 / alone.tilt_axis_error_deg**2, 1 / 3.0**2])  # a stated one is good to 3°
    both = trust @ [alone.tilt_axis_deg, s.tilt_axis_deg + 2.0] / trust.sum()
    assert stated.tilt_axis_deg == pytest.approx(both, abs=0.1)
    assert stated.tilt_axis_error_deg == pytest.approx(trust.sum() ** -0.5, rel=0.05)
    s = drawn(1)
    alone, stated = linked(s, None)[1].stage, linked(s, s.tilt_axis_deg + 6.0)[1].stage
    assert stated.tilt_axis_deg == pytest.approx(alone.tilt_axis_deg, abs=0.02)


@pytest.mark.parametrize("stated_off_deg", [None, 60.0])
@pytest.mark.parametrize(("tilts", "half_deg"), [(9, 40.0), (8, 56.0), (5, 40.0)])
def test_a_short_series_tells_its_axis(tilts, half_deg, stated_off_deg):
    step = 2 * half_deg / (tilts - 1)
    angles = Tilts(start=-half_deg, stop=half_deg, step=step)
    s = drawn(4, particles=50, reach=1.0, tilts=angles, misses=0.05, dropout_rate=0.0, false=0.0, jumps=0)
    label, found = linked(s, None if stated_off_deg is None else s.tilt_axis_deg + stated_off_deg)
    assert found.stage.rigid
    assert axis_error(s, found) < 1.0
    assert ("from the stated one" in found.stage.note) == (stated_off_deg is not None)
    share, long = purely(s, label, tilts // 2)
    assert share > 0.95
    assert long > 35


@pytest.mark.filterwarnings("error")
def test_too_few_short_tracks_state_no_axis():
    s = drawn(2, particles=3, tilts=Tilts(start=-40, stop=40, step=20.0), jumps=0)
    _, found = linked(s, None)
    assert not found.stage.rigid
    assert np.isnan(found.stage.tilt_axis_deg)


def test_an_axis_between_the_surveyed_ones_does_not_accuse_the_angles():
    for seed in range(3):
        s = drawn(seed, jumps=0, drift_px=0.5)
        turned = np.radians(33.75 - s.tilt_axis_deg)  # half way between two of the grid
        c, sn = np.cos(turned), np.sin(turned)
        middle = (np.array(s.settings.shape[::-1]) - 1) / 2
        xy = (s.xy - middle) @ np.array([[c, sn], [-sn, c]]) + middle
        _, found = linked(s, None, xy=xy)
        assert "tilt angles" not in found.stage.note
