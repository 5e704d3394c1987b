"""A camera's ellipse along the tilt axis is told from the shape of triclinic cells by their being one."""

from dataclasses import replace

import numpy as np
import pytest
from crystal.test_joint import ALPHA, STATED, spots_of
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import cell_of, reciprocal_basis
from stemtomo_dl.crystal.nouns import Crystal
from stemtomo_dl.crystal.stretch import with_one_cell

CELL = np.array([5.57, 7.13, 7.85, 106.0, 90.0, 101.1])
ALONG = 2 * np.radians(STATED.instrument.tilt_axis_deg + STATED.instrument.rotation_deg)
DIRECTION = np.array([np.cos(ALONG), np.sin(ALONG)])


def stretched(ub, t):
    along = np.outer(STATED.axis, STATED.axis)
    return ((1 + t) * along + (1 - t) * (np.eye(3) - along)) @ ub


def crystal(ub, lattice="aP"):
    return Crystal(lattice, 1.0, 500, 0.0, 30.0, 0.0, 0.0, ub, cell_of(np.linalg.inv(ub)), np.zeros(2))


@pytest.mark.parametrize("t", [-0.02, 0.015])
def test_crystals_of_one_cell_tell_the_ellipse(t):
    rng = np.random.default_rng(4)
    true = replace(STATED, ellipse=tuple(0.004 * DIRECTION), shift_px=np.zeros((len(ALPHA), 2)))
    ubs = [u @ reciprocal_basis(CELL) for u in Rotation.random(3, random_state=5).as_matrix()]
    spots = [spots_of(true, ub, rng, 800) for ub in ubs]
    away = replace(true, ellipse=tuple((0.004 - t) * DIRECTION))
    found, crystals = with_one_cell(spots, away, [crystal(stretched(ub, t)) for ub in ubs])
    assert found.ellipse == pytest.approx(true.ellipse, abs=0.001)
    for c in crystals:
        assert c.cell[:3] == pytest.approx(CELL[:3], rel=2e-3)
        assert c.cell[3:] == pytest.approx(CELL[3:], abs=0.15)


def test_without_two_of_one_cell_the_stated_ellipse_stands():
    rng = np.random.default_rng(4)
    true = replace(STATED, shift_px=np.zeros((len(ALPHA), 2)))
    ub = Rotation.random(random_state=5).as_matrix() @ reciprocal_basis(CELL)
    away = replace(true, ellipse=tuple(-0.02 * DIRECTION))
    found, (one,) = with_one_cell([spots_of(true, ub, rng, 800)], away, [crystal(stretched(ub, 0.02))])
    assert found.ellipse == pytest.approx((0, 0), abs=1e-4)
    assert one.cell[:3] == pytest.approx(CELL[:3], rel=2e-3)


def test_symmetry_tells_by_itself():
    ub = reciprocal_basis(np.array([5.0, 6.0, 7.0, 90.0, 90.0, 90.0]))
    crystals = [crystal(ub), crystal(ub, "oP")]
    found, same = with_one_cell([], STATED, crystals)
    assert found is STATED
    assert same == crystals
    assert with_one_cell([], STATED, []) == (STATED, [])
