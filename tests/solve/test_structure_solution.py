"""Known structures come back from noisy, incomplete intensities: space group, atoms, nothing extra."""

import json
import os
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest
from solve.synthetic import known, measured, number_of, worst_distance

from stemtomo_dl.export.cif import cif_text, with_esd
from stemtomo_dl.export.structure import ccp4_map, shelx_files
from stemtomo_dl.simulate.cif import read_contents
from stemtomo_dl.simulate.crystal import structure_factors
from stemtomo_dl.solve import solve
from stemtomo_dl.solve.model import Factors, Model, Symmetry
from stemtomo_dl.solve.refine import Reflections, refine
from stemtomo_dl.solve.rivals import rivals
from stemtomo_dl.solve.solution import _doubts
from stemtomo_dl.solve.stated import Stated
from stemtomo_dl.solve.symmetry import compatible_groups, find_laue
from stemtomo_dl.store.intensities import read_intensities


@pytest.mark.parametrize(
    ("name", "elements", "d_min", "share", "number"),
    [
        ("brookite", "Ti,O", 0.6, 0.6, 61),
        ("brookite", "Ti,O", 0.8, 0.8, 61),
        ("brookite", "Ti,O", 1.0, 1.0, 61),
        ("rutile", "Ti,O", 0.7, 0.8, 136),
        ("anatase", "Ti,O", 0.7, 0.8, 141),
        ("zirconia", "Zr,O", 0.8, 0.7, 14),
    ],
)
def test_structure_is_solved(name, elements, d_min, share, number):
    contents = known(name)
    found = solve(measured(contents, elements, d_min, share), np.random.default_rng(0))
    assert found.solved
    assert number_of(found.best.candidate.group) == number
    assert worst_distance(contents, found.best.fit.model) < 0.15
    assert len(found.best.fit.model.elements) == len(contents.sites)


def test_random_intensities_are_unsolved_and_the_reason_is_said():
    data = measured(known("zirconia"), "Zr,O", 1.05, 0.5)
    rng = np.random.default_rng(1)
    found = solve(replace(data, intensity=rng.permutation(data.intensity)), rng, starts=1)
    assert not found.solved
    assert any("completeness" in m for m in found.missing)
    assert any("resolution" in m for m in found.missing)


def reflections(contents, share=0.8):
    data = measured(contents, "Ti,O", 0.7, share)
    keep = ~np.asarray(contents.operations.systematic_absences(np.ascontiguousarray(data.hkl)), bool)
    ones = np.ones(int(keep.sum()))
    return data, Reflections(data.hkl[keep], data.intensity[keep], data.sigma[keep], 1e-4 * ones)


def model_of(contents, shift=0.0):
    sites = [np.array(s.fract.tolist()) + shift for s in contents.sites]
    elements = tuple(s.element.name for s in contents.sites)
    symmetry = Symmetry(contents.operations, tuple(contents.cell.parameters))
    return Model.of(symmetry, elements, sites, [s.u_iso for s in contents.sites])


@pytest.mark.parametrize("name", ["brookite", "anatase", "rutile", "zirconia", "kyanite"])
def test_structure_factors_are_those_of_the_forward_model(name):
    contents = known(name)
    _, data = reflections(contents)
    model = model_of(contents)
    np.testing.assert_allclose(
        Factors(model.symmetry, data.hkl).of(model), structure_factors(contents, data.hkl), atol=1e-10
    )


@pytest.mark.parametrize("anisotropic", [False, True])
def test_derivatives_are_finite_differences(anisotropic):
    contents = known("rutile")
    _, data = reflections(contents)
    model = replace(model_of(contents), anisotropic=anisotropic)
    factors = Factors(model.symmetry, data.hkl)
    _, analytic = factors.with_derivatives(model)
    row = 0
    for atom in range(len(model.elements)):
        for field, bases in (("sites", model.site_basis(atom)), ("tensors", model.tensor_basis(atom))):
            for basis in bases:
                ahead, behind = getattr(model, field).copy(), getattr(model, field).copy()
                ahead[atom] += 1e-6 * basis
                behind[atom] -= 1e-6 * basis
                up, down = (factors.of(replace(model, **{field: v})) for v in (ahead, behind))
                np.testing.assert_allclose(analytic[row], (up - down) / 2e-6, atol=1e-5 * np.abs(analytic).max())
                row += 1
    assert row == len(analytic)


def test_refinement_returns_the_truth_within_its_esds():
    contents = known("brookite")
    _, data = reflections(contents)
    fit = refine(model_of(contents, 0.01), data, weight=0.05)
    true = np.array([s.fract.tolist() for s in contents.sites])
    away = (fit.model.sites - true + 0.5) % 1 - 0.5
    assert (np.abs(away) < 5 * fit.site_esd).all()
    assert (np.abs(fit.model.u - [s.u_iso for s in contents.sites]) < 5 * fit.u_esd).all()
    assert 0.001 < np.linalg.norm(fit.site_esd @ fit.model.symmetry.direct.T, axis=1).max() < 0.05


