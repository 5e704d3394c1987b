"""Elements exchanged where bond valences speak against their places."""

from dataclasses import replace

import numpy as np
import pytest
from solve.synthetic import measured
from solve.test_objections import as_solved

from stemtomo_dl import resources
from stemtomo_dl.simulate.cif import read_contents
from stemtomo_dl.solve import solve
from stemtomo_dl.solve.checks import bond_valences, is_off
from stemtomo_dl.solve.exchange import exchanged
from stemtomo_dl.solve.trials import Trial, refined_as


def like_another(trial: Trial, other: dict[str, str]) -> Trial:
    """The trial, refined with elements renamed."""
    model = replace(trial.fit.model, elements=tuple(other.get(e, e) for e in trial.fit.model.elements))
    return replace(trial, fit=refined_as(trial, model))


@pytest.fixture(scope="module")
def alike() -> Trial:
    """CsPbBr3 whose cations scatter alike, as in thick crystals: solved with Cs and Pb either way round."""
    cif = (resources.synthetic() / "structures/cspbbr3.cif").read_text(encoding="utf-8")
    cif = cif.replace("Cs1 Cs", "Ce1 Ce").replace("Pb1 Pb", "Ce2 Ce")
    data = measured(read_contents("alike", cif), "Cs,Pb,Br", 0.9, 1.0, noise=0.1)
    return solve(data, np.random.default_rng(1), starts=1).best


def sound(trial: Trial) -> bool:
    return not any(is_off(total, expected) for _, total, expected in bond_valences(trial.fit))


def test_the_one_of_two_assignments_that_chemistry_allows_is_taken(alike):
    ways = [alike, like_another(alike, {"Cs": "Pb", "Pb": "Cs"})]
    assert sorted(sound(w) for w in ways) == [False, True]
    right = next(w for w in ways if sound(w))
    for way in ways:
        assert exchanged(way).fit.model.elements == right.fit.model.elements


def test_one_misnamed_atom_is_renamed(alike):
    right = exchanged(alike)
    first = right.fit.model.elements.index("Br")
    named = tuple("Pb" if i == first else e for i, e in enumerate(right.fit.model.elements))
    wrong = replace(right, fit=refined_as(right, replace(right.fit.model, elements=named)))
    assert not sound(wrong)
    assert exchanged(wrong).fit.model.elements == right.fit.model.elements


def test_what_intensities_speak_against_is_not_exchanged():
    cif = (resources.synthetic() / "structures/rutile.cif").read_text(encoding="utf-8")
    data = measured(read_contents("unsound", cif.replace("Ti", "Zn")), "Zn,O", 0.7, 1.0, noise=0.1)
    best = solve(data, np.random.default_rng(0)).best
    assert not sound(best)
    assert sorted(exchanged(best).fit.model.elements) == ["O", "Zn"]
    assert exchanged(best) is best


# fluorapatite: Sudarsanan, Mackie & Young, Mater. Res. Bull. 7 (1972) 1331, rounded
APATITE = """data_apatite
_cell_length_a 9.397
_cell_length_b 9.397
_cell_length_c 6.878
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_space_group_name_H-M_alt 'P 63/m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
Ca1 Ca .33333 .66667 .001 .008
Ca2 Ca -.0071 .2423 .25 .008
P1 P .369 .3985 .25 .006
F1 F 0 0 .25 .01
O1 O .4849 .3273 .25 .01
O2 O .4667 .5875 .25 .01
O3 O .2575 .3421 .0705 .01
"""


@pytest.mark.parametrize("anions", ["FOOO", "OFOO", "FFFO", "OOFF"])
def test_oxygen_and_fluorine_are_told_apart_by_their_bonds(anions):
    """They scatter alike; fluorine has three bonds to calcium, oxygens have one to phosphorus."""
    contents = read_contents("apatite", APATITE)
    data = measured(contents, "Ca,P,O,F", 0.8, 1.0, noise=0.1)
    found = exchanged(as_solved(contents, ("Ca", "Ca", "P", *anions), data))
    assert found.fit.model.elements == ("Ca", "Ca", "P", "F", "O", "O", "O")


# andalusite: Winter & Ghose, Am. Mineral. 64 (1979) 573, rounded
ANDALUSITE = APATITE[: APATITE.index("Ca1")].replace("gamma 120", "gamma 90").replace("P 63/m", "P n n m")
ANDALUSITE = ANDALUSITE.replace("a 9.397", "a 7.798").replace("b 9.397", "b 7.903").replace("6.878", "5.557")
ANDALUSITE += """Al1 Al .3705 .1391 .5 .006
Al2 Al 0 0 .2419 .006
Si1 Si .246 .252 0 .006
O1 O .4233 .3629 .5 .006
O2 O .4246 .3629 0 .006
O3 O .1030 .4003 0 .006
O4 O .2305 .1339 .2394 .006
"""


@pytest.mark.parametrize("cations", [("Si", "Al", "Si"), ("Al", "Si", "Al"), ("Si", "Si", "Al"), ("Al", "Al", "Al")])
def test_aluminium_and_silicon_are_told_apart_by_their_bonds(cations):
    contents = read_contents("andalusite", ANDALUSITE)
    data = measured(contents, "Al,Si,O", 0.8, 1.0, noise=0.15)
    found = exchanged(as_solved(contents, (*cations, *"OOOO"), data))
    assert found.fit.model.elements == ("Al", "Al", "Si", *"OOOO")


def test_an_anion_that_was_said_to_be_there_stays():
    contents = read_contents("oxide", APATITE.replace("F1 F 0 0 .25 .01\n", ""))
    trial = as_solved(contents, ("Ca", "Ca", "P", "F", "O", "O"), measured(contents, "Ca,P,O,F", 0.8, 1.0, noise=0.1))
    assert "F" in exchanged(trial).fit.model.elements
