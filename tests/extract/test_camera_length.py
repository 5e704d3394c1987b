"""The camera length from known cells: scaled, set in another way, strained."""

import numpy as np
import pytest

from stemtomo_dl.extract import camera_length

BROOKITE = (9.174, 5.449, 5.138, 90.0, 90.0, 90.0)
TRICLINIC = (7.1, 8.3, 11.9, 81.0, 97.0, 105.0)
PLAIN = np.eye(3, dtype=int)


def scaled(cell: tuple[float, ...], by: float) -> tuple[float, ...]:
    return (*(by * v for v in cell[:3]), *cell[3:])


@pytest.mark.parametrize("cell", [BROOKITE, TRICLINIC])
@pytest.mark.parametrize("factor", [0.98, 1.0, 1.017])
def test_the_factor_is_that_of_a_cell_that_is_too_large(cell: tuple[float, ...], factor: float) -> None:
    # 1/a was measured as r·p with a pixel p that is too small: the cell comes out too large by what p must grow
    found = camera_length(scaled(cell, factor), cell, PLAIN)
    assert found.factor == pytest.approx(factor, rel=1e-9)
    assert found.misfit == pytest.approx(0, abs=1e-6)


def test_another_setting_makes_no_difference() -> None:
    a, b, c = scaled(BROOKITE, 1.012)[:3]
    found = camera_length((c, b, a, 90.0, 90.0, 90.0), BROOKITE, np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]))
    assert found.factor == pytest.approx(1.012, rel=1e-9)
    # a' = a + b: indices transform as the edges do
    oblique = (9.174, float(np.hypot(9.174, 5.449)), 5.138, 90.0, 90.0, float(np.degrees(np.arctan2(5.449, 9.174))))
    found = camera_length(oblique, BROOKITE, np.array([[1, -1, 0], [0, 1, 0], [0, 0, 1]]))
    assert found.factor == pytest.approx(1, rel=1e-9)
    assert found.misfit == pytest.approx(0, abs=1e-6)


def test_what_is_no_change_of_scale_is_told() -> None:
    a, b, c = BROOKITE[:3]
    found = camera_length((1.02 * a, b, c, 90.0, 90.0, 90.0), BROOKITE, PLAIN)
    assert found.factor == pytest.approx(1.02 ** (1 / 3), rel=1e-9)
    assert found.misfit == pytest.approx(1.02 ** (2 / 3) - 1, rel=1e-6)
