"""A known cell: where it is found, and what its centring is told from."""

import gemmi
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import cell_of
from stemtomo_dl.crystal.known_cell import alike, bases_of, lattice_of
from stemtomo_dl.crystal.search import explained


def test_a_cell_that_is_a_fraction_of_a_lattice_is_none_of_its_settings():
    cell, third = np.array([5.0, 6.0, 7.0, 90.0, 90.0, 90.0]), np.diag([1, 1, 1 / 3])
    assert lattice_of(cell, np.eye(3)) == "oP"
    assert lattice_of(cell, third) is None


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "cell", [(5.6, 7.1, 7.9, 90.0, 101.1, 105.9), (4.6, 4.6, 2.96, 90.0, 90.0, 90.0), (5.1, 5.2, 5.3, 90.0, 99.0, 90.0)]
)
def test_a_known_cell_is_found_whichever_way_its_vectors_point(cell, seed):
    rng = np.random.default_rng(seed)
    direct = np.array(gemmi.UnitCell(*cell).orth.mat.tolist()).T @ Rotation.random(rng=rng).as_matrix()
    n = np.arange(-9, 10)
    hkl = np.stack(np.meshgrid(n, n, n), -1).reshape(-1, 3)
    q = hkl @ np.linalg.inv(direct).T
    length = np.linalg.norm(q, axis=1)
    q = q[(length > 0) & (length < 1.2)]
    q = q[np.abs(q[:, 2]) < 0.5 * np.abs(q[:, 0])]  # a wedge is missing
    q = rng.permutation(q)[:180]
    q += rng.normal(0, 0.002, q.shape)
    found = bases_of(q, np.array(cell), 4)
    assert any(alike(cell_of(b), np.array(cell)) and np.linalg.det(b) > 0 and explained(q, b) > 0.9 for b in found)
