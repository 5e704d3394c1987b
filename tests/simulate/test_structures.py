"""The shipped structures: chemistry that must come out right, and two settings of one structure."""

import gemmi
import numpy as np
import pytest

from stemtomo_dl import resources
from stemtomo_dl.simulate.crystal import read_structure

FOLDER = resources.synthetic() / "structures"

# cation: neighbours, shortest and longest bond in Å, as textbooks give them
BONDS = {
    "anatase": {"Ti1": (6, 1.93, 1.99)},
    "anatase_origin2": {"Ti1": (6, 1.93, 1.99)},
    "brookite": {"Ti1": (6, 1.86, 2.06)},
    "rutile": {"Ti1": (6, 1.94, 1.99)},
    "cspbbr3": {"Pb1": (6, 2.93, 3.03)},
    "zirconia": {"Zr1": (7, 2.04, 2.29)},
    "kyanite": {
        **{f"Al{i}": (6, 1.81, 2.01) for i in (1, 2, 3, 4)},
        **{f"Si{i}": (4, 1.61, 1.66) for i in (1, 2)},
    },
}
FORMULA_UNITS = {"anatase": 4, "brookite": 8, "rutile": 2, "cspbbr3": 4, "zirconia": 4, "kyanite": 4}


def bonds(small: gemmi.SmallStructure, site: gemmi.SmallStructure.Site, furthest: float) -> np.ndarray:
    """Distances of all anions up to a limit, over the neighbouring cells one by one."""
    anions = [s.fract.tolist() for s in small.get_all_unit_cell_sites() if s.element.name in ("O", "Br")]
    cells = np.stack(np.meshgrid(*[[-2, -1, 0, 1, 2]] * 3), -1).reshape(-1, 3)
    apart = (np.array(anions)[:, None] + cells - site.fract.tolist()).reshape(-1, 3)
    distance = np.linalg.norm(apart @ np.array(small.cell.orth.mat.tolist()).T, axis=1)
    return np.sort(distance[distance < furthest])


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.cif")), ids=lambda p: p.stem)
def test_bonds_are_what_textbooks_say(path):
    small = gemmi.make_small_structure_from_block(gemmi.cif.read(str(path)).sole_block())
    for label, (number, shortest, longest) in BONDS[path.stem].items():
        (site,) = (s for s in small.sites if s.label == label)
        found = bonds(small, site, longest + 0.35)
        assert len(found) == number
        assert found[0] > shortest
        assert found[-1] < longest


@pytest.mark.parametrize("name", FORMULA_UNITS)
def test_cells_hold_whole_formula_units(name):
    block = gemmi.cif.read(str(FOLDER / f"{name}.cif")).sole_block()
    small = gemmi.make_small_structure_from_block(block)
    counts: dict[str, int] = {}
    for site in small.get_all_unit_cell_sites():
        counts[site.element.name] = counts.get(site.element.name, 0) + 1
    formula = block.find_value("_chemical_formula_sum").strip("'").split()
    for term in formula:
        element = term.rstrip("0123456789")
        assert counts[element] == FORMULA_UNITS[name] * int(term[len(element) :] or 1)


def test_two_origins_of_anatase_give_one_diffraction():
    first, second = (
        read_structure(name, (FOLDER / f"{name}.cif").read_text(), 0.8) for name in ("anatase", "anatase_origin2")
    )
    order = [np.lexsort(s.hkl.T) for s in (first, second)]
    np.testing.assert_array_equal(first.hkl[order[0]], second.hkl[order[1]])
    np.testing.assert_allclose(
        first.intensity[order[0]], second.intensity[order[1]], rtol=1e-6, atol=1e-6 * first.intensity.max()
    )
    phase = np.angle(first.structure_factor[order[0]] / second.structure_factor[order[1]])
    assert np.ptp(np.abs(phase[first.intensity[order[0]] > 1])) > 1  # they differ by the origin's shift
