"""Pieces of creeping particles are joined by their whole ways, with the odds that the Gaussian model gives exactly."""

import numpy as np

from stemtomo_dl.config import TrackConfig
from stemtomo_dl.simulate.sightings import PRESETS, draw_sightings
from stemtomo_dl.track.evidence import Evidence
from stemtomo_dl.track.features import Features
from stemtomo_dl.track.link import link
from stemtomo_dl.track.rigid import Model, fit, table
from stemtomo_dl.track.series import arrange


def creeping(seed=0):
    settings = PRESETS["steady creep"].model_copy(
        update={"particles": 40, "misses": 0.0, "dropout_rate": 0.0, "false": 0.0, "merged": 0.0, "jumps": 0}
    )
    return draw_sightings(settings, np.random.default_rng(seed))


def test_the_odds_favour_the_other_half_of_the_same_particle():
    s = creeping()
    series = arrange(Features(s.xy, s.area, s.covariance), s.tilt, s.stated_deg, s.settings.shape, None)
    whole = table(series, s.particle)
    whole = whole[(whole >= 0).sum(1) > 0.8 * whole.shape[1]]
    half = whole.shape[1] // 2
    early, late = whole.copy(), whole.copy()
    early[:, half - 10 :] = -1
    late[:, : half + 10] = -1
    index, n = np.concatenate([early, late]), len(whole)
    steps = np.zeros((whole.shape[1], 2))
    model = Model(s.tilt_axis_deg, series.alpha, 1.0, series.tilts.astype(float), steps, np.ones(len(steps)),
                  1.0, 8.0, np.array([2.0, 0.15]) * max(series.shape))  # fmt: skip
    fitted = fit(series, index, model)
    evidence = Evidence(series, index, fitted, np.arange(2 * n))
    a, b = (v.ravel() for v in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    density = evidence.density(a, b + n).reshape(n, n)
    assert (density.argmax(1) == np.arange(n)).mean() > 0.9
    # what is joined adds up: three pieces in either order have one evidence
    thirds = Evidence(series, index, fitted, np.arange(2 * n))
    before = thirds.density(np.array([0]), np.array([n]))
    thirds.join(np.array([1]), np.array([n + 1]))
    np.testing.assert_allclose(thirds.density(np.array([0]), np.array([n])), before)


def test_creeping_particles_are_one_track_each():
    s = creeping(1)
    label, found = link(
        Features(s.xy, s.area, s.covariance), s.tilt, s.stated_deg, s.settings.shape, s.settings.tilt_axis_deg,
        TrackConfig(),
    )  # fmt: skip
    assert found.stage.rigid
    long = np.flatnonzero(np.bincount(label[label >= 0]) > 100)
    particles = [np.bincount(s.particle[label == k] + 1).argmax() for k in long]
    assert len(set(particles)) == len(long) > 10
