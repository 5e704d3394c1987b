"""Filling of gaps, against filters over the whole pattern."""

import numpy as np
import pytest
from scipy import ndimage

from stemtomo_dl.extract.finish import fill


@pytest.mark.parametrize("shape", [(60, 70), (40, 5)])  # the latter narrower than what is looked at about a gap
def test_gaps_get_the_gaussian_mean_of_what_is_about_them(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pattern, measured = rng.poisson(30, shape).astype("f4"), rng.random(shape) > 0.02
    measured[20:22] = measured[:, -2:] = False
    weight = ndimage.gaussian_filter(measured.astype(float), 1.5)
    mean = ndimage.gaussian_filter(np.where(measured, pattern, 0.0), 1.5) / np.maximum(weight, 1e-9)
    np.testing.assert_allclose(fill(pattern, measured), np.where(measured, pattern, mean), rtol=1e-5)


def test_what_is_far_from_anything_measured_is_zero() -> None:
    measured = np.zeros((30, 30), bool)
    measured[:5] = True
    filled = fill(np.full((30, 30), 7.0, "f4"), measured)
    np.testing.assert_allclose(filled[:7], 7, rtol=1e-6)
    assert not filled[15:].any()
