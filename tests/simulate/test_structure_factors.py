"""Structure factors against gemmi's own, reciprocal lattices against d-spacings."""

import gemmi
import numpy as np
import pytest

from stemtomo_dl import resources
from stemtomo_dl.errors import InputError
from stemtomo_dl.simulate.crystal import read_structure

PHASES = ("brookite", "anatase", "anatase_origin2", "rutile", "cspbbr3", "zirconia", "kyanite")
ANISOTROPIC = """data_x
_space_group_name_H-M_alt 'P 21 21 21'
_cell_length_a 5.1
_cell_length_b 7.3
_cell_length_c 11.9
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
_atom_site_occupancy
Si1 Si 0.11 0.23 0.37 0.03 1
O1 O 0.41 0.07 0.81 0.02 0.7
loop_
_atom_site_aniso_label
_atom_site_aniso_U_11
_atom_site_aniso_U_22
_atom_site_aniso_U_33
_atom_site_aniso_U_12
_atom_site_aniso_U_13
_atom_site_aniso_U_23
Si1 0.05 0.02 0.03 0.01 -0.008 0.004
"""


def cif(name: str) -> str:
    return (resources.synthetic() / "structures" / f"{name}.cif").read_text()


def by_gemmi(text: str, hkl: np.ndarray) -> np.ndarray:
    small = gemmi.make_small_structure_from_block(gemmi.cif.read_string(text).sole_block())
    small.change_occupancies_to_crystallographic()
    calculator = gemmi.StructureFactorCalculatorE(small.cell)
    return np.array([calculator.calculate_sf_from_small_structure(small, h.tolist()) for h in hkl])


@pytest.mark.parametrize("text", [*map(cif, PHASES), ANISOTROPIC], ids=[*PHASES, "anisotropic"])
def test_structure_factors_equal_gemmis(text):
    structure = read_structure("x", text, 0.9)
    reference = by_gemmi(text, structure.hkl)
    assert len(reference) > 100
    np.testing.assert_allclose(structure.structure_factor, reference, rtol=1e-4, atol=1e-5 * np.abs(reference).max())


def test_reciprocal_lattice_and_completeness():
    structure = read_structure("brookite", cif("brookite"), 0.8)
    cell = gemmi.UnitCell(9.184, 5.447, 5.145, 90, 90, 90)
    d = [cell.calculate_d(h.tolist()) for h in structure.hkl]
    np.testing.assert_allclose(np.linalg.norm(structure.hkl @ structure.b.T, axis=1), 1 / np.array(d), rtol=1e-9)
    np.testing.assert_allclose(structure.b.T @ structure.direct, np.eye(3), atol=1e-12)
    listed = set(map(tuple, structure.hkl.tolist()))
    assert {(-h, -k, -m) for h, k, m in listed} == listed
    assert (1, 1, 1) in listed
    assert (0, 1, 0) not in listed  # absent in Pbca


def test_form_has_all_equivalents():
    structure = read_structure("anatase", cif("anatase"), 2.0)
    assert len(structure.form((1, 0, 1))) == 8
    assert len(structure.form((0, 0, 1))) == 2
    np.testing.assert_allclose(np.linalg.norm(structure.form((1, 0, 1)), axis=1), 1)


@pytest.mark.parametrize(
    ("text", "word"), [("no cif", "not a CIF"), ("data_x\n_cell_length_a 3\n", "missing"), ("", "not a CIF")]
)
def test_bad_cif_is_an_input_error(text, word):
    with pytest.raises(InputError, match=word):
        read_structure("bad.cif", text, 1.0)
