"""Standard deviations of bonds, angles and the volume against scatter that is drawn or refined anew."""

from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
from solve.synthetic import known, measured

from stemtomo_dl.simulate.cif import Contents, read_contents
from stemtomo_dl.solve.checks import Bond, angles, distances
from stemtomo_dl.solve.esds import cell_covariance, cell_spread
from stemtomo_dl.solve.model import Model, Symmetry
from stemtomo_dl.solve.refine import Fit, Reflections, refine

POLAR = """data_zincite
_cell_length_a 3.25
_cell_length_b 3.25
_cell_length_c 5.207
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_space_group_name_H-M_alt 'P 63 m c'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
Zn Zn 0.3333333 0.6666667 0 0.006
O O 0.3333333 0.6666667 0.3819 0.006
"""


def contents_of(name: str) -> Contents:
    return read_contents(name, POLAR) if name == "zincite" else known(name)


def refined(contents: Contents, seed: int, cell_esd: tuple[float, ...] = (0.0,) * 6) -> Fit:
    """Refined on noise whose size is known, so that esds are what the scatter is."""
    elements = tuple(s.element.name for s in contents.sites)
    clean = measured(contents, ",".join(sorted(set(elements))), 0.8, 0.8, noise=0.0, seed=0)
    rng = np.random.default_rng(1000 + seed)
    sigma = 0.1 * clean.intensity + 0.02 * clean.intensity.mean()
    keep = ~np.asarray(contents.operations.systematic_absences(np.ascontiguousarray(clean.hkl)), bool)
    noisy = clean.intensity + sigma * rng.normal(size=len(sigma))
    reflections = Reflections(clean.hkl[keep], noisy[keep], sigma[keep], np.ones(int(keep.sum())))
    sites = [np.array(s.fract.tolist()) for s in contents.sites]
    symmetry = Symmetry(contents.operations, clean.cell, cell_esd)
    return refine(Model.of(symmetry, elements, sites, 0.006), reflections, cycles=30, weight=0.0)


def length(fit: Fit, bond: Bond, cell: gemmi.UnitCell, sites: np.ndarray) -> float:
    """Å, by gemmi, of a bond when atoms and cell are elsewhere."""
    return float(np.linalg.norm(arm(fit, bond, cell, sites)))


def arm(fit: Fit, bond: Bond, cell: gemmi.UnitCell, sites: np.ndarray) -> np.ndarray:
    op = list(fit.model.symmetry.operations)[bond.operation]
    image = np.array(op.apply_to_xyz(sites[bond.second].tolist())) + bond.cell - sites[bond.first]
    return np.array(cell.orthogonalize(gemmi.Fractional(*image)).tolist())


def angle_between(v, w) -> float:
    return float(np.degrees(np.arccos(v @ w / np.linalg.norm(v) / np.linalg.norm(w))))


CASES = [
    # name, esds of the cell, which of its parameters are one
    ("zirconia", (0.010, 0.004, 0.007, 0, 0.05, 0), [(0,), (1,), (2,), (4,)]),
    ("rutile", (0.006, 0.006, 0.003, 0, 0, 0), [(0, 1), (2,)]),
    ("zincite", (0.005, 0.005, 0.009, 0, 0, 0), [(0, 1), (2,)]),
    ("kyanite", (0.008, 0.006, 0.004, 0.03, 0.06, 0.04), [(0,), (1,), (2,), (3,), (4,), (5,)]),
]


