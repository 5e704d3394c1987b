"""The joint solution and the links it makes, on centroid series with known answers."""

import numpy as np
import pytest

from stemtomo_dl.config import TrackConfig
from stemtomo_dl.simulate.motion import Tilts
from stemtomo_dl.simulate.sightings import PRESETS, draw_sightings
from stemtomo_dl.track.drift import measure_steps, stretches
from stemtomo_dl.track.features import Features
from stemtomo_dl.track.likeness import learn_likeness
from stemtomo_dl.track.link import link
from stemtomo_dl.track.series import arrange
from stemtomo_dl.track.solution import hat_functions

TILTS = Tilts(start=-60, stop=60, step=1.5)


def drawn(preset="clean", seed=0, **changes):
    changes = {"particles": 60, "tilts": TILTS, **changes}
    return draw_sightings(PRESETS[preset].model_copy(update=changes), np.random.default_rng(seed))


def linked(s, axis_deg="stated", alpha_deg=None, xy=None, tilt=None):
    axis = s.settings.tilt_axis_deg if axis_deg == "stated" else axis_deg
    seen = Features(s.xy if xy is None else xy, s.area, s.covariance)
    alpha = s.stated_deg if alpha_deg is None else alpha_deg
    return link(seen, s.tilt if tilt is None else tilt, alpha, s.settings.shape, axis, TrackConfig(), s.descriptor)


def idf1(s, label):
    """Each particle against the track that shows it most, one to one by size."""
    table = np.zeros((s.particle.max() + 1, label.max() + 2), int)
    real = s.particle >= 0
    np.add.at(table, (s.particle[real], label[real] + 1), 1)
    table, right = table[:, 1:], 0
    for _ in range(min(table.shape)):
        i, j = np.unravel_index(table.argmax(), table.shape)
        right += table[i, j]
        table[i], table[:, j] = 0, 0
    return 2 * right / (real.sum() + (label >= 0).sum())


def same_parts(a, b):
    """Whether two labellings part the sightings alike."""
    pairs = np.unique(np.stack([a, b]), axis=1)
    return pairs.shape[1] == len(np.unique(a)) == len(np.unique(b))


def true_order(s, label):
    """The particle that each track shows, (track)."""
    return np.array([np.bincount(s.particle[label == k] + 1).argmax() - 1 for k in range(label.max() + 1)])


@pytest.mark.parametrize(("stated", "wrong"), [("stated", 0.0), ("stated", 8.0), (None, 0.0)])
def test_clean_series_is_solved(stated, wrong):
    s = drawn(axis_error_deg=wrong, drift_px=1.0)
    label, found = linked(s, stated)
    assert idf1(s, label) > 0.995
    assert found.stage.rigid
    turn = (found.stage.tilt_axis_deg - s.tilt_axis_deg + 90) % 180 - 90
    assert abs(turn) < 0.1
    long = np.bincount(label[label >= 0]) > 40
    place = found.predict(np.arange(len(s.stated_deg)))[long]
    truth = s.path_px[:, true_order(s, label)[long]].transpose(1, 0, 2)
    near = ((truth > 0) & (truth < 511)).all(2)
    assert np.sqrt(((place - truth)[near] ** 2).mean()) < 0.2


def test_positions_are_as_good_as_stated():
    """Errors against the other particles are of the size that the solution states, once the gauge is taken out."""
    s = drawn(noise_px=1.0, drift_px=1.0)
    label, found = linked(s)
    long = np.bincount(label[label >= 0]) > 60
    error = (found.position_px - s.positions_px[true_order(s, label)])[long]
    w = np.radians(s.tilt_axis_deg)
    error = error - np.median(error, 0)
    turned = np.column_stack([-np.sin(w) * error[:, 0] + np.cos(w) * error[:, 1], error[:, 2]])
    across = found.error_px[long][:, 1] / np.abs(np.cos(w))
    z = np.column_stack([turned[:, 0] / across, turned[:, 1] / found.error_px[long][:, 2]])
    assert 0.6 < np.sqrt((z**2).mean()) < 1.7
    assert (found.gauge_error_px > np.median(found.error_px, 0)).all()


