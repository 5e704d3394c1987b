"""Extraction against patterns that are known."""

import numpy as np
import pytest
from memory_scan import MemoryScan

from stemtomo_dl.config import ExtractConfig
from stemtomo_dl.extract import combine, extract_tilt
from stemtomo_dl.records import Instrument, Masks

CONFIG = ExtractConfig()
INSTRUMENT = Instrument(200, 0.8, 0.03, 5.0, 24.3)
NO_BAD = np.zeros((30, 26), bool)
CENTRE = np.array([13.0, 15.0])


def gaussian(x, y, shape=(30, 26), width=1.5):
    row, col = np.indices(shape)
    return np.exp(-((col - x) ** 2 + (row - y) ** 2) / (2 * width**2))


def two_particles(shape=(20, 24)):
    a, b = np.zeros(shape, bool), np.zeros(shape, bool)
    a[4:10, 4:11] = True
    b[8:15, 9:18] = True
    return Masks.pack(np.stack([a, b]), np.zeros(2), np.ones(2), np.zeros(1)), a, b


def film_and(a, b, pattern_a, pattern_b, film):
    return film + a[..., None, None] * pattern_a + b[..., None, None] * pattern_b


def extract(data, masks, instances=(0, 1), beam=None, bad=NO_BAD, config=CONFIG):
    instances = np.array(instances)
    wanted = combine(masks, instances, masks.at(0), None, config)
    beam = np.broadcast_to(CENTRE, (*data.shape[:2], 2)) if beam is None else beam
    return extract_tilt(MemoryScan(data), instances + 1, wanted, beam, bad, CENTRE, INSTRUMENT, config)


def test_support_and_overlap_are_kept_out():
    masks, a, b = two_particles()
    pa, pb, film = 50 * gaussian(7, 9), 80 * gaussian(19, 20), 30 * gaussian(13, 15, width=4)
    out = extract(film_and(a, b, pa, pb, film).astype("f4"), masks)
    np.testing.assert_allclose(out.patterns[0], pa, atol=1e-3)
    np.testing.assert_allclose(out.patterns[1], pb, atol=1e-3)
    assert out.n_probes.tolist() == [a.sum(), b.sum()]  # the overlap helps
    assert out.separated.all()
    assert out.track.tolist() == [1, 2]
    assert out.measured.all()


def test_an_outline_without_a_track_is_an_obstacle():
    masks, a, b = two_particles()
    pa, pb = 50 * gaussian(7, 9), 80 * gaussian(19, 20)
    out = extract(film_and(a, b, pa, pb, np.zeros((30, 26))).astype("f4"), masks, instances=(0,))
    np.testing.assert_allclose(out.patterns[0], pa, atol=1e-3)


def test_integer_counts_are_summed_exactly():
    rng = np.random.default_rng(0)
    masks, a, b = two_particles()
    data = rng.poisson(2.0, (20, 24, 30, 26)).astype("u2")
    (c,) = combine(masks, np.array([0]), masks.at(0), None, CONFIG)
    out = extract(data, masks, instances=(0,))
    flat = data.reshape(-1, 30, 26).astype("f8")
    expected = np.tensordot(c.own_coefficient, flat[c.own], 1) + np.tensordot(c.rest_coefficient, flat[c.rest], 1)
    np.testing.assert_allclose(out.patterns[0], expected, atol=1e-5)
    assert a.ravel()[c.own].all()
    assert not (a | b).ravel()[c.support].any()


def test_the_combination_is_the_least_squares_solution():
    masks, a, b = two_particles()
    (c,) = combine(masks, np.array([0]), masks.at(0), None, CONFIG)
    weights = np.zeros(a.size)
    weights[c.own], weights[c.rest] = c.own_coefficient, c.rest_coefficient
    # unbiased: all of itself, nothing of the neighbour, nothing of a level support
    np.testing.assert_allclose(
        [weights[a.ravel()].sum(), weights[b.ravel()].sum(), weights.sum()], [1, 0, 0], atol=1e-6
    )
    rows = np.flatnonzero(weights)
    y, x = np.divmod(rows, a.shape[1])
    design = np.stack([a.ravel()[rows], b.ravel()[rows], np.ones(len(rows)), x, y], 1).astype(float)
    # and of all that are, the one of least variance under its weights: weights / W lies in the design's columns
    shared = (a & b).ravel()[rows]
    trust = np.where(shared, 1 / (1 + 0.5 * 10) / 2, 1.0)
    fit = np.linalg.lstsq(design, weights[rows] / trust, rcond=None)[0]
    np.testing.assert_allclose(design @ fit, weights[rows] / trust, atol=1e-6)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.0, -1.0), (0.4, 0.3), (-3.7, 2.2)])
