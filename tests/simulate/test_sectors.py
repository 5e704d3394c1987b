"""Where on the dark field electrons land: nothing is lost, and the statistics are those of sharing out."""

from dataclasses import replace

import numpy as np
import pytest
from small_fields import rutile_responses, small

from stemtomo_dl.segment.components import component_images
from stemtomo_dl.simulate.images import Glow, draw_images
from stemtomo_dl.simulate.readout import Readout
from stemtomo_dl.simulate.sectors import SECTORS, Sectors, draw_sectors, random_sectors

AREA = 400.0


@pytest.fixture(scope="module")
def responses():
    return rutile_responses()


def dark(image, responses):
    return image["adf"] * responses.area_px[1] + image["haadf"] * responses.area_px[2]


@pytest.mark.parametrize("electrons", [50.0, 3000.0])
@pytest.mark.parametrize("camera", [Readout(), Readout(gain=20.0, gain_spread=0.4, read_noise=0.2, offset=1.0)])
def test_sectors_add_up_to_the_dark_field(responses, electrons, camera):
    sample = replace(small(responses, electrons), readout=camera)
    image = draw_images(sample, np.random.default_rng(3), sectors=True)
    assert image.sectors.shape == (*sample.shape, SECTORS)
    np.testing.assert_allclose(image.sectors.sum(2), dark(image, responses), rtol=1e-4, atol=1e-3)
    assert draw_images(sample, np.random.default_rng(3)).sectors is None


def test_asking_for_sectors_changes_no_image(responses):
    sample = small(responses, 2000.0)
    plain = np.mean([draw_images(sample, np.random.default_rng(k)).images for k in range(200)], 0)
    asked = np.mean([draw_images(sample, np.random.default_rng(k), sectors=True).images for k in range(200, 400)], 0)
    np.testing.assert_allclose(asked.mean((1, 2)), plain.mean((1, 2)), rtol=5e-3)


@pytest.mark.parametrize("electrons", [6.0, 20.0, 80.0, 2000.0])
def test_electrons_are_shared_out_as_multinomial_numbers(electrons):
    rng = np.random.default_rng(1)
    shape = (200, 200)
    weights = random_sectors(1, shape, rng).weights[0, 0]
    chance = 0.5 / SECTORS + 0.5 * weights
    bragg = np.broadcast_to(np.float32(0.05) * weights, (*shape, SECTORS)).copy()
    counts = np.full(shape, electrons)
    drawn = draw_sectors(rng, counts, counts, np.full(shape, 0.1), Sectors(weights[None, None], bragg), Readout(), AREA)
    flat = drawn.reshape(-1, SECTORS).astype(float)
    mean = electrons * chance
    np.testing.assert_allclose(flat.mean(0), mean, atol=0.02 * mean.max() + 0.02)
    variance = mean * (1 - chance)
    np.testing.assert_allclose(flat.var(0)[mean > 2], variance[mean > 2], rtol=0.12)
    one, other = np.argsort(chance)[-2:]
    assert np.cov(flat[:, one], flat[:, other])[0, 1] == pytest.approx(
        -electrons * chance[one] * chance[other], rel=0.3
    )


def test_a_camera_adds_its_noise_to_every_sector():
    rng, shape = np.random.default_rng(2), (200, 200)
    camera = Readout(gain=10.0, gain_spread=0.5, read_noise=0.3)
    flat = np.zeros((*shape, SECTORS), "f4")
    electrons = np.full(shape, 4800.0)
    drawn = draw_sectors(rng, electrons, 10 * electrons, np.full(shape, 0.1), Sectors(flat[:1, :1], flat), camera, AREA)
    mean = 4800 / SECTORS
    expected = 100 * (mean + 0.25 * mean + 0.09 * AREA / SECTORS) * (1 - 1 / SECTORS)  # the sum is given
    assert drawn.var((0, 1)).mean() == pytest.approx(expected, rel=0.03)


def test_bent_crystals_change_their_pattern_and_films_have_none(responses):
    sample = small(responses, 1e5, count=1, radius_nm=30.0)
    sample = replace(sample, at_px=np.array([[30.0, 24.0]]))
    drawn = [draw_images(sample, np.random.default_rng(k), sectors=True) for k in (0, 1)]
    inside = drawn[0].masks.full(0)
    for image in drawn:
        film = image.sectors[:8, :8].mean((0, 1))
        assert film.std() < 0.02 * film.mean()
        crystal = image.sectors[inside].mean(0)
        assert crystal.std() > 0.1 * crystal.mean()
    a, b = (image.sectors[inside].mean(0) for image in drawn)
    assert np.corrcoef(a, b)[0, 1] < 0.9


def test_components_tell_twins_apart_that_are_equally_bright(responses):
    sample = small(responses, 2e4, count=2, radius_nm=24.0)
    sample = replace(sample, at_px=np.array([[20.0, 24.0], [42.0, 24.0]]), crystal=np.zeros(2, int))
    image = draw_images(sample, np.random.default_rng(0), sectors=True)
    left, right = (image.masks.full(i) for i in (0, 1))
    left, right = left & ~right, right & ~left

    def told(planes):
        values = np.concatenate([planes[:, left].T, planes[:, right].T])
        which = np.repeat([-1.0, 1.0], [left.sum(), right.sum()])
        design = np.column_stack([values, np.ones(len(values))])
        return (np.sign(design @ np.linalg.lstsq(design, which)[0]) == which).mean()

    assert told(component_images(image.sectors)) > 0.9
    assert told(image["adf"][None]) < 0.65


def test_secondary_electrons_land_nowhere(responses):
    sample = replace(small(responses), glow=Glow(0.1, 0.2, 1.0))
    assert draw_images(sample, np.random.default_rng(0), sectors=True).sectors is None
