"""Sequential scattering: a deflected beam excites a lower crystal as if that crystal were turned."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl import resources
from stemtomo_dl.config import check
from stemtomo_dl.geometry import excitation_error
from stemtomo_dl.simulate.again import scatter_again
from stemtomo_dl.simulate.diffraction import extinction_distance
from stemtomo_dl.simulate.mixture import make_mixture
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import Series, simulate

TINY, CIFS = load_scene(resources.synthetic() / "scenes/tiny.toml")


def stack(**changes) -> Series:
    """Two rutile balls, one behind the other, at one tilt."""
    ball = TINY.particles[1].model_dump() | {"count": 2, "min_gap_nm": None, "size_nm": 40} | changes
    content = TINY.model_dump() | {"particles": [ball | {"positions_nm": [(3, 2, 30), (3, 2, -30)]}]}
    content["overlap"] = "sequential"
    content["tilts"] |= {"angles": [0.0], "sigma_deg": 0}
    content["instrument"] |= {"ellipse": {"ratio": 1.1, "azimuth_deg": 20}}
    return simulate(check(Scene, content, "scene"), CIFS)


def drawn(mix, wave: np.ndarray, thickness: float, count: int) -> np.ndarray:
    """How often every reflection of the lower crystal, or none (last), takes an electron."""
    rng, found = np.random.default_rng(1), np.zeros(len(mix.again.g) + 1)
    for u in rng.random(count):
        found[scatter_again(rng, u, wave[0], wave[1], thickness, 1, mix.again)[0]] += 1
    return found / count


@pytest.mark.parametrize("reflection", [0, 7, 20])
def test_a_deflected_beam_sees_a_turned_crystal(reflection):
    series = stack()
    view, cast = series._view(0)[0], series.cast
    mix = make_mixture(cast, view)
    k, thickness = 1 / cast.beam.wavelength_a, 30.0
    away = mix.place[reflection] - mix.center
    wave = np.linalg.inv(cast.ellipse) @ away * cast.pixel_inv_angstrom
    assert 0.1 < np.hypot(*wave) < 2
    lower = cast.particles[view.particle[1]]
    turned = Rotation.from_euler("z", cast.rotation_deg, degrees=True)  # to the detector's axes
    g = turned.apply(lower.structure.hkl @ (view.rotation @ lower.ub).T)
    incident = np.array([*wave, np.sqrt(k**2 - wave @ wave)]) / k
    upright, _ = Rotation.align_vectors([[0, 0, 1.0]], [incident])
    error = excitation_error(upright.apply(g), cast.beam.wavelength_a)
    xi = extinction_distance(lower.structure, cast.beam)
    share = np.sin(np.pi * 10 * thickness * np.hypot(error, 1 / xi)) ** 2 / (1 + (error * xi) ** 2)
    total = 1 - np.prod(1 - share)
    found = drawn(mix, wave, thickness, 200_000)
    assert 1 - found[-1] == pytest.approx(total, rel=0.02)
    candidates = mix.again.g[mix.again.first[1] :]
    checked = 0
    for n in np.flatnonzero(share / share.sum() * total > 1e-3):
        row = np.abs(candidates - g[n]).sum(1).argmin()
        np.testing.assert_allclose(candidates[row], g[n], atol=1e-9)
        expected = share[n] / share.sum() * total
        assert found[mix.again.first[1] + row] == pytest.approx(expected, rel=0.03, abs=5 * np.sqrt(expected / 2e5))
        checked += 1
    assert checked >= 3


def test_double_reflections_land_at_the_sum_of_both_vectors():
    """Two pieces of one crystal: what one diffracts the other may bring back, and all of it lies on their lattice."""
    series = stack(orientation={"kind": "fixed", "rotation_vector_deg": (12.0, 40.0, 7.0)})
    mix = make_mixture(series.cast, series._view(0)[0])
    twice = mix.again.g[mix.again.first[1] :]
    first = (mix.place[: mix.first[1]] - mix.center) @ np.linalg.inv(series.cast.ellipse).T
    first *= series.cast.pixel_inv_angstrom
    opposite = np.abs(first[:, None] + twice[None, :, :2]).sum(-1).min(1)
    assert (opposite < 1e-9).mean() > 0.9


@pytest.mark.parametrize("mosaic_deg", [0.0, 0.4])
def test_mosaic_blocks_of_the_lower_crystal_are_drawn(mosaic_deg):
    mix = make_mixture((series := stack(mosaic_deg=mosaic_deg)).cast, series._view(0)[0])
    wave, again = np.array([0.31, -0.22]), mix.again
    found = drawn(mix, wave, 25.0, 60_000)
    g = again.g[again.first[1] :]
    kz = np.sqrt(again.wavenumber**2 - wave @ wave)
    tilts = np.radians(mosaic_deg) * np.random.default_rng(3).normal(size=(4000, 2))
    across = again.wavenumber**2 - ((wave + g[:, :2]) ** 2).sum(1)
    s = np.sqrt(across) - kz - g[:, 2] + (tilts[:, 1:] * g[:, 0] - tilts[:, :1] * g[:, 1])
    width = again.coupling[again.first[1] :]
    share = width / (s**2 + width) * np.sin(np.pi * 250 * np.sqrt(s**2 + width)) ** 2
    total = 1 - np.prod(1 - share, axis=1)
    expected = (share / share.sum(1, keepdims=True) * total[:, None]).mean(0)
    strong = expected > 0.01
    assert strong.sum() >= 2
    np.testing.assert_allclose(found[again.first[1] : -1][strong], expected[strong], rtol=0.1)
