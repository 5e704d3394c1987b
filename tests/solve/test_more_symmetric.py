"""The group with more symmetry is believed where it does as well, refined in the same way."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
from solve.synthetic import measured

from stemtomo_dl.simulate.cif import read_contents
from stemtomo_dl.solve import solve
from stemtomo_dl.solve.trials import HOPEFUL, more_symmetric

CIF = """data_t
_cell_length_a 3.785
_cell_length_b 3.785
_cell_length_c 9.514
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'I 41 m d'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
Ti1 Ti 0 0 0 0.006
O1 O 0 0 {first} 0.008
O2 O 0 0 {second} 0.008
"""
POLAR, CENTRED = ("0.2331", "0.8169"), ("0.2081", "0.7919")  # what z of O1 and O2 sum to tells them apart


def operations(name):
    return gemmi.SpaceGroup(name).operations()


def trials(sites):
    """Data of thick crystals, whose strong reflections are too weak; the best models of I4₁md and of I4₁/amd."""
    data = measured(read_contents("t", CIF.format(first=sites[0], second=sites[1])), "Ti,O", 0.6, 0.8, 0.1)
    weaker = 1 / np.sqrt(1 + 0.5 * np.maximum(data.intensity, 0) / data.intensity.mean())
    data = replace(data, intensity=data.intensity * weaker, sigma=data.sigma * weaker)
    found = [
        solve(replace(data, operations=tuple(op.triplet() for op in group)), np.random.default_rng(0), starts=1).best
        for group in map(operations, ("I 41 m d", "I 41/a m d:2"))
    ]
    return data, *found


@pytest.mark.parametrize("handicap", [1.0, 1.3])
def test_a_subgroup_that_fits_a_little_better_gives_way(handicap):
    data, sub, whole = trials(CENTRED)
    as_found = replace(whole, r1_total=handicap * sub.r1_total)  # before weights and extinction are refined
    assert more_symmetric(sub, [as_found], data) is as_found


def test_a_polar_structure_stays_polar():
    data, sub, whole = trials(POLAR)
    assert whole.fit.r1 < HOPEFUL
    assert more_symmetric(sub, [replace(whole, r1_total=1.2 * sub.r1_total)], data) is None
