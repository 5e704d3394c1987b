"""What speaks against a model whose R1 is low: displacements, bonds, elements; and which centring the data prove."""

from dataclasses import replace
from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
from solve.synthetic import known, measured

from stemtomo_dl.export.cif import cif_text
from stemtomo_dl.simulate.cif import read_contents
from stemtomo_dl.solve import solve
from stemtomo_dl.solve.candidates import Candidate
from stemtomo_dl.solve.checks import bond_valences, is_off, overlaps, without_anions
from stemtomo_dl.solve.model import Model, Symmetry
from stemtomo_dl.solve.objections import objections_to, possible_reasons
from stemtomo_dl.solve.refine import Reflections, refine
from stemtomo_dl.solve.rivals import rivals, strangers
from stemtomo_dl.solve.solution import _doubts
from stemtomo_dl.solve.symmetry import compatible_groups, find_laue, laue_rotations, merge
from stemtomo_dl.solve.trials import Trial

TEO2 = """data_teo2
_cell_length_a 4.810
_cell_length_b 4.810
_cell_length_c 7.613
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P 41 21 2'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
Te1 Te .0268 .0268 0 .008
O1 O .1386 .2576 .1862 .008
"""


def as_solved(contents, elements, data):
    """The structure with elements of one's choice, refined against intensities, as a search would leave it."""
    symmetry = Symmetry(contents.operations, data.cell)
    merged = merge(data, laue_rotations(contents.operations))
    keep = ~np.asarray(contents.operations.systematic_absences(np.ascontiguousarray(merged.hkl, "i4")), bool)
    reflections = Reflections(merged.hkl[keep], merged.intensity[keep], merged.sigma[keep], np.ones(int(keep.sum())))
    fit = refine(Model.of(symmetry, elements, [s.fract.tolist() for s in contents.sites], 0.01), reflections, cycles=30)
    group = gemmi.find_spacegroup_by_ops(contents.operations)
    return Trial(Candidate(group, 1, 1, 0, np.zeros(3)), merged, reflections, fit, fit.r1_all, data.stated)


@pytest.fixture(scope="module")
def teo2():
    return read_contents("teo2", TEO2)


def test_a_wrong_element_is_told_by_its_bonds_and_by_another_that_fits_better(teo2):
    data = measured(teo2, "Se,O", 0.7, 0.8, noise=0.1)
    wrong = as_solved(teo2, ("Se", "O"), data)
    assert wrong.fit.r1 < 0.2  # which alone would do
    [(atom, total, expected)] = bond_valences(wrong.fit)
    assert (atom, expected, is_off(total, expected)) == (0, 4, True)
    [other] = [s for s in strangers(wrong) if s.element == "Se"]
    assert abs(gemmi.Element(other.instead).atomic_number - 52) < 12
    assert not rivals(wrong)[0].sure  # which is of Se against O alone


def test_the_right_elements_are_sure_and_none_fits_better(teo2):
    right = as_solved(teo2, ("Te", "O"), measured(teo2, "Te,O", 0.7, 0.8, noise=0.1))
    [(_, total, expected)] = bond_valences(right.fit)
    assert not is_off(total, expected)
    assert strangers(right) == []
    assert all(r.sure for r in rivals(right))
    assert objections_to(right) == []


def test_several_objections_block_at_any_r1(teo2):
    data = measured(teo2, "Te,O", 0.7, 0.8, noise=0.1)
    right = as_solved(teo2, ("Te", "O"), data)
    model = right.fit.model
    still = replace(right, fit=replace(right.fit, model=replace(model, tensors=0.02 * model.tensors)))
    assert objections_to(still) == ["most atoms do not move at all"]
    assert _doubts(data, still, 1) == ()  # thick crystals do that, too
    wide = Symmetry(teo2.operations, (6.2, 6.2, 6.1, 90, 90, 90))
    both = replace(still, fit=replace(still.fit, model=replace(still.fit.model, symmetry=wide)))
    assert len(objections_to(both)) == 2
    assert any("most atoms do not move" in d for d in _doubts(data, both, 1))
    assert not any("valences" in o for o in objections_to(both, guessed=True))  # stand-ins have no valence


def test_a_centring_that_the_data_prove_is_kept_with_noise_in_its_absences():
    contents = known("anatase")
    data = measured(contents, "Ti,O", 0.7, 0.9)
    forbidden = data.hkl.sum(1) % 2 != 0
    assert (data.intensity[forbidden] > 0).any()
    assert {g.centring_type() for g in compatible_groups(data)} <= {"I", "F"}
    weak = np.where(forbidden, 0.05 * data.intensity.mean(), data.intensity)  # a superstructure's
    assert "P" in {g.centring_type() for g in compatible_groups(replace(data, intensity=weak))}


def test_reasons_name_the_space_group_the_phases_and_thick_crystals():
    contents = known("rutile")
    data = measured(contents, "Ti,O", 0.8, 0.9)
    flat = replace(data, intensity=np.full(len(data.hkl), 100.0))
    merged = find_laue(flat, compatible_groups(flat))[0]
    trial = as_solved(contents, ("Ti", "O"), data)
    said = " ".join(possible_reasons(flat, merged, [trial]))
    assert "space group may be another than P 42/m n m" in said
    assert "--space-group" in said
    assert "more alike than a crystal's" in said
    assert "several phases" in said
    assert "more alike" not in " ".join(possible_reasons(data, trial.merged, [trial]))


