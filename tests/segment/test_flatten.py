"""Small particles on a support that outshines them are found; where nothing outshines them, nothing changes."""

import numpy as np
import pytest
import torch

from stemtomo_dl.segment.flatten import FLAT_PX, flattened, outweighed
from stemtomo_dl.segment.tiles import tiles

SIDE = 256


def squares(side=10, step=32):
    """Squares of ones, the first pixel of each at multiples of the step."""
    one = (np.arange(SIDE) % step < side) & (np.arange(SIDE) >= step) & (np.arange(SIDE) < SIDE - step)
    return torch.tensor(one[:, None] & one, dtype=torch.float32)[None]


def dome(height):
    x = (torch.arange(SIDE) - SIDE / 2) / (SIDE / 4)
    return height * torch.exp(-(x[:, None] ** 2 + x**2) / 2)[None]


def test_slow_structure_is_told_from_particles():
    assert outweighed(squares() + dome(20))
    assert not outweighed(squares())
    assert not outweighed(squares() + dome(0.5))
    assert not outweighed(torch.zeros(2, SIDE, SIDE))
    assert not outweighed(torch.cat([squares() + dome(20), squares()]))  # one of the planes shows them well


def test_what_varies_slowly_makes_no_difference():
    plain, on_dome = flattened(squares()), flattened(squares() + dome(1))  # as high as the particles
    assert (on_dome - plain).abs().max() < 0.1 * plain.abs().max()


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (SIDE - 3, SIDE - 6), (65, 130)])
def test_particles_stand_out_where_they_are(shape):
    h, w = shape
    image = (squares() + dome(20))[:, :h, :w]
    seen, there = flattened(torch.cat([image, torch.zeros_like(image)])), squares()[0, :h, :w] > 0
    assert seen.shape == (2, h, w)
    assert not seen[1].any()
    assert seen[0][there].min() > seen[0][~there].quantile(0.95)


def test_flat_looks_are_taken_where_the_support_outshines_the_particles():
    def looks(image):
        return list(tiles(image, (2.0, 1.0, 0.5), FLAT_PX, 16, flat=True))

    assert looks(squares()) == []
    scales = [t.scale[0] for t in looks(squares() + dome(50))]
    assert 1.0 in scales
    assert all(t.trusted[1] <= FLAT_PX / t.scale[0] for t in looks(squares() + dome(50)))
