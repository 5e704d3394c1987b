"""What an .ins states of symmetry: a merged file names a Laue class, any other its space group."""

import gemmi
import numpy as np
import pytest

from stemtomo_dl.solve.symmetry import compatible_groups
from stemtomo_dl.store.intensities import read_intensities


def written(folder, symbol, cell, d_min=1.0):
    """A .hkl of all that a space group allows with its .ins; the path."""
    group = gemmi.SpaceGroup(symbol)
    unit = gemmi.UnitCell(*cell)
    hkl = gemmi.make_miller_array(unit, group, d_min)
    hkl = hkl[~np.asarray(group.operations().systematic_absences(hkl))]
    rows = [f"{h:4d}{k:4d}{n:4d}{100:8.2f}{5:8.2f}" for h, k, n in hkl.tolist()]
    (folder / "x.hkl").write_text("\n".join([*rows, f"{0:4d}{0:4d}{0:4d}{0:8.2f}{0:8.2f}"]) + "\n")
    latt = " PIRFABC".index(symbol[0])
    ops = [op for op in group.operations().sym_ops if np.linalg.det(np.array(op.rot) / op.DEN) > 0]
    lines = [f"CELL 0.02508 {' '.join(map(str, cell))}", f"LATT {latt}"]
    lines += [f"SYMM {op.triplet().upper()}" for op in ops if op.triplet() != "x,y,z"]
    (folder / "x.ins").write_text("\n".join([*lines, "SFAC TI O", "HKLF 4"]) + "\n")
    return folder / "x.hkl"


CASES = [
    ("I 4/m m m", (3.785, 3.785, 9.514, 90, 90, 90)),
    ("C 1 2/m 1", (9.7, 8.9, 5.3, 90, 105, 90)),
    ("F m -3 m", (8.08, 8.08, 8.08, 90, 90, 90)),
    ("R -3 m:H", (4.76, 4.76, 12.99, 90, 90, 120)),
]


@pytest.mark.parametrize(("symbol", "cell"), CASES)
def test_a_symmorphic_group_with_a_centre_is_only_a_laue_class(tmp_path, symbol, cell):
    data = read_intensities(written(tmp_path, symbol, cell))
    assert data.operations is None
    groups, points = compatible_groups(data), len(gemmi.SpaceGroup(symbol).operations().cen_ops)
    assert gemmi.SpaceGroup(symbol) in groups
    assert all(g.hm[0] == symbol[0] or len(g.operations().cen_ops) > points for g in groups)


@pytest.mark.parametrize(
    ("symbol", "cell"), [("I 41/a m d:2", CASES[0][1]), ("C 1 2/c 1", CASES[1][1]), ("R -3 c:H", CASES[3][1])]
)
def test_the_group_of_a_centred_lattice_is_read(tmp_path, symbol, cell):
    data = read_intensities(written(tmp_path, symbol, cell))
    found = gemmi.find_spacegroup_by_ops(gemmi.GroupOps([gemmi.Op(t) for t in data.operations]))
    assert found is not None
    assert found.xhm() == symbol