def test_pseudocubic_cell_offers_its_true_laue_class():
    data = measured(known("cspbbr3"), "Cs,Pb,Br", 0.9, 0.8)
    assert 8 in [len(m.rotations) for m in find_laue(data, compatible_groups(data))]


def test_esds_are_written_as_in_cifs():
    assert with_esd(0.12894, 0.0004) == "0.1289(4)"
    assert with_esd(0.12894, 0.00123) == "0.1289(12)"
    assert with_esd(0.25, 0.0) == "0.25"


@pytest.fixture(scope="module")
def solved():
    data = replace(measured(known("brookite"), "Ti,O", 0.8, 0.8), cell_esd=(0.0004, 0.0011, 0.0, 0.0, 0.05, 0.0))
    return solve(data, np.random.default_rng(0))


def test_cif_reads_back_with_the_same_structure_factors(solved):
    best = solved.best
    text = cif_text(best, replace(solved.intensities, name="my phase"))
    contents = read_contents("solution", text)
    assert len(contents.operations) == 8
    theirs, ours = np.abs(structure_factors(contents, best.data.hkl)), np.abs(best.fit.fc)
    assert np.abs(theirs - ours).sum() < 0.01 * ours.sum()
    block = gemmi.cif.read_string(text).sole_block()
    assert block.name == "my_phase"
    assert gemmi.cif.as_string(block.find_value("_chemical_formula_sum")) == "O2 Ti"
    assert int(block.find_value("_cell_formula_units_Z")) == 8
    assert block.find_value("_cell_length_b").endswith("(11)")
    assert block.find_value("_cell_angle_beta") == "90"  # the group fixes it, whatever its esd is said to be
    a, b, _ = (gemmi.cif.as_number(block.find_value(f"_cell_length_{x}")) for x in "abc")
    volume, esd = block.find_value("_cell_volume").rstrip(")").split("(")
    told = int(esd) * 10.0 ** -len(volume.partition(".")[2])
    assert told == pytest.approx(float(volume) * np.hypot(0.0004 / a, 0.0011 / b), rel=0.1)  # two digits
    assert block.find_value("_chemical_absolute_configuration") == "."
    assert 4.0 < float(block.find_value("_exptl_crystal_density_diffrn")) < 4.3  # brookite's is 4.13
    assert float(block.find_value("_refine_ls_shift/su_max")) < 0.05
    assert block.find_value("_refine_diff_density_max") is None  # electrons see the potential
    assert (
        0
        < float(block.find_value("_refine_diff.potential_RMS"))
        < float(block.find_value("_refine_diff.potential_max"))
    )
    assert "inversion centre" in gemmi.cif.as_string(block.find_value("_refine_ls_abs_structure_details"))


def test_bonds_of_the_cif_are_those_of_its_atoms_and_symmetry_codes(solved):
    block = gemmi.cif.read_string(cif_text(solved.best, solved.intensities)).sole_block()
    cell = gemmi.UnitCell(*solved.intensities.cell)
    operations = [gemmi.Op(gemmi.cif.as_string(r[0])) for r in block.find(["_space_group_symop_operation_xyz"])]
    columns = ["_atom_site_label", "_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z"]
    atoms = {r[0]: [gemmi.cif.as_number(v) for v in (r[1], r[2], r[3])] for r in block.find(columns)}
    bonds = block.find("_geom_bond_", ["atom_site_label_1", "atom_site_label_2", "distance", "site_symmetry_2"])
    assert sum({r[0], r[1]} == {"Ti1", "O1"} for r in bonds) >= 2
    for first, second, length, code in bonds:
        number, _, cells = ("1_555" if code == "." else code).partition("_")
        image = np.array(operations[int(number) - 1].apply_to_xyz(atoms[second])) + [int(c) - 5 for c in cells]
        away = cell.orthogonalize(gemmi.Fractional(*(image - atoms[first])))
        assert abs(away.length() - gemmi.cif.as_number(length)) < 0.01
    columns = ["atom_site_label_1", "atom_site_label_2", "atom_site_label_3", "site_symmetry_1", "site_symmetry_3", ""]
    angles = block.find("_geom_angle", [f"_{c}" if c else "" for c in columns])
    assert sum(r[1] == "Ti1" for r in angles) == 15  # of six neighbours
    for one, middle, other, first, second, angle in angles:
        arms = []
        for label, code in ((one, first), (other, second)):
            number, _, cells = ("1_555" if code == "." else code).partition("_")
            image = np.array(operations[int(number) - 1].apply_to_xyz(atoms[label])) + [int(c) - 5 for c in cells]
            arms.append(np.array(cell.orthogonalize(gemmi.Fractional(*(image - atoms[middle]))).tolist()))
        cosine = arms[0] @ arms[1] / np.linalg.norm(arms[0]) / np.linalg.norm(arms[1])
        assert abs(np.degrees(np.arccos(cosine)) - gemmi.cif.as_number(angle)) < 0.3


