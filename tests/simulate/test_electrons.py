"""Counts: the dose, both ways of drawing them, and where they land."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl import resources
from stemtomo_dl.geometry import wavelength
from stemtomo_dl.simulate import counts, diffuse, render
from stemtomo_dl.simulate.detector import Camera, make_sensor
from stemtomo_dl.simulate.mixture import make_mixture
from stemtomo_dl.simulate.scene import Orientation, Scene, load_scene
from stemtomo_dl.simulate.series import Series, simulate

TINY, CIFS = load_scene(resources.synthetic() / "scenes/tiny.toml")


def scene(electrons: float, **changes) -> Scene:
    """The tiny scene, one tilt, changed; instrument keys by their names."""
    instrument = {k: changes.pop(k) for k in list(changes) if k in type(TINY.instrument).model_fields}
    microscope = TINY.instrument.model_copy(update={"electrons_per_pattern": electrons, **instrument})
    tilts = TINY.tilts.model_copy(update={"angles": [14.0]})
    return TINY.model_copy(update={"instrument": microscope, "tilts": tilts, **changes})


def drawn(series: Series, dense: bool) -> np.ndarray:
    return np.stack(list(series.rows(0, dense=dense)))


def chi_square(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """Of two independent Poisson pictures of one mean, over pixels with counts."""
    enough = a + b > 20
    return float(((a - b)[enough] ** 2 / (a + b)[enough]).sum()), int(enough.sum())


@pytest.mark.parametrize("dense", [False, True])
def test_every_electron_arrives_and_doses_are_poisson(dense):
    away = TINY.particles[1].model_copy(update={"positions_nm": [(187.46, -311.98, 1000)], "min_gap_nm": None})
    film, tilts = TINY.film.model_copy(update={"thickness_nm": 0}), TINY.tilts.model_copy(update={"angles": [14, -20]})
    series = simulate(scene(400, particles=[away], film=film, tilts=tilts), CIFS)  # in view at −20° only
    totals = drawn(series, dense).sum((2, 3))
    assert totals.mean() == pytest.approx(400, abs=4 * np.sqrt(400 / totals.size))
    assert totals.var() / totals.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / totals.size))


def overlapping() -> Scene:
    """All three particles in one column, so that one shadows the other."""
    rods = TINY.particles[0].model_copy(update={"positions_nm": [(4, -4, -27), (10, -23, -107)], "min_gap_nm": None})
    sphere = TINY.particles[1].model_copy(update={"positions_nm": [(-4, 3, 28)], "min_gap_nm": None})
    return scene(8000, particles=[rods, sphere])


def test_both_ways_agree_in_the_mean():
    series = simulate(overlapping(), CIFS)
    events, dense = drawn(series, False).astype(float), drawn(series, True).astype(float)
    inside = np.zeros(series.shape[:2], int)
    for i in series.truth.masks.at(0):
        inside += series.truth.masks.full(i)
    assert inside.max() == 3
    for region in (inside == 0, inside == 1, inside >= 2):
        chi2, n = chi_square(events[region].sum(0), dense[region].sum(0))
        assert n > 400
        assert chi2 == pytest.approx(n, abs=5 * np.sqrt(2 * n))


def test_expected_pattern_keeps_all_electrons():
    series = simulate(overlapping(), CIFS)
    view, thickness = series._view(0)
    wide = replace(view, center_px=np.array([150.0, 150.0]))
    mixture = make_mixture(series.cast, wide)
    mixture = mixture._replace(radii=np.minimum(mixture.radii, 140))  # so that all of it fits on the canvas
    y, x = np.argwhere((thickness > 0).sum(0) == 3)[0]
    stack = counts.room(3)
    met = counts.meet(thickness[:, y, x], mixture, stack)
    canvas = render.make_canvas(mixture, series.cast.sensor, (301, 301), np.zeros((1, 2)))
    film = series._film(0)[y, x]
    image = render.expected(1e4, mixture, stack, met, film, np.zeros(2), canvas)
    assert met == 3
    assert image.min() >= 0
    assert image.sum() == pytest.approx(1e4, rel=2e-3)
    assert image[148:153, 148:153].sum() < 0.95e4


def hand_made() -> counts.Mixture:
    """One particle of one reflection, which takes 0, 0.2 or 0.6 at 0, 10 or 20 nm in all three cells."""
    return counts.Mixture(
        center=np.array([8.0, 8.0]),
        disk_px=1.5,
        rings=1,
        sequential=False,
        ellipse=np.eye(2),
        radii=np.full((2, 3), 2.0),
        material=np.array([1]),
        mean_free_path=np.array([50.0]),
        steps=np.array([2]),
        step_nm=np.array([10.0]),
        first=np.array([0, 1]),
        table=np.array([0]),
        shares=np.repeat([0, 0.2, 0.6], 3).astype("f4"),
        place=np.array([[24.0, 8.0]]),
    )


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("thickness", "share"), [(2.5, 0.05), (10, 0.2), (12.5, 0.3), (20, 0.6)])
def test_shares_are_linear_between_thicknesses(dense, thickness, share):
    mix, out = hand_made(), np.zeros((50, 17, 33), np.uint16)
    rng, shift = np.random.default_rng(3), np.zeros((50, 2))
    sensor = make_sensor(Camera(), (17, 33), rng)
    row = counts.Row(np.full((1, 50), float(thickness)), np.full(50, 0.1), shift)
    if dense:
        canvas = render.make_canvas(mix, sensor, (17, 33), shift)
        render.draw_patterns(rng, 2000.0, mix, row, sensor, canvas, out)
    else:
        counts.draw_electrons(rng, 2000.0, mix, row, sensor, out)
    expected = 100_000 * 0.9 * np.exp(-thickness / 50) * share
    assert out[:, :, 20:].sum() == pytest.approx(expected, abs=4 * np.sqrt(expected))


def test_the_beam_meets_particles_in_their_order():
    series = simulate(overlapping(), CIFS)
    view, thickness = series._view(0)
    depth = [(view.rotation @ series.truth.positions_nm[p])[2] for p in view.particle]
    assert len(depth) == 3 == len(thickness)
    assert depth == sorted(depth)
    np.testing.assert_array_equal(view.thickest, thickness.max((1, 2)))


def test_template_is_the_distribution_that_electrons_are_drawn_from():
    table = diffuse.quantiles(diffuse.amorphous("C"), 200, 0.03, 2.0)
    rng = np.random.default_rng(1)
    radius, turn = np.interp(rng.random(400_000), np.linspace(0, 1, len(table)), table), 2 * np.pi * rng.random(400_000)
    column, row = 30.3 + radius * np.cos(turn), 25.9 + radius * np.sin(turn)
    picture, *_ = np.histogram2d(row, column, [np.arange(53) - 0.5, np.arange(62) - 0.5])
    expected = 400_000 * diffuse.template(table, np.array([30.3, 25.9]), (52, 61))
    enough = expected > 5
    chi2, n = ((picture - expected)[enough] ** 2 / expected[enough]).sum(), enough.sum()
    assert n > 1000
    assert chi2 == pytest.approx(n, abs=5 * np.sqrt(2 * n))


def test_spots_land_where_the_geometry_says():
    """Every convention at once, computed anew: stage, Ewald sphere, rotation, centre."""
    vectors = np.random.default_rng(4).uniform(-90, 90, (24, 3))
    assert sum(check_spots(tuple(v)) for v in vectors.tolist()) >= 6


def check_spots(vector: tuple[float, float, float]) -> int:
    """Compare the strong spots of a crystal of known orientation; how many there were."""
    changes = {"positions_nm": [(0.0, 0.0, 0.0)], "size_nm": 25.0}
    changes["orientation"] = Orientation(kind="fixed", rotation_vector_deg=vector)
    film = TINY.film.model_copy(update={"thickness_nm": 0})
    ball = TINY.particles[1].model_copy(update=changes)
    finer = {"detector": (256, 192), "pixel_inv_angstrom": 0.00875, "convergence_mrad": 0.3, "scan": (8, 8)}
    series = simulate(scene(2e5, particles=[ball], film=film, **finer), CIFS)
    pattern = drawn(series, True).sum((0, 1)).astype(float)
    m, wave, structure = series.scene.instrument, wavelength(200), series.cast.particles[0].structure
    axis, k0 = np.radians(m.tilt_axis_deg), np.array([0, 0, 1 / wave])
    stage = Rotation.from_rotvec(np.radians(series.truth.alpha_deg[0]) * np.array([np.cos(axis), np.sin(axis), 0]))
    g = stage.apply(Rotation.from_rotvec(vector, degrees=True).apply(structure.hkl @ structure.b.T))
    on_sphere = np.abs(np.linalg.norm(g + k0, axis=1) - 1 / wave) < 1.5e-3
    strong = structure.intensity > 0.02 * structure.intensity.max()
    u = g[on_sphere & strong, :2] / m.pixel_inv_angstrom
    turn, checked = np.radians(m.rotation_deg), 0
    column = u[:, 0] * np.cos(turn) - u[:, 1] * np.sin(turn) + series.truth.centers_px[0, 0]
    row = u[:, 0] * np.sin(turn) + u[:, 1] * np.cos(turn) + series.truth.centers_px[0, 1]
    for x, y in zip(column, row, strict=True):
        j, i = round(x), round(y)
        if 5 <= i < 250 and 5 <= j < 186:
            window = pattern[i - 4 : i + 5, j - 4 : j + 5] - np.median(pattern[i - 5 : i + 6, j - 5 : j + 6])
            assert window[2:7, 2:7].sum() > 0.7 * window.sum() > 0
            window[window < 0.05 * window.max()] = 0
            found = [(window.sum(a) * np.arange(-4, 5)).sum() / window.sum() for a in (0, 1)]
            np.testing.assert_allclose(found, [x - j, y - i], atol=0.12)
            checked += 1
    return checked
