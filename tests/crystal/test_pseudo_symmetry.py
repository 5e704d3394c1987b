"""Pseudo-symmetry of a structure is no Laue class; equivalents that multiple scattering makes unlike still are one."""

import numpy as np
import pytest

from stemtomo_dl.crystal.laue import Repeated, find_laue
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