def test_the_beam_is_brought_to_the_centre(shift):
    masks, a, b = two_particles()
    beam = np.broadcast_to(CENTRE + shift, (20, 24, 2))
    wide = 2.0
    data = film_and(a, b, 100 * gaussian(13 + shift[0], 15 + shift[1], width=wide), 0, 0).astype("f4")
    out = extract(data, masks, instances=(0,), beam=beam)
    expected = 100 * gaussian(13, 15, width=wide)
    assert out.patterns[0].sum() == pytest.approx(expected.sum(), rel=1e-3)
    row, col = np.indices((30, 26))
    weight = out.patterns[0] / out.patterns[0].sum()
    assert (weight * col).sum() == pytest.approx(13, abs=0.01)
    assert (weight * row).sum() == pytest.approx(15, abs=0.01)
    np.testing.assert_allclose(out.patterns[0], expected, atol=0.8)  # linear interpolation is off by 6


def test_descan_within_the_scan_is_undone():
    masks, a, _ = two_particles()
    y, x = np.indices((20, 24))
    beam = CENTRE + np.stack([np.round(0.3 * (x - 7)), np.round(-0.5 * (y - 7))], -1)
    data = np.zeros((20, 24, 30, 26), "f4")
    for i, j in zip(*np.nonzero(a), strict=True):
        dx, dy = (beam[i, j] - CENTRE).astype(int)
        data[i, j] = 70 * gaussian(9 + dx, 11 + dy)
    out = extract(data, masks, instances=(0,), beam=beam)
    inside = np.s_[4:-4, 4:-4]
    np.testing.assert_allclose(out.patterns[0][inside], 70 * gaussian(9, 11)[inside], atol=1e-3)
    assert not out.measured[0].all()  # the edges that descan moved in were never measured


def test_bad_pixels_are_interpolated_and_flagged():
    masks, a, b = two_particles()
    bad = NO_BAD.copy()
    bad[9, 7] = True
    data = film_and(a, b, 50 * gaussian(7, 9, width=3), 0, 0).astype("f4")
    data[:, :, 9, 7] = 6e4
    out = extract(data, masks, instances=(0,), bad=bad)
    assert not out.measured[0, 9, 7]
    assert out.measured[0].sum() == bad.size - 1
    assert 30 < out.patterns[0, 9, 7] < 55
    # where descan moves the bad pixel about, the others fill it in
    y, x = np.indices((20, 24))
    beam = CENTRE + np.stack([(x % 3) - 1, 0 * y], -1)
    out = extract(data, masks, instances=(0,), beam=beam, bad=bad)
    assert out.measured[0, 9, 7]


def test_a_covered_particle_still_gets_a_pattern():
    a = np.zeros((20, 24), bool)
    a[5:9, 5:9] = True
    b = np.zeros_like(a)
    b[3:12, 3:14] = True
    masks = Masks.pack(np.stack([a, b]), np.zeros(2), np.ones(2), np.zeros(1))
    data = film_and(a, b, 50 * gaussian(7, 9), 0, 0).astype("f4")
    out = extract(data, masks)
    assert out.n_probes.tolist() == [16, 9 * 11 - 16]
    np.testing.assert_allclose(out.patterns[0], 50 * gaussian(7, 9), atol=1e-3)
    assert out.separated.all()


def test_one_outline_twice_is_not_separated():
    a = np.zeros((20, 24), bool)
    a[5:9, 5:9] = True
    masks = Masks.pack(np.stack([a, a]), np.zeros(2), np.ones(2), np.zeros(1))
    out = extract(film_and(a, a, 50 * gaussian(7, 9), 20 * gaussian(19, 20), 0).astype("f4"), masks)
    assert not out.separated.any()
    both = 50 * gaussian(7, 9) + 20 * gaussian(19, 20)
    np.testing.assert_allclose(out.patterns, [both, both], atol=1e-3)


