"""The support's geometry against closed forms and a ray-trace."""

from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from stemtomo_dl.geometry import tilt_rotation
from stemtomo_dl.simulate.film import Film, film_path, make_film

FIELD = SimpleNamespace(scan=(60, 80), step_nm=4.0, voltage_kv=200.0)
EXTENT = (320.0, 240.0)
STILL = np.zeros(2)


def film(**keys):
    described = Film.model_validate({"thickness_nm": 8.0, "mean_free_path_nm": 120.0, **keys})
    return described, make_film(described, EXTENT, np.random.default_rng(5))


def path(described, mapped, alpha=0.0, drift=STILL, axis=30.0):
    return film_path(described, mapped, tilt_rotation(axis, alpha), drift, FIELD)


@pytest.mark.parametrize("alpha", [0, 35, -62])
def test_flat_film_is_crossed_over_its_thickness_by_the_cosine(alpha):
    described, mapped = film()
    np.testing.assert_allclose(path(described, mapped, alpha), 8 / np.cos(np.radians(alpha)))


def test_a_round_hole_becomes_an_ellipse_where_the_stage_puts_it():
    described, mapped = film(holes={"diameter_nm": 120, "period_nm": 1000})
    (hole,) = mapped.holes
    alpha, axis, drift = 50.0, 90.0, np.array([3.0, -2.0])
    mapped = type(mapped)(
        **{**{k: getattr(mapped, k) for k in mapped.__dataclass_fields__}, "holes": np.array([[40, -20, 60.0]])}
    )
    seen = path(described, mapped, alpha, drift, axis) == 0
    x = (np.arange(80) - 39.5 - 3) * 4
    y = (np.arange(60) - 29.5 + 2) * 4
    c = np.cos(np.radians(alpha))
    expected = ((x / c - 40) ** 2)[None] + ((y + 20) ** 2)[:, None] < 3600
    np.testing.assert_array_equal(seen, expected)
    assert seen.sum() * 16 == pytest.approx(np.pi * 3600 * c, rel=0.05)
    assert hole[2] == 60


def test_holes_in_an_array_and_scattered_take_the_stated_area():
    x, y = np.meshgrid(np.arange(-400, 400, 2.0), np.arange(-400, 400, 2.0))
    _, array = film(holes={"diameter_nm": 100, "period_nm": 200})
    assert array.in_hole(x, y).mean() == pytest.approx(np.pi * 50**2 / 200**2, rel=0.03)
    shift = 200 * np.array([np.cos(array.azimuth), np.sin(array.azimuth)])
    np.testing.assert_array_equal(array.in_hole(x, y), array.in_hole(x + 3 * shift[0], y + 3 * shift[1]))
    _, scattered = film(holes={"diameter_nm": 40, "diameter_sigma": 0.3, "per_um2": 100})
    area = np.pi * (3 * np.hypot(*EXTENT)) ** 2 * 1e-6
    assert len(scattered.holes) == pytest.approx(100 * area, abs=4 * np.sqrt(100 * area))
    assert np.log(scattered.holes[:, 2]).mean() == pytest.approx(np.log(20), abs=0.05)
    covered = 1 - np.exp(-100e-6 * np.pi * np.mean(scattered.holes[:, 2] ** 2))
    assert scattered.in_hole(x, y).mean() == pytest.approx(covered, abs=0.06)


def test_dirt_adds_its_thickness():
    described, mapped = film(contamination={"per_um2": 40, "diameter_nm": 80, "thickness_nm": 30})
    x, y = np.meshgrid((np.arange(80) - 39.5) * 4, (np.arange(60) - 29.5) * 4)
    expected = np.full(x.shape, 8.0)
    for px, py, radius in mapped.dirt:
        r2 = ((x - px) ** 2 + (y - py) ** 2) / radius**2
        expected += np.where(r2 < 1, 30 * (1 - r2) ** 2, 0)
    np.testing.assert_allclose(path(described, mapped), expected)
    assert expected.max() > 25


