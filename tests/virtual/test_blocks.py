"""Sums over bins of pixels against NumPy's."""

import numba
import numpy as np
import pytest

from stemtomo_dl.virtual.blocks import WIDTH, add_block, cut_blocks, masks


@numba.njit
def add_all(total: np.ndarray, values: np.ndarray, blocks: np.ndarray, mask: np.ndarray) -> None:
    for n in range(len(blocks)):
        add_block(total, blocks[n, 1], values, blocks[n, 0], mask, blocks[n, 2])


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("pixels", [WIDTH, WIDTH + 5, 1000])
def test_every_pixel_goes_to_its_bin_once(dtype: str, pixels: int) -> None:
    rng = np.random.default_rng(pixels)
    bins = np.repeat(rng.integers(-1, 6, pixels), rng.integers(1, 40, pixels))[:pixels]
    values = rng.integers(0, 255, pixels).astype(dtype)
    wide = {"u": "u4", "i": "i8", "f": "f8"}[np.dtype(dtype).kind] if dtype != "u4" else "i8"
    counted = np.ones(pixels, bool)
    if dtype[0] == "f":
        counted = rng.random(pixels) < 0.9
        values[~counted] = rng.choice([np.nan, np.inf, -np.inf], (~counted).sum())
    if dtype == "i4":
        values -= 100
    total = np.zeros(6 * WIDTH, wide)
    add_all(total, values, cut_blocks(bins), masks())
    use = counted & (bins >= 0)
    expected = np.bincount(bins[use], values[use].astype(float), 6)
    np.testing.assert_array_equal(total.reshape(6, WIDTH).sum(1), expected)


def test_the_largest_counts_are_not_wrapped() -> None:
    values, total = np.full(1000, 65535, "u2"), np.zeros(WIDTH, "u4")
    add_all(total, values, cut_blocks(np.zeros(1000, int)), masks())
    assert total.sum() == 1000 * 65535
