"""CIFs in all their ways: one structure said differently gives one set of |F|²; what is wrong is said in one line."""

import gemmi
import numpy as np
import pytest

from stemtomo_dl import resources
from stemtomo_dl.errors import InputError
from stemtomo_dl.simulate.crystal import DEFAULT_U, read_structure

LOOP = (
    "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_U_iso_or_equiv\n"
)
ANATASE_1 = "Ti1 0 0 0 0.005\nO1 0 0 0.2081 0.006\n"
ANATASE_2 = "Ti1 0 0.75 0.125 0.005\nO1 0 0.75 0.3331 0.006\n"
MAGNETITE_1 = "Fe1 0 0 0 0.005\nFe2 0.625 0.625 0.625 0.006\nO1 0.3799 0.3799 0.3799 0.007\n"
MAGNETITE_2 = "Fe1 0.125 0.125 0.125 0.005\nFe2 0.5 0.5 0.5 0.006\nO1 0.2549 0.2549 0.2549 0.007\n"


def cell(*parameters: float) -> str:
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    return "".join(f"_cell_{n} {v}\n" for n, v in zip(names, parameters, strict=True))


TETRAGONAL, CUBIC = cell(3.7845, 3.7845, 9.5143, 90, 90, 90), cell(*[8.394] * 3, 90, 90, 90)


def symops(name: str) -> str:
    listed = "".join(f"'{op.triplet()}'\n" for op in gemmi.SpaceGroup(name).operations())
    return f"loop_\n_space_group_symop_operation_xyz\n{listed}"


def by_hkl(symmetry: str, metric: str, atoms: str) -> dict[tuple[int, ...], float]:
    structure = read_structure("x", f"data_x\n{symmetry}\n{metric}{LOOP}{atoms}", 0.8)
    return dict(zip(map(tuple, structure.hkl.tolist()), structure.intensity.tolist(), strict=True))


def same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert len(one) > 100
    values = np.array([(one[h], other[h]) for h in one])
    assert values.max() > 10
    np.testing.assert_allclose(values[:, 0], values[:, 1], rtol=1e-6, atol=1e-8 * values.max())


TITANIA = "_chemical_formula_sum 'O2 Ti'\n"
SAID = {
    "H-M :2": ("_space_group_name_H-M_alt 'I 41/a m d :2'", ANATASE_2),
    "H-M Z": ("_symmetry_space_group_name_H-M 'I 41/a m d Z'", ANATASE_2),
    "H-M S": ("_symmetry_space_group_name_H-M 'I41/amdS'", ANATASE_1),
    "in words": ("_space_group_name_H-M_alt 'I 41/a m d (origin choice 1)'", ANATASE_1),
    "open, choice 1": (TITANIA + "_symmetry_space_group_name_H-M 'I 41/a m d'", ANATASE_1),
    "open, choice 2": (TITANIA + "_symmetry_space_group_name_H-M 'I 41/a m d'", ANATASE_2),
    "open, no formula": ("_symmetry_space_group_name_H-M 'I 41/a m d'", ANATASE_1),
    "number, choice 1": (TITANIA + "_space_group_IT_number 141", ANATASE_1),
    "number, choice 2": (TITANIA + "_symmetry_Int_Tables_number 141", ANATASE_2),
    "Hall": ("_space_group_name_Hall '-I 4bd 2'", ANATASE_2),
    "operations": (symops("I 41/a m d:2"), ANATASE_2),
    "operations beat symbols": ("_space_group_name_H-M_alt 'I 41/a m d :1'\n" + symops("I 41/a m d:2"), ANATASE_2),
    "P 1": ("_space_group_name_H-M_alt 'P 1'", None),
}