def test_r_factors_can_be_checked_from_the_cif_alone(teo2):
    data = measured(teo2, "Te,O", 0.7, 0.8)
    trial = as_solved(teo2, ("Te", "O"), data)
    block = gemmi.cif.read_string(cif_text(trial, data)).sole_block()
    columns = ["index_h", "index_k", "index_l", "F_squared_meas", "F_squared_sigma", "F_squared_calc"]
    table = np.array([[float(v) for v in row] for row in block.find("_refln_", columns)])
    assert len(table) == int(block.find_value("_refine_ls_number_reflns"))
    fo, fc = np.sqrt(np.maximum(table[:, 3], 0)), np.sqrt(table[:, 5])
    assert np.abs(fo - fc).sum() / fo.sum() == pytest.approx(
        float(block.find_value("_refine_ls_R_factor_all")), abs=1e-4
    )
    np.testing.assert_allclose(table[:, 5], np.abs(trial.fit.fc) ** 2, rtol=1e-4)  # absolute, as others compute it


def test_a_structure_that_hides_in_a_group_of_another_lattice_is_found():
    """KH2PO4 without its hydrogen: K and P alone have the symmetry of diamond, which phases show first."""
    text = TEO2.replace("4.810", "7.453").replace("7.613", "6.975").replace("P 41 21 2", "I -4 2 d")
    text = text[: text.index("Te1")] + "K1 K 0 0 .5 .008\nP1 P 0 0 0 .008\nO1 O .1484 .0826 .1262 .008\n"
    data = measured(read_contents("kdp", text), "K,P,O", 0.8, 0.8)
    found = solve(data, np.random.default_rng(2))  # from others it takes up to 31 starts
    assert found.solved
    assert found.best.candidate.group.xhm() == "I -4 2 d"


@pytest.mark.parametrize(
    ("metal", "other", "lonely"),
    [("Zn", "S", []), ("S", "Zn", []), ("Zn", "Cu", [0, 1])],
)  # fmt: skip
def test_a_cation_in_a_salt_has_an_anion_beside_it(metal, other, lonely):
    """Sphalerite, either way round, and with a metal in the place of sulphur."""
    symmetry = Symmetry(gemmi.SpaceGroup("F -4 3 m").operations(), (5.41, 5.41, 5.41, 90, 90, 90))
    model = Model.of(symmetry, (metal, other), [(0, 0, 0), (0.25, 0.25, 0.25)], 0.006)
    assert without_anions(SimpleNamespace(model=model, site_covariance=np.zeros((6, 6)))) == lonely


@pytest.mark.parametrize(
    ("pair", "length", "too_close"),
    [(("V", "O"), 1.58, False), (("U", "O"), 1.76, False), (("V", "O"), 1.40, True), (("K", "O"), 1.9, True),
     (("Ca", "O"), 1.6, True), ("OO", 1.10, True), ("OO", 1.21, False), ("OO", 1.48, False), ("CC", 1.20, False),
     ("CN", 1.15, False),
     ("CC", 1.05, True), ("SS", 1.75, True), ("SS", 1.89, False), ("CO", 1.13, False)],
)  # fmt: skip
def test_molecules_and_the_strongest_bonds_are_the_closest_there_are(pair, length, too_close):
    symmetry = Symmetry(gemmi.SpaceGroup("P 1").operations(), (9, 9, 9, 90, 90, 90))
    model = Model.of(symmetry, tuple(pair), [(0, 0, 0), (length / 9, 0, 0)], 0.006)
    assert bool(overlaps(SimpleNamespace(model=model, site_covariance=np.zeros((6, 6))))) == too_close


@pytest.mark.parametrize("name", ["brookite", "cspbbr3", "zirconia", "kyanite"])
def test_cations_of_known_structures_have_anions_beside_them(name):
    contents = known(name)
    symmetry = Symmetry(contents.operations, tuple(contents.cell.parameters))
    elements = tuple(s.element.name for s in contents.sites)
    model = Model.of(symmetry, elements, [np.array(s.fract.tolist()) for s in contents.sites], 0.006)
    assert (
        without_anions(SimpleNamespace(model=model, site_covariance=np.zeros((3 * len(elements), 3 * len(elements)))))
        == []
    )


def test_a_model_with_such_a_cation_is_not_called_solved(teo2):
    """Paratellurite of tin, then with its oxygen far off."""
    data = measured(teo2, "Sn,O", 0.7, 0.8, noise=0.1)
    right = as_solved(teo2, ("Sn", "O"), data)
    said = "has no anion among its neighbours"
    assert not any(said in d for d in _doubts(data, right, 1))
    model = right.fit.model
    far = Symmetry(teo2.operations, (20.0, 20.0, 30.0, 90, 90, 90))
    apart = Model.of(far, model.elements, [model.sites[0], np.array([0.25, 0.1, 0.1])], 0.01)
    lonely = replace(right, fit=replace(right.fit, model=apart))
    assert any(said in d for d in _doubts(data, lonely, 1))
