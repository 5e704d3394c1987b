"""What is known of the contents of the cell decides between elements; a model that departs is not a solution."""

import json
from dataclasses import replace

import gemmi
import numpy as np
import pytest
from solve.synthetic import known, measured

from stemtomo_dl import resources
from stemtomo_dl.solve import solution, solve
from stemtomo_dl.solve.charges import least_charge
from stemtomo_dl.solve.stated import Stated
from stemtomo_dl.store.intensities import read_intensities
from stemtomo_dl.structures import _solve_phase, _solved

TITANATE = Stated(("Ba", "Ti", "O"), (1.0, 1.0, 3.0), whole=True)


def test_atoms_too_many_cost_and_atoms_lacking_do_not():
    assert TITANATE.cost(np.array([1, 1, 3])) == 1.0
    assert TITANATE.cost(np.array([1, 1, 2])) == 1.0
    surplus = [TITANATE.cost(np.array([1, n, 3])) for n in (2, 3, 4)]
    assert 1.0 < surplus[0] < surplus[1] < surplus[2]


def test_an_element_that_is_missing_costs_unless_the_sample_holds_several_phases():
    counts = np.array([0, 1, 3])
    assert TITANATE.cost(counts) > 1.2
    assert replace(TITANATE, whole=False).cost(counts) == 1.0


def test_departure_is_the_share_of_atoms_that_are_of_another_element():
    assert TITANATE.departure(np.array([2, 2, 6])) == pytest.approx(0.0)
    assert TITANATE.departure(np.array([1, 2, 2])) == pytest.approx(0.2)
    assert Stated(("Ba", "O"), (0.0, 0.0), whole=True).departure(np.array([5, 1])) == 0.0


def test_elements_that_intensities_do_not_tell_apart_depart_together():
    spinel = Stated(("Mg", "O", "Al"), (8.0, 32.0, 16.0), whole=True)
    assert spinel.departure(np.array([24, 32, 0])) == pytest.approx(0.0)
    assert spinel.departure(np.array([8, 16, 32])) == pytest.approx(16 / 56)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"Cs": 1, "Pb": 1, "Br": 3}, 0),
        ({"Cs": 3, "Pb": 1, "Br": 1}, 4),
        ({"Fe": 3, "O": 4}, -2),  # some of the iron has more
        ({"Ca": 1, "S": 1, "O": 6}, -12),  # sulphur is a cation here, which makes it more
        ({"Cu": 3, "Au": 1}, None),
        ({"C": 2, "N": 1, "O": 2}, None),
        ({"O": 3}, None),
    ],
)
def test_least_charge_of_a_cell(counts, told):
    assert least_charge(counts) == told


def test_an_element_may_stand_for_one_that_scatters_alike():
    assert least_charge({"K": 1, "Si": 4, "O": 8}) == 1
    assert least_charge({"K": 1, "Si": 4, "O": 8}, ("K", "Si", "O")) == 1
    assert least_charge({"K": 1, "Si": 4, "O": 8}, ("K", "Al", "Si", "O")) == -3  # all of it Al, at the least
    assert least_charge({"Cu": 2, "Fe": 1, "S": 1}, ("Cu", "Fe", "S")) == 2
    assert least_charge({"Si": 1, "O": 2}, ("Al", "P", "Si", "O")) is None  # of phosphorus nothing is told


def cif_pets(tmp_path, extra: str):
    lines = ["data_a", *(f"_cell_{t} {v}" for t, v in zip(
        ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"),
        (4.9, 4.9, 5.4, 90, 90, 120), strict=True))]  # fmt: skip
    rows = [f"{h} {k} 1 {10 + h + k}. 1." for h in range(4) for k in range(4)]
    tags = ["index_h", "index_k", "index_l", "intensity_meas", "intensity_sigma"]
    text = "\n".join([*lines, extra, "loop_", *(f"_refln_{t}" for t in tags), *rows])
    (tmp_path / "a.cif_pets").write_text(text + "\n")
    return read_intensities(tmp_path / "a.cif_pets")


def test_formula_of_a_file_is_of_the_cell_only_with_its_units(tmp_path):
    alone = cif_pets(tmp_path, "_chemical_formula_sum 'Si O2'")
    assert (alone.composition, alone.per_cell) == ((("Si", 1.0), ("O", 2.0)), False)
    units = cif_pets(tmp_path, "_chemical_formula_sum 'Si O2'\n_cell_formula_units_Z 3")
    assert (units.composition, units.per_cell) == ((("Si", 3.0), ("O", 6.0)), True)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Ti,O", {"Ti": 0, "O": 0}),
        ("TiO2", {"Ti": 1, "O": 2}),
        ("C19 H22 N2 O", {"C": 19, "H": 22, "N": 2, "O": 1}),
        ("CH3COOH", {"C": 2, "H": 4, "O": 2}),
    ],
)
def test_elements_are_a_list_or_a_formula(tmp_path, said, meant):
    cif_pets(tmp_path, "_chemical_formula_sum 'Fe'")
    read = read_intensities(tmp_path / "a.cif_pets", elements=said)
    assert dict(read.composition) == meant
    assert not read.per_cell


