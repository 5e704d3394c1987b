"""Descan by fractions of a pixel, found from the patterns and undone: from counts to centred patterns."""

import numpy as np
import pytest
from memory_scan import MemoryScan

from stemtomo_dl.config import ExtractConfig, ImagesConfig
from stemtomo_dl.extract import combine, extract_tilt
from stemtomo_dl.records import Instrument, Masks
from stemtomo_dl.virtual import beam_positions, virtual_images

INSTRUMENT = Instrument(200, 1.0, 0.02, 5.0, 10.0)  # disks of 1.99 px radius
SCAN, DETECTOR, CENTRE, DISK = (24, 30), (72, 68), np.array([34.0, 36.0]), 1.99
SPOT = np.array([15.0, -9.0])  # from the beam, px
OUTLINES = [np.s_[1:6, 1:7], np.s_[2:7, 22:29], np.s_[18:23, 2:8], np.s_[16:22, 21:28], np.s_[9:15, 11:18]]


def disks(centres: np.ndarray) -> np.ndarray:
    """Disks of one count about centres (y, x, 2) that may lie anywhere between pixels."""
    row, col = np.indices(DETECTOR)
    r = np.hypot(col - centres[..., :1, None], row - centres[..., 1:, None])
    return np.clip(DISK + 0.5 - r, 0, 1)


def centroid(pattern: np.ndarray, near: np.ndarray, reach: float = 5.0) -> tuple[np.ndarray, float]:
    """Centre (column, row) of the disk near a place, and its mean square radius."""
    row, col = np.indices(DETECTOR)
    weight = pattern * (np.hypot(col - near[0], row - near[1]) <= reach)
    weight /= weight.sum()
    centre = np.array([(weight * col).sum(), (weight * row).sum()])
    return centre, float((weight * ((col - centre[0]) ** 2 + (row - centre[1]) ** 2)).sum())


@pytest.mark.parametrize("slope", [(0.0, 0.0), (0.06, -0.045), (-0.2, 0.15)])
def test_every_particle_is_centred_to_a_tenth_of_a_pixel(slope: tuple[float, float]) -> None:
    y, x = np.indices(SCAN)
    bow = 0.8 * ((x - 15) ** 2 + (y - 12) ** 2) / 15**2 * np.any(slope)
    beam = CENTRE + [0.37, -0.28] + np.stack([slope[0] * (x - 15) + bow, slope[1] * (y - 12)], -1)
    inside = np.zeros((len(OUTLINES), *SCAN), bool)
    for k, window in enumerate(OUTLINES):
        inside[k][window] = True
    mean = 0.05 + 30 * disks(beam) + 8 * inside.any(0)[..., None, None] * disks(beam + SPOT)
    scan = MemoryScan(np.random.default_rng(3).poisson(mean).astype("u2"))
    bad = np.zeros(DETECTOR, bool)
    images = virtual_images(scan, INSTRUMENT, bad, ImagesConfig())
    masks = Masks.pack(inside, np.zeros(len(inside)), np.ones(len(inside)), np.zeros(1))
    everyone = np.arange(len(inside))
    wanted = combine(masks, everyone, everyone, images, ExtractConfig())
    where = beam_positions(images.beam_px, SCAN)
    found = extract_tilt(scan, everyone, wanted, where, bad, CENTRE, INSTRUMENT, ExtractConfig())
    still = disks((CENTRE + SPOT)[None, None])[0, 0]
    for pattern in found.patterns:  # the support takes the direct beam away: a spot tells where the pattern is
        centre, width = centroid(pattern, CENTRE + SPOT)
        assert np.abs(centre - CENTRE - SPOT).max() < 0.1
        assert width < 1.15 * centroid(still, CENTRE + SPOT)[1]