def test_a_sloping_support_is_taken_away():
    masks, a, _ = two_particles()
    y, x = np.indices((20, 24))
    film = (1 + 0.03 * x - 0.02 * y)[..., None, None] * gaussian(13, 15, width=4) * 30
    out = extract((film + a[..., None, None] * 50 * gaussian(7, 9)).astype("f4"), masks, instances=(0,))
    np.testing.assert_allclose(out.patterns[0], 50 * gaussian(7, 9), atol=2e-3)


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (3.5, 0.0), (1.0, 100.0), (1.0, -3.0)])
def test_variances_are_those_of_repeated_experiments(gain, offset):
    rng = np.random.default_rng(3)
    masks, a, b = two_particles()
    mean = film_and(a, b, 50 * gaussian(7, 9), 80 * gaussian(19, 20), 4 * gaussian(13, 15, width=6))
    beam = np.broadcast_to(CENTRE + (0.3, -0.4), (20, 24, 2))
    runs = [extract((gain * rng.poisson(mean / gain) + offset).astype("f4"), masks, beam=beam) for _ in range(60)]
    spread = np.var([r.patterns for r in runs], axis=0, ddof=1)
    stated = np.mean([r.variance for r in runs], axis=0)
    bright = stated > np.median(stated)
    assert np.median(spread[bright] / stated[bright]) == pytest.approx(1, abs=0.1)
    assert np.mean([r.gain for r in runs]) == pytest.approx(gain, rel=0.1)


def test_purity_tells_one_crystal_from_two():
    rng = np.random.default_rng(4)
    _, a, b = two_particles()
    whole = Masks.pack((a | b)[None], np.zeros(1), np.ones(1), np.zeros(1))
    left = (np.indices(a.shape)[1] < 11) & (a | b)
    one, two = 20 * gaussian(5, 6) + 20 * gaussian(20, 8), 25 * gaussian(8, 25) + 15 * gaussian(22, 24)
    film = 2 * gaussian(13, 15, width=6)
    single = extract(rng.poisson(film_and(a | b, b, one, 0, film)).astype("f4"), whole, instances=(0,))
    double = extract(rng.poisson(film_and(left, (a | b) & ~left, one, two, film)).astype("f4"), whole, instances=(0,))
    assert single.purity[0] > 0.98
    assert 0.45 < double.purity[0] < 0.8
    # without Bragg spots nothing can be said
    bare = extract(rng.poisson(film + np.zeros((20, 24, 1, 1))).astype("f4"), whole, instances=(0,))
    assert np.isnan(bare.purity[0])


def test_values_that_are_not_finite_are_left_out():
    masks, a, b = two_particles()
    data = film_and(a, b, 50 * gaussian(7, 9), 0, 0).astype("f4")
    data[5, 6, 9, 7] = np.nan
    data[6, 6] = np.inf
    out = extract(data, masks, instances=(0,))
    np.testing.assert_allclose(out.patterns[0], 50 * gaussian(7, 9), atol=1e-3)


def test_several_passes_give_the_same():
    masks, _, _ = two_particles()
    data = np.random.default_rng(0).poisson(3.0, (20, 24, 30, 26)).astype("u2")
    once, twice = extract(data, masks), extract(data, masks, config=ExtractConfig(memory_mb=0.001))
    for name in ("track", "patterns", "variance", "measured", "n_probes", "n_support"):
        np.testing.assert_array_equal(getattr(once, name), getattr(twice, name))


def test_the_supports_probes_are_counted():
    masks, a, b = two_particles()
    out = extract(film_and(a, b, 0, 0, 1.0 + np.zeros((30, 26))).astype("f4"), masks)
    assert (out.n_support >= out.n_probes).all()


def test_a_field_without_free_support_is_not_background_corrected():
    full = np.ones((1, 20, 24), bool)
    masks = Masks.pack(full, np.zeros(1), np.ones(1), np.zeros(1))
    data = np.broadcast_to(50 * gaussian(7, 9), (20, 24, 30, 26)).astype("f4")
    out = extract(data, masks, instances=(0,))
    np.testing.assert_allclose(out.patterns[0], 50 * gaussian(7, 9), atol=1e-3)
    assert out.n_support.tolist() == [0]
