"""A centre half a node off makes a smaller cell of a particle whose spots lie on one coset; other particles tell."""

from dataclasses import replace

import numpy as np
import pytest
from crystal.test_joint import ALPHA, CENTER, STATED, spots_of
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import reciprocal_basis
from stemtomo_dl.crystal.index import index, index_as
from stemtomo_dl.crystal.nouns import Crystal
from stemtomo_dl.crystal.siblings import astray

CELL = np.array([18.4, 5.45, 5.15, 90.0, 90.0, 90.0])


def crystal(shift, ub=None, cell=CELL):
    ub = reciprocal_basis(cell) if ub is None else ub
    return Crystal("oP", 1.0, 500, 0.0, 30.0, 0.0, 0.0, ub, cell, np.array(shift, float))


def test_who_has_the_beam_elsewhere():
    most = {k: crystal((0.3 + 0.1 * k, -0.2)) for k in range(5)}
    middle, tracks = astray(most | {9: crystal((3.3, -0.2)), 7: crystal((0.4, -1.4))})
    assert middle == pytest.approx((0.5, -0.2), abs=0.11)
    assert tracks == [9]
    assert astray({1: crystal((0, 0)), 2: crystal((0, 0)), 3: crystal((4, 0))})[1] == []


def test_spots_of_one_coset_have_the_cell_of_their_siblings_about_the_right_centre():
    """a* lies along the tilt axis, and of all reflections those of odd h are seen."""
    to_axis = Rotation.align_vectors(STATED.axis[None], [[1.0, 0.0, 0.0]])[0].as_matrix()
    ub = to_axis @ Rotation.from_euler("x", 20, degrees=True).as_matrix() @ reciprocal_basis(CELL)
    true = replace(STATED, shift_px=np.zeros((len(ALPHA), 2)))
    spots = spots_of(true, ub, np.random.default_rng(3), 1500)
    h = np.rint(np.einsum("nji,nj->ni", true.turns()[spots.frame], true.lab(spots)) @ np.linalg.inv(ub).T[:, 0])
    spots = spots.some(h % 2 == 1)
    half = true.to_detector(ub[:, 0], CENTER) - CENTER  # between nodes of the coset
    astray_by = replace(spots, center_px=spots.center_px + half)
    (small, *_) = index(astray_by, STATED.instrument, ALPHA, most=1)
    assert np.prod(small.cell[:3]) == pytest.approx(np.prod(CELL[:3]) / 2, rel=0.02)  # what a particle alone tells
    again = index_as(replace(astray_by, center_px=spots.center_px), STATED.instrument, ALPHA, [crystal((0, 0))])
    # of a lattice with an axis along the tilt's, an ellipse is hardly told from the cell
    assert np.sort(again.cell[:3]) == pytest.approx(np.sort(CELL[:3]), rel=0.02)
    assert again.n_indexed >= 0.95 * small.n_indexed
