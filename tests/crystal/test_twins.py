"""Two orientations of one crystal in one series: what lies upon the other's reflections is not measured."""

from dataclasses import replace

import numpy as np
import pytest
from crystal.drawn_series import CRYSTAL, INSTRUMENT, UB, drawn, strength
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.equivalents import disagreement, equivalents
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.integrate import integrate
from stemtomo_dl.crystal.spots import find_spots

ALPHA = np.arange(-22, 22.01, 0.5)
TURNED = Rotation.from_rotvec(np.radians(37) * np.array([0.6, -0.48, 0.64])).as_matrix() @ UB


@pytest.fixture(scope="module")
def twins():
    series = drawn(ALPHA, counts=150.0)
    other = drawn(ALPHA, counts=110.0, background=0.0, seed=1, ub=TURNED)
    series = replace(series, patterns=series.patterns + other.patterns)
    return series, find_spots(series)


def r1(found):
    """Σ|k|F| − |F_true|| / Σ|F_true|, passages unmerged."""
    true, amplitude = np.sqrt(strength(found.hkl)), np.sqrt(np.maximum(found.intensity, 0))
    return np.abs((amplitude @ true) / (amplitude @ amplitude) * amplitude - true).sum() / true.sum()


def test_what_lies_upon_the_others_is_left_out(twins):
    series, spots = twins
    geometry, other = Geometry(INSTRUMENT, ALPHA), replace(CRYSTAL, ub=TURNED)
    alone = integrate(series, spots, geometry, CRYSTAL)
    parted = integrate(series, spots, geometry, CRYSTAL, [other])
    r_int = [disagreement(equivalents(r.hkl, "oP"), r.intensity) for r in (alone, parted)]
    assert r1(parted) < 0.9 * r1(alone)
    assert r_int[1] < r_int[0]
    assert len(parted.hkl) > 0.6 * len(alone.hkl)


def test_a_grain_turned_a_little_and_a_lattice_without_spots_take_nothing_away(twins):
    series, spots = twins
    geometry = Geometry(INSTRUMENT, ALPHA)
    little, far = (Rotation.from_rotvec([0, 0, np.radians(a)]).as_matrix() @ UB for a in (0.4, 61.0))
    alone = integrate(series, spots, geometry, CRYSTAL)
    for ub in (little, far):
        found = integrate(series, spots, geometry, CRYSTAL, [replace(CRYSTAL, ub=ub)])
        np.testing.assert_array_equal(found.hkl, alone.hkl)