@pytest.mark.parametrize("way", SAID)
def test_anatase_in_every_way_of_naming_its_group(way):
    reference = by_hkl("_space_group_name_H-M_alt 'I 41/a m d :1'", TETRAGONAL, ANATASE_1)
    symmetry, atoms = SAID[way]
    if atoms is None:  # gemmi lists all atoms of the cell: no symmetry, no special positions
        small = gemmi.make_small_structure_from_block(
            gemmi.cif.read_string(
                f"data_x\n_space_group_name_H-M_alt 'I 41/a m d :1'\n{TETRAGONAL}{LOOP}{ANATASE_1}"
            ).sole_block()
        )
        sites = small.get_all_unit_cell_sites()
        assert len(sites) == 12
        rows = (f"{s.label} {' '.join(f'{v:.6f}' for v in s.fract.tolist())} {s.u_iso}\n" for s in sites)
        listed = by_hkl(symmetry, TETRAGONAL, "".join(rows))
        assert all(v < 1e-6 for h, v in listed.items() if h not in reference)  # extinct by symmetry
        same(reference, {h: v for h, v in listed.items() if h in reference})
    else:
        same(reference, by_hkl(symmetry, TETRAGONAL, atoms))


def test_magnetite_of_both_origins():
    one = by_hkl("_space_group_name_H-M_alt 'F d -3 m :1'", CUBIC, MAGNETITE_1)
    same(one, by_hkl("_space_group_name_H-M_alt 'F d -3 m :2'", CUBIC, MAGNETITE_2))
    spinel = "_chemical_formula_sum 'Fe3 O4'\n"
    same(one, by_hkl(spinel + "_symmetry_space_group_name_H-M 'F d -3 m'", CUBIC, MAGNETITE_1))
    same(one, by_hkl(spinel + "_symmetry_space_group_name_H-M 'F d -3 m'", CUBIC, MAGNETITE_2))


def test_rhombohedral_axes_by_the_cell():
    quartzlike = "O1 0.31 0.11 0.07 0.01\n"
    hexagonal = by_hkl("_symmetry_space_group_name_H-M 'R -3 c'", cell(5, 5, 13.8, 90, 90, 120), quartzlike)
    assert all((-h + k + m) % 3 == 0 for h, k, m in hexagonal)  # obverse
    primitive = by_hkl("_space_group_IT_number 167", cell(5.43, 5.43, 5.43, 54.8, 54.8, 54.8), quartzlike)
    assert (2, 1, 0) in primitive


def test_a_setting_that_no_table_has():
    standard = "_space_group_name_H-M_alt 'P 21/c'"
    shifted = "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n'-x+1/4,-y,-z'\n'-x+1/4,y+1/2,-z+1/2'\n'x,-y+1/2,z+1/2'\n"
    metric = cell(5.2, 6.1, 7.3, 90, 101, 90)
    one = by_hkl(standard, metric, "Si1 0.11 0.23 0.37 0.01\nO1 0.62 0.41 0.09 0.02\n")
    same(one, by_hkl(shifted, metric, "Si1 0.235 0.23 0.37 0.01\nO1 0.745 0.41 0.09 0.02\n"))


def test_occupancy_counts_atoms_once():
    whole = read_structure("x", f"data_x\n_space_group_IT_number 225\n{CUBIC}{LOOP}Au1 0 0 0 0.01\n", 1.0)
    np.testing.assert_allclose(whole.species[0].density * whole.volume, 4)
    table = LOOP + "_atom_site_occupancy\nAu1 0 0 0 0.01 0.25\nCu1 0 0 0 0.01 0.75\n"
    mixed = read_structure("x", f"data_x\n_space_group_IT_number 225\n{CUBIC}{table}", 1.0)
    assert {s.element: round(s.density * mixed.volume, 9) for s in mixed.species} == {"Au": 1, "Cu": 3}


