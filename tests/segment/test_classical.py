"""The classical segmenter on drawn particles."""

import numpy as np
import pytest
from scipy import ndimage

from stemtomo_dl.config import SegmentConfig
from stemtomo_dl.segment.classical import outline
from stemtomo_dl.segment.contrast import standardised

CONFIG = SegmentConfig()


def images(thickness, diffracting=None, dose=400.0, seed=0, tilted_film=0.0):
    """Virtual images of a film with particles: bright field falls and dark fields rise with thickness."""
    rng = np.random.default_rng(seed)
    ny, nx = thickness.shape
    film = 1 + tilted_film * np.linspace(-1, 1, nx)[None]
    bf = rng.poisson(dose * np.exp(-0.3 * thickness - 0.1 * film)) / dose
    dark = dose * (0.05 * film + 0.15 * thickness)
    adf = rng.poisson(dark * (1 if diffracting is None else 1 + 3 * diffracting)) / dose
    haadf = rng.poisson(0.5 * dark) / dose
    variance = np.abs(rng.normal(0.05, 0.004, (ny, nx)) + (0 if diffracting is None else 0.5 * diffracting))
    return {"bf": bf, "adf": adf, "haadf": haadf, "variance": variance, "maximum": variance}


def disks(shape, *circles):
    y, x = np.indices(shape)
    return [np.hypot(x - cx, y - cy) <= r for cx, cy, r in circles]


def outlines(v):
    masks = outline(v, CONFIG)
    return [masks.full(i) for i in range(len(masks))]


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("seed", range(3))
def test_separate_particles_are_outlined(seed):
    true = disks((60, 80), (15, 14, 6), (50, 20, 9), (30, 42, 5), (66, 45, 8))
    found = outlines(images(sum(d.astype(float) for d in true), seed=seed, tilted_film=0.3))
    assert len(found) == 4
    for t in true:
        assert max(iou(t, f) for f in found) > 0.75


def test_touching_particles_are_cut_and_rods_are_not():
    two = disks((50, 60), (20, 25, 9), (37, 25, 9))
    assert len(outlines(images((two[0] | two[1]).astype(float)))) == 2
    rod = np.zeros((50, 60))
    rod[20:28, 8:52] = 1
    assert len(outlines(images(rod))) == 1
    assert len(outlines(images(ndimage.rotate(rod, 33, reshape=False, order=0)))) == 1


def test_rods_side_by_side_are_cut_along_the_dark_line():
    rods = np.zeros((50, 60))
    rods[14:22, 10:50] = rods[24:32, 10:50] = 1
    found = outlines(images(rods, dose=2000))
    assert len(found) == 2
    assert all(f.sum() > 280 for f in found)


def test_a_crystal_on_a_zone_axis_does_not_hide_the_others():
    faint, bright = disks((60, 60), (15, 15, 7), (42, 42, 7))
    found = outlines(images(faint + 1.0 * bright, diffracting=4.0 * bright))
    assert len(found) == 2


def test_an_empty_field_has_no_particles():
    for seed in range(4):
        assert len(outlines(images(np.zeros((48, 64)), seed=seed, tilted_film=0.2))) == 0
    assert len(outlines(images(np.zeros((48, 64)), dose=1e9))) == 0  # a field without noise


@pytest.mark.parametrize("dark", [0.01, 0.05, 0.3])
def test_vacuum_has_no_particles(dark):
    rng = np.random.default_rng(1)
    shape = (96, 128)
    adf, haadf = rng.poisson(dark, shape) / 400, rng.poisson(dark / 2, shape) / 400
    stack = np.stack([rng.poisson(900, shape) / 900, adf, haadf, adf, adf * 400]).astype("f4")
    v = dict(zip(("bf", "adf", "haadf", "variance", "maximum"), stack, strict=True))
    assert len(outlines(v)) == 0


@pytest.mark.parametrize("holes", [0.1, 0.3, 0.5])
def test_holes_are_not_the_support(holes):
    """Round holes, darker than the film, in up to half of the field; particles on what is left."""
    shape = (90, 120)
    y, x = np.indices(shape)
    radius = np.sqrt(holes * 30 * 30 / np.pi)
    empty = np.hypot((x + 5) % 30 - 15, y % 30 - 15) < radius
    true = disks(shape, (25, 2, 5), (55, 30, 5), (85, 60, 5), (25, 60, 5), (115, 30, 4))
    v = images(sum(d.astype(float) for d in true), dose=1500)
    film = np.where(empty, -0.25, 0.0)  # in thicknesses of a particle
    with_holes = images(sum(d.astype(float) for d in true) + film, dose=1500)
    assert len(outlines(v)) == 5
    found = outlines(with_holes)
    for t in true:
        assert max((iou(t & ~empty, f & ~empty) for f in found), default=0) > 0.5


@pytest.mark.parametrize("coverage", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("even", [True, False])
def test_crowded_fields(coverage, even):
    """Squares on a lattice that cover up to 70 % of the field, of one thickness or of many."""
    rng = np.random.default_rng(2)
    side = round(20 * np.sqrt(coverage))
    field, count = np.zeros((110, 130)), 0
    for y in range(5, 90, 20):
        for x in range(5, 110, 20):
            field[y : y + side, x : x + side] = 1.0 if even else rng.uniform(0.5, 1.5)
            count += 1
    found = outlines(images(field, dose=2000))
    assert abs(len(found) - count) <= 0.1 * count


def test_images_without_noise():
    """Expected images of some other simulator: levels, no scatter."""
    true = disks((60, 80), (15, 14, 6), (50, 20, 9), (30, 42, 5))
    particles = sum(d.astype(float) for d in true)
    stack = np.stack([0.9 - 0.3 * particles, 0.1 + particles / 7, 0.03 + particles / 9, 0.01 + 0 * particles]).astype(
        "f4"
    )
    v = dict(zip(("bf", "adf", "haadf", "variance"), stack, strict=True))
    found = outlines(v)
    assert len(found) == 3
    for t in true:  # without noise all of it stands out, and of its surroundings no more than smoothing reaches
        (f,) = [f for f in found if (f & t).any()]
        assert (f | ~t).all()
        assert not (f & ~ndimage.binary_dilation(t, np.ones((3, 3)))).any()


def test_standardised_support_has_unit_scatter():
    rng = np.random.default_rng(0)
    image = rng.normal(0, 0.3, (64, 64)) + np.linspace(0, 5, 64)[None]
    support = np.ones((64, 64), bool)
    support[18:32, 18:42] = False
    image[20:30, 20:40] += 4
    z = standardised(image, support)
    assert z[support].std() == pytest.approx(1, abs=0.02)
    assert abs(z[support].mean()) < 0.02
    assert z[20:30, 20:40].mean() == pytest.approx(4 / 0.3, rel=0.05)
