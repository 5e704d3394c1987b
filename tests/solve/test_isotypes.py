"""Isotypes have one cell and nearly the same intensities: the elements that are stated tell them apart."""

from dataclasses import replace

import numpy as np
import pytest
from solve.synthetic import known, measured

from stemtomo_dl import resources
from stemtomo_dl.phases import known_phase
from stemtomo_dl.simulate.cif import read_contents
from stemtomo_dl.solve import solve
from stemtomo_dl.solve.identity import other_elements, with_contents
from stemtomo_dl.solve.naming import Known, likenesses

ILMENITE = """data_ilmenite
_cell_length_a 5.088
_cell_length_b 5.088
_cell_length_c 14.086
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_space_group_name_H-M_alt 'R -3:H'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
Fe Fe 0 0 0.3553 0.005
Ti Ti 0 0 0.1464 0.005
O O 0.3174 0.0233 0.2451 0.008
"""


def candidate(composition: dict[str, float], base: str = "rutile") -> Known:
    """A known phase that scatters as the shipped one does, of other elements."""
    phase = known_phase(resources.synthetic() / f"structures/{base}.cif", 0.7)
    return replace(phase, composition=tuple(composition.items()))


@pytest.fixture(scope="module")
def rutile():
    return solve(measured(known("rutile"), "Ti,O", 0.7, 0.9, noise=0.1), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("composition", "others"),
    [({"Ti": 2, "O": 4}, []), ({"Sn": 2, "O": 4}, ["Sn", "Ti"]), ({"Ti": 1.9, "Nb": 0.1, "O": 4}, []),
     ({"Ti": 2, "O": 4, "H": 8}, [])],
)  # fmt: skip
def test_a_solved_structure_is_no_phase_of_other_elements(rutile, composition, others):
    assert rutile.solved
    phase = candidate(composition)
    assert likenesses(rutile.intensities, [phase])[0].named  # by intensities alone it would be
    assert other_elements(rutile, phase) == others


def test_stated_elements_that_look_alike_stand_for_each_other(rutile):
    """A model of Ti for V, as both are stated, is a phase of V; without V being stated it is none."""
    stated = replace(rutile.intensities, composition=(("Ti", 0.0), ("V", 0.0), ("O", 0.0)))
    best = replace(rutile.best, stated=stated.stated)
    assert other_elements(replace(rutile, intensities=stated, best=best), candidate({"V": 2, "O": 4})) == []
    assert other_elements(rutile, candidate({"V": 2, "O": 4})) == ["Ti", "V"]


def test_contents_are_taken_from_a_phase_of_all_that_is_stated():
    """Else the rest would be forgotten: ilmenite came out as hematite."""
    data = measured(known("rutile"), "Ti,O", 0.7, 0.9)
    more = replace(data, composition=(*data.composition, ("Fe", 0.0)))
    phase = candidate({"Ti": 2, "O": 4})
    assert with_contents(data, [phase], sample=False).stated.counted
    assert with_contents(more, [phase], sample=False) is more
    assert with_contents(more, [phase], sample=True).elements == ("Ti", "O")
    assert with_contents(data, [candidate({"Sn": 2, "O": 4})], sample=True) is data


@pytest.mark.parametrize("seed", [0, 1])
def test_a_class_in_which_equivalents_agree_better_is_tried_where_a_higher_one_fits(seed):
    """Fe and Ti scatter so alike that ilmenite nearly is hematite: R-3c, or R32, at R1 of about .1."""
    contents = read_contents("ilmenite", ILMENITE)
    data = measured(contents, "Fe,Ti,O", 0.8, 1.0, noise=0.15, seed=seed)
    mates = replace(
        data, hkl=-data.hkl, intensity=data.intensity * np.random.default_rng(seed).normal(1, 0.1, len(data.hkl))
    )
    both = {f: np.concatenate([getattr(data, f), getattr(mates, f)]) for f in ("hkl", "intensity", "sigma")}
    solution = solve(replace(data, **both), np.random.default_rng(0))
    assert solution.solved
    assert solution.best.candidate.group.xhm() == "R -3:H"
