"""Which settings of the space groups are tried, and which of them suit the data."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
from solve.synthetic import known, measured, number_of, worst_distance

from stemtomo_dl.simulate.cif import read_contents
from stemtomo_dl.solve import solve
from stemtomo_dl.solve.symmetry import compatible_groups, is_primitive, laue_rotations, merge

# Geller, J. Chem. Phys. 24 (1956) 1236, rounded
GDFEO3 = """data_gdfeo3
_cell_length_a 5.349
_cell_length_b 5.611
_cell_length_c 7.669
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P b n m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
Gd1 Gd .9843 .0626 .25 .005
Fe1 Fe 0 .5 0 .005
O1 O .1014 .467 .25 .006
O2 O .6984 .3017 .0506 .006
"""


def names(data) -> set[str]:
    return {g.xhm() for g in compatible_groups(data)}


def test_groups_are_tried_about_one_origin_each_but_in_all_settings():
    monoclinic = names(measured(known("zirconia"), "Zr,O", 0.8, 1.0))
    assert {"P 1 21/c 1", "P 1 21/n 1", "P 1 21/a 1", "C 1 2/c 1", "I 1 2/a 1", "A 1 2/n 1"} <= monoclinic
    assert not {"C 1 2/n 1", "A 1 2/a 1", "C 1 n 1", "C 1 21 1"} & monoclinic
    orthorhombic = names(measured(known("brookite"), "Ti,O", 0.8, 1.0))
    assert {"P b c a", "P c a b", "C m m a", "A b m m", "P 21 21 2"} <= orthorhombic
    assert not {"C m m b", "A c m m", "P 21212(a)", "P n n n:1"} & orthorhombic


@pytest.mark.parametrize(("share", "right"), [(0.0, False), (0.3, True)])
def test_reflections_that_a_centring_forbids_rule_it_out(share, right):
    """In the mean they have ``share`` of what the others have."""
    data = measured(known("anatase"), "Ti,O", 0.7, 1.0)
    forbidden = data.hkl.sum(1) % 2 == 1
    extra = share * data.intensity.mean() * np.random.default_rng(0).exponential(size=len(data.hkl)) * forbidden
    operations = gemmi.SpaceGroup("I 41/a m d:2").operations()
    there = merge(replace(data, intensity=data.intensity + extra), laue_rotations(operations))
    assert is_primitive(operations, there) == right


def test_a_perovskite_is_not_solved_in_a_centred_group_with_oxygens_in_two():
    """Without its weak reflections oxygens on a mirror plane, 1.1 Å from their images, would fit well."""
    data = measured(read_contents("gdfeo3", GDFEO3), "Gd,Fe,O", 0.82, 0.9, noise=0.09)
    strong = 0.91  # strong beams are too weak in thick crystals, which lifts weak ones in the mean
    damped = replace(data, intensity=np.sign(data.intensity) * np.abs(data.intensity) ** strong)
    damped = replace(damped, sigma=0.1 * np.abs(damped.intensity) + 0.02 * damped.intensity.mean())
    found = solve(damped, np.random.default_rng(0))
    assert found.solved
    assert number_of(found.best.candidate.group) == 62
    held = dict(zip(found.best.fit.model.elements, found.best.fit.model.multiplicities, strict=True))
    assert (held["Gd"], held["Fe"]) == (4, 4)
    assert found.best.counts.sum() == 20


def test_a_heavy_atom_at_the_origin_solves_what_charge_flipping_does_not():
    """LiCoO2, for which flipped phases always lead to an acentric model without lithium."""
    text = GDFEO3[: GDFEO3.index("Gd1")].replace("5.349", "2.816").replace("5.611", "2.816").replace("7.669", "14.05")
    text = text.replace("gamma 90", "gamma 120").replace("P b n m", "R -3 m:H")
    contents = read_contents("licoo2", text + "Co1 Co 0 0 0 .008\nLi1 Li 0 0 .5 .01\nO1 O 0 0 .2602 .008\n")
    found = solve(measured(contents, "Co,Li,O", 0.66, 1.0, noise=0.15), np.random.default_rng(0))
    assert found.solved
    assert number_of(found.best.candidate.group) == 166
    held = dict(zip(found.best.fit.model.elements, found.best.fit.model.multiplicities, strict=True))
    assert held == {"Co": 3, "Li": 3, "O": 6}
    assert worst_distance(contents, found.best.fit.model) < 0.05


def test_few_reflections_do_not_speak_for_less_symmetry():
    """MgB2 to 0.9 Å has 13 reflections, which a model of three atoms fits better by chance."""
    text = GDFEO3[: GDFEO3.index("Gd1")].replace("5.349", "3.084").replace("5.611", "3.084").replace("7.669", "3.522")
    text = text.replace("gamma 90", "gamma 120").replace("P b n m", "P 6/m m m")
    contents = read_contents("mgb2", text + "Mg1 Mg 0 0 0 .008\nB1 B .33333 .66667 .5 .008\n")
    data = measured(contents, "Mg,B", 0.9, 1.0, noise=0.17)
    damped = np.sign(data.intensity) * np.abs(data.intensity / data.intensity.mean()) ** 0.82
    found = solve(replace(data, intensity=damped, sigma=0.17 * np.abs(damped) + 0.02), np.random.default_rng(0))
    assert found.best.candidate.group.xhm() == "P 6/m m m"
    held = dict(zip(found.best.fit.model.elements, found.best.fit.model.multiplicities, strict=True))
    assert held == {"Mg": 1, "B": 2}
