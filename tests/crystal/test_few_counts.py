"""Backgrounds of few counts."""

import numpy as np
from crystal.drawn_series import CENTER, INSTRUMENT, SIZE, no_spots

from stemtomo_dl.crystal.disks import measure
from stemtomo_dl.crystal.overlap import Places
from stemtomo_dl.crystal.predict import Predicted
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
