"""The support's geometry against closed forms and a ray-trace."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import tilt_rotation
from stemtomo_dl.simulate.distortion import Raster
from stemtomo_dl.simulate.film import Film, film_path, make_film, seen_part

FIELD = SimpleNamespace(scan=(60, 80), step_nm=4.0, voltage_kv=200.0, tilt_axis_deg=30.0, raster=Raster())
STILL = np.zeros(2)


def film(steepest=62.0, **keys):
    described = Film.model_validate({"thickness_nm": 8.0, "mean_free_path_nm": 120.0, **keys})
    return described, make_film(described, seen(described, steepest), 6)


def seen(described, steepest):
    return seen_part(described, FIELD, np.array([0.0, steepest]), np.zeros((2, 60, 2)))


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
    mapped = replace(mapped, holes=np.array([[40, -20, 60.0]]))
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
    described, scattered = film(steepest=80, holes={"diameter_nm": 10, "diameter_sigma": 0.3, "per_um2": 2000})
    logarithms = np.log(scattered.holes[:, 2])
    assert logarithms.mean() == pytest.approx(np.log(5), abs=4 * 0.3 / np.sqrt(len(logarithms)))
    assert logarithms.std() == pytest.approx(0.3, rel=0.1)
    # holes of a Poisson process leave exp(−density · mean area) of the film; E r² of a log-normal radius
    covered = 1 - np.exp(-2000e-6 * np.pi * 25 * np.exp(2 * 0.3**2))
    x, y = np.meshgrid(np.linspace(-140, 140, 60), np.linspace(-140, 140, 60))  # within what is seen
    found = [make_film(described, seen(described, 80), seed).in_hole(x, y).mean() for seed in range(20)]
    assert np.mean(found) == pytest.approx(covered, abs=0.012)


@pytest.mark.parametrize("alpha", [0.0, 70.0, -86.5])
def test_holes_and_dirt_reach_to_the_edge_of_the_field_at_every_tilt(alpha):
    """Every eighth of the field, along the axis and across it, shows as much of them as any other."""
    keys = {"holes": {"diameter_nm": 6, "per_um2": 6000}}
    dirty = {"contamination": {"per_um2": 6000, "diameter_nm": 6, "thickness_nm": 5}}
    expected = 1 - np.exp(-6000e-6 * np.pi * 9)
    holed = path(*film(steepest=-86.5, **keys), alpha) == 0
    clean = path(*film(), alpha)
    dirt = path(*film(steepest=-86.5, **dirty), alpha) > clean + 1e-9
    row, column = np.indices((60, 80))
    c, s = np.cos(np.radians(30)), np.sin(np.radians(30))
    x, y = column - 39.5, row - 29.5
    for seen_there in (holed, dirt):
        for place in (c * x + s * y, c * y - s * x):
            parts = np.array_split(seen_there.ravel()[np.argsort(place, axis=None)], 8)
            assert [part.mean() for part in parts] == pytest.approx([expected] * 8, abs=0.08)


def test_a_film_seen_edge_on_is_refused():
    for alpha in (87.5, 90.0, -92.0):
        with pytest.raises(InputError, match=r"tilts.*edge-on"):
            seen(Film(thickness_nm=5), alpha)
    seen(Film(thickness_nm=5), 86.9)
    seen(Film(thickness_nm=5), 150.0)
    seen(Film.model_validate({"needle": {}}), 90.0)


def test_too_many_features_are_refused():
    for key, more in (("holes", {}), ("contamination", {"thickness_nm": 3})):
        with pytest.raises(InputError, match=rf"film\.{key}\.per_um2"):
            film(**{key: {"per_um2": 1e300, "diameter_nm": 5, **more}})


def test_the_floor_is_the_face_that_the_beam_meets_first():
    """March toward −z from the middle of the film until the layer |z − h| < T/2 · √(1 + |∇h|²) ends."""
    _, mapped = film(
        wrinkles={"height_nm": 10, "length_nm": 160},
        holes={"diameter_nm": 60, "period_nm": 150},
        contamination={"per_um2": 60, "diameter_nm": 70, "thickness_nm": 6},
    )
    x, y = np.random.default_rng(1).uniform(-150, 150, (2, 400))
    floor, (h, sx, sy), hole = mapped.floor(x, y), mapped.height(x, y), mapped.in_hole(x, y)
    assert hole.any()
    assert np.isinf(floor[hole]).all()
    bare = replace(mapped, dirt=mapped.dirt[:0]).floor(x, y)
    z = h - np.arange(0, 12, 0.01)[:, None]
    last = np.where(np.abs(z - h) < 4 * np.sqrt(1 + sx**2 + sy**2), z, np.inf).min(0)
    np.testing.assert_allclose(bare[~hole], last[~hole], atol=0.011)
    np.testing.assert_allclose(bare[~hole] - floor[~hole], mapped.added(x, y)[~hole])
    assert mapped.added(x, y).max() > 4


def test_the_floor_under_a_body_is_that_of_its_points():
    """Many points on little film, which are interpolated, against the same one by one."""
    _, mapped = film(wrinkles={"height_nm": 20, "length_nm": 60})
    x, y = np.random.default_rng(2).uniform(-25, 25, (2, 1500))
    np.testing.assert_allclose(mapped.floor(x, y), [mapped.floor(*at) for at in zip(x, y, strict=True)], atol=0.01)


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
    """⟨h(r) h(r + d)⟩ = 12² exp(−d²/150²), alike in all directions, over 300 films and 36 places far apart in each."""
    described = Film.model_validate({"wrinkles": {"height_nm": 12, "length_nm": 150}})
    x, y = np.meshgrid(np.arange(6) * 700.0, np.arange(6) * 700.0)
    lags = np.array([(0, 0), (75, 0), (0, 75), (53, -53), (150, 0), (0, 150), (106, 106), (300, 0), (0, 300)], float)
    found = []
    for seed in range(300):
        mapped = make_film(described, seen(described, 60), seed)
        z = mapped.height(x, y)[0]
        found.append([(z * mapped.height(x + dx, y + dy)[0]).mean() for dx, dy in lags])
    expected = 144 * np.exp(-(lags**2).sum(1) / 150**2)
    np.testing.assert_allclose(np.mean(found, 0), expected, atol=0.04 * 144)
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
        ({"thickness_nm": 1e6}, "thickness_nm"),
    ],
)
def test_contradictions_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        Film.model_validate(keys)
