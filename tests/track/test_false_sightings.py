"""Sightings that show no particle do not become particles, nor spoil those that are there."""

import numpy as np

from stemtomo_dl.config import TrackConfig
from stemtomo_dl.simulate.motion import Tilts
from stemtomo_dl.simulate.sightings import PRESETS, draw_sightings
from stemtomo_dl.track.features import Features
from stemtomo_dl.track.link import link


def test_one_sighting_in_ten_is_false():
    tilts = Tilts(start=-60, stop=60, step=1.5)
    settings = PRESETS["default"].model_copy(update={"particles": 80, "tilts": tilts, "false": 4.5})
    s = draw_sightings(settings, np.random.default_rng(3))
    false = s.particle < 0
    assert 0.08 < false.mean() < 0.14
    seen = Features(s.xy, s.area, s.covariance)
    label, _ = link(seen, s.tilt, s.stated_deg, settings.shape, settings.tilt_axis_deg, TrackConfig())
    assert (label[false] >= 0).mean() < 0.15
    assert (label[~false] >= 0).mean() > 0.9
    for track in range(label.max() + 1):
        shown = s.particle[label == track]
        most = np.bincount(shown + 1).argmax() - 1
        assert most >= 0
        if len(shown) >= 20:
            assert (shown == most).mean() > 0.8
