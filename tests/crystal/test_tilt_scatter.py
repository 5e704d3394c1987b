"""Tilts' turns are held by what they scatter by, not by what their few spots leave open."""

import numpy as np
import pytest
from scipy import sparse

from stemtomo_dl.crystal.tilt_scatter import hold_of_turns


@pytest.mark.parametrize("scatter", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("hold", [1.0, 16.0])
def test_the_scatter_is_found_whatever_they_were_held_with(scatter, hold):
    rng, n, information = np.random.default_rng(4), 400, 20.0
    turns = np.arange(3 * n).reshape(n, 3)
    free = rng.normal(0, scatter, (n, 3)) + rng.normal(0, information**-0.5, (n, 3))
    off = free * information / (information + hold)
    held = hold_of_turns(sparse.eye(3 * n, format="csr") * information, turns, off, np.full((n, 3), hold))
    assert (held == held[0, 0]).all()
    assert held[0, 0] ** -0.5 == pytest.approx(scatter, rel=0.35)


def test_turns_that_no_spot_tells_stay_held():
    hold = np.full((5, 3), 2.0)
    normal = sparse.csr_matrix((15, 15))
    assert (hold_of_turns(normal, np.arange(15).reshape(5, 3), np.zeros((5, 3)), hold) == hold).all()
