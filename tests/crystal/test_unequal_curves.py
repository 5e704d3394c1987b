"""Intensities where reflections' rocking curves differ, and where the lattice's equivalents are not equal."""

import numpy as np
import pytest
from crystal.drawn_series import CRYSTAL, INSTRUMENT, drawn, no_spots

from stemtomo_dl.crystal.disks import Sums
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.integrate import integrate
from stemtomo_dl.crystal.predict import Predicted
from stemtomo_dl.crystal.rocking import Rocking, doubt_of

CURVE = Rocking(2e-3, 1e-6)
LENGTH = 1.0  # 1/Å


def of_mates(hkl):
    """Exponential intensities that only Friedel mates share."""
    return np.array([np.random.default_rng(k).exponential() for k in np.abs(hkl @ [1, 31, 997])])


def measured(turn_deg=0.0, top=0.0, seed=0, groups=60, each=12):
    """Groups of equals, measured at errors of the orientation, and with curves of which the top is off."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), each)
    n = len(group)
    s, zero = rng.uniform(-0.005, 0.005, n), np.zeros(n)
    value = CURVE.at(s + LENGTH * np.radians(turn_deg) * rng.normal(size=n), zero)
    value = value + top * CURVE.peak(zero) * rng.normal(size=n)
    net = rng.exponential(1.0, groups)[group] * value + rng.normal(0, 0.3, n)
    at = Predicted(group, np.arange(n), s, np.ones((n, 2)), zero, np.tile([LENGTH, 0.0], (n, 1)))
    return at, Sums(net, np.full(n, 0.09), zero, np.ones(n, bool)), CURVE, group


@pytest.mark.parametrize("seed", range(4))
def test_what_is_uncertain_is_told_by_where_on_the_curve_it_scatters(seed):
    """However strong the intensities are: what is uncertain of them is far more than their counts tell."""
    turned, uneven, sure = (doubt_of(*measured(*off, seed)) for off in ((0.05, 0.0), (0.0, 0.1), (0.0, 0.0)))
    assert turned.turn >= np.radians(0.02)
    assert uneven.turn <= np.radians(0.01)
    assert np.hypot(uneven.of_peak, uneven.of_value) > 0.05
    assert (sure.turn, sure.of_peak, sure.of_value) == (0, 0, 0)


def test_a_metric_above_the_symmetry():
    """An orthorhombic lattice of a crystal whose intensities only Friedel mates share."""
    series = drawn(np.arange(-30, 30.01, 0.5), counts=100.0, power=of_mates)
    found = integrate(series, no_spots(series), Geometry(INSTRUMENT, series.alpha_deg), CRYSTAL)
    assert len(found.hkl) > 300
    assert np.corrcoef(found.intensity, of_mates(found.hkl))[0, 1] > 0.98
