"""Spots among many large disks, which fill the rings that their noise is told from."""

import numpy as np
import pytest
from crystal.drawn_series import INSTRUMENT

from stemtomo_dl.crystal.spots import find_spots
from stemtomo_dl.geometry import wavelength
from stemtomo_dl.records import DiffractionSeries, Instrument

SIDE = 192


def drawn(radius: float, disks: int, counts: float, ground: float, frames: int = 3):
    """A series of frames with disks apart from each other on a peaked ground, and where they are."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    middle = SIDE / 2 - 0.5
    patterns, places = [], []
    for _ in range(frames):
        mean = ground * (1 + 10 * np.exp(-np.hypot(x - middle, y - middle) / 20))
        here: list[np.ndarray] = []
        for _ in range(4000):
            turn, far = rng.uniform(0, 2 * np.pi), rng.uniform(2 * radius + 12, SIDE / 2 - radius - 3)
            at = middle + far * np.array([np.cos(turn), np.sin(turn)])
            if len(here) < disks and all(np.hypot(*(at - o)) > 2 * radius + 10 for o in here):
                here.append(at)
                disk = np.clip(radius + 0.5 - np.hypot(x - at[0], y - at[1]), 0, 1)
                mean = mean + disk * counts / disk.sum()
        patterns.append(rng.poisson(mean))
        places.append(np.array(here))
    n, ones = np.arange(frames, dtype="i4"), np.ones(frames, "i4")
    lam = wavelength(INSTRUMENT.voltage_kv)
    m = Instrument(INSTRUMENT.voltage_kv, radius * 0.005 * lam * 1e3, 0.005, 5.0, 0.0)
    frames_of = np.array(patterns, "f4")
    return DiffractionSeries(
        m, frames_of, np.ones(frames_of.shape, bool), n * 1.0, n, ones, 0 * ones, np.full(2, middle)
    ), places


@pytest.mark.parametrize(("radius", "disks"), [(2, 12), (5, 12), (10, 6), (14, 4)])
@pytest.mark.parametrize("ground", [2.0, 0.05])
def test_strong_disks_are_found_however_many_there_are(radius, disks, ground):
    series, places = drawn(radius, disks, 3000, ground)
    found = find_spots(series)
    wanted = sum(map(len, places))
    assert wanted >= 0.8 * disks * len(places)
    for frame, at in enumerate(places):
        near = np.linalg.norm(found.px[found.frame == frame][None] - at[:, None], axis=2)
        assert (near.min(1) < 3).all()
    assert len(found) <= wanted + 1


@pytest.mark.parametrize("ground", [0.02, 0.5, 20.0])
def test_a_ground_alone_has_no_spots(ground):
    assert len(find_spots(drawn(5, 0, 0, ground, frames=6)[0])) <= 1


def test_weak_disks_beside_strong_ones_are_as_significant_as_alone():
    series, places = drawn(5, 10, 6000, 1.0)
    y, x = np.mgrid[:SIDE, :SIDE]
    weak, rng = np.zeros(series.patterns.shape), np.random.default_rng(1)
    wanted = []
    for frame, at in enumerate(places):
        for _ in range(300):
            p = rng.uniform(12, SIDE - 12, 2)
            if np.linalg.norm(at - p, axis=1).min() > 22 and np.linalg.norm(p - (SIDE / 2 - 0.5)) > 30:
                weak[frame] += rng.poisson(np.clip(5.5 - np.hypot(x - p[0], y - p[1]), 0, 1) * 400 / 86)
                wanted.append((frame, p))
                break
    series.patterns[:] += weak
    found = find_spots(series)
    for frame, p in wanted:
        assert np.linalg.norm(found.px[found.frame == frame] - p, axis=1).min() < 3
