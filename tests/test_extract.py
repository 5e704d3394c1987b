"""Extraction against patterns that are known."""

import numpy as np
import pytest
from memory_scan import MemoryScan

from stemtomo_dl.config import ExtractConfig
from stemtomo_dl.extract import choose_probes, extract_tilt
from stemtomo_dl.records import Masks

CONFIG = ExtractConfig()
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
    probes = choose_probes(masks, instances, instances + 1, masks.at(0), config)
    beam = np.broadcast_to(CENTRE, (*data.shape[:2], 2)) if beam is None else beam
    return extract_tilt(MemoryScan(data), probes, beam, bad, CENTRE, config)


def test_support_and_overlap_are_kept_out():
    masks, a, b = two_particles()
    pa, pb, film = 50 * gaussian(7, 9), 80 * gaussian(19, 20), 30 * gaussian(13, 15, width=4)
    out = extract(film_and(a, b, pa, pb, film).astype("f4"), masks)
    np.testing.assert_allclose(out.patterns[0], pa, atol=1e-3)
    np.testing.assert_allclose(out.patterns[1], pb, atol=1e-3)
    overlap = (a & b).sum()
    assert out.n_probes.tolist() == [a.sum() - overlap, b.sum() - overlap]
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
    probes = choose_probes(masks, np.array([0]), np.array([1]), masks.at(0), CONFIG)
    own = np.flatnonzero(a & ~b)
    out = extract(data, masks, instances=(0,))
    flat = data.reshape(-1, 30, 26).astype("f8")
    ring = np.repeat(np.arange(len(flat)), np.diff(probes.start))[probes.sums == 1]
    np.testing.assert_allclose(out.patterns[0], flat[own].mean(0) - flat[ring].mean(0), atol=1e-5)
    assert not (a | b).ravel()[ring].any()


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.0, -1.0), (0.4, 0.3), (-3.7, 2.2)])
def test_the_beam_is_brought_to_the_centre(shift):
    masks, a, b = two_particles()
    beam = np.broadcast_to(CENTRE + shift, (20, 24, 2))
    wide = 2.0
    data = film_and(a, b, 100 * gaussian(13 + shift[0], 15 + shift[1], width=wide), 0, 0).astype("f4")
    out = extract(data, masks, instances=(0,), beam=beam)
    # linear interpolation broadens a little, and keeps counts and centroid
    expected = 100 * gaussian(13, 15, width=wide)
    assert out.patterns[0].sum() == pytest.approx(expected.sum(), rel=1e-3)
    row, col = np.indices((30, 26))
    weight = out.patterns[0] / out.patterns[0].sum()
    assert (weight * col).sum() == pytest.approx(13, abs=0.01)
    assert (weight * row).sum() == pytest.approx(15, abs=0.01)
    # … by f (1 − f) px² at most, f = ½ in both directions: 100 · (¼ + ¼) / 2 / 2²
    np.testing.assert_allclose(out.patterns[0], expected, atol=6.25)


def test_descan_within_the_scan_is_undone():
    masks, a, b = two_particles()
    y, x = np.indices((20, 24))
    beam = CENTRE + np.stack([np.round(0.3 * (x - 7)), np.round(-0.5 * (y - 7))], -1)
    data = np.zeros((20, 24, 30, 26), "f4")
    for i, j in zip(*np.nonzero(a & ~b), strict=True):
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
    for name in ("track", "patterns", "measured", "n_probes", "n_support"):
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
