"""The wavelength is an absolute ruler: many crystals tell a wrong camera length by the Ewald sphere's curvature."""

from dataclasses import replace

import numpy as np
import pytest
from crystal.test_joint import ALPHA, CELL, STATED, bent, spots_of
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import reciprocal_basis
from stemtomo_dl.crystal.joint import camera_line, refine_jointly, with_camera_length
from stemtomo_dl.crystal.nouns import Crystal

SEEN = replace(STATED, instrument=replace(STATED.instrument, pixel_inv_angstrom=0.014))


def refined(factor, n, seed=3, keep=900):
    """Crystals seen by a stage with all its errors, whose camera is stated ``factor`` times too long or short."""
    rng = np.random.default_rng(seed)
    true = replace(bent(rng), instrument=replace(bent(rng).instrument, pixel_inv_angstrom=0.014))
    slow = np.radians(0.3 * np.sin(np.linspace(0, 3, len(ALPHA))))[:, None] * [1.0, 1.0, 0.0]
    true = replace(true, turn_rad=true.turn_rad + slow)
    ubs = [u @ reciprocal_basis(CELL) for u in Rotation.random(n, random_state=seed).as_matrix()]
    spots = [spots_of(true, ub, rng, keep) for ub in ubs]
    stated = replace(SEEN, instrument=replace(SEEN.instrument, pixel_inv_angstrom=0.014 * factor))
    cell = CELL / np.repeat([factor, 1.0], 3)
    start = [Crystal("oP", 1.0, 1000, 0.0, 31.0, 0.0, 0.0, ub * factor, cell, np.zeros(2)) for ub in ubs]
    return with_camera_length(spots, *refine_jointly(spots, start, stated))


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_many_crystals_tell_a_wrong_camera_length_though_tilts_are_off(factor):
    found, crystals = refined(factor, 16)
    assert found.scale * factor == pytest.approx(1.0, abs=0.006)
    assert abs(found.scale * factor - 1) < 3 * found.curvature_esd
    believed = 1 - (found.curvature_esd / (found.curvature_scale - 1)) ** 2
    assert found.scale - 1 == pytest.approx(believed * (found.curvature_scale - 1))
    for c in crystals:
        assert c.cell[:3] == pytest.approx(CELL[:3], rel=0.007)
        assert c.scale == found.scale
        assert c.indexed_fraction > 0.9
    assert "corrected by" in camera_line(found.scale, found.curvature_scale, found.curvature_esd)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_right_camera_length_stays_as_stated_where_nothing_else_is_told(seed):
    found, crystals = refined(1.0, 5, seed)
    assert found.curvature_scale == pytest.approx(1.0, abs=3 * found.curvature_esd)
    kept = abs(found.curvature_scale - 1) <= found.curvature_esd
    assert (found.scale == 1.0) == kept
    assert all(c.scale == found.scale for c in crystals)
    assert ("as stated" in camera_line(found.scale, found.curvature_scale, found.curvature_esd)) == kept


def test_one_crystal_of_few_spots_changes_little():
    """It tells a camera length to 1.4 %, and is believed by the less the nearer to the stated one that is."""
    scales = np.array([refined(1.0, 1, seed, 400)[0].scale for seed in range(6)])
    told = np.array([refined(1.0, 1, seed, 400)[0].curvature_scale for seed in range(6)])
    assert np.square(scales - 1).mean() < 0.5 * np.square(told - 1).mean()
    assert (scales == 1).any()


def test_a_crystal_seen_by_another_camera_has_the_same_shape():
    crystal = Crystal("oP", 1.0, 9, 0.0, 0.0, 0.0, 0.0, reciprocal_basis(CELL), CELL, np.zeros(2), np.ones(6))
    other = crystal.rescaled(1.02)
    np.testing.assert_allclose(other.cell, CELL / np.repeat([1.02, 1.0], 3))
    np.testing.assert_allclose(other.ub, reciprocal_basis(other.cell))
    np.testing.assert_allclose(other.rescaled(1.0).cell_esd, np.ones(6))