def test_displacements_as_u_or_b_isotropic_or_not():
    head = f"data_x\n_space_group_name_H-M_alt 'P -1'\n{cell(5, 6, 7, 80, 95, 100)}"
    xyz = "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
    u, b = 0.02, 8 * np.pi**2 * 0.02

    def factors(table: str) -> np.ndarray:
        return read_structure("x", head + table, 0.9).structure_factor

    as_u = factors(xyz + f"_atom_site_U_iso_or_equiv\nSi1 0.1 0.2 0.3 {u}\n")
    np.testing.assert_allclose(factors(xyz + f"_atom_site_B_iso_or_equiv\nSi1 0.1 0.2 0.3 {b}\n"), as_u, rtol=1e-6)
    default = factors(xyz + "Si1 0.1 0.2 0.3\n")
    explicit = factors(xyz + f"_atom_site_U_iso_or_equiv\nSi1 0.1 0.2 0.3 {DEFAULT_U:.12f}\n")
    np.testing.assert_allclose(default, explicit, rtol=1e-6)
    tensors = "loop_\n_atom_site_aniso_label\n" + "".join(
        f"_atom_site_aniso_{{0}}_{a}\n" for a in (11, 22, 33, 12, 13, 23)
    )
    values = np.array([0.03, 0.01, 0.02, 0.004, -0.003, 0.002])
    lists = [
        factors(xyz + "Si1 0.1 0.2 0.3\n" + tensors.format(kind) + "Si1 " + " ".join(map(str, scale * values)) + "\n")
        for kind, scale in (("U", 1), ("B", 8 * np.pi**2))
    ]
    np.testing.assert_allclose(*lists, rtol=1e-6)
    assert np.abs(lists[0] - default).max() > 0.01


@pytest.mark.parametrize("name", ["brookite", "anatase", "rutile", "cspbbr3"])
def test_densities_of_known_minerals(name):
    text = (resources.synthetic() / f"structures/{name}.cif").read_text()
    structure = read_structure(name, text, 2.0)
    mass = sum(1.66054 * s.density * gemmi.Element(s.element).weight for s in structure.species)
    expected = {"brookite": 4.12, "anatase": 3.89, "rutile": 4.25, "cspbbr3": 4.83}[name]
    assert mass == pytest.approx(expected, abs=0.01)


