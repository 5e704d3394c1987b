"""The stage: true angles against those stated, trajectories, dose, bounds."""

import numpy as np
import pytest
from pydantic import ValidationError

from stemtomo_dl import resources
from stemtomo_dl.simulate.motion import Drift, Tilts, accumulated_dose
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import simulate

TINY, CIFS = load_scene(resources.synthetic() / "scenes/tiny.toml")
STILL = {"walk_px": 0, "beam_walk_px": 0, "height_nm": 0}


def changed(**tables) -> Scene:
    """The tiny scene with keys of its tables changed; lists replace."""
    content = TINY.model_dump()
    for name, table in tables.items():
        content[name] = {**content[name], **table} if isinstance(table, dict) else table
    return Scene.model_validate(content)


def test_offset_and_scale_are_a_straight_line():
    stated = np.array([-60.0, -10, 0, 35])
    tilts = Tilts(angles=list(stated), angle_offset_deg=1.5, angle_scale=1.02)
    np.testing.assert_allclose(tilts.true_deg(stated), 1.02 * stated + 1.5)


@pytest.mark.parametrize("way", [1, -1])
def test_backlash_is_taken_up_after_every_turn(way):
    """Right in the first direction; after a turn the stage waits until the play of 1.5° is gone."""
    stated = way * np.array([0.0, 2, 4, 3, 2, 1, 2, 2, 3, 9])
    expected = way * np.array([0.0, 2, 4, 4, 3.5, 2.5, 2.5, 2.5, 3, 9])
    np.testing.assert_allclose(Tilts(angles=list(stated), backlash_deg=1.5).true_deg(stated), expected)


def test_a_dose_symmetric_series_sways_by_its_backlash():
    tilts = Tilts(start=-9, stop=9, step=3, order="dose-symmetric", backlash_deg=0.4)
    stated = np.array(tilts.stated_deg())
    assert stated.tolist() == [0, 3, -3, 6, -6, 9, -9]
    np.testing.assert_allclose(tilts.true_deg(stated) - stated, [0, 0, 0.4, 0, 0.4, 0, 0.4], atol=1e-12)
    np.testing.assert_array_equal(Tilts(angles=[5, 5], backlash_deg=1).true_deg(np.array([5.0, 5])), [5, 5])


def test_the_stage_goes_through_tilts_that_are_missing():
    tilts = {"angles": [0.0, 10, 8, 7], "sigma_deg": 0, "backlash_deg": 1, "missing": [2]}
    motion = simulate(changed(tilts=tilts), CIFS).motion
    np.testing.assert_allclose(motion.stated_deg, [0, 10, 7])
    np.testing.assert_allclose(motion.alpha_deg, [0, 10, 8])


def test_trajectories_are_x_cos_alpha_plus_z_sin_alpha_with_the_true_angles():
    """Axis along y, a goniometer that is wrong in every way; centroids of thickness of a ball on a fine raster."""
    place = np.array([-30.0, 12, -35])
    ball = {"cif": "rutile.cif", "count": 1, "size_nm": 16, "shape": "sphere", "positions_nm": [tuple(place)]}
    wrong = {"sigma_deg": 0.4, "angle_offset_deg": -2.5, "angle_scale": 1.03, "backlash_deg": 1.2}
    angles = [-50.0, -20, 10, 40, 30, 0, -30, 20]
    instrument = {"tilt_axis_deg": 90, "scan": (90, 180), "step_nm": 1.0, "probe_samples": 2}
    series = simulate(
        changed(particles=[ball], drift=STILL, tilts={"angles": angles, **wrong}, instrument=instrument), CIFS
    )
    alpha = np.radians(series.truth.alpha_deg)
    np.testing.assert_allclose(np.degrees(alpha), 1.03 * np.array(angles) - 2.5, atol=1.2 + 4 * 0.4)
    assert np.abs(np.degrees(alpha) - angles).max() > 2
    for tilt in range(len(angles)):
        (thickness,) = series._view(tilt)[1]
        y, x = (np.average(v, weights=thickness) for v in np.indices(thickness.shape))
        expected = [89.5 + place[0] * np.cos(alpha[tilt]) + place[2] * np.sin(alpha[tilt]), 44.5 + place[1]]
        np.testing.assert_allclose([x, y], expected, atol=0.02)


def test_dose_is_per_area_of_the_true_raster():
    raster = {"fast_scale": 1.1, "slow_scale": 0.8, "shear_deg": 5}
    scene = changed(instrument={"raster": raster})
    np.testing.assert_allclose(accumulated_dose(scene, 2), 400 / (44 * 32) * np.array([0.5, 1.5]))


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        (Tilts, {"start": -60, "stop": 60, "step": 1e-12}),
        (Tilts, {"start": -1e9, "stop": 60, "step": 1}),
        (Tilts, {"angles": [0.0] * 10001}),
        (Tilts, {"angles": [200.0]}),
        (Tilts, {"angles": [0.0], "angle_scale": 0}),
        (Tilts, {"angles": [0.0], "backlash_deg": -1}),
        (Drift, {"walk_px": 1e9}),
        (Drift, {"height_nm": 1e12}),
        (Drift, {"jumps": [{"tilt": 0, "shift_px": (1e300, 0)}]}),
    ],
    ids=str,
)
def test_tilts_and_drift_have_bounds(model, keys):
    with pytest.raises(ValidationError):
        model.model_validate(keys)
