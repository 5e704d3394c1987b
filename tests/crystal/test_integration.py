"""Intensities of crystals that are drawn here: flat disks on a peaked background, counted."""

from dataclasses import replace

import numpy as np
import pytest
from crystal.drawn_series import CENTER, CRYSTAL, INSTRUMENT, SIZE, UB, drawn, no_spots, strength
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.disks import Sums, measure
from stemtomo_dl.crystal.equivalents import disagreement, equivalents
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.integrate import integrate
from stemtomo_dl.crystal.overlap import Places
from stemtomo_dl.crystal.passages import passages, summed
from stemtomo_dl.crystal.predict import Predicted, predict, turning_axes
from stemtomo_dl.crystal.rocking import Rocking
from stemtomo_dl.geometry import tilt_rotation
from stemtomo_dl.records import DiffractionSeries


def intensities(series, geometry=None):
    return integrate(series, no_spots(series), geometry or Geometry(INSTRUMENT, series.alpha_deg), CRYSTAL)


def likeness(found):
    """Correlation with the truth, and the scatter about it in units of the errors that are claimed."""
    true = strength(found.hkl)
    scale = (found.intensity * true / found.sigma**2).sum() / (true**2 / found.sigma**2).sum()
    z = (found.intensity - scale * true) / found.sigma
    return np.corrcoef(found.intensity, true)[0, 1], np.median(np.abs(z)) / 0.6745


@pytest.mark.parametrize(("step", "least"), [(1.0, 0.97), (0.25, 0.98)])
def test_intensities_and_their_errors(step, least):
    found = intensities(drawn(np.arange(-25, 25.01, step)))
    correlation, scatter = likeness(found)
    assert len(found.hkl) > 100
    assert correlation > least
    assert 0.7 < scatter < 1.4


def test_few_counts_are_honest_and_negative_ones_kept():
    found = intensities(drawn(np.arange(-25, 25.01, 0.5), counts=4.0))
    correlation, scatter = likeness(found)
    assert correlation > 0.8
    assert 0.75 < scatter < 1.3
    assert (found.intensity < 0).sum() > 5


def test_order_of_frames_does_not_matter():
    alpha = np.delete(np.arange(-20, 20.01, 0.7), [8, 9, 30])
    series = drawn(alpha)
    order = np.random.default_rng(1).permutation(len(alpha))
    names = ("patterns", "measured", "alpha_deg", "tilt", "n_probes", "n_support")
    mixed = replace(series, **{n: getattr(series, n)[order] for n in names})
    one, two = intensities(series), intensities(mixed)
    np.testing.assert_array_equal(one.hkl, two.hkl)
    np.testing.assert_allclose(one.intensity, two.intensity, rtol=1e-6)


def test_errors_of_the_goniometer_are_found():
    alpha = np.arange(-20, 20.01, 0.3)
    turns = np.radians(np.random.default_rng(2).normal(0, [0.12, 0.03], (len(alpha), 2)))
    series = drawn(alpha, turns)
    found = intensities(series)
    truth = Rotation.from_rotvec(turns @ turning_axes(31.0)) * Rotation.from_matrix(tilt_rotation(31.0, alpha))
    left = (Rotation.from_matrix(found.frames.rotation) * truth.inv()).as_rotvec(degrees=True) @ turning_axes(31.0).T
    assert np.std(left[:, 0]) < 0.5 * np.degrees(np.std(turns[:, 0]))
    group = equivalents(found.hkl, "oP")
    assert disagreement(group, found.intensity) < 0.15


def test_a_good_goniometer_is_left_alone():
    found = intensities(drawn(np.arange(-20, 20.01, 0.3)))
    off = (
        Rotation.from_matrix(found.frames.rotation)
        * Rotation.from_matrix(tilt_rotation(31.0, found.frames.alpha_deg)).inv()
    )
    assert np.degrees(off.magnitude()).std() < 0.02


def at_places(px):
    n = len(px)
    zero = np.zeros(n)
    return Predicted(np.arange(n), np.zeros(n, int), zero, np.zeros((n, 2)), zero, np.asarray(px, float))


def flat_disks(places, counts, radius, level=3.0):
    """One pattern without noise, disks on a flat background."""
    y, x = np.mgrid[:SIZE, :SIZE]
    fine = (np.arange(8) - 3.5) / 8
    out = np.full((SIZE, SIZE), level)
    for (cx, cy), c in zip(places, counts, strict=True):
        disk = np.mean([np.hypot(x + a - cx, y + b - cy) <= radius for a in fine for b in fine], axis=0)
        out += c * disk / disk.sum()
    one = np.ones(1, "i4")
    measured = np.ones((1, SIZE, SIZE), bool)
    return DiffractionSeries(INSTRUMENT, out[None].astype("f4"), measured, np.zeros(1), 0 * one, one, 0 * one, CENTER)


