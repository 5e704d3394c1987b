"""What a known cell's centring is told from."""

import numpy as np

from stemtomo_dl.crystal.known_cell import lattice_of


def test_a_cell_that_is_a_fraction_of_a_lattice_is_none_of_its_settings():
    cell, third = np.array([5.0, 6.0, 7.0, 90.0, 90.0, 90.0]), np.diag([1, 1, 1 / 3])
    assert lattice_of(cell, np.eye(3)) == "oP"
    assert lattice_of(cell, third) is None
