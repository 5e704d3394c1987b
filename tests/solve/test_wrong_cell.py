"""Intensities that were indexed in another cell have a symmetry that it has not."""

from dataclasses import replace

import numpy as np
import pytest
from solve.synthetic import known, measured

from stemtomo_dl.simulate.cif import read_contents
from stemtomo_dl.solve import solve
from stemtomo_dl.solve.hidden import symmetry_beyond
from stemtomo_dl.solve.symmetry import compatible_groups, expand, find_laue

ZIRCON = """data_zircon
_cell_length_a 6.607
_cell_length_b 6.607
_cell_length_c 5.982
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'I 41/a m d:2'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
Zr1 Zr 0 .75 .125 .006
Si1 Si 0 .75 .625 .006
O1 O 0 .0661 .1953 .006
"""
TETRAGONAL = "-z,-y,-x"  # the fourfold axis of zircon lies along b, after the axes have changed places


def everywhere(data):
    """All equivalents, as a crystal that was turned far gives them, with noise of their own."""
    merged = find_laue(data, compatible_groups(data))[0]
    hkl, intensity = expand(merged, merged.intensity)
    rng = np.random.default_rng(5)
    noisy = intensity * (1 + 0.1 * rng.normal(size=len(hkl)))
    return replace(data, hkl=hkl.astype("i4"), intensity=noisy, sigma=0.1 * np.abs(noisy) + 0.01 * intensity.mean())


@pytest.mark.parametrize("name", ["brookite", "anatase", "rutile", "zirconia", "cspbbr3", "kyanite", "zircon"])
def test_right_cells_hide_no_symmetry(name):
    contents = read_contents("zircon", ZIRCON) if name == "zircon" else known(name)
    assert symmetry_beyond(everywhere(measured(contents, "Zr,Si,O", 0.8, 1.0))) is None


def test_a_stretched_cell_is_not_called_solved_however_well_a_model_fits():
    data = everywhere(measured(read_contents("zircon", ZIRCON), "Zr,Si,O", 0.7, 0.9, noise=0.1))
    wrong = replace(data, hkl=np.ascontiguousarray(data.hkl[:, [1, 2, 0]]))
    assert symmetry_beyond(wrong) == TETRAGONAL
    found = solve(wrong, np.random.default_rng(0), starts=2)
    assert found.best.fit.r1 < 0.2
    assert not found.solved
    assert any("the cell may be wrong" in m for m in found.missing)
