"""The highest points of a map, against scipy and against loops."""

import gemmi
import numpy as np
from scipy import ndimage

from stemtomo_dl.solve.model import Symmetry
from stemtomo_dl.solve.tops import apart, between_points, peaks


def test_peaks_are_the_points_that_equal_the_highest_of_their_neighbours_across_the_edges_of_the_cell():
    density = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(9, 12, 10)), 1.0, mode="wrap")
    density = np.roll(
        density, -np.array(np.unravel_index(density.argmax(), density.shape)), (0, 1, 2)
    )  # one at a corner
    place, height = peaks(density)
    expected = np.argwhere(density == ndimage.maximum_filter(density, 3, mode="wrap"))
    assert [0, 0, 0] in place.tolist()
    assert place.tolist() == expected.tolist()
    assert np.array_equal(height, density[tuple(expected.T)])


def test_a_flat_map_has_no_more_peaks_than_can_be_held():
    place, height = peaks(np.zeros((6, 6, 6)))
    assert len(place) == len(height) == 6**3 // 4 + 1


def test_tops_lie_between_points():
    at = np.array([4.3, 0.2, 8.6])
    away = np.stack(np.meshgrid(*[np.arange(10.0)] * 3, indexing="ij"), -1) - at
    away -= 10 * np.round(away / 10)
    density = -(away**2).sum(-1)  # a parabola is met exactly
    place, _ = peaks(density)
    assert np.allclose(between_points(density, place) % 10, at)


def test_the_first_of_sites_that_are_one_atom_is_kept():
    symmetry = Symmetry(gemmi.SpaceGroup("P 1 21 1").operations(), (6.0, 7.0, 8.0, 90.0, 110.0, 90.0))
    sites = np.random.default_rng(0).random((60, 3))
    kept: list[int] = []
    for i, site in enumerate(sites):
        if all(symmetry.apart(site, sites[j]) > 1.0 for j in kept):
            kept.append(i)
    assert len(kept) < 60
    found, orders = apart(sites, symmetry.rotations.astype(float), symmetry.shifts, symmetry.direct, 1.0, 120)
    assert found.tolist() == kept
    assert (orders == 1).all()
    found, _ = apart(sites, symmetry.rotations.astype(float), symmetry.shifts, symmetry.direct, 1.0, 10.4)
    assert found.tolist() == kept[:5]


def test_sites_on_elements_of_symmetry_fill_the_cell_as_they_are():
    """Hexamine: 8 N on threefold axes and 12 C on mirrors, of 20 atoms; a general site is none of them."""
    symmetry = Symmetry(gemmi.SpaceGroup("I -4 3 m").operations(), (7.0, 7.0, 7.0, 90.0, 90.0, 90.0))
    sites = np.array([[0.3, 0.17, 0.42], [0.123, 0.123, 0.123], [0.238, 0.0, 0.0], [0.5, 0.5, 0.5], [0.4, 0.2, 0.1]])
    kept, orders = apart(sites, symmetry.rotations.astype(float), symmetry.shifts, symmetry.direct, 1.0, 19.0)
    assert kept.tolist() == [1, 2]
    assert orders.tolist() == [6, 4]