@pytest.mark.parametrize(("preset", "least"), [("default", 0.96), ("hard", 0.95), ("noise", 0.95), ("angles", 0.95)])
def test_disturbed_series(preset, least):
    tilts = PRESETS[preset].tilts.model_copy(update={"step": 1.0})
    s = drawn(preset, particles=80, tilts=tilts)
    label, _ = linked(s)
    assert idf1(s, label) > least
    kept = label >= 0
    assert len(np.unique(np.stack([label[kept], s.tilt[kept]]), axis=1).T) == kept.sum()


def test_own_motion_is_found_and_only_where_it_is():
    still, moving = drawn(noise_px=1.0), drawn(noise_px=1.0, creep_px=12.0, creep="steady")
    assert linked(still)[1].own_motion_px.max(initial=0) == 0
    label, found = linked(moving)
    assert idf1(moving, label) > 0.9
    assert 4 < np.median(found.own_motion_px) < 40


def test_order_and_place_do_not_matter():
    s = drawn("default")
    label, found = linked(s)
    n = len(s.stated_deg)
    reverse, _ = linked(s, alpha_deg=s.stated_deg[::-1].copy(), tilt=n - 1 - s.tilt)
    moved, there = linked(s, xy=s.xy + [40.0, -25.0])
    assert np.mean(label >= 0) == pytest.approx(np.mean(reverse >= 0), abs=0.01)
    assert idf1(s, reverse) == pytest.approx(idf1(s, label), abs=0.01)
    assert idf1(s, moved) == pytest.approx(idf1(s, label), abs=0.01)
    assert there.stage.tilt_axis_deg == pytest.approx(found.stage.tilt_axis_deg, abs=0.05)


def test_a_clean_series_is_linked_alike_from_either_end():
    s = drawn()
    n = len(s.stated_deg)
    assert same_parts(linked(s)[0], linked(s, alpha_deg=s.stated_deg[::-1].copy(), tilt=n - 1 - s.tilt)[0])


def test_a_long_absence_is_bridged():
    s = drawn(particles=40)
    gone = (s.particle % 3 == 0) & (s.tilt > 20) & (s.tilt < 60)
    seen = Features(s.xy[~gone], s.area[~gone], s.covariance[~gone])
    label, _ = link(seen, s.tilt[~gone], s.stated_deg, s.settings.shape, 20.0, TrackConfig())
    for k in range(0, 40, 3):
        both = label[(s.particle[~gone] == k)]
        if ((s.particle[~gone] == k) & (s.tilt[~gone] < 20)).sum() > 10:
            assert len(np.unique(both[both >= 0])) == 1


def test_tilts_without_an_angle_are_left_out():
    s = drawn()
    alpha = s.stated_deg.copy()
    alpha[[0, 30, 31]] = np.nan
    label, found = linked(s, alpha_deg=alpha)
    assert (label[np.isin(s.tilt, [0, 30, 31])] == -1).all()
    place = found.predict(np.arange(len(alpha)))
    assert np.isfinite(place).all()
    between = place[:, 30] - (place[:, 29] + place[:, 32]) / 2
    assert np.abs(between).max() < 4


@pytest.mark.parametrize("case", ["no angles", "two tilts", "one particle", "nothing"])
def test_without_geometry_linking_falls_back_and_says_so(case):
    changes = {"one particle": {"particles": 1, "reach": 0.3}, "nothing": {"particles": 0}}
    s = drawn(**changes.get(case, {}), eucentric_px=0.0)
    alpha, keep = s.stated_deg, np.ones(len(s.tilt), bool)
    if case == "no angles":
        alpha = np.full(len(alpha), np.nan)
    if case == "two tilts":
        alpha, keep = alpha[:2], s.tilt < 2
    seen = Features(s.xy[keep], s.area[keep], s.covariance[keep])
    label, found = link(seen, s.tilt[keep], alpha, s.settings.shape, 20.0, TrackConfig())
    assert not found.stage.rigid
    assert found.stage.note
    place = found.predict(np.arange(len(alpha)))
    assert place.shape == (label.max(initial=-1) + 1, len(alpha), 2)
    assert np.isfinite(place).all()
    if case in ("two tilts", "one particle"):
        assert np.unique(s.particle[keep][label == 0]).size == 1
        assert (label >= 0).mean() > 0.9