def test_a_mediocre_fit_needs_sane_chemistry(solved):
    best, cell = solved.best, np.array(solved.intensities.cell)
    poor = replace(best, fit=replace(best.fit, r1=0.3))
    assert not _doubts(solved.intensities, poor, 1)
    wide = Symmetry(best.fit.model.symmetry.operations, tuple(cell * [1.25, 1.25, 1.25, 1, 1, 1]))
    stretched = replace(poor, fit=replace(poor.fit, model=replace(best.fit.model, symmetry=wide)))
    assert any("bond valences" in d for d in _doubts(solved.intensities, stretched, 1))
    good = replace(stretched, fit=replace(stretched.fit, r1=0.1))
    assert not _doubts(solved.intensities, good, 1)


def test_rivals_tell_elements_that_are_far_apart_and_admit_those_that_are_not(solved):
    for elements, sure in ((("Ti", "O"), True), (("V", "Ti", "O"), False)):
        stated = Stated(elements, (0.0,) * len(elements), whole=True)
        told = rivals(replace(solved.best, stated=stated))
        titanium = told[solved.best.fit.model.elements.index("Ti")]
        assert titanium.element == elements[0 if not sure else 1]
        assert titanium.sure or not sure


def test_map_has_its_highest_peak_at_titanium(solved):
    best = solved.best
    grid = ccp4_map(best, 0.2).grid
    at = [grid.interpolate_value(gemmi.Fractional(*s)) for s in best.fit.model.sites]
    assert max(at) == at[best.fit.model.elements.index("Ti")] > 0.8 * np.array(grid).max()


def test_shelx_files_are_solved_again_by_the_verb(solved, command, tmp_path):
    for name, text in shelx_files(solved.best, solved.intensities, "again").items():
        (tmp_path / name).write_text(text)
    read = read_intensities(tmp_path / "again.hkl")
    assert len(read.operations) == 8
    assert dict(read.composition) == {"Ti": 8, "O": 16}
    cif = "data/synthetic/structures/brookite.cif"
    said = command("phase", tmp_path / "again.hkl", "-o", tmp_path / "out", "--known", Path(__file__).parents[2] / cif)
    assert "solved: O2Ti (brookite), P b c a" in said.stdout
    assert (tmp_path / "out/solution.cif").exists()
    assert (tmp_path / "out/solution.ccp4").exists()
    stats = json.loads((tmp_path / "out/stats.json").read_text())
    assert stats["structure"] == "solved"
    assert stats["likeness"][0]["correlation"] > 0.9
    assert not stats["warnings"]


def test_verb_solves_the_merged_phases_of_a_run(solved, tiny, command, tmp_path):
    run = tmp_path / "run"
    command("run", tiny / "experiment.toml", "-o", run, "--until", "images")
    done = command("solve", run, check=False)
    assert done.returncode == 2
    assert "integrate" in done.stderr
    place = run / "phases/first"
    place.mkdir(parents=True)
    for name, text in shelx_files(solved.best, solved.intensities, "merged").items():
        (place / name).write_text(text)
    (place / "stats.json").write_text('{"cc_half": 0.9}')
    assert "first: solved" in command("solve", run).stdout
    assert (place / "solution.cif").exists()
    stats = json.loads((place / "stats.json").read_text())
    assert stats["structure"] == "solved"
    assert stats["cc_half"] == 0.9
    assert "phases/first/solution.cif" in json.loads((run / "run.json").read_text())["stages"]["solve"]["outputs"]
    assert stats["restraints"] == 0
    assert "first: solved" in command("solve", run, "--restraints").stdout
    stats = json.loads((place / "stats.json").read_text())
    assert stats["restraints"] > 0
    assert (stats["structure"], stats["formula"]) == ("solved", "O2Ti")


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("nonsense\n", [], "not HKLF 4"),
        ("   1   0   0  100.00    5.00\n" * 20, [], "--cell"),
        ("   1   0   0  100.00    5.00\n" * 20, ["--cell", "5,5,5,90,90,90"], "--elements"),
        ("   1   0   0  100.00    5.00\n" * 20, ["--cell", "5,5", "--elements", "O"], "no cell"),
        ("   1   0   0  100.00    5.00\n" * 20, ["--cell", "5,5,5,90,90,90", "--elements", "Xx"], "unknown"),
        (
            "   1   0   0  100.00    5.00\n" * 20,
            ["--cell", "5,6,7,90,90,90", "--elements", "O", "--space-group", "P 42/m n m"],
            "symmetry",
        ),
    ],
)
def test_bad_input_is_one_line(command, tmp_path, text, options, said):
    (tmp_path / "a.hkl").write_text(text)
    done = command("phase", tmp_path / "a.hkl", "-o", tmp_path / "out", *options, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


REAL = Path(os.environ.get("STEMTOMO_REAL") or Path(__file__).resolve().parents[3] / "shared" / "real")


@pytest.mark.skipif(not REAL.is_dir(), reason="shared/real is absent: quartz.cif_pets")
def test_real_quartz_is_solved():
    data = read_intensities(REAL / "quartz.cif_pets", elements="Si,O")
    found = solve(data, np.random.default_rng(0), starts=4)
    assert found.solved
    assert number_of(found.best.candidate.group) in (152, 154)
    assert sorted(found.best.fit.model.elements) == ["O", "Si"]
    assert found.best.fit.r1 < 0.25
