"""What networks see of an image."""

import numpy as np
import pytest

from stemtomo_dl.segment.planes import PLANES, normalised, planes


def test_scale_and_offset_do_not_matter():
    rng = np.random.default_rng(0)
    image = rng.gamma(2.0, size=(64, 80))
    np.testing.assert_allclose(normalised(3000 * image + 17), normalised(image), atol=1e-4)
    np.testing.assert_allclose(normalised(-image), -normalised(image), atol=1e-5)
    for dtype in ("u1", "u2", "i4"):
        whole = np.round(50 * image / image.max() * 5).astype(dtype)
        np.testing.assert_array_equal(normalised(whole), normalised(whole.astype(float)))


def test_one_particle_and_a_crowd_both_keep_their_contrast():
    rng = np.random.default_rng(1)
    one = rng.normal(0, 0.1, (128, 128))
    one[60:66, 60:66] += 3
    assert normalised(one)[62, 62] > 4
    crowd = rng.normal(0, 0.1, (128, 128))
    crowd[:, ::2] += 3
    assert 1 < np.ptp(normalised(crowd)) < 8


def test_flat_images_and_numbers_that_are_none():
    assert not normalised(np.full((8, 8), 7.0)).any()
    assert not normalised(np.full((8, 8), np.nan)).any()
    image = np.random.default_rng(2).normal(size=(32, 32))
    image[3, 4] = np.nan
    assert np.isfinite(normalised(image)).all()
    assert abs(normalised(image)[3, 4]) < 0.05


def test_planes_are_in_their_places():
    image = np.random.default_rng(3).poisson(4.0, (16, 16)).astype("f4")
    p = planes({"haadf": image, "grey": image})
    assert p.shape == (len(PLANES), 16, 16)
    assert [bool(k.any()) for k in p] == [n in ("haadf", "grey") for n in PLANES]
    np.testing.assert_allclose(p[PLANES.index("haadf")], normalised(np.sqrt(image)), atol=1e-6)
    with pytest.raises(ValueError, match="none of"):
        planes({"edx": image})


def test_a_network_of_fewer_planes_gets_those_it_knows():
    image = np.arange(64.0).reshape(8, 8)
    names = ("bf", "adf", "grey")
    seen = planes({"adf": image, "component1": image}, names)
    assert seen.shape == (3, 8, 8)
    assert [bool(k.any()) for k in seen] == [False, True, False]
    with pytest.raises(ValueError, match="component1"):
        planes({"component1": image}, names)
