"""Records check themselves; masks survive packing."""

import numpy as np
import pytest

from stemtomo_dl.records import Masks, VirtualImages


def images(**changes):
    fields = {
        "detectors": ("bf",),
        "images": np.zeros((1, 4, 5), "f4"),
        "beam_px": np.zeros((2, 6)),
        "mean_pattern": np.zeros((6, 7), "f4"),
        "max_pattern": np.zeros((6, 7), "f4"),
    }
    return VirtualImages(**{**fields, **changes})


def test_wrong_dtype_axes_and_lengths_are_refused():
    images()
    with pytest.raises(TypeError, match=r"VirtualImages\.images: expected dtype float32"):
        images(images=np.zeros((1, 4, 5)))
    with pytest.raises(ValueError, match="expected axes"):
        images(images=np.zeros((4, 5), "f4"))
    with pytest.raises(ValueError, match="axis qx has length 8, expected 7"):
        images(max_pattern=np.zeros((6, 8), "f4"))
    with pytest.raises(ValueError, match="axis 6 has length 5"):
        images(beam_px=np.zeros((2, 5)))


def test_records_do_not_change():
    with pytest.raises(AttributeError):
        images().detectors = ()


def test_masks_pack_and_unpack():
    full = np.random.default_rng(0).random((6, 11, 17)) < 0.1
    full[2] = False  # an empty one
    tilt = np.array([0, 0, 1, 1, 3, 3])
    masks = Masks.pack(full, tilt, np.ones(6), np.zeros(4))
    np.testing.assert_array_equal([masks.full(i) for i in range(6)], full)
    np.testing.assert_array_equal(masks.at(1), [2, 3])
    both = Masks.concatenate([masks, masks])
    np.testing.assert_array_equal(both.full(7), full[1])
