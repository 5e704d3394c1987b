"""Pseudo-symmetry of a structure is no Laue class; equivalents that multiple scattering makes unlike still are one."""

import numpy as np
import pytest

from stemtomo_dl.crystal.laue import Repeated, find_laue, unique_codes
from stemtomo_dl.crystal.merge import merge_particles
from stemtomo_dl.crystal.nouns import Crystal, Reflections
from stemtomo_dl.crystal.phase import Member
from stemtomo_dl.crystal.settings import direct_basis
from stemtomo_dl.resources import synthetic
from stemtomo_dl.simulate.crystal import read_structure


def amplitudes(name, d_min=0.8):
    """Indices, each with one of its Friedel mates, and amplitudes of mean square 1 in shells of resolution."""
    text = (synthetic() / "structures" / name).read_text()
    s = read_structure(name, text, d_min)
    upper = (s.hkl[:, 2] > 0) | ((s.hkl[:, 2] == 0) & ((s.hkl[:, 1] > 0) | ((s.hkl[:, 1] == 0) & (s.hkl[:, 0] > 0))))
    hkl, intensity = s.hkl[upper], s.intensity[upper]
    for shell in np.array_split(np.argsort(np.linalg.norm(hkl @ s.b.T, axis=1)), 12):
        intensity[shell] /= intensity[shell].mean()
    return hkl, np.sqrt(intensity)


@pytest.mark.parametrize(
    ("name", "lattice", "spread", "expected"),
    [
        ("cspbbr3.cif", "tP", 0.1, "mmm"),  # taken for tetragonal by its cell
        ("cspbbr3.cif", "oP", 0.1, "mmm"),
        ("rutile.cif", "tP", 0.1, "4/mmm"),
        ("rutile.cif", "tP", 0.4, "4/mmm"),
    ],
)
def test_laue_class_is_that_of_equivalents(name, lattice, spread, expected):
    hkl, value = amplitudes(name)
    rng = np.random.default_rng(3)
    seen = [np.maximum(value + spread * rng.normal(size=len(value)), 0) for _ in range(2)]
    repeated = Repeated(float(np.corrcoef(*seen)[0, 1]), True)
    laue, tests, _ = find_laue(hkl, seen[0], np.ones(len(hkl)), repeated, lattice)
    assert laue.name == expected
    outside = [t.cc for t in tests if not t.in_class]
    assert all(t.cc > max(outside, default=-1) for t in tests if t.in_class)


def test_operations_that_all_disagree_alike_stay_together():
    """Correlations of thick crystals: lower than those of repeated measurements, and scattered."""
    hkl, value = amplitudes("rutile.cif")
    for seed in range(5):
        rng = np.random.default_rng(seed)
        seen = np.maximum(value + 0.4 * rng.normal(size=len(value)), 0)
        assert find_laue(hkl, seen, np.ones(len(hkl)), Repeated(0.95, False), "tP")[0].name == "4/mmm"


def test_a_class_that_no_group_of_the_centring_has_is_merged_all_the_same():
    """As a mixture's spots that were taken for one rhombohedral lattice: no triclinic group has R centring."""
    rng, cell = np.random.default_rng(0), np.array([16.3, 16.3, 19.9, 90, 90, 120.0])
    ub = np.linalg.inv(direct_basis(cell))
    hkl = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3, indexing="ij"), -1).reshape(-1, 3)
    hkl = hkl[((-hkl[:, 0] + hkl[:, 1] + hkl[:, 2]) % 3 == 0) & hkl.any(1)].astype("i4")
    _, pair = np.unique(unique_codes(hkl, np.array([np.eye(3), -np.eye(3)], "i4")), return_inverse=True)
    intensity = rng.exponential(size=len(hkl))[pair]
    reflections = Reflections(hkl, intensity, 0.05 + 0 * intensity, rng.uniform(-50, 50, len(hkl)))
    crystal = Crystal("hR", 0.7, 380, 0.002, 0.0, 0.0, 0.0, ub=ub, cell=cell, center_shift_px=np.zeros(2))
    (phase,) = merge_particles([Member(7, crystal, reflections)])
    assert phase.laue.name == "-1"
    assert phase.space_groups == ()


def test_where_few_reflections_have_an_image_the_metric_decides():
    """Five pairs tell nothing of an operation; an orthorhombic cell with right angles by chance is rare."""
    hkl, value = amplitudes("brookite.cif")
    some = np.random.default_rng(5).permutation(len(hkl))[:40]
    laue, tests, _ = find_laue(hkl[some], value[some], np.ones(40), Repeated(0.9, True), "oP")
    assert all(np.isnan(t.cc) for t in tests)
    assert laue.name == "mmm"
