"""Sigmas of shells in which equivalents differ by more, or by less, than they say."""

import numpy as np
import pytest

from stemtomo_dl.crystal.error_shells import interpolated, shell_factors
from stemtomo_dl.crystal.statistics import Observations, shells


def observations(rng, n_groups=900, each=4):
    group = np.repeat(np.arange(n_groups), each)
    inverse_d = np.linspace(0.2, 1.5, n_groups)[group]
    true = rng.exponential(100, n_groups)[group]
    sigma = rng.uniform(2, 12, len(group))
    return group, inverse_d, true, sigma


def test_deviations_become_one_in_every_shell():
    rng = np.random.default_rng(1)
    group, inverse_d, true, sigma = observations(rng)
    of_truth = np.where(inverse_d < 0.6, 1.8, 0.7)
    intensity = true + of_truth * sigma * rng.normal(size=len(group))
    factor = interpolated(shell_factors(group, intensity, sigma, inverse_d), inverse_d)
    for low, high, expected in ((0.2, 0.5, 1.8), (0.75, 1.5, 0.7)):
        inside = (inverse_d > low) & (inverse_d < high)
        assert factor[inside] == pytest.approx(expected, rel=0.12)
        assert np.std(((intensity - true) / sigma / factor)[inside]) == pytest.approx(1, abs=0.05)


def test_where_equivalents_are_few_sigmas_stay():
    rng = np.random.default_rng(2)
    group, inverse_d, true, sigma = observations(rng, n_groups=20)
    assert shell_factors(group, true, sigma, inverse_d) == ()
    once = np.arange(500)
    assert shell_factors(once, np.ones(500), np.ones(500), np.linspace(0.2, 1, 500)) == ()
    np.testing.assert_array_equal(interpolated((), inverse_d), 1)


@pytest.mark.parametrize(("repeated", "known"), [(4, False), (5, True)])
def test_a_few_repeated_reflections_have_no_r(repeated, known):
    group = np.r_[np.arange(30), np.arange(repeated)]
    intensity = np.random.default_rng(3).uniform(50, 100, len(group))
    observed = Observations(group, intensity, np.ones(len(group)))
    inverse_d = np.linspace(0.3, 1, 30)
    (shell,) = shells(
        observed, (intensity[:30], np.ones(30)), inverse_d, inverse_d, np.array([0.3, 1.0]), np.random.default_rng(0)
    )
    assert np.isfinite([shell.r_int, shell.r_meas, shell.r_pim]).all() == known
