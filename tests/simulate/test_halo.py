"""Diffuse scattering behind a crystal that takes electrons from one side of the cone only."""

import numpy as np
import pytest

from stemtomo_dl.simulate import cone, counts
from stemtomo_dl.simulate.detector import Camera, make_sensor


def test_a_lower_particles_halo_is_even_whatever_the_upper_one_took():
    rings, probes = 4, 20
    cells = 3 * rings**2
    shares = np.zeros((2, cells, 1), np.float32)
    shares[1, :, 0] = np.where(cone.middles(rings)[:, 0] > 0, 0.9, 0)  # into a reflection off the detector
    mixture = counts.Mixture(
        center=np.array([32.0, 32.0]),
        ellipse=np.eye(2),
        disk_px=3.0,
        rings=rings,
        sequential=False,
        radii=np.linspace(8, 25, 2049)[None],
        material=np.zeros(2, np.int64),
        mean_free_path=np.array([1e9, 20.0]),  # the upper one does not scatter diffusely, the lower one much
        steps=np.array([1, 1]),
        step_nm=np.array([10.0, 10.0]),
        first=np.array([0, 1, 1]),
        table=np.array([0, shares.size]),
        shares=shares.ravel(),
        place=np.array([[500.0, 500.0]]),
    )
    sensor = make_sensor(Camera(), (65, 65), np.random.default_rng(0))
    row = counts.Row(np.full((2, probes), 10.0), np.zeros(probes), np.zeros((probes, 2)))
    out = np.zeros((probes, 65, 65), np.uint16)
    counts.draw_electrons(np.random.default_rng(1), 20000.0, mixture, row, sensor, out)
    total = out.sum(0, dtype=float)
    y, x = np.indices(total.shape) - 32
    halo = np.hypot(x, y) > 7  # outside the direct beam's disk
    sectors = [total[halo & (np.floor((np.arctan2(y, x) / np.pi + 1) * 4) % 8 == k)].sum() for k in range(8)]
    assert sum(sectors) > 5e4
    assert np.std(sectors) / np.mean(sectors) == pytest.approx(0, abs=0.02)
