"""Backgrounds of few counts, and rocking curves whose flanks errors of the orientation scatter."""

import numpy as np
from crystal.drawn_series import CENTER, INSTRUMENT, SIZE, no_spots

from stemtomo_dl.crystal.disks import Sums, measure
from stemtomo_dl.crystal.overlap import Places
from stemtomo_dl.crystal.predict import Predicted
from stemtomo_dl.crystal.rocking import Rocking, fit_rocking
from stemtomo_dl.records import DiffractionSeries


def test_empty_disks_on_few_counts_hold_nothing():
    rng, n = np.random.default_rng(0), 40
    patterns = rng.poisson(0.06, (n, SIZE, SIZE)).astype("f4")
    frame, ones = np.arange(n, dtype="i4"), np.ones(n, "i4")
    measured = np.ones(patterns.shape, bool)
    series = DiffractionSeries(INSTRUMENT, patterns, measured, np.arange(n) * 1.0, frame, ones, 0 * ones, CENTER)
    places = np.stack(np.meshgrid(np.arange(12, SIZE - 12, 12), np.arange(12, SIZE - 12, 12)), -1).reshape(-1, 2)
    places = places[np.linalg.norm(places - CENTER, axis=1) > 12].astype(float)
    m = len(places)
    zero = np.zeros(n * m)
    at = Predicted(np.arange(n * m), np.repeat(frame, m), zero, np.zeros((n * m, 2)), zero, np.tile(places, (n, 1)))
    center = no_spots(series).center_px
    net = measure(series, at, zero > 0, 2.5, center, Places.none(), Places.none()).net
    assert abs(net.mean()) < 3 * net.std() / np.sqrt(len(net))


def test_a_flat_topped_curve_with_wings_keeps_its_core():
    """Of sinc² averaged over thicknesses, where errors of the orientation scatter what is measured on the flanks."""
    rng = np.random.default_rng(1)
    thickness = np.linspace(100.0, 220.0, 25)

    def curve(s):
        return (thickness * np.sinc(thickness * s[:, None]) ** 2).mean(1)

    n, each = 4000, 8
    s = rng.uniform(-0.009, 0.009, n)
    net = 3.0 * curve(s + rng.normal(0, 5e-4, n))
    group, zero = np.repeat(np.arange(n // each), each), np.zeros(n)
    at = Predicted(group, np.arange(n), s, np.ones((n, 2)), zero, np.zeros((n, 2)))
    sums = Sums(net + rng.normal(0, 1, n), np.ones(n), zero, np.ones(n, bool))
    found = fit_rocking(at, sums, group, Rocking(0.002, 1e-6), 1e-6)
    x = np.linspace(0, 0.004, 9)
    ratio = found.at(x, 0 * x) / curve(x)  # areas differ by wings beyond what was measured
    assert np.ptp(ratio) < 0.1 * ratio.mean()
