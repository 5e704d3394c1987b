"""Fields of one to three particles, where nobody can vote on the field's shift."""

import numpy as np
import pytest

from stemtomo_dl.config import TrackConfig
from stemtomo_dl.learn.tracking_metrics import point_encounters, tracking_scores
from stemtomo_dl.simulate.motion import Tilts
from stemtomo_dl.simulate.sightings import SightingSettings, draw_sightings
from stemtomo_dl.track.features import Features
from stemtomo_dl.track.link import link

QUIET = {"jumps": 0, "eucentric_px": 5.0, "height_px": 8.0, "wave_px": 4.0, "false": 0.0, "misses": 0.03}
FIELD = {"shape": (128, 128), "reach": 1.0, "dropout_rate": 0.0, "drift_px": 3.0}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("particles", "least"), [(1, 1.0), (2, 0.95), (3, 0.9)])
def test_few_particles_are_followed_from_end_to_end(particles, least, seed):
    settings = SightingSettings(particles=particles, tilts=Tilts(start=-50, stop=50, step=2.0), **QUIET, **FIELD)
    s = draw_sightings(settings, np.random.default_rng(seed))
    label, _ = link(
        Features(s.xy, s.area, s.covariance),
        s.tilt,
        s.stated_deg,
        settings.shape,
        settings.tilt_axis_deg,
        TrackConfig(),
    )
    met = point_encounters(s.tilt, s.particle, s.xy, s.tilt, label, s.xy, 1.0)
    assert tracking_scores(met)["idf1"] >= least
