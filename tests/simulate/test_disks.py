"""A disk of the whole simulator is the rocking curve of its reflection, and fades with the dose."""

from dataclasses import replace

import numpy as np
import pytest

from stemtomo_dl import resources
from stemtomo_dl.geometry import excitation_error, g_to_detector, wavelength
from stemtomo_dl.simulate.diffraction import extinction_distance
from stemtomo_dl.simulate.diffuse import crystal, mean_free_path
from stemtomo_dl.simulate.scene import Scene
from stemtomo_dl.simulate.series import Series, simulate

CIFS = {"rutile.cif": (resources.synthetic() / "structures/rutile.cif").read_text()}
PIXEL, CENTRE, CONVERGENCE, ALPHA, THICK_NM, ELECTRONS = 0.004, np.array([255.5, 255.5]), 1.5e-3, 12.8, 60.0, 4e6
WAVE, HKL = wavelength(200), (-4, -1, 0)  # close to its Bragg position at this tilt, the others are far


def plate(**changes) -> Series:
    """A rutile plate wider than what of the field is looked at, seen obliquely: one thickness."""
    microscope = {
        "voltage_kv": 200,
        "convergence_mrad": 1e3 * CONVERGENCE,
        "electrons_per_pattern": ELECTRONS,
        "scan": (2, 2),
        "step_nm": 120.0,
        "detector": (512, 512),
        "pixel_inv_angstrom": PIXEL,
        "tilt_axis_deg": 31.0,
    }
    rutile = {
        "cif": "rutile.cif",
        "count": 1,
        "size_nm": THICK_NM,
        "faces": [{"hkl": (0, 0, 1)}, {"hkl": (1, 0, 0), "distance": 3}],
        "orientation": {"kind": "fixed", "rotation_vector_deg": (0.0, 0.0, 20.0)},
        "positions_nm": [(0, 0, 0)],
    }
    scene = {"title": "plate", "instrument": microscope, "tilts": {"angles": [ALPHA]}, "particles": [rutile | changes]}
    return simulate(Scene.model_validate(scene), CIFS)


@pytest.mark.parametrize("critical", [None, 0.5])
def test_a_disk_is_the_rocking_curve_of_its_reflection(critical):
    damage = {} if critical is None else {"damage": {"critical_dose_e_per_A2": critical, "at_A": 1.0}}
    series = plate(**damage)
    view, thickness = series._view(0)
    t = 10 * THICK_NM / np.cos(np.radians(ALPHA))
    np.testing.assert_allclose(thickness, t / 10, rtol=1e-6)
    particle = series.cast.particles[0]
    row = int(np.flatnonzero((particle.structure.hkl == HKL).all(1))[0])
    g = view.rotation @ particle.ub @ np.array(HKL)
    across, dose = np.hypot(*g[:2]), 0.5 * ELECTRONS / 1200**2  # half of what one tilt gives
    left = 1.0 if critical is None else np.exp(-dose / critical * np.linalg.norm(g))
    xi = extinction_distance(particle.structure, series.cast.beam)[row] / np.sqrt(left)

    pattern = series.scan(0).astype(float).mean((0, 1))
    y, x = np.indices(pattern.shape)
    away = np.stack([x, y], -1) - g_to_detector(g, PIXEL, 0.0, CENTRE)
    radius = CONVERGENCE / WAVE / PIXEL
    along, distance = away @ (g[:2] / across) / radius, np.hypot(*np.moveaxis(away, -1, 0))
    background = np.median(pattern[(distance > radius + 3) & (distance < radius + 8)])
    error = excitation_error(g, WAVE) - along * CONVERGENCE * across
    curve = np.sin(np.pi * t * np.hypot(error, 1 / xi)) ** 2 / (1 + (error * xi) ** 2)
    # what damage takes from the reflections also thins the beam
    material = replace(crystal(particle.structure), damage=particle.damage, dose_e_per_A2=dose)
    straight = np.exp(-t / 10 / mean_free_path(material, 200))
    zones = np.digitize(along, np.linspace(-0.9, 0.9, 7))
    for zone in range(1, 7):
        seen = (distance < radius - 1.5) & (zones == zone)
        share = (pattern[seen].mean() - background) * np.pi * radius**2 / ELECTRONS
        assert share == pytest.approx(straight * curve[seen].mean(), abs=0.03 * straight * curve.max() + 2e-4)
    assert curve[distance < radius].min() < 0.3 * curve[distance < radius].max()