def test_a_formula_is_of_any_part_of_the_crystal():
    stated = Stated(("Ti", "O"), (1.0, 2.0), whole=True, per_cell=False)
    assert stated.cost(np.array([8.0, 16.0])) == 1
    assert stated.departure(np.array([8.0, 16.0])) == 0
    assert stated.cost(np.array([12.0, 12.0])) == pytest.approx(1 + 0.5 * 4 / 24)  # four titaniums too many


def test_hydrogen_is_counted_as_stated_though_no_model_holds_it():
    counts = np.array([38.0, 4.0, 2.0])
    cinchonine = Stated(("C", "N", "O"), (19.0, 2.0, 1.0), whole=True, per_cell=False, hydrogen=22.0)
    assert cinchonine.hydrogen_in(counts) == 44
    assert cinchonine.hydrogen_in(counts - [2, 0, 0]) == 44  # an atom that was not found
    assert replace(cinchonine, per_cell=True, hydrogen=44.0).hydrogen_in(counts) == 44
    assert Stated(("C",), (0.0,), whole=True).hydrogen_in(np.array([6.0])) == 0


def test_formula_and_density_have_the_hydrogen_of_the_formula_that_was_given(tmp_path):
    data = measured(known("rutile"), "Ti,O", 0.7, 0.9)
    stated = replace(data, composition=(("Ti", 1.0), ("O", 2.0), ("H", 1.0)), per_cell=False)
    found = _solved(stated, [], 0)
    assert (found.figures["structure"], found.figures["formula"], found.figures["z"]) == ("solved", "HO2Ti", 2)
    without = _solved(data, [], 0)
    density = [
        float(gemmi.cif.read_string(f.files["solution.cif"].decode()).sole_block()
              .find_value("_exptl_crystal_density_diffrn"))
        for f in (found, without)
    ]  # fmt: skip
    assert density[0] / density[1] == pytest.approx((79.866 + 1.008) / 79.866, rel=1e-3)
    assert "SFAC H" in found.files["solution.res"].decode()
    assert "SFAC H" not in without.files["solution.res"].decode()


def test_a_phase_that_is_named_is_solved_with_its_own_elements_in_a_sample_of_more():
    data = measured(known("anatase"), "Zr,O,Ti", 0.7, 0.8)
    path = resources.synthetic() / "structures/anatase.cif"
    figures = _solved(data, [path], 0, sample=True).figures
    assert (figures["structure"], figures["formula"], figures["z"]) == ("solved", "O2Ti", 4)


def test_a_phase_of_a_mixture_is_solved_without_the_elements_of_the_others(monkeypatch):
    monkeypatch.setattr(solution, "_MORE", 1)  # starts that do not find Cs, which is not there
    data = measured(known("rutile"), "Cs,O,Ti", 0.7, 0.9)
    alone, mixed = (_solved(data, [], 0, mixed=m).figures for m in (False, True))
    assert alone["structure"] == "unsolved"
    assert any("holds no Cs" in m for m in alone["missing"])
    assert (mixed["structure"], mixed["formula"]) == ("solved", "O2Ti")


def test_a_model_with_other_atoms_than_are_known_is_not_a_solution():
    data = measured(known("rutile"), "Ti,O", 0.7, 0.9)
    for numbers, per_cell in (((4.0, 2.0), True), ((2.0, 1.0), False)):
        stated = replace(data, composition=tuple(zip(("Ti", "O"), numbers, strict=True)), per_cell=per_cell)
        wrong = solve(stated, np.random.default_rng(0), starts=3)
        assert not wrong.solved
        assert any("other atoms than are said" in m for m in wrong.missing)
    assert solve(replace(stated, composition=(("Ti", 1.0), ("O", 2.0))), np.random.default_rng(0)).solved


def test_elements_are_guessed_where_nobody_knows_them(tmp_path, command):
    data = measured(known("brookite"), "Ti,O", 0.7, 0.9, noise=0.05)
    rows = zip(data.hkl.tolist(), data.intensity, data.sigma, strict=True)
    (tmp_path / "a.hkl").write_text("".join(f"{h:4d}{k:4d}{j:4d}{i:8.3f}{s:8.3f}\n" for (h, k, j), i, s in rows))
    cell = ",".join(f"{v:.4f}" for v in data.cell)
    done = command("phase", tmp_path / "a.hkl", "-o", tmp_path / "o", "--cell", cell, "--elements", "guess")
    stats = json.loads((tmp_path / "o/stats.json").read_text())
    assert "solved: O2Ti" in done.stdout
    assert stats["warnings"][0].startswith("elements are guessed")
    assert "; 3 of 3 atoms fit clearly worse" in stats["warnings"][0]
    (tmp_path / "a.hkl").rename(tmp_path / "merged.hkl")  # as a phase of a run
    (tmp_path / "merged.ins").write_text(f"TITL a\nCELL 0.0251 {cell.replace(',', ' ')}\nEND\n")
    (tmp_path / "stats.json").write_text('{"r_int": 0.1, "wilson_e2_minus_1": 0.9}')
    figures = _solve_phase(tmp_path, "guess", [], False).figures
    assert (figures["formula"], figures["warnings"][0]) == ("O2Ti", stats["warnings"][0])
    assert (figures["rint"], figures["wilson_e2_minus_1"]) == (0.1, 0.9)
