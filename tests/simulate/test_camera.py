"""The camera: point spread, gain and noise, gaps, hot and dead pixels, saturation."""

import numpy as np
import pytest
from pydantic import ValidationError

from stemtomo_dl.errors import InputError
from stemtomo_dl.simulate import counts, render
from stemtomo_dl.simulate.detector import Camera, Sensor, make_sensor, read_out
from stemtomo_dl.simulate.distortion import Ellipse

RNG = np.random.default_rng


def empty_field(**changes) -> counts.Mixture:
    """No particles; what the film takes lands on a ring of 12 px."""
    none, whole = np.zeros(0), np.zeros(0, np.int64)
    mixture = counts.Mixture(
        center=np.array([30.2, 24.7]),
        ellipse=np.eye(2),
        disk_px=0.02,
        rings=2,
        sequential=False,
        radii=np.full((1, 3), 12.0),
        material=whole,
        mean_free_path=none,
        steps=whole,
        step_nm=none,
        first=np.zeros(1, np.int64),
        table=whole,
        shares=np.zeros(0, "f4"),
        place=np.zeros((0, 2)),
    )
    return mixture._replace(**changes)


def patterns(
    mix: counts.Mixture, sensor: Sensor, dense: bool, electrons=4000.0, film=0.0, shape=(40, 49, 60), dtype=np.uint16
) -> np.ndarray:
    """A row of patterns of an empty field."""
    out, rng = np.zeros(shape, dtype), RNG(5)
    row = counts.Row(np.zeros((0, shape[0])), np.full(shape[0], film), np.zeros((shape[0], 2)))
    if dense:
        canvas = render.make_canvas(mix, sensor, shape[1:], row.shift)
        render.draw_patterns(rng, electrons, mix, row, sensor, canvas, out)
    else:
        counts.draw_electrons(rng, electrons, mix, row, sensor, out)
    return out


def spread(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean place (column, row) and covariance of a picture's electrons."""
    i, j = np.indices(picture.shape)
    weights = picture.ravel() / picture.sum()
    places = np.stack([j.ravel(), i.ravel()])
    return places @ weights, np.cov(places, aweights=picture.ravel(), ddof=0)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("core", "share", "tail"), [(0.8, 0.0, 4.0), (0.7, 0.3, 3.0), (0.0, 0.5, 2.5)])
def test_point_spread_has_its_width(dense, core, share, tail):
    camera = Camera(psf_sigma_px=core, psf_tail_share=share, psf_tail_px=tail)
    mixture = empty_field(disk_px=1.5)
    picture = patterns(mixture, make_sensor(camera, (49, 60), RNG(0)), dense).sum(0).astype(float)
    mean, covariance = spread(picture)
    assert picture.sum() == pytest.approx(160_000, rel=0.01)
    np.testing.assert_allclose(mean, [30.2, 24.7], atol=0.03)
    expected = (1 - share) * core**2 + share * tail**2 + 1.5**2 / 4 + 1 / 12
    np.testing.assert_allclose(np.diag(covariance), expected, rtol=0.02)
    # the tail is there, not just a wider core: the fourth moment of a mixture
    columns = np.arange(60) - mean[0]
    fourth = (picture.sum(0) * columns**4).sum() / picture.sum() / covariance[0, 0] ** 2
    assert fourth > 3.5 if share else fourth == pytest.approx(2.8, abs=0.1)


@pytest.mark.parametrize("dense", [False, True])
def test_a_ring_becomes_the_ellipse(dense):
    ellipse = Ellipse(ratio=1.1, azimuth_deg=35)
    mixture = empty_field(ellipse=ellipse.matrix(), disk_px=0.5, radii=np.linspace(11.9, 12.1, 6)[None])
    picture = patterns(mixture, make_sensor(Camera(), (49, 60), RNG(0)), dense, film=1.0).sum(0).astype(float)
    mean, covariance = spread(picture)
    values, vectors = np.linalg.eigh(covariance - np.eye(2) / 12)
    np.testing.assert_allclose(mean, mixture.center, atol=0.1)
    assert np.sqrt(values[1] / values[0]) == pytest.approx(1.1, abs=0.006)
    assert np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])) % 180 == pytest.approx(35, abs=2)
    assert np.linalg.det(ellipse.matrix()) == pytest.approx(1)


@pytest.mark.parametrize("mean", [0.0, 0.3, 50.0])
def test_gain_and_noise_are_as_modelled(mean):
    camera = Camera(psf_sigma_px=0, gain=20, gain_spread=0.4, read_noise=7, dark_offset=120)
    sensor, rng = make_sensor(camera, (400, 500), RNG(0)), RNG(1)
    out = np.zeros((400, 500), np.uint16)
    read_out(rng, rng.poisson(mean, out.shape).astype(np.uint32), sensor, out)
    variance = 20**2 * mean * (1 + 0.4**2) + 7**2 + 1 / 12
    assert out.mean() == pytest.approx(120 + 20 * mean, abs=4 * np.sqrt(variance / out.size))
    assert out.var() == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize("dense", [False, True])