GROUP = "_space_group_name_H-M_alt 'P -1'\n"
BAD = {
    "no cell": (f"data_x\n{GROUP}{LOOP}Si1 0 0 0 0.01\n", "cell"),
    "flat cell": (f"data_x\n{GROUP}{cell(5, 6, 7, 30, 30, 100)}{LOOP}Si1 0 0 0 0.01\n", "cell"),
    "no group": (f"data_x\n{TETRAGONAL}{LOOP}Si1 0 0 0 0.01\n", "space group is missing"),
    "unknown group": (f"data_x\n_space_group_name_H-M_alt 'P 7'\n{TETRAGONAL}{LOOP}Si1 0 0 0 0.01\n", "'P 7'"),
    "other setting": (
        f"data_x\n_space_group_name_H-M_alt 'R -3 c :H'\n{TETRAGONAL}{LOOP}Si1 0 0 0 0.01\n",
        "another setting",
    ),
    "bad Hall": (f"data_x\n_space_group_name_Hall 'junk'\n{TETRAGONAL}{LOOP}Si1 0 0 0 0.01\n", "Hall"),
    "bad operation": (
        f"data_x\n_space_group_symop_operation_xyz 'x,y'\n{TETRAGONAL}{LOOP}Si1 0 0 0 0.01\n",
        "operations",
    ),
    "no atoms": (f"data_x\n{GROUP}{TETRAGONAL}", "atoms"),
    "unknown places": (f"data_x\n{GROUP}{TETRAGONAL}{LOOP}Si1 ? ? ? 0.01\n", "atoms"),
    "nothing there": (f"data_x\n{GROUP}{TETRAGONAL}{LOOP}_atom_site_occupancy\nSi1 0 0 0 0.01 0\n", "occupancy"),
    "unknown element": (f"data_x\n{GROUP}{TETRAGONAL}{LOOP}Qx1 0 0 0 0.01\n", "Qx1"),
    "no factors": (f"data_x\n{GROUP}{TETRAGONAL}{LOOP}Fm1 0 0 0 0.01\n", "Fm1"),
    "two structures": (f"data_x\n{LOOP}Si1 0 0 0 0.01\ndata_y\n{LOOP}Si1 0 0 0 0.01\n", "2 structures"),
    "occupancy 7": (f"data_x\n{GROUP}{TETRAGONAL}{LOOP}_atom_site_occupancy\nSi1 0 0 0 0.01 7\n", "occupancy 7"),
    "occupancy below 0": (
        f"data_x\n{GROUP}{TETRAGONAL}{LOOP}_atom_site_occupancy\nSi1 0 0 0 0.01 -1\n",
        "occupancy -1",
    ),
    "negative U": (f"data_x\n{GROUP}{TETRAGONAL}{LOOP}Si1 0 0 0 -0.1\n", "Si1 has a negative"),
    "negative tensor": (
        f"data_x\n{GROUP}{TETRAGONAL}{LOOP}Si1 0 0 0 0.01\nloop_\n_atom_site_aniso_label\n"
        + "".join(f"_atom_site_aniso_U_{a}\n" for a in (11, 22, 33, 12, 13, 23))
        + "Si1 0.01 -0.03 0.01 0 0 0\n",
        "Si1 has a negative",
    ),
    "c is not a": (f"data_x\n_space_group_IT_number 225\n{TETRAGONAL}{LOOP}Au1 0 0 0 0.01\n", "does not have the symm"),
    "hexagonal in rhombohedral axes": (
        f"data_x\n{symops('R -3 c:R')}\n{cell(5, 5, 13.8, 90, 90, 120)}{LOOP}O1 0.3 0.1 0 0.01\n",
        "does not have the symm",
    ),
    "wrong origin": (f"data_x\n_space_group_name_H-M_alt 'P -1'\n{TETRAGONAL}{LOOP}Si1 0.03 0 0 0.01\n", "one place"),
    "listed twice": (f"data_x\n{GROUP}{TETRAGONAL}{LOOP}Si1 0 0 0 0.01\nTi1 0 0 0.02 0.01\n", "3 atoms in one place"),
    "dummy": (f"data_x\n{GROUP}{TETRAGONAL}{LOOP}X1 0 0 0 0.01\n", "X1"),
    "huge": (f"data_x\n{GROUP}{cell(900, 900, 900, 90, 90, 90)}{LOOP}Si1 0 0 0 0.01\n", "too many"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_in_one_line(case):
    text, word = BAD[case]
    with pytest.raises(InputError, match=word) as caught:
        read_structure("bad.cif", text, 1.0)
    assert "bad.cif" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("symmetry", "metric", "atoms"),
    [
        ("_space_group_name_H-M_alt 'R -3 c :R'", cell(5.43, 5.43, 5.43, 54.8, 54.8, 54.8), "O1 0.31 0.11 0.07 0.01\n"),
        ("_space_group_name_H-M_alt 'R -3 c :H'", cell(5, 5, 13.8, 90, 90, 120), "O1 0.31 0.11 0.07 0.01\n"),
        ("_space_group_name_H-M_alt 'P 1 1 21/b'", cell(5.2, 7.3, 6.1, 90, 90, 101), "Si1 0.11 0.23 0.37 0.01\n"),
        ("_space_group_name_H-M_alt 'P b n m'", cell(5.2, 5.5, 7.6, 90, 90, 90), "Ca1 0.99 0.04 0.25 0.01\n"),
        ("_space_group_name_H-M_alt 'F d -3 m :2'", CUBIC, MAGNETITE_2),
    ],
)
def test_unusual_settings_are_understood(symmetry, metric, atoms):
    small = gemmi.make_small_structure_from_block(
        gemmi.cif.read_string(f"data_x\n{symmetry}\n{metric}{LOOP}{atoms}").sole_block()
    )
    structure = read_structure("x", f"data_x\n{symmetry}\n{metric}{LOOP}{atoms}", 1.0)
    atoms_in_cell = sum(s.density for s in structure.species) * structure.volume
    assert atoms_in_cell == pytest.approx(len(small.get_all_unit_cell_sites()))


def test_split_and_shared_places_are_no_fault():
    split = LOOP + "_atom_site_occupancy\nSi1 0.03 0 0 0.01 0.5\nNa1 0.5 0.5 0.5 0.01 0.4\nK1 0.5 0.5 0.5 0.01 0.6\n"
    assert read_structure("x", f"data_x\n{GROUP}{TETRAGONAL}{split}", 1.0).elements == ("K", "Na", "Si")


def test_a_journals_file_has_other_blocks():
    text = f"data_global\n_journal_year 2020\ndata_x\n{GROUP}{TETRAGONAL}{LOOP}Si1 0.1 0.2 0.3 0.01\n"
    assert read_structure("x", text, 1.0).elements == ("Si",)
