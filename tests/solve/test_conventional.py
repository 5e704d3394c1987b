"""Crystals whose reflections are given on other axes than the conventional ones."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
from solve.synthetic import measured

from stemtomo_dl.conventional import conventional
from stemtomo_dl.crystal.cells import PRIMITIVE, cell_of
from stemtomo_dl.simulate.cif import Contents, read_contents
from stemtomo_dl.solve import solve
from stemtomo_dl.solve.compare import compare
from stemtomo_dl.solve.model import Symmetry
from stemtomo_dl.solve.nouns import Intensities

CIF = """data_x
_cell_length_a {}
_cell_length_b {}
_cell_length_c {}
_cell_angle_alpha {}
_cell_angle_beta {}
_cell_angle_gamma {}
_space_group_name_H-M_alt '{}'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
{}
"""
# published cells and atoms, rounded
CRYSTALS = {
    "calcite": ((4.99, 4.99, 17.06, 90, 90, 120), "R -3 c:H", "Ca 0 0 0; C 0 0 .25; O .2568 0 .25"),
    "corundum": ((4.759, 4.759, 12.993, 90, 90, 120), "R -3 c:H", "Al 0 0 .3522; O .3063 0 .25"),
    "bismuth": ((4.546, 4.546, 11.863, 90, 90, 120), "R -3 m:H", "Bi 0 0 .2339"),
    "halite": ((5.640, 5.640, 5.640, 90, 90, 90), "F m -3 m", "Na 0 0 0; Cl .5 .5 .5"),
    "anatase": ((3.785, 3.785, 9.514, 90, 90, 90), "I 41/a m d:2", "Ti 0 .75 .125; O 0 .75 .3336"),
}


def crystal(name: str) -> Contents:
    cell, group, atoms = CRYSTALS[name]
    rows = [f"{a.split()[0]}{i} {a.split()[0]} {' '.join(a.split()[1:])} 0.006" for i, a in enumerate(atoms.split(";"))]
    return read_contents(name, CIF.format(*cell, group, "\n".join(rows)))


def given(name: str, matrix: np.ndarray, d_min: float = 0.7) -> tuple[Contents, Intensities]:
    """Noisy intensities, those that the lattice forbids left out, on axes that are ``matrix`` times the true ones."""
    contents = crystal(name)
    data = measured(contents, ",".join(sorted({s.element.name for s in contents.sites})), d_min, 0.9)
    there = (np.abs(data.hkl @ PRIMITIVE[CRYSTALS[name][1][0]].T % 1) < 1e-6).all(1)
    edges = np.array(gemmi.UnitCell(*data.cell).orth.mat.tolist()).T
    hkl = data.hkl[there] @ np.asarray(matrix).T
    assert np.abs(hkl - np.rint(hkl)).max() < 1e-6
    cell = tuple(np.round(cell_of(matrix @ edges), 4).tolist())
    kept = {"hkl": np.rint(hkl).astype("i4"), "intensity": data.intensity[there], "sigma": data.sigma[there]}
    return contents, replace(data, cell=cell, **kept)


@pytest.mark.parametrize(("name", "letter"), [
    ("calcite", "R"), ("corundum", "R"), ("bismuth", "R"), ("halite", "F"), ("anatase", "I"),
])  # fmt: skip
def test_primitive_axes_of_a_centred_lattice_are_solved_on_conventional_ones(name, letter):
    contents, data = given(name, PRIMITIVE[letter])
    moved = conventional(data)
    np.testing.assert_allclose(moved.cell, contents.cell.parameters, rtol=1e-3)
    assert "h,k,l = " in moved.notes[-1]
    assert moved.reciprocal.shape == (3, 3)
    length = [np.linalg.norm(d.hkl @ d.reciprocal, axis=1) for d in (data, moved)]
    np.testing.assert_allclose(*length, rtol=1e-4)
    solution = solve(moved, np.random.default_rng(0))
    assert solution.solved
    best = solution.best
    assert gemmi.find_spacegroup_by_ops(best.candidate.group.operations()).hm == gemmi.SpaceGroup(CRYSTALS[name][1]).hm
    match = compare(
        best.fit.model,
        tuple(s.element.name for s in contents.sites),
        np.array([s.fract.tolist() for s in contents.sites]),
    )
    assert match.worst < 0.1
    assert match.extra == 0


@pytest.mark.parametrize(("turn", "kept"), [(np.eye(3), True), (np.diag([-1.0, -1, 1]), False)])
def test_reverse_is_brought_to_obverse(turn, kept):
    contents, data = given("corundum", turn)
    moved = conventional(data)
    assert (moved is data) == kept
    assert ((-moved.hkl[:, 0] + moved.hkl[:, 1] + moved.hkl[:, 2]) % 3 == 0).all()
    assert moved.cell == pytest.approx(contents.cell.parameters, rel=1e-3)


def test_esds_and_contents_follow_the_cell():
    """a = √2 a' of halite's primitive cell, whose edges are one length and so vary as one; four times its atoms."""
    _, data = given("halite", PRIMITIVE["F"])
    data = replace(data, cell_esd=(0.003, 0.003, 0.003, 0.1, 0.1, 0.1), composition=(("Na", 1.0), ("Cl", 1.0)))
    moved = conventional(data)
    assert moved.cell_esd[:3] == pytest.approx([0.003 * np.sqrt(2)] * 3, rel=1e-3)
    assert moved.cell_esd[3:] == pytest.approx([0, 0, 0], abs=1e-6)
    assert moved.composition == (("Na", pytest.approx(4)), ("Cl", pytest.approx(4)))


@pytest.mark.parametrize("name", ["corundum", "halite", "anatase"])
def test_conventional_axes_stay(name):
    _, data = given(name, np.eye(3))
    assert conventional(data) is data


def test_a_metric_that_the_intensities_do_not_have_is_left():
    """Intensities of no symmetry in halite's primitive cell."""
    _, data = given("halite", PRIMITIVE["F"], 0.6)
    n = np.arange(-8, 9)
    hkl = np.stack(np.meshgrid(n, n, n, indexing="ij"), -1).reshape(-1, 3)
    inside = (np.linalg.norm(hkl @ data.reciprocal, axis=1) < 1 / 0.8) & hkl.any(1)
    hkl = hkl[inside].astype("i4")
    intensity = np.random.default_rng(0).exponential(size=len(hkl))
    bare = replace(data, hkl=hkl, intensity=intensity, sigma=0.05 + 0.1 * intensity)
    assert conventional(bare) is bare


def test_a_model_has_the_cell_that_its_group_asks_for():
    """However the edges were measured: a CIF of a cubic structure has one edge."""
    group = gemmi.SpaceGroup("R -3 c:H").operations()
    cell = Symmetry(group, (4.76, 4.74, 13.0, 90.1, 89.9, 120.2)).cell
    assert cell.a == pytest.approx(cell.b)
    assert cell.a == pytest.approx(4.75, abs=0.02)
    assert cell.parameters[3:] == pytest.approx((90, 90, 120))
    right = (4.759, 4.759, 12.993, 90, 90, 120)
    assert Symmetry(group, right).cell.parameters == right
