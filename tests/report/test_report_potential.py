"""The potential's surface, and figures in columns."""

import numpy as np
import pytest

from stemtomo_dl.report.potential import surface
from stemtomo_dl.report.text import fixed


def test_the_surface_of_a_ball_lies_at_its_radius_also_across_the_border_of_the_cell():
    n, radius = 40, 0.3
    grid = np.stack(np.meshgrid(*[np.arange(n) / n] * 3, indexing="ij"), -1)
    centre = np.array([0.1, 0.5, 0.5])  # reaches through the face x = 0
    points = surface(-np.linalg.norm((grid - centre + 0.5) % 1 - 0.5, axis=-1), -radius)
    off = (points - centre + 0.5) % 1 - 0.5
    assert np.linalg.norm(off, axis=1) == pytest.approx(np.full(len(points), radius), abs=1e-3)
    assert (points[:, 0] > 0.75).any()
    assert points.min() >= 0
    assert points.max() <= 1
    assert np.abs(off.mean(0)).max() < 0.01  # all round


def test_no_surface_of_a_flat_potential():
    assert len(surface(np.zeros((4, 5, 6)), 0.0)) == 0


def test_figures_keep_the_decimals_that_they_are_known_to():
    assert [fixed(v, 3) for v in (0.1, -0.02, float("nan"))] == ["0.100", "−0.020", "–"]
