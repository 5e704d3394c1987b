"""Appearance: a particle looks like itself, and a sighting under a wrong name is told."""

import numpy as np
import pytest

from stemtomo_dl.records import Masks
from stemtomo_dl.virtual import describe, identity_check
from stemtomo_dl.virtual.sectors import SECTORS


def squares(side=40, size=6):
    """Nine squares on a grid."""
    full = np.zeros((9, side, side), bool)
    for k in range(9):
        y, x = 3 + 12 * (k // 3), 3 + 12 * (k % 3)
        full[k, y : y + size, x : x + size] = True
    return full


def pack(full):
    return Masks.pack(full, np.zeros(len(full)), np.ones(len(full)), np.zeros(1))


def spots(rng, count=9):
    return rng.standard_gamma(0.15, (count, SECTORS))


def counts(full, patterns, rng, film=3.0):
    mean = np.full((*full.shape[1:], SECTORS), film)
    for mask, pattern in zip(full, patterns, strict=True):
        mean[mask] += 6 * pattern
    return rng.poisson(mean).astype("f4")


@pytest.mark.parametrize("gain", [1.0, 25.0])
def test_particles_resemble_themselves_and_nobody_else(gain):
    rng = np.random.default_rng(1)
    full, patterns = squares(), spots(rng)
    a, b = (describe(gain * counts(full, patterns, rng), pack(full), 30.0) for _ in range(2))
    assert a.shape == (9, SECTORS)
    np.testing.assert_allclose(a.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(a.std(1), 1, rtol=1e-5)
    alike = a @ b.T / SECTORS
    own, other = np.diag(alike), alike[~np.eye(9, dtype=bool)]
    assert own.min() > other.max()
    assert own.mean() > 0.5


def test_what_is_nothing_but_noise_has_no_pattern():
    rng = np.random.default_rng(2)
    full, patterns = squares(), spots(rng)
    patterns[4] = 0.0
    patterns[7] = 1.0  # brighter than the film, but evenly
    rows = describe(counts(full, patterns, rng), pack(full), 0.0)
    np.testing.assert_array_equal(np.isnan(rows).all(1), np.isin(np.arange(9), (4, 7)))
    assert describe(counts(full, patterns, rng), pack(full[:0]), 0.0).shape == (0, SECTORS)


def test_probes_under_two_outlines_do_not_count():
    rng = np.random.default_rng(3)
    full, patterns = squares(), spots(rng)
    alone = describe(counts(full, patterns, rng), pack(full), 0.0)
    wide = full.copy()
    wide[0, 3:9, 9:20] = True  # reaches over most of its neighbour
    wide[1, 3:9, 21:24] = True
    patterns[0] *= 10
    row = describe(counts(wide, patterns, rng), pack(wide), 0.0)[1]
    assert row @ alone[1] / SECTORS > 0.35
    assert row @ alone[0] / SECTORS < 0.1


def test_probes_that_share_a_pattern_find_their_particle():
    rng = np.random.default_rng(4)
    full, patterns = squares(), spots(rng)
    sectors = counts(full, patterns, rng)
    binned = sectors.reshape(20, 2, 20, 2, -1).sum((1, 3))
    alike = describe(binned, pack(full), 0.0) @ describe(sectors, pack(full), 0.0).T
    assert (alike.argmax(1) == np.arange(9)).all()


def series(tilts=8, noise=0.6):
    """Patterns of nine tracks that drift from tilt to tilt."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(tilts, 9, SECTORS))
    for k in range(1, tilts):
        rows[k] = np.sqrt(1 - noise**2) * rows[k - 1] + noise * rows[k]
    return rows.reshape(-1, SECTORS), np.tile(np.arange(9), tilts), np.repeat(np.arange(tilts), 9)


def test_wrong_names_are_told():
    rows, track, tilt = series()
    assert identity_check(rows, track, tilt).min() > 0.85
    swapped = track.copy()
    a, b = 4 * 9 + 2, 4 * 9 + 6
    swapped[[a, b]] = swapped[[b, a]]
    score = identity_check(rows, swapped, tilt)
    assert score[[a, b]].max() < 0.8
    assert np.median(score) > 0.95


def test_identity_looks_over_gaps_and_says_where_it_cannot():
    rows, track, tilt = series()
    gap = ~((track == 3) & np.isin(tilt, (3, 4)))
    assert identity_check(rows[gap], track[gap], tilt[gap]).min() > 0.7
    rows[(track == 3) & (tilt == 0)] = np.nan
    once = (track != 3) | (tilt == 0)
    score = identity_check(rows[once], track[once], tilt[once])
    np.testing.assert_array_equal(np.isnan(score), (track == 3)[once])
    assert np.isnan(identity_check(rows[:9], track[:9], tilt[:9])).all()
    assert np.isnan(identity_check(rows[track == 1], track[track == 1], tilt[track == 1])).all()
    assert identity_check(rows[:0], track[:0], tilt[:0]).shape == (0,)
