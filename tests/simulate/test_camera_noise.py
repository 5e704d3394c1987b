"""Every kind of camera: no electron is lost, and variance and correlation of the counts are those of its model."""

import numpy as np
import pytest
from scipy.signal import convolve2d

from stemtomo_dl import resources
from stemtomo_dl.simulate.detector import Camera, make_sensor, read_out, spread_weights
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import simulate

TINY, CIFS = load_scene(resources.synthetic() / "scenes/tiny.toml")
KINDS = ("ideal", "hybrid", "scintillator")


@pytest.mark.parametrize("sigma", [0.0, 0.2, 0.6, 1.0, 4.0])
def test_light_spreads_by_its_sigma(sigma):
    weights = spread_weights(sigma)
    n = np.arange(len(weights)) - len(weights) // 2
    assert weights.sum() == pytest.approx(1)
    assert weights @ n**2 == pytest.approx(sigma**2, rel=2e-3)
    if sigma == 4:
        np.testing.assert_allclose(weights / weights.max(), np.exp(-(n**2) / (2 * sigma**2)), atol=0.03)


def spread_of(full: dict) -> np.ndarray:
    """What one electron's light does on the pixels, (2n + 1, 2n + 1)."""
    core, tail = spread_weights(full["psf_sigma_px"]), spread_weights(full["psf_tail_px"])
    core = np.pad(core, (len(tail) - len(core)) // 2)
    share = full["psf_tail_share"]
    return (1 - share) * np.outer(core, core) + share * np.outer(tail, tail)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mean", [0.0, 0.4, 30.0])
def test_variance_and_autocorrelation_are_the_models(kind, mean):
    camera, shape, frames = Camera(kind=kind, chips=(1, 1)), (160, 150), 40
    full, sensor, rng = camera.full(), make_sensor(camera, shape, np.random.default_rng(0)), np.random.default_rng(1)
    counts = np.zeros((frames, *shape))
    for frame in counts:
        out = np.zeros(shape, np.uint16)
        read_out(rng, rng.poisson(mean, shape).astype(np.uint32), sensor, out)
        frame[:] = out
    inner = counts[:, 20:-20, 20:-20]
    white = full["read_noise"] ** 2 + (0 if sensor.counting else 1 / 12)
    light = full["gain"] ** 2 * (1 + full["gain_spread"] ** 2) * mean
    shared = spread_of(full) if kind == "scintillator" else np.ones((1, 1))
    model = np.pad(light * convolve2d(shared, shared[::-1, ::-1]), 4)
    middle = len(model) // 2
    model[middle, middle] += white
    error = (
        model[middle, middle] * np.sqrt(2 / inner.size) * np.sqrt((model**2).sum()) / max(model[middle, middle], 1e-9)
    )
    assert inner.mean() == pytest.approx(
        full["dark_offset"] + full["gain"] * mean, abs=5 * np.sqrt(model.sum() / inner.size)
    )
    off = inner - full["dark_offset"] - full["gain"] * mean
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (3, 0)):
        there = off[:, dy:, dx:] * off[:, : off.shape[1] - dy, : off.shape[2] - dx]
        assert there.mean() == pytest.approx(model[middle + dy, middle + dx], abs=5 * error + 0.004 * model.max())
    if kind == "scintillator" and mean == 30:
        assert model[middle, middle + 1] > 0.3 * model[middle, middle]
        assert model[middle, middle] < 0.5 * light


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_total_counts_equal_the_dose(kind, dense):
    """An empty field, its particle in view at another tilt: all electrons are in the direct beam, amid a chip."""
    content = TINY.model_dump()
    content["particles"] = [content["particles"][1] | {"positions_nm": [(187.46, -311.98, 1000)], "min_gap_nm": None}]
    content["film"] |= {"thickness_nm": 0, "contamination": None}
    content["tilts"] |= {"angles": [0.0, -20.0], "sigma_deg": 0.0}
    content["drift"] = {}
    offset = {"beam_offset_px": (-12.0, 16.0), "camera": {"kind": kind, "read_noise": 0.0, "saturation": 65535}}
    content["instrument"] |= offset | {"electrons_per_pattern": 900.0}
    series = simulate(Scene.model_validate(content), CIFS)
    full = series.scene.instrument.camera.full()
    patterns = np.stack(list(series.rows(0, dense=dense))).astype(float) - full["dark_offset"]
    totals = patterns.sum((2, 3)) / full["gain"]
    spread = 900 * (1 + full["gain_spread"] ** 2)
    if kind == "scintillator":
        spread += patterns[0, 0].size / 12 / full["gain"] ** 2
    assert totals.mean() == pytest.approx(900, abs=5 * np.sqrt(spread / totals.size))
    assert totals.var() == pytest.approx(spread, rel=5 * np.sqrt(2 / totals.size))
