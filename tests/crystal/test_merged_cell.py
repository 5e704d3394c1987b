"""The standard deviations of a phase's cell."""

from dataclasses import replace

import numpy as np
import pytest
from crystal.powder import Truth, particle

from stemtomo_dl.crystal.merge import merge_particles

CELL = (8.0, 6.0, 9.0, 90.0, 103.0, 90.0)
ESD = np.array([0.004, 0.003, 0.005, 0.0, 0.05, 0.0])


def members(n, cell_error, operators=None):
    truth, rng = Truth("P 1 21/c 1", CELL), np.random.default_rng(3)
    hkl = truth.all_hkl(1.2)
    known = hkl, truth.intensity(hkl)
    some = [
        particle(truth, k, "mP", rng, table=known, cell_error=cell_error, operator=operators[k] if operators else None)
        for k in range(n)
    ]
    return [m._replace(crystal=replace(m.crystal, cell_esd=ESD)) for m in some]


def test_one_particles_cell_has_its_own():
    (phase,) = merge_particles(members(1, 0.0))
    assert phase.cell_esd == pytest.approx(ESD, rel=1e-3, abs=1e-9)


def test_of_several_the_larger_of_their_own_and_their_scatter_counts():
    (alike,) = merge_particles(members(4, 0.0))
    assert alike.cell_esd == pytest.approx(ESD / 2, rel=1e-3, abs=1e-9)
    (apart,) = merge_particles(members(4, 0.006))
    assert (apart.cell_esd[:3] > 2 * alike.cell_esd[:3]).any()
    assert (apart.cell_esd >= alike.cell_esd * 0.99).all()
    assert apart.cell_esd[[3, 5]] == pytest.approx(0.0)


def test_another_setting_carries_them_with_it():
    exchange = np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]])  # a and c
    (member,) = members(1, 0.0)
    (other,) = members(1, 0.0, [exchange])
    own = replace(other.crystal, cell_esd=ESD[[2, 1, 0, 3, 4, 5]])
    first, second = (merge_particles([m])[0] for m in (member, other._replace(crystal=own)))
    order = np.argsort(first.cell[:3]), np.argsort(second.cell[:3])
    assert second.cell_esd[:3][order[1]] == pytest.approx(first.cell_esd[:3][order[0]], rel=1e-3)
