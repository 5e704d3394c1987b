"""The order in which the beam meets particles and film, and what it means for diffuse scattering."""

import numpy as np
import pytest

from stemtomo_dl import resources
from stemtomo_dl.geometry import tilt_rotation
from stemtomo_dl.simulate import counts, render
from stemtomo_dl.simulate.detector import Camera, make_sensor
from stemtomo_dl.simulate.film import Film, Seen, make_film
from stemtomo_dl.simulate.layers import film_between, order_met
from stemtomo_dl.simulate.mixture import make_mixture
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import simulate

TINY, CIFS = load_scene(resources.synthetic() / "scenes/tiny.toml")
FLAT = make_film(Film(thickness_nm=5), Seen(100.0, 100.0, 0.0), 0)


def test_film_is_behind_what_lies_on_its_upper_face_until_it_is_turned_over():
    places = [np.array(p, float) for p in [(0, 0, -9), (0, 0, 12), (40, 0, -20), (0, 0, -30), (-30, 0, 9)]]
    order, before = order_met(places, FLAT, tilt_rotation(90, 0))
    assert before.tolist() == [True, False, True, True, False]
    assert order.tolist() == [3, 2, 0, 4, 1]
    order, before = order_met(places, FLAT, tilt_rotation(90, 180))
    assert before.tolist() == [False, True, False, False, True]
    assert order.tolist() == [1, 4, 0, 2, 3]
    # seen from the side, a particle far down the film is met late but still before the film
    order, before = order_met(places, FLAT, tilt_rotation(90, 80))
    depth = [(tilt_rotation(90, 80) @ p)[2] for p in places]
    assert sorted(order[:3], key=lambda p: depth[p]) == order[:3].tolist()
    assert set(order[:3]) == {0, 2, 3}


def test_wrinkles_turn_the_face_locally():
    film = make_film(
        Film.model_validate({"wrinkles": {"height_nm": 30, "length_nm": 100}}),
        Seen(100.0, 100.0, 0.0),
        3,
    )
    x, y = np.random.default_rng(0).uniform(-400, 400, (2, 200))
    height, slope_x, slope_y = film.height(x, y)
    rotation = tilt_rotation(20, 70)
    for i in range(200):
        normal = np.array([-slope_x[i], -slope_y[i], 1.0])
        if abs(rotation[2] @ normal) < 0.05:
            continue
        along = rotation[2] * 1e-3  # a place a little upstream on the same beam is met before the film
        on = np.array([x[i], y[i], height[i]])
        assert film.follows(on - along, rotation)
        assert not film.follows(on + along, rotation)


def mixture(sequential: bool) -> counts.Mixture:
    """A crystal that sends 0.4 of the beam into one reflection, 16 px off, and nothing anywhere else."""
    return counts.Mixture(
        center=np.array([20.0, 20.0]),
        disk_px=1.0,
        rings=1,
        sequential=sequential,
        ellipse=np.eye(2),
        radii=np.tile(np.linspace(2.0, 6.0, 9), (2, 1)),
        material=np.array([1]),
        mean_free_path=np.array([1e12]),
        steps=np.array([1]),
        step_nm=np.array([10.0]),
        first=np.array([0, 1]),
        table=np.array([0]),
        shares=np.array([0, 0, 0, 0.4, 0.4, 0.4], "f4"),
        place=np.array([[36.0, 20.0]]),
    )


def zones(mix, thickness, film, dense) -> np.ndarray:
    """Shares of the electrons: direct disk, its halo, the reflection's disk, its halo."""
    out, rng = np.zeros((60, 41, 57), np.uint16), np.random.default_rng(1)
    sensor, shift = make_sensor(Camera(), (41, 57), rng), np.zeros((60, 2))
    row = counts.Row(np.ascontiguousarray(thickness[:, 0]), film[0], shift)
    if dense:
        canvas = render.make_canvas(mix, sensor, (41, 57), shift)
        render.draw_patterns(rng, 3000.0, mix, row, sensor, canvas, out)
    else:
        counts.draw_electrons(rng, 3000.0, mix, row, sensor, out)
    total, (i, j) = out.sum(0) / 180_000, np.indices((41, 57))
    direct, spot = np.hypot(j - 20, i - 20), np.hypot(j - 36, i - 20)
    return np.array(
        [
            total[where].sum()
            for where in (direct < 1.8, (direct > 1.8) & (direct < 8), spot < 1.8, (spot > 1.8) & (spot < 8))
        ]
    )


@pytest.mark.parametrize("dense", [False, True])
def test_film_behind_a_crystal_scatters_about_its_reflections(dense):
    crystal, film = np.full((1, 1, 60), 10.0), np.full((1, 60), 0.3)
    before = zones(mixture(True), crystal, film, dense)
    np.testing.assert_allclose(before, [0.7 * 0.6, 0.3, 0.7 * 0.4, 0], atol=0.005)
    behind = zones(*film_between(mixture(True), crystal, film, 1), dense)
    np.testing.assert_allclose(behind, [0.6 * 0.7, 0.6 * 0.3, 0.4 * 0.7, 0.4 * 0.3], atol=0.005)
    again = zones(*film_between(mixture(True), crystal, film, 0), dense)
    np.testing.assert_allclose(again, before, atol=0.005)


def test_an_opaque_film_lets_nothing_through_wherever_it_lies():
    crystal, film = np.full((1, 1, 60), 10.0), np.ones((1, 60))
    found = zones(*film_between(mixture(True), crystal, film, 1), False)
    np.testing.assert_allclose(found, [0, 0.6, 0, 0.4], atol=0.006)


def test_a_series_puts_the_film_behind_what_rests_on_it():
    content = TINY.model_dump() | {"overlap": "sequential"}
    series = simulate(Scene.model_validate(content), CIFS)
    view = series._view(2)[0]
    assert view.film_at == len(view.particle) == 3
    assert series.scan(2).any()


def test_a_film_between_two_crystals_keeps_what_beams_may_excite_below():
    """The order of a stack is crystal, film, crystal; with a film that takes nothing, it is as if it were not there."""
    rods = {"positions_nm": [(4, -4, -27), (10, -23, -107)], "min_gap_nm": None}
    sphere = {"positions_nm": [(-4, 3, 28)], "min_gap_nm": None}
    particles = [p.model_dump() | places for p, places in zip(TINY.particles, (rods, sphere), strict=True)]
    content = TINY.model_dump() | {"overlap": "sequential", "particles": particles}
    series = simulate(Scene.model_validate(content), CIFS)
    view, thickness = series._view(1)
    mix = make_mixture(series.cast, view)
    among, stacked, share = film_between(mix, thickness, np.zeros((24, 32)), view.film_at)
    assert view.film_at == 2
    assert not share.any()
    sensor, patterns = series.cast.sensor, []
    for mixture, layers in ((mix, thickness), (among, stacked)):
        out, rng = np.zeros((32, 64, 48), np.uint16), np.random.default_rng(5)
        row = counts.Row(np.ascontiguousarray(layers[:, 12]), np.zeros(32), np.zeros((32, 2)))
        counts.draw_electrons(rng, 20_000.0, mixture, row, sensor, out)
        patterns.append(out)
    assert ((thickness > 0).sum(0)[12] == 3).any()
    np.testing.assert_array_equal(*patterns)
