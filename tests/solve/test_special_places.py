"""Structures whose atoms lie on elements of symmetry, and sublattices that differ little."""

import numpy as np
from solve.synthetic import measured, number_of, worst_distance

from stemtomo_dl.simulate.cif import read_contents
from stemtomo_dl.solve import solve
from stemtomo_dl.solve.compare import compare

CELL = """data_t
_cell_length_a {0}
_cell_length_b {0}
_cell_length_c {1}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt '{2}'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
"""
# Becka & Cruickshank, Proc. R. Soc. A 273 (1963) 435, hydrogen left out; Hall & Stewart, Acta Cryst. B29 (1973) 579
HEXAMINE = CELL.format(7.021, 7.021, "I -4 3 m") + "C1 C 0.238 0 0 0.03\nN1 N 0.1226 0.1226 0.1226 0.03\n"
CHALCOPYRITE = (
    CELL.format(5.289, 10.423, "I -4 2 d") + "Cu1 Cu 0 0 0 0.012\nFe1 Fe 0 0 0.5 0.01\nS1 S 0.2575 0.25 0.125 0.01\n"
)


def test_a_molecule_of_two_atoms_in_the_asymmetric_unit():
    """A general atom would fill the cell twice over; charge flipping finds atoms that are none."""
    data = measured(read_contents("hexamine", HEXAMINE), "C,N", 0.8, 1.0, noise=0.15)
    found = solve(data, np.random.default_rng(0))
    assert found.solved
    assert number_of(found.best.candidate.group) == 217
    places = np.array([[0.238, 0, 0], [0.1226, 0.1226, 0.1226]])
    model = found.best.fit.model
    assert sorted(model.multiplicities) == [8, 12]
    assert compare(model, model.elements, places).share == 1  # C and N scatter too much alike to be told apart


def test_sublattices_of_zinc_blende_are_told_apart():
    """With S, Fe and Cu in each other's places some atoms fit well enough that no other one alone fits better."""
    contents = read_contents("chalcopyrite", CHALCOPYRITE)
    found = solve(measured(contents, "Cu,Fe,S", 0.8, 1.0, noise=0.15), np.random.default_rng(0))
    assert found.solved
    model = found.best.fit.model
    assert dict(zip(model.elements, model.multiplicities, strict=True))["S"] == 8
    assert worst_distance(contents, model) < 0.05 or set(model.elements) == {"S", "Cu", "Fe"}