def test_gaps_count_nothing_and_wide_pixels_count_their_neighbours(dense):
    camera = Camera(kind="hybrid", chips=(2, 3), gap_px=3, wide_px=2, saturation=60_000)
    flat = empty_field(disk_px=300.0, center=np.array([29.5, 24.5]), rings=2)
    sensor = make_sensor(camera, (50, 60), RNG(0))
    if dense:  # a canvas cannot render a beam of 300 px in reasonable time; a flat diffuse background does as well
        flat = flat._replace(radii=np.sqrt(np.linspace(0, 300**2, 3000))[None], disk_px=1.0)
    electrons = 2e5
    picture = patterns(flat, sensor, dense, electrons, film=float(dense), shape=(20, 50, 60)).mean(0)
    rows, columns = np.ones(50), np.ones(60)
    rows[24:27] = columns[19:22] = columns[39:42] = 0  # gaps of 3 about rows 25, columns 20 and 40
    for axis, borders in ((rows, (24,)), (columns, (19, 39))):
        for first in borders:
            axis[[first - 1, first - 2, first + 3, first + 4]] = 0
            axis[[first - 3, first + 5]] = 3
    expected = electrons / (np.pi * 300**2) * np.outer(rows, columns)
    assert (picture[expected == 0] == 0).all()
    pull = (picture - expected)[expected > 0] / np.sqrt(expected[expected > 0] / 20)
    assert pull.std() == pytest.approx(1, abs=0.08)
    assert abs(pull.mean()) < 0.1


def test_hot_and_dead_pixels_are_as_many_as_told():
    camera = Camera(hot_pixels=17, dead_pixels=23, hot_electrons=300)
    sensor, out = make_sensor(camera, (60, 50), RNG(3)), np.zeros((60, 50), np.uint16)
    total, rng = np.zeros((60, 50)), RNG(1)
    for _ in range(60):
        read_out(rng, rng.poisson(5, out.shape).astype(np.uint32), sensor, out)
        total += out
    assert (total == 0).sum() == 23
    hot = total > 60 * 100
    assert hot.sum() == 17
    assert total[hot].mean() / 60 == pytest.approx(305, rel=0.02)
    assert total[(total > 0) & ~hot].mean() / 60 == pytest.approx(5, rel=0.02)


def test_the_list_of_bad_pixels_holds_what_the_instrument_knows():
    assert not make_sensor(Camera(hot_pixels=9, dead_pixels=7), (60, 50), RNG(3)).listed.any()
    known = make_sensor(Camera(hot_pixels=9, dead_pixels=7, listed_share=1.0), (60, 50), RNG(3))
    places = np.concatenate([known.hot, known.dead])
    np.testing.assert_array_equal(np.argwhere(known.listed), places[np.lexsort(places.T[::-1])])
    assert make_sensor(Camera(hot_pixels=9, dead_pixels=7, listed_share=0.5), (60, 50), RNG(3)).listed.sum() == 8
    camera = Camera(kind="hybrid", chips=(2, 1), gap_px=2, wide_px=1)
    rows = make_sensor(camera, (60, 50), RNG(0)).listed
    assert (rows == rows[:, :1]).all()
    # the gap, the wide pixels' parts beside it, and the pixels that count for them
    assert np.flatnonzero(rows[:, 0]).tolist() == [27, 28, 29, 30, 31, 32]


def test_saturation_and_dtype_bound_the_counts():
    for dtype, most in (("uint8", 255), ("uint16", 65535), ("uint32", 2**32 - 1)):
        assert make_sensor(Camera(dtype=dtype), (8, 8), RNG(0)).saturation == most
    out = np.zeros((1, 2), np.uint8)
    read_out(RNG(0), np.array([[40, 3000]], np.uint32), make_sensor(Camera(dtype="uint8"), (1, 2), RNG(0)), out)
    assert out.tolist() == [[40, 255]]
    sensor = make_sensor(Camera(gain=30, dark_offset=100, saturation=1000), (1, 2), RNG(0))
    out = np.zeros((1, 2), np.uint16)
    read_out(RNG(0), np.array([[0, 3000]], np.uint32), sensor, out)
    assert out.tolist() == [[100, 1000]]


def test_impossible_cameras_are_refused():
    with pytest.raises(ValidationError, match="saturation"):
        Camera(saturation=300, dtype="uint8")
    with pytest.raises(ValidationError, match="psf_tail_px"):
        Camera(psf_sigma_px=3, psf_tail_share=0.1, psf_tail_px=2)
    with pytest.raises(ValidationError, match="chips"):
        Camera(kind="scintillator", chips=(2, 2))
    with pytest.raises(InputError, match=r"instrument\.camera\.hot_pixels"):
        make_sensor(Camera(hot_pixels=60, dead_pixels=5), (8, 8), RNG(0))
    with pytest.raises(InputError, match=r"instrument\.camera\.chips"):
        make_sensor(Camera(kind="hybrid"), (4, 64), RNG(0))
