"""Virtual images against plain numpy, the beam against its known place, bad pixels against those put in."""

import numpy as np
import pytest
from memory_scan import MemoryScan

from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.errors import BadScan, InputError
from stemtomo_dl.records import Instrument, Tile, TiltSeries
from stemtomo_dl.virtual import beam_positions, find_bad_pixels, sectors, virtual_images
from stemtomo_dl.virtual.beam import fit_descan, measured_disk_px
from stemtomo_dl.virtual.sectors import AZIMUTHS, RINGS, SECTORS

INSTRUMENT = Instrument(200, 1.0, 0.02, 5.0, 10.0)  # disks of 1.99 px radius
DISK = 1.99


def scene(ny=9, nx=14, qy=60, qx=48, descan=(0.0, 0.0), seed=0, dtype="u2", level=0.5, beam=60.0):
    """Poisson patterns: an even background and a direct disk that moves by descan px per probe in x and y."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:ny, :nx]
    cx, cy = 23.3 + descan[0] * x, 31.6 + descan[1] * y
    row, col = np.mgrid[:qy, :qx]
    r = np.hypot(col - cx[..., None, None], row - cy[..., None, None])
    mean = level + beam * np.clip(DISK + 0.5 - r, 0, 1)
    return rng.poisson(mean).astype(dtype), np.stack([cx, cy], -1), mean


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i4", "f4"])
def test_images_equal_plain_sums(dtype):
    data, _, _ = scene(dtype=dtype)
    bad = np.zeros(data.shape[2:], bool)
    bad[5, 7] = bad[40, 20] = True
    v = virtual_images(MemoryScan(data), INSTRUMENT, bad, ImagesConfig())
    row, col = np.indices(bad.shape)
    r = np.hypot(col - 23, row - 32)  # whole-pixel beam position
    reach = max(0.97 * min(23.3, 47 - 23.3, 31.6, 59 - 31.6), 0.25 * 60)
    bf = (r <= 1.2 * DISK + 0.5) & ~bad
    dark = (r > max(2 * DISK + 1.5, 1.2 * DISK + 0.5)) & (r <= reach) & ~bad
    adf, haadf = dark & (r <= 0.6 * reach), dark & (r > 0.6 * reach)
    work = data.astype("f8")
    for name, mask in (("bf", bf), ("adf", adf), ("haadf", haadf)):
        np.testing.assert_allclose(v[name], work[:, :, mask].mean(-1), rtol=1e-5)
    np.testing.assert_array_equal(v["maximum"], work[:, :, dark].max(-1))
    np.testing.assert_allclose(v.mean_pattern, np.where(bad, 0, work.mean((0, 1))), rtol=1e-5)
    np.testing.assert_array_equal(v.max_pattern, np.where(bad, 0, work.max((0, 1))))
    assert v["variance"].mean() == pytest.approx(0.5, rel=0.1)  # Poisson: the variance of an even field is its mean


def plain_sectors(data, centre, good, inner, reach):
    """Counts by ring and azimuth, pixel by pixel."""
    out, area = np.zeros((*data.shape[:2], SECTORS)), np.zeros(SECTORS)
    for (row, column), ok in np.ndenumerate(good):
        x, y = column - centre[0], row - centre[1]
        r = np.sqrt(x * x + y * y)
        if not (ok and inner < r <= reach):
            continue
        ring = sum(r > inner + (reach - inner) * k / RINGS for k in range(1, RINGS))
        turn = np.degrees(np.arctan2(y, x)) % 360
        k = ring * AZIMUTHS + int(turn / (360 / AZIMUTHS))
        out[..., k] += data[:, :, row, column]
        area[k] += 1
    return out, area


@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_sectors_equal_plain_sums_and_bad_pixels_are_made_up_for(dtype):
    data, _, _ = scene(qx=60, dtype=dtype)
    v = virtual_images(MemoryScan(data), INSTRUMENT, np.zeros(data.shape[2:], bool), ImagesConfig())
    inner, reach = 2 * DISK + 1.5, max(0.97 * 23.3, 0.25 * 60)
    sums, area = plain_sectors(data, (23, 32), np.ones(data.shape[2:], bool), inner, reach)
    np.testing.assert_array_equal(v.sectors, sums)
    assert v.probes_together == 1
    bad = np.zeros(data.shape[2:], bool)
    bad[20:25, 30:33] = True
    bad[:, 35:] = True  # half of the azimuths
    v = virtual_images(MemoryScan(data), INSTRUMENT, bad, ImagesConfig())
    sums, there = plain_sectors(data, (23, 32), ~bad, inner, reach)
    enough = there >= 0.5 * area
    assert 8 < enough.sum() < SECTORS
    np.testing.assert_allclose(v.sectors, np.where(enough, sums * area / np.maximum(there, 1), 0), rtol=1e-5)


def test_sectors_follow_the_beam_and_add_up_to_the_dark_field():
    data, *_ = scene(ny=24, nx=30, qy=70, qx=70, descan=(0.12, -0.15))
    v = virtual_images(MemoryScan(data), INSTRUMENT, np.zeros(data.shape[2:], bool), ImagesConfig())
    total = v.sectors.sum(2)
    assert total.std() == pytest.approx(np.sqrt(total.mean()), rel=0.1)  # the direct beam stays out
    assert np.corrcoef(total.ravel(), (v["adf"] + v["haadf"]).ravel())[0, 1] > 0.9


def test_in_large_scans_probes_share_a_reduced_pattern(monkeypatch):
    data, _, _ = scene()
    alone = virtual_images(MemoryScan(data), INSTRUMENT, np.zeros(data.shape[2:], bool), ImagesConfig())
    monkeypatch.setattr(sectors, "_MOST_BYTES", 9 * 14 * SECTORS)  # a quarter of what it takes
    v = virtual_images(MemoryScan(data), INSTRUMENT, np.zeros(data.shape[2:], bool), ImagesConfig())
    assert v.probes_together == 2
    assert v.sectors.shape == (5, 7, SECTORS)
    np.testing.assert_allclose(v.sectors[1, 2], alone.sectors[2:4, 4:6].sum((0, 1)))
    np.testing.assert_allclose(v.sectors.sum((0, 1)), alone.sectors.sum((0, 1)))


def test_a_crystal_lights_up_the_variance_not_its_neighbour():
    data, _, _ = scene(level=1.0)
    data[4, 6, 20:23, 30:33] += 40
    v = virtual_images(MemoryScan(data), INSTRUMENT, np.zeros(data.shape[2:], bool), ImagesConfig())
    assert v["variance"][4, 6] > 5 * np.delete(v["variance"].ravel(), 4 * 14 + 6).max()


def test_beam_is_followed_over_the_scan():
    data, truth, _ = scene(ny=24, nx=30, qx=64, descan=(0.12, -0.15))
    v = virtual_images(MemoryScan(data), INSTRUMENT, np.zeros(data.shape[2:], bool), ImagesConfig())
    found = beam_positions(v.beam_px, data.shape[:2])
    assert np.abs(found - truth).max() < 0.08
    # the annuli follow: without that the bright field would fall by half along a row
    assert v["bf"].std() / v["bf"].mean() < 0.06


@pytest.mark.parametrize("dose", [4.0, 60.0])
def test_a_large_descan_is_followed(dose):
    # ± 9 px over the field, several times the window in which a beam is looked for
    data, truth, _ = scene(ny=20, nx=30, qy=70, qx=64, descan=(0.6, -0.9), beam=dose, level=0.05)
    v = virtual_images(MemoryScan(data), INSTRUMENT, np.zeros(data.shape[2:], bool), ImagesConfig())
    found = beam_positions(v.beam_px, data.shape[:2])
    assert np.abs(found - truth).max() < 0.15
    inner = v["bf"][2:-2, 2:-2]
    assert inner.std() / inner.mean() < 0.03 + 1 / np.sqrt(12 * dose)


def test_variance_survives_a_detectors_offset():
    data, _, _ = scene(ny=6, nx=8, level=2.0)
    bad = np.zeros(data.shape[2:], bool)
    plain = virtual_images(MemoryScan(data), INSTRUMENT, bad, ImagesConfig())["variance"]
    offset = virtual_images(MemoryScan(data + np.uint16(3000)), INSTRUMENT, bad, ImagesConfig())["variance"]
    assert np.corrcoef(plain.ravel(), offset.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(offset, plain, rtol=0.03)


def test_values_that_are_not_finite_count_as_nothing():
    data, truth, _ = scene(dtype="f4")
    clean = virtual_images(MemoryScan(data), INSTRUMENT, np.zeros(data.shape[2:], bool), ImagesConfig())
    spoiled = data.copy()
    spoiled[3, 4, 20, 30] = np.nan  # far from the beam
    spoiled[5, 6, 31, 23] = np.inf  # in the beam
    spoiled[7, 8] = np.nan  # a lost pattern
    v = virtual_images(MemoryScan(spoiled), INSTRUMENT, np.zeros(data.shape[2:], bool), ImagesConfig())
    assert np.isfinite(v.images).all()
    assert np.isfinite(v.mean_pattern).all()
    assert np.abs(beam_positions(v.beam_px, data.shape[:2]) - truth).max() < 0.2
    same = np.ones(data.shape[:2], bool)
    same[[3, 5, 7], [4, 6, 8]] = False
    np.testing.assert_allclose(v.images[:3, same], clean.images[:3, same], rtol=2e-2)


def test_a_tilt_without_numbers_does_not_spoil_the_others():
    scans = [MemoryScan(scene(seed=k, dtype="f4")[0]) for k in range(4)]
    scans[1].data[:] = np.nan
    assert not find_bad_pixels(series(scans), ImagesConfig()).any()
    with pytest.raises(BadScan, match="no direct beam"):
        virtual_images(scans[1], INSTRUMENT, np.zeros((60, 48), bool), ImagesConfig())


def test_a_mask_of_everything_is_refused():
    with pytest.raises(InputError, match="leave no detector pixel"):
        find_bad_pixels(series([MemoryScan(scene()[0])], np.ones((60, 48), bool)), ImagesConfig())


def test_a_scan_without_a_beam_is_told():
    with pytest.raises(BadScan, match="no direct beam"):
        find_bad_pixels(series([MemoryScan(np.zeros((5, 6, 40, 40), "u2"))]), ImagesConfig())


@pytest.mark.parametrize("at", [(31, 24), (32, 22), (27, 23), (31, 28), (24, 26)])
def test_hot_pixels_in_and_near_the_beam_are_found(at):
    scans = []
    for tilt in range(5):
        data, truth, _ = scene(seed=tilt, level=0.8)
        data[:, :, *at] += 300
        scans.append(MemoryScan(data))
    bad = find_bad_pixels(series(scans), ImagesConfig())
    assert np.argwhere(bad).tolist() == [list(at)]
    v = virtual_images(scans[0], INSTRUMENT, bad, ImagesConfig())
    assert np.abs(beam_positions(v.beam_px, truth.shape[:2]) - truth).max() < 0.25


@pytest.mark.parametrize("convergence", [0.5, 0.7, 1.0, 1.5])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.2, 0.35)])
def test_no_part_of_a_beam_is_a_bad_pixel(convergence, shift):
    radius = convergence * 1e-3 / (0.0250793 * 0.02)
    rng = np.random.default_rng(0)
    row, col = np.indices((48, 48)) * 1.0
    fine = (np.arange(8) + 0.5) / 8 - 0.5  # the disk's share of each pixel
    dy, dx = row[..., None, None] - 23 - shift[1] + fine[:, None], col[..., None, None] - 24 - shift[0] + fine
    mean = 0.05 + 200 * (np.hypot(dx, dy) <= radius).mean((-1, -2))
    data = rng.poisson(mean, (8, 9, 48, 48)).astype("u2")
    stated = Instrument(200, convergence, 0.02, 5.0, 10.0)
    s = TiltSeries("t", stated, (MemoryScan(data),) * 3, ("a", "b", "c"), np.zeros(3))
    assert not find_bad_pixels(s, ImagesConfig()).any()


def test_a_gap_filled_with_any_number_is_found():
    scans = []
    for tilt in range(3):
        data, _, _ = scene(seed=tilt, level=0.8)
        data[:, :, 44:46, :] = 4095
        scans.append(MemoryScan(data))
    bad = find_bad_pixels(series(scans), ImagesConfig())
    expected = np.zeros_like(bad)
    expected[44:46] = True
    np.testing.assert_array_equal(bad, expected)


def test_hot_pixels_of_dark_subtracted_data_are_found():
    rng = np.random.default_rng(3)
    data = scene(level=0.3)[0].astype("f4") + rng.normal(-1, 2, (9, 14, 60, 48)).astype("f4")
    data[:, :, 12, 9] += 500
    bad = find_bad_pixels(series([MemoryScan(data)] * 3), ImagesConfig())
    assert bad[12, 9]
    assert bad.sum() == 1


def test_a_scan_that_is_one_tile_is_centred():
    data, truth, _ = scene(ny=16, nx=20)
    one = MemoryScan(data)
    one.tiles = lambda budget: [Tile(0, 16, 0, 20)]
    v = virtual_images(one, INSTRUMENT, np.zeros(data.shape[2:], bool), ImagesConfig())
    assert np.abs(beam_positions(v.beam_px, (16, 20)) - truth).max() < 0.1


def test_a_disk_wider_than_stated_stays_out_of_the_dark_field():
    wide = 3.2 * DISK
    rng = np.random.default_rng(0)
    row, col = np.indices((64, 64))
    y, x = np.indices((10, 12))
    cx, cy = 30 + 0.2 * x, 33 - 0.15 * y
    r = np.hypot(col - cx[..., None, None], row - cy[..., None, None])
    data = rng.poisson(0.2 + 40 * np.clip(wide + 0.5 - r, 0, 1)).astype("u2")
    v = virtual_images(MemoryScan(data), INSTRUMENT, np.zeros((64, 64), bool), ImagesConfig())
    assert v["adf"].mean() == pytest.approx(0.2, rel=0.1)
    assert np.abs(beam_positions(v.beam_px, (10, 12)) - np.stack([cx, cy], -1)).max() < 0.15


@pytest.mark.parametrize("radius", [0.6, 1.0, 2.0, 4.3])
def test_the_disks_radius_is_measured(radius):
    row, col = np.indices((40, 40)) * 1.0
    fine = (np.arange(8) + 0.5) / 8 - 0.5
    for sx, sy in ((0, 0), (0.5, 0), (0.3, 0.4)):
        d = np.hypot(col[..., None, None] - 20 - sx + fine, row[..., None, None] - 19 - sy + fine[:, None])
        pattern = 0.01 + (d <= radius).mean((-1, -2))
        found = measured_disk_px(
            [(0.0, 0.0, pattern)],
            np.array([[20 + sx, 0, 0, 0, 0, 0], [19 + sy, 0, 0, 0, 0, 0]]),
            np.ones((40, 40), bool),
        )
        assert 0.8 * radius < found <= max(1.3 * radius, radius + 0.9)


def test_descan_fit_ignores_probes_on_thick_crystals():
    rng = np.random.default_rng(1)
    y, x = np.indices((20, 20))
    xy = np.stack([x.ravel(), y.ravel()], 1)
    centres = np.stack([10 + 0.1 * xy[:, 0], 12 - 0.02 * xy[:, 1]], 1) + rng.normal(0, 0.02, (400, 2))
    centres[::7] += [1.5, -2.0]
    coef = fit_descan(xy, centres)
    assert coef[0, :3] == pytest.approx([10, 0.1, 0], abs=0.03)
    assert coef[1, :3] == pytest.approx([12, 0, -0.02], abs=0.03)


def test_descan_of_a_single_row_is_determined():
    xy = np.stack([np.arange(9), np.zeros(9)], 1)
    coef = fit_descan(xy, np.stack([3 + 0.5 * np.arange(9), np.full(9, 7.0)], 1))
    np.testing.assert_allclose(beam_positions(coef, (1, 9))[0, :, 0], 3 + 0.5 * np.arange(9), atol=1e-6)


def series(scans, bad=None):
    return TiltSeries("t", INSTRUMENT, tuple(scans), tuple("abcdefgh"[: len(scans)]), np.zeros(len(scans)), bad)


def test_bad_pixels_are_found_and_crystals_are_not():
    scans = []
    rng = np.random.default_rng(5)
    for tilt in range(7):
        data, _, _ = scene(seed=tilt, level=0.8)
        y, x = rng.integers(5, 40, 2)
        data[:, :, y, x] += 30  # a spot as sharp as one pixel, elsewhere at each tilt
        data[:, :, 12, 9] += 25  # hot
        data[:, :, 50, 40] = 65535  # stuck
        data[:, :, 30, 4] = data[:, :, 44:46, :] = 0  # dead, and a gap
        scans.append(MemoryScan(data))
    bad = find_bad_pixels(series(scans), ImagesConfig())
    expected = np.zeros_like(bad)
    expected[12, 9] = expected[50, 40] = expected[30, 4] = True
    expected[44:46] = True
    np.testing.assert_array_equal(bad, expected)


def test_the_users_mask_is_kept():
    mask = np.zeros((60, 48), bool)
    mask[3:5, 3:9] = True
    bad = find_bad_pixels(series([MemoryScan(scene()[0])], mask), ImagesConfig())
    np.testing.assert_array_equal(bad, mask)


def test_a_sharp_direct_beam_is_no_bad_pixel():
    rng = np.random.default_rng(2)
    data = rng.poisson(0.3, (6, 8, 40, 40)).astype("u2")
    data[:, :, 19, 21] += 900  # nearly parallel beam: all in one pixel and a little beside it
    data[:, :, 19, 22] += 60
    parallel = Instrument(200, 0.1, 0.02, 5.0, 10.0)
    s = TiltSeries("t", parallel, (MemoryScan(data),) * 3, ("a", "b", "c"), np.zeros(3))
    assert not find_bad_pixels(s, ImagesConfig()).any()