@pytest.mark.parametrize(("name", "cell_esd", "free"), CASES)
def test_bonds_and_angles_scatter_as_their_esds_say(name, cell_esd, free):
    """Drawn from the covariances of all coordinates and of the cell's free parameters, computed by gemmi."""
    fit = refined(contents_of(name), 0, cell_esd)
    model = fit.model
    rng = np.random.default_rng(0)
    draws = 2000
    sites = model.sites + rng.multivariate_normal(np.zeros(model.sites.size), fit.site_covariance, draws).reshape(
        draws, -1, 3
    )
    cells = np.tile(model.symmetry.cell.parameters, (draws, 1))
    for together in free:
        cells[:, together] += cell_esd[together[0]] * rng.normal(size=(draws, 1))
    cells = [gemmi.UnitCell(*c) for c in cells]
    short = distances(fit, 2.6)
    for bond in short[:: max(1, len(short) // 12)]:
        drawn = [length(fit, bond, c, s) for c, s in zip(cells, sites, strict=True)]
        assert np.mean(drawn) == pytest.approx(bond.length, abs=0.1 * bond.esd)
        assert np.std(drawn) == pytest.approx(bond.esd, rel=0.07)
    every = angles(fit)
    assert every
    for a in every[:: max(1, len(every) // 12)]:
        if a.degrees > 179:
            continue
        drawn = [
            angle_between(arm(fit, a.first, c, s), arm(fit, a.second, c, s)) for c, s in zip(cells, sites, strict=True)
        ]
        assert np.mean(drawn) == pytest.approx(a.degrees, abs=0.15 * a.esd + 1e-3)
        assert np.std(drawn) == pytest.approx(a.esd, rel=0.07, abs=1e-6)


def _key(bond: Bond) -> tuple:
    return bond.first, bond.second, bond.operation, bond.cell, bond.esd, bond.length


@pytest.mark.parametrize("name", ["zincite", "rutile", "brookite"])
def test_bonds_scatter_over_refinements_as_their_esds_say(name):
    """Of a polar structure, too, whose origin floats, and of one with bonds between images of one atom."""
    contents = contents_of(name)
    fits = [refined(contents, seed) for seed in range(80)]
    looked = {b[:4]: None for b in map(_key, distances(fits[0], 2.5)) if b[4] > 1e-6}
    found = [{b[:4]: b[4:] for b in map(_key, distances(f, 2.8))} for f in fits]
    esds, lengths = np.moveaxis(np.array([[f[k] for k in looked] for f in found]), -1, 0)
    ratio = np.std(lengths, axis=0, ddof=1) / np.mean(esds, axis=0)
    assert np.median(ratio) == pytest.approx(1, abs=0.12)
    assert ratio.min() > 0.7
    assert ratio.max() < 1.4  # of 80 draws a standard deviation is known to 8 %


@pytest.mark.parametrize(("symbol", "cell", "esds", "wanted"), [
    ("P -1", (5, 6, 7, 80, 95, 100), (0.01, 0.02, 0.03, 0.1, 0.2, 0.3), np.eye(6)),
    ("P 1 21/c 1", (5, 6, 7, 90, 100, 90), (0.01, 0.02, 0.03, 0.1, 0.2, 0.3), np.diag([1, 1, 1, 0, 1, 0])),
    ("P 1 1 21/b", (5, 6, 7, 90, 90, 100), (0.01, 0.02, 0.03, 0.1, 0.2, 0.3), np.diag([1, 1, 1, 0, 0, 1])),
    ("P b c a", (5, 6, 7, 90, 90, 90), (0.01, 0.02, 0.03, 0.1, 0.2, 0.3), np.diag([1, 1, 1, 0, 0, 0])),
    ("R -3 c:R", (6.4, 6.4, 6.4, 46, 46, 46), (0.01, 0.01, 0.01, 0.2, 0.2, 0.2),
     np.kron(np.eye(2), np.ones((3, 3)))),
    ("P 63/m", (6, 6, 8, 90, 90, 120), (0.01, 0.01, 0.03, 0.1, 0.2, 0.3),
     np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])),
    ("F d -3 m:2", (8, 8, 8, 90, 90, 90), (0.01, 0.01, 0.01, 0, 0, 0), np.ones((3, 3))),
])  # fmt: skip
def test_a_cell_varies_as_its_symmetry_lets_it(symbol, cell, esds, wanted):
    whole = np.zeros((6, 6))
    whole[: len(wanted), : len(wanted)] = wanted
    rotations = np.array([op.rot for op in gemmi.SpaceGroup(symbol).operations()]) // gemmi.Op.DEN
    np.testing.assert_allclose(cell_covariance(cell, esds, rotations), np.outer(esds, esds) * whole, atol=1e-12)


@pytest.mark.parametrize(("symbol", "cell", "esds", "wanted"), [
    ("P m -3 m", (4, 4, 4, 90, 90, 90), (0.01, 0.01, 0.01, 0, 0, 0), 3 * 16 * 0.01),
    ("P 4/m", (4, 4, 6, 90, 90, 90), (0.01, 0.01, 0.03, 0, 0, 0), 96 * np.hypot(2 * 0.01 / 4, 0.03 / 6)),
    ("P 1 2/m 1", (5, 6, 7, 90, 110, 90), (0, 0, 0, 0, 0.3, 0), 210 * np.cos(np.radians(110)) * -np.radians(0.3)),
])  # fmt: skip
def test_esd_of_the_volume_is_the_textbooks(symbol, cell, esds, wanted):
    symmetry = Symmetry(gemmi.SpaceGroup(symbol).operations(), cell, esds)
    assert cell_spread(symmetry)[1] == pytest.approx(wanted, rel=1e-6)


def test_a_bond_along_a_cubic_edge_has_the_edges_relative_esd():
    """Atoms that symmetry holds: only the cell has an esd, of which the bond has its share."""
    symmetry = Symmetry(gemmi.SpaceGroup("F m -3 m").operations(), (5.64,) * 3 + (90,) * 3, (0.008,) * 3 + (0,) * 3)
    model = Model.of(symmetry, ("Na", "Cl"), [(0, 0, 0), (0.5, 0.5, 0.5)], 0.01)
    fit = SimpleNamespace(model=model, site_covariance=np.zeros((6, 6)))
    first = distances(fit, 2.9)[0]
    assert (first.length, first.esd) == (pytest.approx(2.82), pytest.approx(0.004))
    assert {(round(a.degrees, 6), round(a.esd, 6)) for a in angles(fit)} <= {(90.0, 0.0), (180.0, 0.0)}
