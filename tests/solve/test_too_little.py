"""A handful of reflections of a large cell is not tried, and it is said why."""

import numpy as np
from solve.synthetic import known, measured

from stemtomo_dl.solve import solve


def test_a_tenth_of_the_reflections_is_needed():
    found = solve(measured(known("zirconia"), "Zr,O", 0.8, 0.05), np.random.default_rng(0))
    assert not found.solved
    assert found.starts == 0
    assert found.missing[0] == "too little was measured to try"
    assert any("completeness is" in m for m in found.missing)
