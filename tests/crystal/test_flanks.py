"""Rocking curves whose flanks errors of the orientation scatter."""

import numpy as np

from stemtomo_dl.crystal.disks import Sums
from stemtomo_dl.crystal.predict import Predicted
from stemtomo_dl.crystal.rocking import Rocking, fit_rocking


def fitted(curve, off, start, n=4000, each=8):
    """The curve found in groups of equals whose excitation errors are off by ``off``."""
    rng = np.random.default_rng(1)
    s = rng.uniform(-0.009, 0.009, n)
    net = 3.0 * curve(s + rng.normal(0, off, n))
    group, zero = np.repeat(np.arange(n // each), each), np.zeros(n)
    at = Predicted(group, np.arange(n), s, np.ones((n, 2)), zero, np.zeros((n, 2)))
    sums = Sums(net + rng.normal(0, 1, n), np.ones(n), zero, np.ones(n, bool))
    return fit_rocking(at, sums, group, Rocking(start, 1e-6), 1e-6)


def test_a_flat_topped_curve_with_wings_keeps_its_core():
    """Of sinc² averaged over thicknesses."""
    thickness = np.linspace(100.0, 220.0, 25)

    def curve(s):
        return (thickness * np.sinc(thickness * s[:, None]) ** 2).mean(1)

    found = fitted(curve, 3e-4, 0.002)
    x = np.linspace(0, 0.004, 9)
    ratio = found.at(x, 0 * x) / curve(x)  # areas differ by wings beyond what was measured
    assert np.ptp(ratio) < 0.1 * ratio.mean()


def test_orientations_off_by_a_width_leave_the_curve_wide():
    """What is seen is as wide as the curve and the errors together, not as the few frames that happen to agree."""
    true = Rocking(1e-3, 1e-6)
    found = fitted(lambda s: true.at(s, 0 * s), 1e-3, 0.0024)
    x = np.linspace(-0.009, 0.009, 1001)
    curve = found.at(x, 0 * x)
    half = np.ptp(x[curve > curve.max() / 2])
    assert 1e-3 * 2.355 < half < 1e-3 * 2.355 * 1.8
