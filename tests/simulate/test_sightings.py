"""Centroid series: what is drawn obeys the stage, and each switch does what it says and nothing else."""

import numpy as np
import pytest

from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.simulate.motion import Tilts
from stemtomo_dl.simulate.sightings import PRESETS, SightingSettings, draw_sightings

TILTS = Tilts(start=-60, stop=60, step=1.0)


def draw(preset="clean", seed=0, **changes):
    settings = PRESETS[preset].model_copy(update={"tilts": TILTS, **changes})
    return draw_sightings(settings, np.random.default_rng(seed))


def test_clean_sightings_lie_where_the_stage_puts_them():
    s = draw()
    here = np.einsum("nij,nj->ni", tilt_rotation(20.0, s.stated_deg[s.tilt]), s.positions_px[s.particle])[:, :2]
    np.testing.assert_allclose(s.xy, here + field_centre((512, 512)), atol=1e-9)
    inside = ((s.path_px > -0.5) & (s.path_px < 511.5)).all(2)
    assert len(s.xy) == inside.sum()
    assert inside[s.tilt, s.particle].all()


def test_a_seed_gives_one_series_and_another_seed_another():
    a, b, c = draw("default", 1), draw("default", 1), draw("default", 2)
    np.testing.assert_array_equal(a.xy, b.xy)
    assert not np.array_equal(a.positions_px, c.positions_px)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_drawn(preset):
    settings = PRESETS[preset]
    if settings.tilts == PRESETS["default"].tilts:
        settings = settings.model_copy(update={"tilts": Tilts(start=-60, stop=60, step=8.0)})
    s = draw_sightings(settings, np.random.default_rng(0))
    assert (np.diff(s.tilt) >= 0).all()
    assert s.tilt[-1] == len(s.alpha_deg) - 1
    seen = s.particle >= 0
    pair = s.tilt[seen].astype(int) * len(s.positions_px) + s.particle[seen]
    assert len(np.unique(pair)) == len(pair)
    assert set(map(tuple, np.column_stack([np.flatnonzero(seen), s.particle[seen]]))) <= set(map(tuple, s.shown))


def test_the_default_shows_what_it_promises():
    s = draw_sightings(PRESETS["default"], np.random.default_rng(0))
    assert 85 < len(s.tilt) / len(s.alpha_deg) < 115
    assert (s.particle < 0).sum() / len(s.alpha_deg) == pytest.approx(3, rel=0.2)
    assert s.tilt_axis_deg - s.settings.tilt_axis_deg == 2
    counts = np.bincount(s.shown[:, 0])
    alone = (counts[: len(s.tilt)] == 1) & (s.particle >= 0)
    off = s.xy[alone] - s.path_px[s.tilt[alone], s.particle[alone]]
    np.testing.assert_allclose(off.std(0), 1, rtol=0.05)


def test_misses_and_dropouts_hide_their_share():
    whole = len(draw().xy)
    assert 1 - len(draw(misses=0.3).xy) / whole == pytest.approx(0.3, abs=0.02)
    # a particle is dark with probability q: 1 − q = Π over the tilts k ago of (1 − rate · P(length > k))
    still = 1 - 0.02 * (1 - 1 / 6.0) ** np.arange(120)
    dark = 1 - np.cumprod(still).mean()
    assert 1 - len(draw(dropout_rate=0.02).xy) / whole == pytest.approx(dark, abs=0.02)


def test_merged_sightings_join_centroid_and_area():
    s, apart = draw(merged=1.0), draw()
    area = {(t, p): a for t, p, a in zip(apart.tilt, apart.particle, apart.area, strict=True)}
    counts = np.bincount(s.shown[:, 0], minlength=len(s.xy))
    assert (counts > 1).any()
    assert counts.sum() == len(apart.xy)
    for i in np.flatnonzero(counts > 1)[:50]:
        members = s.shown[s.shown[:, 0] == i, 1]
        weight = np.array([area[s.tilt[i], p] for p in members])
        assert s.area[i] == pytest.approx(weight.sum())
        np.testing.assert_allclose(s.xy[i], weight @ s.path_px[s.tilt[i], members] / weight.sum())
        assert s.particle[i] == members[weight.argmax()]


def test_drift_jumps_and_height_are_in_the_paths():
    still, moved = draw(), draw(drift_px=1.0, jumps=5, jump_px=50.0, eucentric_px=30.0)
    np.testing.assert_allclose(moved.path_px - still.path_px, np.broadcast_to(moved.drift_px[:, None], (121, 200, 2)))
    assert (np.hypot(*np.diff(moved.drift_px, axis=0).T) > 40).sum() == 5
    lifted = draw(eucentric_px=30.0).drift_px
    np.testing.assert_allclose(np.hypot(*lifted.T), 30 * np.abs(np.sin(np.radians(still.alpha_deg))), atol=1e-9)


@pytest.mark.parametrize("creep", ["walk", "steady"])
def test_creep_has_its_size(creep):
    s = draw(creep_px=8.0, creep=creep, particles=2000, shape=(64, 64))
    own = s.path_px - draw(particles=2000, shape=(64, 64)).path_px
    assert (own[-1] - own[0]).std() == pytest.approx(8, rel=0.06)


def test_stated_angles_differ_from_true_ones_as_asked():
    s = draw(tilts=Tilts(start=60, stop=-60, step=1.0, sigma_deg=0.3, angle_scale=1.02, missing=0.25))
    assert len(s.alpha_deg) == 91
    assert (np.diff(s.stated_deg) < 0).all()
    assert (s.alpha_deg - 1.02 * s.stated_deg).std() == pytest.approx(0.3, rel=0.3)


def test_descriptors_know_their_particle_and_forget_with_tilt():
    s = draw(bins=256, descriptor_noise=0.0, false=3.0)
    np.testing.assert_allclose(s.descriptor.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(s.descriptor.std(1), 1, atol=1e-5)
    near, far = [], []
    for p in range(200):
        mine = np.flatnonzero(s.particle == p)
        row = {t: s.descriptor[i] for t, i in zip(s.tilt[mine], mine, strict=True)}
        near += [row[t] @ row[t + 3] / 256 for t in row if t + 3 in row]
        far += [row[t] @ row[t + 30] / 256 for t in row if t + 30 in row]
    assert np.mean(near) == pytest.approx(np.exp(-1), abs=0.02)  # descriptor_deg is 3°
    assert np.mean(far) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("changes", [{"particles": 0, "false": 0.0}, {"particles": 1}, {"tilts": Tilts(angles=[0.0])}])
def test_little_or_nothing_to_see_is_no_error(changes):
    s = draw(**changes)
    assert len(s.xy) == len(s.area) == len(s.tilt)


def test_settings_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="misses"):
        SightingSettings(misses=1.5)
