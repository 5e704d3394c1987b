"""Conventions against known answers and an independent rotation."""

import numpy as np
import pytest
from scipy.constants import c, e, h, m_e
from scipy.spatial.transform import Rotation

from stemtomo_dl import geometry as geo


@pytest.mark.parametrize("kv", [60, 80, 200, 300])
def test_wavelength_is_de_broglies(kv):
    energy = kv * 1e3 * e
    expected = h / np.sqrt(2 * m_e * energy * (1 + energy / (2 * m_e * c**2))) * 1e10
    assert geo.wavelength(kv) == pytest.approx(expected, rel=1e-6)


def test_tilt_rotation_is_right_handed_about_the_axis():
    w, alpha = 24.3, np.array([-61.0, 0.0, 37.5])
    axis = np.array([np.cos(np.radians(w)), np.sin(np.radians(w)), 0])
    expected = Rotation.from_rotvec(np.radians(alpha)[:, None] * axis).as_matrix()
    np.testing.assert_allclose(geo.tilt_rotation(w, alpha), expected, atol=1e-12)
    # about x, y goes to z: right-handed with x right, y down, z away from the gun
    np.testing.assert_allclose(geo.tilt_rotation(0, 90) @ [0, 1, 0], [0, 0, 1], atol=1e-12)


def test_excitation_error_is_positive_inside_the_sphere():
    lam = geo.wavelength(200)
    k = 1 / lam
    on_sphere = np.array([1.0, 0.5, np.sqrt(k**2 - 1.25) - k])
    shifted = on_sphere + np.array([[0, 0, 0], [0, 0, -0.01], [0, 0, 0.01]])
    np.testing.assert_allclose(geo.excitation_error(shifted, lam), [0, 0.01, -0.01], atol=1e-9)
    inside = np.linalg.norm(shifted[1] + [0, 0, k]) < k
    assert inside


def test_detector_and_back():
    lam, centre = geo.wavelength(200), np.array([63.2, 60.9])
    k = 1 / lam
    xy = np.random.default_rng(0).uniform(-1.5, 1.5, (50, 2))
    g = np.concatenate([xy, (np.sqrt(k**2 - (xy**2).sum(1)) - k)[:, None]], 1)
    px = geo.g_to_detector(g, 0.02, 31.0, centre)
    np.testing.assert_allclose(geo.detector_to_q(px, lam, 0.02, 31.0, centre), g, atol=1e-9)


def test_reflection_appears_where_the_contract_says():
    g = np.array([1.3, -0.4, 0.02])
    np.testing.assert_allclose(geo.g_to_detector(g, 0.01, 0.0, np.array([5, 7])), [135, -33], atol=1e-9)
    np.testing.assert_allclose(geo.g_to_detector(g, 0.01, 90.0, np.zeros(2)), [40, 130], atol=1e-9)  # x toward y


def test_nothing_diffracts_beyond_the_spheres_rim():
    lam = geo.wavelength(200)
    rim = np.array([[0.999, 0.0], [1.001, 0.0]]) / lam / 0.01
    q = geo.detector_to_q(rim, lam, 0.01, 0.0, np.zeros(2))
    assert np.isfinite(q[0]).all()
    assert np.isnan(q[1, 2])


def test_disk_radius():
    # 0.6 mrad at 200 kV is 0.024 1/Å
    assert geo.disk_radius_px(0.6, geo.wavelength(200), 0.0125) == pytest.approx(1.914, abs=0.002)
