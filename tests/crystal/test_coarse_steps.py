"""Rocking curves where tilt steps are wider than they are, so that most reflections are caught on a flank or once."""

import numpy as np
import pytest

from stemtomo_dl.crystal.disks import Sums
from stemtomo_dl.crystal.predict import Predicted
from stemtomo_dl.crystal.rocking import Rocking, fit_rocking


@pytest.mark.parametrize(("twice", "off"), [(0.0, 0.0), (0.15, 5e-4)])
def test_a_width_is_found_where_groups_have_one_or_two_measurements(twice, off):
    """With intensities of their own they agree with any width, and with the least best."""
    found = []
    for seed in range(4):
        rng, true, groups = np.random.default_rng(seed), Rocking(1e-3, 1e-6), 400
        group = np.repeat(np.arange(groups), 1 + (rng.random(groups) < twice))
        n = len(group)
        s, zero, intensity = rng.uniform(-0.012, 0.012, n), np.zeros(n), rng.exponential(1.0, groups)[group]
        net = intensity * true.at(s + off * rng.normal(size=n), zero) + rng.normal(0, 4, n)
        at = Predicted(group, np.arange(n), s, np.ones((n, 2)), zero, np.zeros((n, 2)))
        sums = Sums(net, np.full(n, 16.0), zero, np.ones(n, bool))
        found.append(fit_rocking(at, sums, group, Rocking(0.0024, 1e-6), 1e-6).sigma)
    assert np.all(np.abs(np.array(found) - np.hypot(1e-3, off)) < 5e-4), found
