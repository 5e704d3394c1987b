"""What must not matter: the unit of the intensities, and the corner of reciprocal space that a file was merged into."""

from dataclasses import replace
from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
from solve.synthetic import known, measured

from stemtomo_dl.errors import InputError
from stemtomo_dl.simulate.crystal import structure_factors
from stemtomo_dl.solve.candidates import Candidate
from stemtomo_dl.solve.charges import least_charge
from stemtomo_dl.solve.checks import distances
from stemtomo_dl.solve.flip import Amplitudes
from stemtomo_dl.solve.model import Model, Symmetry
from stemtomo_dl.solve.refine import Reflections, refine
from stemtomo_dl.solve.symmetry import compatible_groups, expand, find_laue, laue_rotations, merge
from stemtomo_dl.solve.trials import build_trial, in_order, raise_class
from stemtomo_dl.store.intensities import read_intensities


@pytest.mark.parametrize("unit", [1e-9, 1e-4, 1e4, 1e9])
def test_the_unit_of_intensities_changes_nothing(unit):
    contents = known("brookite")
    data = measured(contents, "Ti,O", 0.7, 0.9, noise=0.05)
    symmetry = Symmetry(contents.operations, data.cell)
    rng = np.random.default_rng(1)
    elements = tuple(s.element.name for s in contents.sites)
    sites = [np.array(s.fract.tolist()) + rng.normal(0, 0.004, 3) for s in contents.sites]
    model, path = Model.of(symmetry, elements, sites, 0.02), np.full(len(data.hkl), 1e-4)
    plain, scaled = (
        refine(model, Reflections(data.hkl, f * data.intensity, f * data.sigma, path)) for f in (1.0, unit)
    )
    assert scaled.r1 == pytest.approx(plain.r1, rel=1e-4)
    assert scaled.scale == pytest.approx(unit * plain.scale, rel=1e-3)
    np.testing.assert_allclose(scaled.model.u, plain.model.u, rtol=1e-2)
    np.testing.assert_allclose(scaled.u_esd, plain.u_esd, rtol=1e-2)
    np.testing.assert_allclose(scaled.site_esd, plain.site_esd, rtol=1e-2, atol=1e-9)


@pytest.mark.parametrize("group", ["P 4/m", "I 4/m", "P -3", "P -3 m 1", "P -3 1 m", "P 6/m", "P m -3"])
def test_a_class_is_tried_whose_file_repeats_nothing(group):
    """Merged as programs merge it, into the asymmetric unit of its own class."""
    sg = gemmi.SpaceGroup(group)
    hexagonal = sg.crystal_system() in (gemmi.CrystalSystem.Trigonal, gemmi.CrystalSystem.Hexagonal)
    c = 5.2 if sg.crystal_system() == gemmi.CrystalSystem.Cubic else 11.4
    cell = gemmi.UnitCell(5.2, 5.2, c, 90, 90, 120 if hexagonal else 90)
    hkl = np.array(gemmi.make_miller_array(cell, sg, 0.7), "i4")
    rng = np.random.default_rng(0)
    intensity = rng.exponential(100, len(hkl))
    data = replace(
        measured(known("rutile"), "Ti,O", 1.0, 0.9),
        cell=tuple(cell.parameters), hkl=hkl, intensity=intensity, sigma=0.05 * intensity + 1,
    )  # fmt: skip
    tried = [frozenset(map(bytes, m.rotations.astype("i1"))) for m in find_laue(data, compatible_groups(data))]
    assert frozenset(map(bytes, laue_rotations(sg.operations()).astype("i1"))) in tried


@pytest.mark.parametrize(
    ("cation", "anion", "ratio"),
    [("Ge", "Se", 1), ("Ga", "Se", 1), ("In", "Se", 1), ("Sm", "S", 1), ("Y", "S", 1), ("Ru", "Cl", 3), ("Zr", "Cl", 3),
     ("La", "I", 2), ("Ir", "Cl", 3)],
)  # fmt: skip
def test_compounds_that_there_are_do_not_lack_anions(cation, anion, ratio):
    assert least_charge({cation: 1, anion: ratio}) <= 0


def written(tmp_path, intensities, ins="CELL 0.0251 4.21 4.21 4.21 90 90 90\nLATT 1\nSFAC Mg O\nUNIT 4 4\n"):
    (tmp_path / "a.ins").write_text(ins)
    rows = [
        f"{h:4d}{h:4d}{k:4d}{i:8.2f}{1:8.2f}" for (h, k), i in zip(np.ndindex(3, 4), [0, *intensities], strict=False)
    ]
    (tmp_path / "a.hkl").write_text("\n".join(rows[1:]) + "\n")
    return tmp_path / "a.hkl"


def test_intensities_of_which_none_is_positive_are_refused(tmp_path, complaint):
    for value in (0.0, -3.0):
        said = complaint("phase", str(written(tmp_path, [value] * 11)), "-o", str(tmp_path / "out"))
        assert "no intensity is above 0" in said


