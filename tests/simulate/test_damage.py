"""How Bragg intensities fade with the dose."""

import numpy as np
import pytest
from pydantic import ValidationError

from stemtomo_dl.simulate.damage import Damage, fading

G = np.array([0.2, 0.5, 1.0, 1.25])


def test_a_reflection_falls_to_1_over_e_at_its_critical_dose():
    linear = Damage(critical_dose_e_per_A2=300, at_A=2.0)
    for d, critical in ((2.0, 300), (1.0, 150), (4.0, 600)):  # D_c ∝ d
        assert fading(linear, critical, np.array([1 / d]))[0] == pytest.approx(np.exp(-1))
    np.testing.assert_allclose(fading(linear, 100, G) ** 3, fading(linear, 300, G))  # exponential in the dose


def test_power_two_is_a_growing_b_factor():
    damage = Damage(critical_dose_e_per_A2=500, at_A=1.5, power=2)
    b = 2 * 1.5**2 * 120 / 500
    np.testing.assert_allclose(fading(damage, 120, G), np.exp(-b * (G / 2) ** 2) ** 2)


def test_limits():
    damage = Damage(critical_dose_e_per_A2=500)
    np.testing.assert_array_equal(fading(None, 1e9, G), 1)
    np.testing.assert_array_equal(fading(damage, 0, G), 1)
    np.testing.assert_allclose(fading(Damage(critical_dose_e_per_A2=500, power=0), 500, G), np.exp(-1))
    assert (np.diff(fading(damage, 200, G)) < 0).all()


def test_impossible_doses_are_refused():
    for values in ({"critical_dose_e_per_A2": 0}, {}, {"critical_dose_e_per_A2": 5, "power": -1}):
        with pytest.raises(ValidationError):
            Damage(**values)
