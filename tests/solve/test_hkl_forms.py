"""Reflection files: SHELX's columns, wider ones with blanks between, and what cannot be either."""

import gemmi
import numpy as np
import pytest

from stemtomo_dl.errors import InputError
from stemtomo_dl.store.intensities import read_intensities

HKL = [(h, k, -m) for h in range(3) for k in range(3) for m in range(3) if h + k + m]
END = "   0   0   0    0.00    0.00\n"


def read(tmp_path, lines, ins=""):
    (tmp_path / "a.hkl").write_text("".join(lines))
    if ins:
        (tmp_path / "a.ins").write_text(ins)
        return read_intensities(tmp_path / "a.hkl")
    return read_intensities(tmp_path / "a.hkl", "5,6,7,90,90,90", elements="Ti,O")


@pytest.mark.parametrize(
    "row",
    [
        "{:4d}{:4d}{:4d}{:8.2f}{:8.2f}{:4d}\n",
        "{:4d}{:4d}{:4d}{:12.2f}{:12.2f}{:6d}\r\n",  # PETS2: no column of it is SHELX's
        "{:4d}{:4d}{:4d} {:11.2f} {:9.2f} {:d}\n",  # SHELX's columns would cut a number in two
        "{} {} {} {:.2f} {:.2f}\n",
    ],
)
def test_numbers_are_read_in_columns_and_between_blanks(tmp_path, row):
    lines = [row.format(*h, 1234.56 + 7 * i, 98.76, 1) for i, h in enumerate(HKL)]
    data = read(tmp_path, [*lines, END, "_remark after the end\n"])
    assert data.hkl.tolist() == [list(h) for h in HKL]
    np.testing.assert_allclose(data.intensity, 1234.56 + 7 * np.arange(len(HKL)))
    np.testing.assert_allclose(data.sigma, 98.76)


@pytest.mark.parametrize(
    ("value", "sigma"), [("99999.99", "12345.67"), ("12345678", "12345678"), (" -0.0123", "0.004567")]
)
def test_columns_that_touch_are_shelx(tmp_path, value, sigma):
    lines = [f"{-100 - h:4d}{-100 - k:4d}{-100 + m:4d}{value}{sigma}   1\n" for h, k, m in HKL]
    data = read(tmp_path, lines)
    assert (data.hkl < 0).all()
    np.testing.assert_allclose(data.intensity, float(value))
    np.testing.assert_allclose(data.sigma, float(sigma))


def test_neither_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="line 1 is not HKLF 4"):
        read(tmp_path, ["1;2;3;4;5\n"] * 20)


def test_cell_deviations_are_read_and_a_list_of_elements_is_no_composition(tmp_path):
    ins = "CELL 0.0251 5 6 7 90 95 90\nZERR 1 0.001 0.002 0.003 0 0.01 0\nLATT 1\nSFAC Ti O\nUNIT 1 1\n"
    data = read(tmp_path, [f"{h:4d}{k:4d}{m:4d}  100.00    5.00\n" for h, k, m in HKL], ins)
    assert data.cell_esd == (0.001, 0.002, 0.003, 0.0, 0.01, 0.0)
    assert data.composition == (("Ti", 0.0), ("O", 0.0))


@pytest.mark.parametrize(("cell", "axes"), [("6.37,6.37,6.37,46.1,46.1,46.1", "R"), ("4.99,4.99,17.06,90,90,120", "H")])
@pytest.mark.parametrize("group", ["R -3 c", "167"])
def test_a_rhombohedral_group_is_taken_on_the_axes_of_the_cell(tmp_path, group, cell, axes):
    path = tmp_path / "x.hkl"
    path.write_text("".join(f"{h:4d}{0:4d}{0:4d}{9:8.2f}{1:8.2f}\n" for h in range(1, 9)))
    read = read_intensities(path, cell, group, "Ca,C,O")
    operations = gemmi.GroupOps([gemmi.Op(t) for t in read.operations])
    assert gemmi.find_spacegroup_by_ops(operations).xhm() == f"R -3 c:{axes}"
