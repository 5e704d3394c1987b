"""Mosaic spread and damage together: electrons drawn one by one against patterns that are rendered."""

import numpy as np
import pytest

from stemtomo_dl import resources
from stemtomo_dl.config import check
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import simulate

TINY, CIFS = load_scene(resources.synthetic() / "scenes/tiny.toml")


@pytest.mark.parametrize("intensities", ["kinematic", "two-beam"])
def test_both_ways_agree_with_mosaic_and_damage(intensities):
    content = TINY.model_dump() | {"intensities": intensities}
    worn = {"mosaic_deg": 0.6, "damage": {"critical_dose_e_per_A2": 20.0}, "min_gap_nm": None}
    rods, ball = (p | worn for p in content["particles"])
    content["particles"] = [
        rods | {"positions_nm": [(4, -4, -27), (10, -23, -107)]},
        ball | {"positions_nm": [(-4, 3, 28)]},
    ]
    content["tilts"] |= {"angles": [14.0]}
    content["instrument"] |= {"electrons_per_pattern": 8000.0}
    series = simulate(check(Scene, content, "scene"), CIFS)
    events, dense = (np.stack(list(series.rows(0, dense=d))).astype(float) for d in (False, True))
    met = (series._view(0)[1] > 0).sum(0)
    for region in (met == 1, met >= 2):
        a, b = events[region].sum(0), dense[region].sum(0)
        enough = a + b > 20
        n = enough.sum()
        assert n > 400
        assert ((a - b)[enough] ** 2 / (a + b)[enough]).sum() == pytest.approx(n, abs=5 * np.sqrt(2 * n))
