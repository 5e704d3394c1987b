"""Tilt angles of continuous rotations whose readings stood still."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import reciprocal_basis
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.joint import refine_jointly
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.steady import RATE, steady_angles
from stemtomo_dl.records import Instrument

CENTER = np.array([128.0, 128.0])
REST, N, STEP, RUN = 9, 300, 0.25, 10


def turned(direction=1):
    """True angles of a stage that rests and then turns steadily, and what is read of them, late and now and then."""
    true = direction * STEP * np.maximum(np.arange(N) - REST, 0.0)
    read = true.copy()
    asked = 0
    for f in range(N):
        if f == asked + RUN + (f // RUN % 7 == 0):
            asked = f
        read[f] = true[max(asked - asked // RUN % 4, 0)]  # up to three frames late
    return true, read


def stepped():
    """Ten frames at every angle."""
    return np.repeat(np.arange(N / RUN) * STEP * RUN, RUN)


def spots_of(true, seed=0):
    """Spots that flash up at random places and angles."""
    rng = np.random.default_rng(seed)
    place, angle = rng.uniform(5, 250, (600, 2)), rng.uniform(true.min(), true.max(), 600)
    frame, which = np.nonzero(np.abs(true[:, None] - angle) < 0.6)
    px, ones = place[which] + rng.normal(0, 0.2, (len(which), 2)), np.ones(len(which))
    return Spots(1.5, frame.astype("i4"), px, ones, ones, np.tile(CENTER, (len(true), 1)))


@pytest.mark.parametrize("direction", [1, -1])
def test_readings_that_stood_still_become_the_rotation(direction):
    true, read = turned(direction)
    found = steady_angles(read, spots_of(true))
    off = (found - true)[REST + RUN :]
    assert np.ptp(off) < 0.4  # one offset turns the crystal only
    assert np.ptp(read - true) > 2.0
    assert np.ptp(found[: REST // 2]) == 0.0


def test_a_stage_that_stood_still_is_left_alone():
    alpha = stepped()
    np.testing.assert_array_equal(steady_angles(alpha, spots_of(alpha)), alpha)


@pytest.mark.parametrize(
    "alpha",
    [
        np.arange(-30, 30.5, 1.0),  # a tilt for each frame
        np.repeat([0.0, 2.5, -2.5, 5.0, -5.0, 7.5, -7.5], 10),  # to and fro
        np.repeat([0.0, 1.0, 2.0, 9.0, 10.0, 11.0, 30.0], 10),  # no line
    ],
)
def test_other_readings_are_left_alone(alpha):
    true = np.linspace(0, 20, len(alpha))
    np.testing.assert_array_equal(steady_angles(alpha, spots_of(true)), alpha)


def test_the_rate_is_refined_where_it_is_free():
    """A cell of right angles tells by how much the steps are off."""
    rng, alpha = np.random.default_rng(1), np.arange(-50.0, 50.1, 1.0)
    cell = np.array([9.18, 5.45, 5.15, 90, 90, 90])
    ub = Rotation.random(random_state=2).as_matrix() @ reciprocal_basis(cell)
    stated = Geometry(Instrument(200.0, 0.2, 0.012, 5.0, 30.0), alpha)
    true = replace(stated, alpha_deg=1.008 * alpha)
    hkl = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 3, indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ ub.T, axis=1)
    g = np.einsum("fij,nj->fni", true.turns(), hkl[(length > 0) & (length < 1.2)] @ ub.T)
    frame, row = np.nonzero(rng.random(g.shape[:2]) < np.exp(-((true.excitation(g) / 0.003) ** 2)))
    px = true.to_detector(g[frame, row], CENTER) + rng.normal(0, 0.2, (len(frame), 2))
    ones = np.ones(len(frame))
    spots = Spots(2.0, frame.astype("i4"), px, ones, ones, np.tile(CENTER, (len(alpha), 1)))
    start = [Crystal("oP", 1.0, 1000, 0.0, 30.0, 0.0, 0.0, ub, cell, np.zeros(2))]
    found, _ = refine_jointly([spots], start, stated, rate=RATE)
    assert np.ptp(found.alpha_deg) / np.ptp(alpha) == pytest.approx(1.008, abs=1e-3)
    kept, _ = refine_jointly([spots], start, stated)
    np.testing.assert_array_equal(kept.alpha_deg, alpha)
