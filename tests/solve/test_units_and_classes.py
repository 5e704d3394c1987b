"""What must not matter: the unit of the intensities, and the corner of reciprocal space that a file was merged into."""

from dataclasses import replace
from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
from solve.synthetic import known, measured

from stemtomo_dl.errors import InputError
from stemtomo_dl.solve.charges import least_charge
from stemtomo_dl.solve.checks import distances
from stemtomo_dl.solve.model import Model, Symmetry
from stemtomo_dl.solve.refine import Reflections, refine
from stemtomo_dl.solve.symmetry import compatible_groups, find_laue, laue_rotations
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
