"""The camera's ellipse against patterns that were stretched by a known one."""

import numpy as np
import pytest

from stemtomo_dl.extract.ellipse import ellipse, stretch
from stemtomo_dl.simulate.distortion import Ellipse

CENTRE = np.array([47.3, 49.1])
GOOD = np.ones((98, 96), bool)


def rings(ratio, azimuth_deg):
    """Counts of an amorphous support on a camera that stretches it."""
    y, x = np.indices(GOOD.shape)
    seen = np.stack([x - CENTRE[0], y - CENTRE[1]], -1)
    r = np.linalg.norm(seen @ np.linalg.inv(Ellipse(ratio=ratio, azimuth_deg=azimuth_deg).matrix()).T, axis=-1)
    return 400 / (1 + (r / 9) ** 2) + 60 * np.exp(-0.5 * ((r - 30) / 4) ** 2)


@pytest.mark.parametrize(("ratio", "azimuth"), [(1.01, 30.0), (1.02, 120.0), (1.006, 0.0)])
def test_a_stretch_is_found(ratio, azimuth):
    found = stretch(rings(ratio, azimuth), GOOD, CENTRE, 6.0)
    size = (ratio - 1) / (ratio + 1)
    expected = size * np.array([np.cos(2 * np.radians(azimuth)), np.sin(2 * np.radians(azimuth))])
    np.testing.assert_allclose(found, expected, atol=0.1 * size)


def test_bad_pixels_and_a_centre_off_by_little_do_not_look_like_one():
    good = GOOD.copy()
    good[60:64] = False
    spoiled = np.where(good, rings(1.0, 0.0), 1e5)
    np.testing.assert_allclose(stretch(spoiled, good, CENTRE + (0.2, -0.1), 6.0), 0, atol=5e-4)


def test_noise_alone_is_a_circle_and_an_ellipse_is_told_from_it():
    rng = np.random.default_rng(0)
    flat = [stretch(rng.poisson(rings(1.0, 0.0)), GOOD, CENTRE, 6.0) for _ in range(12)]
    assert ellipse(np.array(flat)) is None
    found = ellipse(np.array([stretch(rng.poisson(rings(1.01, 30.0)), GOOD, CENTRE, 6.0) for _ in range(12)]))
    assert found.ratio == pytest.approx(1.01, abs=0.001)
    assert found.azimuth_deg == pytest.approx(30, abs=4)


def test_a_pattern_without_whole_rings_tells_nothing():
    assert np.isnan(stretch(rings(1.0, 0.0), GOOD, np.array([4.0, 49.0]), 6.0)).all()
    assert ellipse(np.full((9, 2), np.nan)) is None