def test_wrinkles_have_the_stated_height_and_correlation():
    heights, pairs = [], []
    described = Film.model_validate({"wrinkles": {"height_nm": 12, "length_nm": 150}})
    for seed in range(400):
        mapped = make_film(described, EXTENT, np.random.default_rng(seed))
        z = mapped.height(np.array([0.0, 150, 300]), np.array([0.0, 0, 0]))[0]
        heights.append(z[0])
        pairs.append([z[0] * z[1], z[0] * z[2]])
    assert np.std(heights) == pytest.approx(12, rel=0.12)
    np.testing.assert_allclose(np.mean(pairs, 0) / 144, [np.exp(-1), np.exp(-4)], atol=0.15)
    x, y, d = np.linspace(-200, 200, 50), np.linspace(-90, 70, 50), 1e-4
    z, slope_x, slope_y = mapped.height(x, y)
    np.testing.assert_allclose((mapped.height(x + d, y)[0] - mapped.height(x - d, y)[0]) / 2 / d, slope_x, atol=1e-6)
    np.testing.assert_allclose((mapped.height(x, y + d)[0] - mapped.height(x, y - d)[0]) / 2 / d, slope_y, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 40.0, -55.0])
def test_wrinkled_film_is_crossed_as_a_ray_trace_says(alpha):
    """March along the beam through the layer |z − h| < T/2 · √(1 + |∇h|²), which is T thick along its normal."""
    described, mapped = film(wrinkles={"height_nm": 10, "length_nm": 160})
    rotation, drift = tilt_rotation(30, alpha), np.array([2.0, 1.0])
    found = film_path(described, mapped, rotation, drift, FIELD)
    rng = np.random.default_rng(0)
    for _ in range(25):
        row, column = rng.integers(60), rng.integers(80)
        lab = np.array([(column - 39.5 - 2) * 4, (row - 29.5 - 1) * 4, 0])
        t = np.arange(-400, 400, 0.02)
        p = lab @ rotation + t[:, None] * rotation[2]
        h, sx, sy = mapped.height(p[:, 0], p[:, 1])
        length = (np.abs(p[:, 2] - h) < 4 * np.sqrt(1 + sx**2 + sy**2)).sum() * 0.02
        assert found[row, column] == pytest.approx(length, rel=0.06)
    assert found.std() > 0.02


def test_needle_is_a_cone_with_the_stated_tip_and_angle():
    described, mapped = film(thickness_nm=0, needle={"tip_nm": (30, 10), "azimuth_deg": 0, "half_angle_deg": 10})
    seen = path(described, mapped)
    x, y = (np.arange(80) - 39.5) * 4, (np.arange(60) - 29.5) * 4
    assert (seen[:, x > 30] == 0).all()
    for column in np.flatnonzero(x < 25)[::7]:
        radius = 20 + (30 - x[column]) * np.tan(np.radians(10))
        at = np.abs(y - 10) < radius - 1.5
        chord = 2 * np.sqrt(np.clip(radius**2 - (y - 10) ** 2, 0, None))
        np.testing.assert_allclose(seen[at, column] * 60 / 120, chord[at], rtol=0.05, atol=1.5)
        assert (seen[np.abs(y - 10) > radius * 1.01, column] == 0).all()


def test_needle_turns_with_the_stage():
    """Pointing across the axis (90°), it is foreshortened: the tip is seen at x cos α."""
    described, mapped = film(thickness_nm=0, needle={"tip_nm": (80, 0), "half_angle_deg": 0, "radius_nm": 6})
    seen = path(described, mapped, 60.0, axis=90.0)
    x = (np.arange(80) - 39.5) * 4
    reached = x[(seen > 0).any(0)].max()
    assert reached == pytest.approx(80 * 0.5 + 6 * np.sin(np.radians(60)), abs=4)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"holes": {"diameter_nm": 20}}, "period_nm or per_um2"),
        ({"holes": {"diameter_nm": 20, "period_nm": 15}}, "less than"),
        ({"wrinkles": {"height_nm": 90, "length_nm": 100}}, "folds"),
    ],
)
def test_contradictions_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        Film.model_validate(keys)
