"""The beam behind a stop, found by the symmetry of what scatters about it."""

import numpy as np
import pytest
from memory_scan import MemoryScan

from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.records import Instrument, TiltSeries
from stemtomo_dl.virtual import beam_positions, virtual_images
from stemtomo_dl.virtual.hidden import hidden_in_series, is_hidden, symmetry_centre

INSTRUMENT = Instrument(200, 1.0, 0.02, 5.0, 10.0)  # disks of 1.99 px radius
DISK, SCAN, SHAPE = 1.99, (12, 20), (72, 66)


def patterns(at, stop, saturated=None, offset=0.0, dtype="u2", seed=0):
    """A film's diffuse rings, in a third of the probes a crystal with bright reflections, and a stop."""
    rng = np.random.default_rng(seed)
    row, col = np.indices(SHAPE)
    x, y = col - at[0], row - at[1]
    r = np.hypot(x, y)
    film = 4 * np.exp(-r / 9) + 0.6 * np.exp(-(((r - 17) / 3) ** 2)) + 5000 * np.clip(DISK + 0.5 - r, 0, 1)
    mean = np.tile(film, (*SCAN, 1, 1))
    for _ in range(6):  # crystals, of whose pairs of reflections one is mostly stronger
        probe = rng.integers(0, [SCAN[0] - 3, SCAN[1] - 4])
        a, b = rng.normal(0, 9, (2, 2))
        for h, k in np.ndindex(5, 5):
            gx, gy = (h - 2) * a + (k - 2) * b
            if h != 2 or k != 2:
                spot = rng.exponential(60) * np.clip(DISK + 0.5 - np.hypot(x - gx, y - gy), 0, 1)
                mean[probe[0] : probe[0] + 3, probe[1] : probe[1] + 4] += spot
    mean[..., stop(x, y)] *= 0.0
    data = rng.poisson(mean).astype(float) + offset
    if dtype == "f4":
        data += rng.normal(0, 0.5, data.shape)
    return np.minimum(data, saturated or np.inf).astype(dtype)


def disk_and_arm(x, y):
    return (np.hypot(x, y) < 4) | ((np.abs(y) < 2) & (x < 0))


def arm(x, y):
    return np.abs(y + 0.4 * x) < 4


def beyond(x, y):
    """An arm that leaves the direct beam free."""
    return (np.abs(y) < 3) & (x > 5)


CENTRES = [(33.3, 36.4), (28.1, 40.7)]


@pytest.mark.parametrize("stop", [disk_and_arm, arm])
@pytest.mark.parametrize("at", CENTRES)
@pytest.mark.parametrize(("dtype", "offset"), [("u2", 0), ("f4", 3.0)])
def test_a_beam_behind_a_stop_is_where_the_pattern_has_its_centre(stop, at, dtype, offset):
    data = patterns(at, stop, dtype=dtype, offset=offset)
    v = virtual_images(MemoryScan(data), INSTRUMENT, np.zeros(SHAPE, bool), ImagesConfig())
    assert np.abs(beam_positions(v.beam_px, SCAN) - at).max() < 0.3
    assert not v.beam_px[:, 1:].any()
    assert np.isfinite(v.images).all()


def test_a_stop_that_is_masked_has_no_say():
    at = CENTRES[1]
    row, col = np.indices(SHAPE)
    bad = arm(col - at[0], row - at[1])
    data = patterns(at, arm)
    mean = np.where(bad, 1e6, data.mean((0, 1)))
    assert np.abs(symmetry_centre(mean, ~bad) - at).max() < 0.3


@pytest.mark.parametrize("saturated", [None, 200])
def test_a_beam_beside_a_stop_is_measured_itself(saturated):
    at = np.array(CENTRES[0])
    data = patterns(at, beyond, saturated)
    v = virtual_images(MemoryScan(data), INSTRUMENT, np.zeros(SHAPE, bool), ImagesConfig())
    assert np.abs(beam_positions(v.beam_px, SCAN) - at).max() < 0.25
    assert v.beam_px[:, 1:].any()  # with its descan


def test_the_centre_is_exact_and_follows_the_pattern():
    row, col = np.indices(SHAPE)
    for at in ((30.0, 33.5), (31.5, 40.0)):
        x, y = col - at[0], row - at[1]
        pattern = np.exp(-((x / 9) ** 2) - (y / 12) ** 2 - x * y / 200)
        np.testing.assert_allclose(symmetry_centre(pattern, np.ones(SHAPE, bool)), at, atol=0.02)


def test_a_pattern_without_structure_has_no_centre():
    assert np.isnan(symmetry_centre(np.ones(SHAPE), np.ones(SHAPE, bool))).all()
    assert np.isnan(symmetry_centre(np.full(SHAPE, np.nan), np.ones(SHAPE, bool))).all()
    assert not is_hidden(np.nan, DISK)


def test_a_stop_that_leaks_at_one_tilt_hides_the_beam_there_too():
    at = np.array(CENTRES[0])

    def leaking(x, y):  # a rim of the beam's disk passes
        return arm(x, y) & (y + 0.4 * x < 1.2)

    none, config = np.zeros(SHAPE, bool), ImagesConfig()
    scans = tuple(MemoryScan(patterns(at, s, seed=k)) for k, s in enumerate((arm, leaking, arm)))
    series = TiltSeries("t", INSTRUMENT, scans, ("a", "b", "c"), np.arange(3.0))
    assert hidden_in_series(series, none, config)
    alone, told = (virtual_images(scans[1], INSTRUMENT, none, config, h) for h in (None, True))
    assert not alone.beam_hidden
    assert told.beam_hidden
    off = [np.abs(beam_positions(v.beam_px, SCAN) - at).max() for v in (alone, told)]
    assert off[1] < 0.6 < 2 * off[1] < off[0], off
    seen = tuple(MemoryScan(patterns(at, beyond, seed=k)) for k in range(3))
    assert not hidden_in_series(TiltSeries("t", INSTRUMENT, seen, ("a", "b", "c"), np.arange(3.0)), none, config)
