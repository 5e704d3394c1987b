"""Components: crystals that no image tells apart come apart, and noise shows nothing."""

import numpy as np
import pytest

from stemtomo_dl.segment.components import component_images


def spiky(rng, bins=24):
    weight = rng.standard_gamma(0.1, bins)
    return weight / weight.sum()


def field(rng, counts=200.0, bragg=0.3, side=64):
    """Two halves of a square crystal on a film: brightness is the same everywhere on it, patterns are not."""
    film = rng.uniform(0.5, 1.5, 24)
    film /= film.sum()
    mean = np.broadcast_to(counts * film, (side, side, 24)).copy()
    left, right = np.s_[16:48, 16:32], np.s_[16:48, 32:48]
    for where in (left, right):
        mean[where] += counts * bragg * spiky(rng)
    return mean, left, right


@pytest.mark.parametrize("gain", [1.0, 37.0])
def test_two_touching_crystals_of_equal_brightness_come_apart(gain):
    rng = np.random.default_rng(2)
    mean, left, right = field(rng)
    images = component_images(gain * rng.poisson(mean))
    assert images.shape == (3, 64, 64)
    assert images.dtype == np.float32
    a, b = (images[:, *where].reshape(3, -1).T for where in (left, right))
    both, which = np.concatenate([a, b]), np.repeat([-1.0, 1.0], len(a))
    design = np.column_stack([both, np.ones(len(both))])
    told = np.sign(design @ np.linalg.lstsq(design, which)[0])
    assert (told == which).mean() > 0.97


@pytest.mark.parametrize("counts", [0.3, 4.0, 30.0, 1000.0])
@pytest.mark.parametrize("bins", [24, 80])
def test_a_film_alone_shows_nothing_whatever_its_thickness(counts, bins):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        film = rng.uniform(0.3, 1.0, bins)
        thickness = 1 + 0.5 * np.sin(np.arange(96) / 9)[:, None, None] * np.ones((96, 96, 1))
        assert not component_images(rng.poisson(counts * thickness * film / film.sum())).any()


def test_vacuum_between_crystals_hides_none_of_them():
    rng = np.random.default_rng(4)
    mean = np.zeros((64, 64, 24))
    for y, x in ((5, 5), (30, 12), (40, 44)):
        mean[y : y + 12, x : x + 12] = 40 * spiky(rng)
    images = component_images(rng.poisson(mean))
    assert images.any((1, 2)).sum() >= 2
    assert np.abs(images[:, :, 60:]).max() < 1e-5


def test_many_faint_crystals_show():
    rng = np.random.default_rng(6)
    mean = np.full((128, 128, 24), 40 / 24)
    for y in range(4, 120, 16):
        for x in range(4, 120, 16):
            mean[y : y + 5, x : x + 5] += 30 * spiky(rng)
    images = component_images(rng.poisson(mean))
    on = mean.sum(2) > 41
    assert images.any((1, 2)).all()
    assert np.abs(images[:, on]).mean() > 2 * np.abs(images[:, ~on]).mean()


@pytest.mark.parametrize("shape", [(8, 8, 24), (1, 1, 24), (16, 16, 1)])
def test_fields_without_counts_or_with_hardly_any_show_nothing(shape):
    assert not component_images(np.zeros(shape)).any()
    assert component_images(np.ones(shape, "u1")).shape == (3, *shape[:2])