@pytest.mark.parametrize("step_px", [0.0, 2.0])
def test_particles_on_no_common_stage_are_followed_by_nearness(step_px):
    """They stand still in the image though the stage says it turns, or each goes its own way."""
    rng = np.random.default_rng(4)
    tilts, size = 61, 512
    way = rng.normal(size=(tilts, 40, 2))
    for t in range(1, tilts):
        way[t] = 0.9 * way[t - 1] + 0.44 * way[t]
    place = rng.uniform(60, size - 60, (40, 2)) + step_px * np.cumsum(way, 0)
    tilt, who = np.nonzero(rng.random(place.shape[:2]) < 0.9)
    xy = place[tilt, who] + rng.normal(scale=0.3, size=(len(tilt), 2))
    area = 200 * np.exp(0.3 * rng.normal(size=40))[who]
    seen = Features(xy, area, area[:, None, None] / (4 * np.pi) * np.eye(2))
    label, found = link(seen, tilt, np.linspace(-60, 60, tilts), (size, size), 20.0, TrackConfig())
    assert not found.stage.rigid
    assert "rigid stage" in found.stage.note
    pure = [np.bincount(who[label == k]).max() for k in range(label.max() + 1)]
    assert sum(pure) > 0.9 * len(xy)
    assert len(pure) < 60


def test_neighbours_in_clusters_are_not_taken_for_noise():
    """Every particle has four others a few pixels away, as in agglomerates, and 0.5 px of noise."""
    rng = np.random.default_rng(0)
    ring = 4.0 * np.stack([np.cos(np.arange(5) * 1.2566), np.sin(np.arange(5) * 1.2566)], 1)
    place = (rng.uniform(20, 280, (12, 1, 2)) + ring).reshape(-1, 2)
    tilt, who = np.nonzero(rng.random((40, len(place))) < 0.5)
    xy = place[who] + rng.normal(scale=0.5, size=(len(tilt), 2))
    seen = Features(xy, np.full(len(xy), 30.0), np.tile(np.eye(2), (len(xy), 1, 1)))
    series = arrange(seen, tilt, np.linspace(-1, 1, 40), (300, 300), None)
    _, noise = measure_steps(series, stretches(series, None), 20.0)
    assert 0.35 < noise < 0.75


def test_patterns_teach_likeness_and_noise_teaches_nothing():
    s = drawn(bins=24)
    seen = Features(s.xy, s.area, s.covariance)
    series = arrange(seen, s.tilt, s.stated_deg, s.settings.shape, s.descriptor)
    table = learn_likeness(series, s.particle).pattern
    assert table[-5:].mean() < -1 < 1 < table[15:20].mean()
    noise = np.random.default_rng(1).normal(size=s.descriptor.shape)
    noise = (noise - noise.mean(1, keepdims=True)) / noise.std(1, keepdims=True)
    series = arrange(seen, s.tilt, s.stated_deg, s.settings.shape, noise)
    assert np.abs(learn_likeness(series, s.particle).pattern).max() < 1.0


def test_hat_functions_interpolate():
    knots, at = np.array([2.0, 5.0, 6.0]), np.array([0.0, 2.0, 3.5, 6.0, 9.0])
    values = np.array([1.0, 4.0, -2.0])
    np.testing.assert_allclose(hat_functions(knots, at) @ values, np.interp(at, knots, values))


def test_an_outline_of_nothing_is_nobodys():
    s = drawn("clean", 1)
    blank = np.arange(0, len(s.xy), 50)
    area, xy = s.area.copy(), s.xy.copy()
    area[blank], xy[blank] = 0, 0
    label, found = link(
        Features(xy, area, s.covariance),
        s.tilt,
        s.stated_deg,
        s.settings.shape,
        s.settings.tilt_axis_deg,
        TrackConfig(),
    )
    assert (label[blank] == -1).all()
    assert found.stage.rigid


def test_outlines_at_tilts_without_an_angle_are_told_of():
    s = drawn("clean", 1)
    angles = s.stated_deg.copy()
    angles[3] = np.nan
    note = linked(s, alpha_deg=angles)[1].stage.note
    assert f"{(s.tilt == 3).sum()} outlines at tilts without an angle" in note
    assert "radians" in linked(s, alpha_deg=np.radians(s.stated_deg))[1].stage.note
