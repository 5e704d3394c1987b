"""What particles share is found from the spots of all of them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import reciprocal_basis
from stemtomo_dl.crystal.goniometer import Geometry, placed
from stemtomo_dl.crystal.joint import refine_jointly
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.records import Instrument

ALPHA = np.arange(-50.0, 51.0, 2.0)
STATED = Geometry(Instrument(200.0, 0.5, 0.012, 5.0, 30.0, rotation_deg=11.0), ALPHA)
CENTER = np.array([127.0, 130.0])
CELL = np.array([9.18, 5.45, 5.15, 90.0, 90.0, 90.0])


def bent(rng):
    """A geometry with everything that can be off."""
    return replace(
        STATED.with_axis(31.3),
        elevation_deg=0.5,
        ellipse=(0.006, -0.004),
        shift_px=rng.normal(0, 0.5, (len(ALPHA), 2)),
        turn_rad=np.radians(rng.normal(0, 0.1, (len(ALPHA), 3))),
    )


def spots_of(geometry, ub, rng, keep=500):
    hkl = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 3, indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ ub.T, axis=1)
    g0 = hkl[(length > 0) & (length < 1.2)] @ ub.T
    frame, px = [], []
    for f, turn in enumerate(geometry.turns()):
        g = g0 @ turn.T
        near = rng.random(len(g)) < np.exp(-((geometry.excitation(g) / 0.004) ** 2) / 2)
        px.append(geometry.to_detector(g[near], CENTER + geometry.shift_px[f]))
        frame.append(np.full(near.sum(), f, "i4"))
    px, frame = np.concatenate(px), np.concatenate(frame)
    some = rng.permutation(len(px))[:keep]
    px = px[some] + rng.normal(0, 0.2, (len(some), 2))
    n = len(px)
    return Spots(2.0, frame[some], px, np.full(n, 100.0), np.ones(n), np.tile(CENTER, (len(ALPHA), 1)))


def test_axis_elevation_ellipse_and_tilts_from_several_particles():
    rng = np.random.default_rng(7)
    true = bent(rng)
    turns = Rotation.random(6, random_state=3).as_matrix()
    ub = [u @ reciprocal_basis(CELL) for u in turns]
    spots = [spots_of(true, m, rng, 1000) for m in ub]
    off = Rotation.from_rotvec(np.radians(rng.normal(0, 0.2, (6, 3)))).as_matrix()
    start = [
        Crystal("oP", 1.0, 1000, 0.0, 31.0, 0.0, 0.0, o @ m, CELL * np.repeat([1.004, 1], 3), np.zeros(2))
        for o, m in zip(off, ub, strict=True)
    ]
    found, crystals = refine_jointly(spots, start, STATED)
    on_average = 31.3 + np.degrees(true.turn_rad[:, 2].mean())  # a turn that all tilts share is the axis
    assert found.instrument.tilt_axis_deg == pytest.approx(on_average, abs=0.05)
    assert found.elevation_deg == pytest.approx(0.5, abs=0.1)
    assert found.ellipse == pytest.approx((0.006, -0.004), abs=0.001)
    for crystal, m in zip(crystals, ub, strict=True):
        assert crystal.cell == pytest.approx(CELL, rel=2e-3)
        turn = Rotation.from_matrix(crystal.ub @ np.linalg.inv(m))
        assert np.degrees(turn.magnitude()) < 0.1
    left = np.std(found.turn_rad - true.turn_rad - (found.turn_rad - true.turn_rad).mean(0), axis=0)
    before = np.std(true.turn_rad, axis=0)
    assert (left[:2] < 0.7 * before[:2]).all()  # 4e-3 1/Å of 120 spots' excitation errors leave half of it
    assert left[2] < 0.5 * before[2]
    moved = found.shift_px - true.shift_px
    assert np.std(moved - moved.mean(0)) < 0.15


def test_refining_jointly_leaves_what_is_right():
    rng = np.random.default_rng(2)
    ub = Rotation.random(random_state=1).as_matrix() @ reciprocal_basis(CELL)
    plain = replace(STATED, shift_px=np.zeros((len(ALPHA), 2)))
    crystal = Crystal("oP", 1.0, 500, 0.0, 30.0, 0.0, 0.0, ub, CELL, np.zeros(2))
    found, (same,) = refine_jointly([spots_of(plain, ub, rng, 2000)], [crystal], STATED)
    assert found.scale == 1.0
    # one crystal's 560 spots tell the axis to 0.04° rms (six crystals drawn anew): three of these
    assert found.instrument.tilt_axis_deg == pytest.approx(30.0, abs=0.12)
    assert same.cell == pytest.approx(CELL, rel=2e-3)
    assert same.indexed_fraction > 0.97


@pytest.mark.parametrize(
    ("lattice", "cell", "told"),
    [("oP", CELL, True), ("tP", np.array([4.6, 4.6, 2.96, 90.0, 90.0, 90.0]), True), ("aP", CELL + 3.0, False)],
)
def test_one_crystals_errors_say_whether_its_metric_tells_the_ellipse(lattice, cell, told):
    off, percent = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        ub = Rotation.random(random_state=seed).as_matrix() @ reciprocal_basis(cell)
        crystal = Crystal(lattice, 1.0, 500, 0.0, 30.0, 0.0, 0.0, ub, cell, np.zeros(2))
        there = replace(STATED, ellipse=(0.003, 0.002), shift_px=np.zeros((len(ALPHA), 2)))
        _, (found,) = refine_jointly([spots_of(there, ub, rng, 500)], [crystal], STATED, with_ellipse=True)
        free = found.cell_esd > 0
        assert (free == [True, True, True, not told, not told, not told]).all()
        off.append(((found.cell - cell)[free] / found.cell_esd[free])[:3])
        percent.append(100 * (found.cell_esd / found.cell)[:3].max())
    assert 0.3 < np.sqrt(np.mean(np.square(off))) < 2.0
    assert (max(percent) < 0.25) if told else (min(percent) > 0.25)


def test_a_seen_place_and_a_node_go_back_and_forth():
    geometry = bent(np.random.default_rng(0))
    px = CENTER + np.random.default_rng(1).uniform(-100, 100, (50, 2))
    g = geometry.to_lab(px, CENTER)
    np.testing.assert_allclose(geometry.to_detector(g, CENTER), px, atol=1e-9)
    np.testing.assert_allclose(geometry.excitation(g), 0, atol=1e-12)


def test_passing_is_the_excitation_errors_rate():
    geometry = replace(STATED, elevation_deg=2.0, alpha_deg=np.array([10.0, 10.001]))
    g0 = np.random.default_rng(1).normal(0, 0.6, (30, 3))
    one, two = (geometry.excitation(g0 @ t.T) for t in geometry.turns())
    expected = np.abs(two - one) / np.radians(0.001)
    np.testing.assert_allclose(geometry.passing(g0 @ geometry.turns()[0].T), expected, atol=1e-4)


def test_frames_of_a_series_become_the_tilts_of_all():
    rng = np.random.default_rng(3)
    tilt = np.array([3, 7, 20])
    center = rng.normal(0, 1, (3, 2))
    own = Spots(2.0, np.array([2, 0, 1], "i4"), rng.normal(0, 1, (3, 2)), np.ones(3), np.ones(3), center)
    there = placed(own, tilt, len(ALPHA))
    np.testing.assert_array_equal(there.frame, [20, 3, 7])
    np.testing.assert_array_equal(there.center_px[there.frame], own.center_px[own.frame])
    np.testing.assert_array_equal(STATED.at(tilt).alpha_deg, ALPHA[tilt])
