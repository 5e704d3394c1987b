"""Frames that the camera has dropped, and such as are empty by right."""

import numpy as np
import pytest
from memory_scan import MemoryScan

from stemtomo_dl.config import ExtractConfig, ImagesConfig
from stemtomo_dl.extract import combine, extract_tilt
from stemtomo_dl.records import Instrument, Masks
from stemtomo_dl.virtual import virtual_images
from stemtomo_dl.virtual.dropped import dropped_frames, filled

INSTRUMENT = Instrument(200, 1.0, 0.02, 5.0, 10.0)
SHAPE, CENTRE = (40, 40), np.array([20.0, 20.0])
NO_BAD = np.zeros(SHAPE, bool)


def scene(per_frame, offset=0.0, seed=0):
    """Expected counts of a scan with one particle, and its outline and pattern."""
    row, column = np.indices(SHAPE)
    r = np.hypot(column - CENTRE[0], row - CENTRE[1])
    beam = np.clip(2.5 - r, 0, 1) + 0.01 * np.exp(-r / 8)
    spot = 0.05 * np.clip(2.5 - np.hypot(column - 31, row - 24), 0, 1)
    inside = np.zeros((24, 22), bool)
    inside[8:17, 7:15] = True
    expected = per_frame / beam.sum() * (beam + inside[..., None, None] * spot)
    return np.random.default_rng(seed).poisson(expected).astype("f4") + offset, inside, per_frame / beam.sum() * spot


def pattern_of(data, inside):
    images = virtual_images(MemoryScan(data), INSTRUMENT, NO_BAD, ImagesConfig())
    masks = Masks.pack(inside[None], np.zeros(1), np.ones(1), np.zeros(1))
    wanted = combine(masks, np.arange(1), np.arange(1), images, ExtractConfig())
    beam = np.broadcast_to(CENTRE, (*inside.shape, 2))
    config = ExtractConfig()
    return images, extract_tilt(MemoryScan(data), np.ones(1, int), wanted, beam, NO_BAD, CENTRE, INSTRUMENT, config)


@pytest.mark.parametrize("kind", ["counts", "offset", "NaN", "line"])
def test_dropped_frames_enter_neither_images_nor_patterns(kind):
    data, inside, spot = scene(2000, offset=3.0 if kind == "offset" else 0.0)
    if kind != "offset":
        data = data.astype("u2") if kind != "NaN" else data
    whole = virtual_images(MemoryScan(data), INSTRUMENT, NO_BAD, ImagesConfig())
    gone = np.zeros(inside.shape, bool)
    gone[[9, 12, 16, 3], [8, 11, 14, 20]] = True
    if kind == "line":
        gone[10, 2:20] = True
    data = data.copy()
    data[gone] = np.nan if kind == "NaN" else 0
    images, out = pattern_of(data, inside)
    np.testing.assert_array_equal(images.dropped, gone)
    assert abs((images["adf"] - whole["adf"])[gone].mean()) < 3 * whole["adf"][~inside].std()
    assert images.mean_pattern.sum() == pytest.approx(whole.mean_pattern.sum(), rel=0.003)
    assert out.n_probes[0] == (inside & ~gone).sum()
    assert abs(out.patterns[0].sum() / spot.sum() - 1) < 0.03  # the four alone, taken as zeros, would cost 6 %


@pytest.mark.parametrize("per_frame", [1.0, 4.0, 10.0])
def test_frames_that_are_empty_by_chance_stay(per_frame):
    data, _, _ = scene(per_frame, seed=3)
    assert not dropped_frames(data.sum((2, 3)), data.max((2, 3)) == 0).any()


def test_a_particle_whose_frames_are_all_dropped_has_no_pattern():
    data, inside, _ = scene(2000)
    data[inside] = 0
    images = virtual_images(MemoryScan(data), INSTRUMENT, NO_BAD, ImagesConfig())
    masks = Masks.pack(inside[None], np.zeros(1), np.ones(1), np.zeros(1))
    assert len(combine(masks, np.arange(1), np.arange(1), images, ExtractConfig())[0].own) == 0


@pytest.mark.parametrize("rows", [slice(5, 30), slice(1, None), slice(0, 39)])
def test_wide_holes_are_filled_from_their_rim(rows):
    image = np.ones((1, 40, 40))
    gone = np.zeros((40, 40), bool)
    gone[rows] = True
    gone[20, 20] = False
    np.testing.assert_allclose(filled(np.where(gone, 0, image), gone), 1)