def test_hydrogen_alone_is_refused_and_charges_of_elements_are_read_over(tmp_path):
    path = written(tmp_path, range(1, 12))
    with pytest.raises(InputError, match="hydrogen alone"):
        read_intensities(path, elements="H")
    ions = "CELL 0.0251 4.21 4.21 4.21 90 90 90\nLATT 1\nSFAC Mg2+ O2-\nUNIT 4 4\n"
    assert dict(read_intensities(written(tmp_path, range(1, 12), ions)).composition) == {"Mg": 4, "O": 4}


def test_images_on_special_positions_count_once_whatever_the_cell():
    """PbI2: lead has six neighbours, also where halves of an edge end in a 5."""
    for a in np.arange(4.50, 4.60, 0.001).round(3):
        symmetry = Symmetry(gemmi.SpaceGroup("P -3 m 1").operations(), (a, a, 6.98, 90, 90, 120))
        model = Model.of(symmetry, ("Pb", "I"), [(0, 0, 0), (1 / 3, 2 / 3, 0.265)], 0.006)
        fit = SimpleNamespace(model=model, site_covariance=np.zeros((6, 6)))
        assert sum((b.first, b.second) == (0, 1) for b in distances(fit, 3.4)) == 6


@pytest.mark.parametrize("seed", range(6))
def test_noise_alone_opens_no_lower_class(seed):
    """A part of the reflections, Friedel mates both: means of two lie nearer to both than means of sixteen do."""
    sg = gemmi.SpaceGroup("P 4/m m m")
    cell = gemmi.UnitCell(5.6, 5.6, 4.7, 90, 90, 90)
    unique = np.array(gemmi.make_miller_array(cell, sg, 0.8), "i4")
    rng = np.random.default_rng(seed)
    images = np.unique(np.einsum("ni,oij->noj", unique, laue_rotations(sg.operations())).reshape(-1, 3), axis=0)
    chosen = images[(images @ rng.normal(size=3) > 0) & (rng.random(len(images)) < 0.6)]
    hkl = np.concatenate([chosen, -chosen]).astype("i4")
    key = np.sort(np.abs(hkl[:, :2]), axis=1) @ (100, 1) + 10000 * np.abs(hkl[:, 2])
    intensity = rng.exponential(100, key.max() + 1)[key] * rng.normal(1, 0.15, len(hkl))
    data = replace(
        measured(known("rutile"), "Ti,O", 1.0, 0.9),
        cell=tuple(cell.parameters), hkl=hkl, intensity=intensity, sigma=0.15 * np.abs(intensity) + 1,
    )  # fmt: skip
    assert [len(m.rotations) for m in find_laue(data, compatible_groups(data))] == [16]


def test_what_telling_absences_forbid_does_not_count_in_r1():
    """Scattering twice leaves something there, which subgroups would fit with atoms."""
    contents = known("brookite")
    data = measured(contents, "Ti,O", 0.8, 1.0, noise=0.05)
    data = replace(data, intensity=data.intensity + 0.02 * data.intensity.mean())
    merged = merge(data, laue_rotations(contents.operations))
    present = ~np.asarray(contents.operations.systematic_absences(merged.hkl.astype("i4")), bool)
    factors = np.zeros(len(merged.hkl), complex)
    factors[present] = structure_factors(contents, merged.hkl[present])
    group = gemmi.find_spacegroup_by_ops(contents.operations)
    told, silent = (
        build_trial(data, merged, Candidate(group, 1.0, 1.0, absences, np.zeros(3)), np.angle(factors))
        for absences in (50.0, 0.0)
    )
    amplitude = np.sqrt(np.maximum(data.intensity, 0))
    left = amplitude[~present[merged.index]].sum() / amplitude.sum()
    assert left > 0.02
    assert silent.r1_total - told.r1_total == pytest.approx(left, abs=1e-6)


def test_a_model_of_a_lower_class_leads_to_the_higher():
    """Rutile in P-1, where phases are easily found, shows its tetragonal group."""
    contents = known("rutile")
    data = measured(contents, "Ti,O", 0.7, 1.0, noise=0.1)
    rotations = laue_rotations(contents.operations)
    hkl, value = expand(merge(data, rotations), merge(data, rotations).intensity)
    data = replace(data, hkl=hkl.astype("i4"), intensity=value, sigma=0.1 * np.abs(value) + 1e-3)
    lower, higher = gemmi.SpaceGroup("P -1"), gemmi.SpaceGroup("P 42/m n m")
    merged = [merge(data, laue_rotations(g.operations())) for g in (higher, lower)]
    grids = [(m, Amplitudes.on_grid(*expand(m, np.sqrt(np.maximum(m.intensity, 0))), data.reciprocal)) for m in merged]
    present = ~np.asarray(contents.operations.systematic_absences(merged[1].hkl.astype("i4")), bool)
    factors = np.ones(len(merged[1].hkl), complex)
    factors[present] = structure_factors(contents, merged[1].hkl[present])
    trial = build_trial(data, merged[1], Candidate(lower, 1.0, 1.0, 0.0, np.zeros(3)), np.angle(factors))
    found = {"P -1": trial}
    raise_class(found, data, grids, [higher, lower])
    assert found["P 42/m n m"].fit.r1 < 0.1
    assert in_order(list(found.values()))[0].candidate.group.xhm() == "P 42/m n m"
