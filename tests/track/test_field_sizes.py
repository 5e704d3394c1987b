"""Fields of hundreds of particles, in a series as microscopes write them."""

import numpy as np
import pytest

from stemtomo_dl.config import TrackConfig
from stemtomo_dl.learn.tracking_metrics import point_encounters, tracking_scores
from stemtomo_dl.simulate.motion import Tilts
from stemtomo_dl.simulate.sightings import PRESETS, draw_sightings
from stemtomo_dl.track.features import Features
from stemtomo_dl.track.link import link

DESCENDING = Tilts(start=60, stop=-60, step=2.4, uneven_deg=0.3, missing=0.15)


def test_uneven_descending_series_with_missing_tilts():
    s = draw_sightings(
        PRESETS["default"].model_copy(update={"tilts": DESCENDING, "particles": 800, "shape": (900, 900)}),
        np.random.default_rng(2),
    )
    seen = Features(s.xy, s.area, s.covariance)
    label, found = link(seen, s.tilt, s.stated_deg, s.settings.shape, s.settings.tilt_axis_deg, TrackConfig())
    met = point_encounters(s.tilt, s.particle, s.xy, s.tilt, label, s.xy, 1.0)
    assert tracking_scores(met)["idf1"] > 0.9
    assert found.stage.rigid
    assert np.bincount(s.tilt).max() > 400
    assert found.stage.tilt_axis_deg == pytest.approx(s.tilt_axis_deg, abs=0.2)
