"""Where an axis is longer than those searched, this is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crystal.drawn_series import drawn, no_spots

from stemtomo_dl.errors import InputError
from stemtomo_dl.reduction import not_enough, reduce

SERIES = drawn(np.array([0.0]))


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (12, "its 12 spots are not enough to tell a lattice"),
        (220, "its 220 spots do not tell a lattice; axes are searched up to 45 Å"),
    ],
)
def test_many_spots_without_a_lattice_may_have_a_long_axis(n, expected):
    none = no_spots(SERIES)
    spots = replace(none, frame=np.zeros(n, "i4"), px=np.zeros((n, 2)), intensity=np.ones(n), sigma=np.ones(n))
    assert not_enough(spots) == expected


def test_a_known_cell_with_too_long_an_axis_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--cell 4\.1,4\.2,60,90,90,90: axes are searched up to 45 Å"):
        reduce(SERIES, Path("s.h5"), tmp_path, cell=(4.1, 4.2, 60, 90, 90, 90))
