"""Masks files of other programs: what cannot be meant is refused in one line."""

import h5py
import numpy as np
import pytest

from stemtomo_dl.errors import InputError
from stemtomo_dl.store.results import read_masks

MASKS = np.zeros((3, 8, 9), bool)
MASKS[:, 2:5, 3:7] = True


def written(tmp_path, **changes):
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as f:
        for name, values in ({"masks": MASKS, "tilt": [0, 1, 1], "alpha_deg": [-1.0, 1.0]} | changes).items():
            f[name] = values
    return path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"masks": 0.9 * MASKS + 0.05}, "masks > 0.5"),
        ({"masks": MASKS[0]}, "/masks must be"),
        ({"masks": MASKS[:, None]}, "/masks must be"),
        ({"masks": np.array([b"a", b"b", b"c"])}, "/masks must be"),
        ({"tilt": [0.5, 1, 1]}, "number tilts from 0"),
        ({"tilt": [0, 1, np.nan]}, "number tilts from 0"),
        ({"tilt": [[0], [1], [1]]}, "/tilt must be"),
        ({"alpha_deg": [[-1.0], [1.0]]}, "/alpha_deg must be"),
        ({"alpha_deg": 3.0}, "/alpha_deg must be"),
        ({"alpha_deg": [b"-1", b"1"]}, "/alpha_deg must be"),
        ({"score": [0.5, 0.5]}, "do not fit each other"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, changes, told):
    with pytest.raises(InputError, match=told):
        read_masks(written(tmp_path, **changes))


@pytest.mark.parametrize("kind", ["bool", "u1", "f4", "f8"])
def test_masks_of_any_type_are_read_and_angles_that_are_none_are_nan(tmp_path, kind):
    read = read_masks(written(tmp_path, masks=MASKS.astype(kind), alpha_deg=[-1.0, np.inf]))
    assert [c.sum() for c in read.crops] == [12] * 3
    np.testing.assert_array_equal(read.alpha_deg, [-1.0, np.nan])
