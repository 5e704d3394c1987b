"""The series as a whole: truth, motion, reproducibility."""

import numpy as np
import pytest

from stemtomo_dl import resources
from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import tilt_rotation
from stemtomo_dl.simulate.diffraction import MOST_KINEMATIC
from stemtomo_dl.simulate.mixture import make_mixture
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import simulate

TINY, CIFS = load_scene(resources.synthetic() / "scenes/tiny.toml")


def changed(**tables) -> Scene:
    """The tiny scene with keys of its tables changed; lists replace."""
    content = TINY.model_dump()
    for name, table in tables.items():
        content[name] = {**content[name], **table} if isinstance(table, dict) else table
    return Scene.model_validate(content)


SPHERES = [
    {"cif": "rutile.cif", "count": 2, "size_nm": 24, "shape": "sphere", "positions_nm": [(-22, 9, 25), (16, -12, -31)]}
]


def test_masks_follow_x_cos_alpha_plus_z_sin_alpha():
    """Axis along y: what a textbook writes."""
    still = {"walk_px": 0, "beam_walk_px": 0, "height_nm": 0}
    tilts = {"angles": [40, 10, -35], "sigma_deg": 0}
    scene = changed(particles=SPHERES, drift=still, instrument={"tilt_axis_deg": 90}, tilts=tilts)
    masks = simulate(scene, CIFS).truth
    alpha = np.radians([40, 10, -35])
    assert len(masks.masks) == 6
    for i in range(6):
        x, y, z = SPHERES[0]["positions_nm"][masks.particle[i]]
        a = alpha[masks.masks.tilt[i]]
        ys, xs = np.nonzero(masks.masks.full(i))
        seen = [15.5 + (x * np.cos(a) + z * np.sin(a)) / 4, 11.5 + y / 4]
        np.testing.assert_allclose([xs.mean(), ys.mean()], seen, atol=0.25)
        assert len(xs) == pytest.approx(np.pi * 9, rel=0.15)


def test_masks_follow_position_rotation_and_drift():
    drift = {"walk_px": 2.0, "jumps": [{"tilt": 2, "shift_px": (3, -2)}]}
    t = simulate(changed(particles=SPHERES, drift=drift), CIFS).truth
    assert np.abs(t.drift_px).max() > 1
    for i in range(len(t.masks)):
        tilt, p = t.masks.tilt[i], t.particle[i]
        ys, xs = np.nonzero(t.masks.full(i))
        if min(xs.min(), ys.min()) == 0 or xs.max() == 31 or ys.max() == 23:
            continue
        seen = (tilt_rotation(31.0, t.alpha_deg[tilt]) @ t.positions_nm[p])[:2] / 4 + t.drift_px[tilt] + [15.5, 11.5]
        np.testing.assert_allclose([xs.mean(), ys.mean()], seen, atol=0.25)


def test_motion_does_what_the_scene_says():
    quiet = {"walk_px": 0, "beam_walk_px": 0}
    angles = {"angles": list(np.linspace(60, -60, 200)), "sigma_deg": 0.2}
    motion = simulate(
        changed(drift={**quiet, "height_nm": 20, "jumps": [{"tilt": 150, "shift_px": (3, -2)}]}, tilts=angles), CIFS
    ).motion
    assert np.std(motion.alpha_deg - motion.stated_deg) == pytest.approx(0.2, rel=0.2)
    a, w = np.radians(motion.alpha_deg), np.radians(31)
    expected = 20 / 4 * np.sin(a)[:, None] * [np.sin(w), -np.cos(w)]
    expected[150:] += [3, -2]
    np.testing.assert_allclose(motion.drift_px, expected, atol=1e-9)
    np.testing.assert_allclose(motion.centers_px, np.tile([23.5 - 1.2, 31.5 + 2.3], (200, 1)))
    walk = simulate(changed(drift={"walk_px": 0.5, "height_nm": 0, "beam_walk_px": 0.1}, tilts=angles), CIFS).motion
    for course, sigma in ((walk.drift_px, 0.5), (walk.centers_px, 0.1)):
        assert np.diff(course, axis=0).std() == pytest.approx(sigma, rel=0.15)


