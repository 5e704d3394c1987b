"""A monoclinic crystal of all but right angles is taken for orthorhombic by its metric; its intensities tell."""

from dataclasses import replace

import numpy as np
import pytest
from crystal.powder import Truth, particle
from crystal.test_joint import STATED, bent, spots_of
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import reciprocal_basis
from stemtomo_dl.crystal.joint import refine_jointly, with_free_cells
from stemtomo_dl.crystal.merge import merge_particles
from stemtomo_dl.crystal.nouns import Crystal

CELL = np.array([5.15, 5.21, 5.32, 90.0, 90.3, 90.0])
RIGHT = np.array([5.15, 5.21, 5.32, 90.0, 90.0, 90.0])


def test_particles_taken_for_orthorhombic_tell_their_angle():
    rng = np.random.default_rng(3)
    true = bent(rng)
    ubs = [u @ reciprocal_basis(CELL) for u in Rotation.random(6, random_state=3).as_matrix()]
    spots = [spots_of(true, ub, rng, 700) for ub in ubs]
    start = [
        Crystal("oP", 1.0, 500, 0.0, 31.0, 0.0, 0.0, ub @ np.linalg.inv(reciprocal_basis(CELL)) @ b, RIGHT, np.zeros(2))
        for ub, b in ((ub, reciprocal_basis(RIGHT)) for ub in ubs)
    ]
    geometry, crystals = refine_jointly(spots, start, STATED)
    free = with_free_cells(spots, geometry, crystals)
    assert all(c.lattice == "oP" and c.cell[4] == 90 for c in free)
    angles = np.mean([c.free_cell[3:] for c in free], 0)
    assert angles == pytest.approx(CELL[3:], abs=0.1)


@pytest.mark.parametrize(("group", "lattice", "angle"), [("P 1 21 1", "mP", 90.3), ("P 21 21 21", "oP", 90.0)])
def test_the_phase_of_a_lower_class_has_the_angle(group, lattice, angle):
    truth, rng = Truth(group, (5.15, 7.2, 9.3, 90, angle, 90)), np.random.default_rng(2)
    hkl = truth.all_hkl(1.0)
    known = hkl, truth.intensity(hkl)
    members = []
    for n in range(4):
        m = particle(truth, n, "oP", rng, table=known, cell_error=0.0)
        right = np.r_[m.crystal.cell[:3], 90.0, 90.0, 90.0]
        esd, free = np.full(6, 0.02), np.r_[m.crystal.cell[:3], 90.02, 90.3, 89.98]
        crystal = replace(m.crystal, cell=right, cell_esd=np.full(6, 0.01), free_cell=free, free_cell_esd=esd)
        members.append(m._replace(crystal=crystal))
    (phase,) = merge_particles(members)
    assert phase.lattice == lattice
    assert phase.cell[3:] == pytest.approx([90.0, angle, 90.0], abs=1e-6)