def sums_of(series, places, radius, foreign=None, others=None):
    strong = np.ones(len(places), bool)
    none = Places.none()
    return measure(series, at_places(places), strong, radius, CENTER[None], foreign or none, others or none)


def test_disks_that_overlap_are_parted():
    places, counts = np.array([[70.2, 30.4], [75.3, 33.0], [25.0, 70.0]]), [1000.0, 300.0, 500.0]
    sums = sums_of(flat_disks(places, counts, 4.0), places, 4.0)
    assert sums.whole.all()
    np.testing.assert_allclose(sums.net, counts, rtol=0.06)


def test_disks_upon_each_other_are_not():
    places = np.array([[70.2, 30.4], [71.0, 31.0], [25.0, 70.0]])
    assert sums_of(flat_disks(places, [900.0, 900.0, 500.0], 4.0), places, 4.0).whole.tolist() == [False, False, True]


def test_foreign_spots_and_bad_pixels_spoil_what_they_touch():
    places = np.array([[70.2, 30.4], [25.0, 70.0], [25.0, 25.0]])
    series = flat_disks([*places, (75.0, 30.4)], [1000.0, 500.0, 400.0, 2000.0], 3.0)
    series.measured[0, 71, 26] = False
    sums = sums_of(series, places, 3.0, Places(np.zeros(1, int), np.array([[75.0, 30.4]])))
    assert sums.whole.tolist() == [False, False, True]
    assert sums.net[2] == pytest.approx(400, rel=0.02)


def test_a_peaked_background_leaves_nothing():
    y, x = np.mgrid[:SIZE, :SIZE]
    series = flat_disks([], [], 3.0)
    series.patterns[0] += (400 * np.exp(-np.hypot(x - CENTER[0], y - CENTER[1]) / 7)).astype("f4")
    places = CENTER + 14 * np.array([(1, 0), (0, 1), (-0.6, 0.8)])
    sums = sums_of(series, places, 3.0)
    under = np.pi * 4**2 * 400 * np.exp(-2)
    assert np.abs(sums.net).max() < 0.01 * under


def test_sums_are_integrals_over_uneven_steps():
    """∫ I ds by the trapezoid rule, whatever the order and spacing of excitation errors."""
    rng, rocking = np.random.default_rng(3), Rocking(0.002, 0.0, 0.0)
    s = np.sort(rng.uniform(-0.008, 0.008, 60))
    s = np.insert(s, 30, s[30])  # taken twice
    order = rng.permutation(len(s))
    n, zero = len(s), np.zeros(len(s))
    at = Predicted(np.zeros(n, int), np.arange(n)[order], s[order], np.zeros((n, 2)), zero, np.zeros((n, 2)))
    net = 7.0 * rocking.at(s[order], zero)
    alpha = np.arange(n) * 0.1
    rows, passage = passages(at, alpha)
    sums = Sums(net, np.ones(n), np.zeros(n), np.ones(n, bool)).some(rows)
    out = summed(at.some(rows), sums, passage, rocking)
    assert out.keep.all()
    assert out.intensity == pytest.approx(7.0, rel=1e-3)


def test_turning_is_how_the_excitation_error_changes():
    geometry = Geometry(INSTRUMENT, np.array([12.0]))
    spots = no_spots(drawn(np.array([12.0]), counts=0.0))
    hkl = np.array([[3, 1, 2], [-2, 4, 1], [5, -2, 3], [1, 1, -4]])
    at = predict(hkl, np.full(4, 9.0), spots, geometry, CRYSTAL)
    small = 1e-5
    for k, axis in enumerate(turning_axes(31.0)):
        turned = Rotation.from_rotvec(small * axis).as_matrix() @ geometry.turns()[0]
        change = (geometry.excitation(hkl @ UB.T @ turned.T) - at.s) / small
        np.testing.assert_allclose(at.turning[:, k], change, atol=1e-4)


def test_equivalents_follow_the_lattice():
    hkl = np.array([[1, 2, 3], [-1, -2, -3], [1, -2, 3], [2, 1, 3], [3, 1, 2]])
    assert len(np.unique(equivalents(hkl, "aP"))) == 4
    assert len(np.unique(equivalents(hkl, "mP"))) == 3
    assert len(np.unique(equivalents(hkl, "cF"))) == 2  # m-3 turns 123 into 312 but not into 213