def test_virtual_bright_field_shows_the_masks():
    series = simulate(TINY, CIFS)
    scan, truth = series.scan(1), series.truth
    row, column = np.indices(series.shape[2:])
    near = np.hypot(column - truth.centers_px[1, 0], row - truth.centers_px[1, 1]) < 2.2
    bright, inside = scan[:, :, near].sum(-1), np.zeros(series.shape[:2], bool)
    for i in truth.masks.at(1):
        inside |= truth.masks.full(i)
    assert bright[inside].mean() < 0.9 * bright[~inside].mean()
    edge = bright[~inside].mean() - bright[inside].mean()
    assert np.corrcoef(bright.ravel(), inside.ravel())[0, 1] < -0.5, edge


def test_one_seed_gives_the_same_bytes_in_any_order_and_with_any_threads():
    first, again = simulate(TINY, CIFS), simulate(TINY, CIFS)
    late = first.scan(3, threads=1)
    for tilt, scan in enumerate(again):
        other = late if tilt == 3 else first.scan(tilt, threads=3)
        assert scan.tobytes() == other.tobytes()
        assert scan.dtype == np.uint16
        assert scan.shape == first.shape == (24, 32, 64, 48)
    np.testing.assert_array_equal(first.truth.ub, again.truth.ub)
    assert not np.array_equal(late, simulate(TINY.model_copy(update={"seed": 8}), CIFS).scan(3))
    assert not np.array_equal(late[0], late[1])


def test_tilts_differ_in_noise_too():
    still = simulate(changed(tilts={"angles": [0, 0], "sigma_deg": 0}, drift={"walk_px": 0, "beam_walk_px": 0}), CIFS)
    assert not np.array_equal(still.scan(0), still.scan(1))


def test_kinematic_share_stays_physical_with_one_factor_per_particle():
    series = simulate(TINY.model_copy(update={"intensities": "kinematic"}), CIFS)
    assert series.cast.scale is not None
    assert ((series.cast.scale > 0) & (series.cast.scale <= 1)).all()
    for tilt in range(len(series)):
        mix = make_mixture(series.cast, series._view(tilt)[0])
        for p in range(len(mix.step_nm)):
            n = mix.first[p + 1] - mix.first[p]
            size = (mix.steps[p] + 1) * 3 * mix.rings**2 * n
            shares = mix.shares[mix.table[p] : mix.table[p] + size].reshape(-1, n)
            assert shares[:, -1].max() <= MOST_KINEMATIC * (1 + 1e-5)


def test_truth_names_phases_and_reflections():
    truth = simulate(TINY, CIFS).truth
    assert truth.phase == ("brookite", "brookite", "rutile")
    hkl, intensity = truth.reflections["brookite"]
    assert hkl.shape == (len(intensity), 3)
    lengths = 1 / np.linalg.norm(truth.ub[0], axis=0)  # of an orthogonal cell
    np.testing.assert_allclose(lengths, [9.184, 5.447, 5.145], rtol=1e-9)
    assert np.linalg.det(truth.ub[0]) > 0


def test_lying_and_upright_directions_are_where_they_should():
    for kind, cosine in (("lying", 0), ("upright", 1)):
        orientation = {"kind": kind, "direction": (1, 0, 2)}
        many = [{"cif": "brookite.cif", "count": 20, "size_nm": 9, "shape": "random", "orientation": orientation}]
        for p in simulate(changed(particles=many), CIFS).cast.particles:
            along = p.u @ p.structure.direct @ [1, 0, 2]
            assert along[2] / np.linalg.norm(along) == pytest.approx(cosine, abs=1e-9)


def test_gap_is_kept_between_outlines():
    from scipy.ndimage import distance_transform_edt

    flat = {"tilts": {"angles": [0], "sigma_deg": 0}, "drift": {"height_nm": 0}}
    many = [{"cif": "rutile.cif", "count": 6, "size_nm": 12, "shape": "sphere", "min_gap_nm": 6.0}]
    masks = simulate(changed(particles=many, **flat), CIFS).truth.masks
    for i in range(len(masks)):
        others = sum(masks.full(j) for j in range(len(masks)) if j != i).astype(bool)
        assert (distance_transform_edt(~others) * 4)[masks.full(i)].min() > 6


def test_a_full_field_and_open_faces_are_input_errors():
    crowd = [{"cif": "rutile.cif", "count": 60, "size_nm": 40, "shape": "sphere", "min_gap_nm": 2.0}]
    with pytest.raises(InputError, match=r"particles\.0.*no room"):
        simulate(changed(particles=crowd), CIFS)
    plate = [{"cif": "rutile.cif", "count": 1, "size_nm": 20, "faces": [{"hkl": (0, 0, 1)}]}]
    with pytest.raises(InputError, match=r"particles\.0\.faces.*enclose"):
        simulate(changed(particles=plate), CIFS)
