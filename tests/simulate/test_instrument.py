"""The instrument: both ways of drawing agree with every feature on; raster, drift, descan, dose, tilts."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter

from stemtomo_dl import resources
from stemtomo_dl.config import ELEMENTARY_CHARGE, check
from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import tilt_rotation
from stemtomo_dl.simulate import counts, render
from stemtomo_dl.simulate.again import Again
from stemtomo_dl.simulate.detector import Camera, make_sensor
from stemtomo_dl.simulate.motion import accumulated_dose
from stemtomo_dl.simulate.scene import Scene, Tilts, load_scene
from stemtomo_dl.simulate.series import Series, simulate

TINY, CIFS = load_scene(resources.synthetic() / "scenes/tiny.toml")
EXTREMES = (maximum_filter, minimum_filter)
STILL = {"walk_px": 0, "beam_walk_px": 0, "height_nm": 0}
BALL = {"cif": "rutile.cif", "count": 1, "size_nm": 44, "shape": "sphere", "positions_nm": [(3, -2, 0)]}
AWAY = BALL | {"positions_nm": [(187.46, -311.98, 1000)]}  # in view at −20° only, the last tilt


def changed(**tables) -> Scene:
    """The tiny scene with keys of its tables changed; lists replace."""
    content = TINY.model_dump()
    for name, table in tables.items():
        content[name] = {**content[name], **table} if isinstance(table, dict) else table
    return check(Scene, content, "scene")


def stacked(**changes) -> Series:
    """All three particles in one column at one tilt, 8000 electrons per pattern."""
    rods = TINY.particles[0].model_dump() | {
        "positions_nm": [(4, -4, -27), (10, -23, -107)],
        "min_gap_nm": None,
    }
    sphere = TINY.particles[1].model_dump() | {"positions_nm": [(-4, 3, 28)], "min_gap_nm": None}
    instrument = {"electrons_per_pattern": 8000, "camera": {"dtype": "uint32"}} | changes.pop("instrument", {})
    return simulate(changed(particles=[rods, sphere], tilts={"angles": [14.0]}, instrument=instrument, **changes), CIFS)


@pytest.mark.parametrize(
    "changes",
    [
        {"instrument": {"camera": {"psf_sigma_px": 0.7}}},
        {"instrument": {"camera": {"psf_sigma_px": 0.5, "psf_tail_share": 0.2}}},
        {"instrument": {"camera": {"kind": "hybrid", "gap_px": 4, "wide_px": 2, "saturation": 60000}}},
        {"instrument": {"ellipse": {"ratio": 1.08, "azimuth_deg": 20}}},
        {"instrument": {"descan": {"fast_px": (3.3, -1.7), "slow_px": (1.1, 2.2), "fast_bow_px": (0.4, 0.9)}}},
        {"overlap": "sequential", "film": {"thickness_nm": 20, "contamination": None}},
        {
            "overlap": "sequential",
            "instrument": {
                "camera": {"kind": "hybrid", "psf_sigma_px": 0.6, "psf_tail_share": 0.1, "hot_pixels": 5},
                "ellipse": {"ratio": 0.95},
                "descan": {"slow_px": (-2.5, 1.0)},
                "raster": {"shear_deg": 3, "row_jitter_px": 0.5},
            },
        },
    ],
    ids=["core", "tail", "gaps", "ellipse", "descan", "sequential", "all"],
)
def test_both_ways_agree_with_every_feature(changes):
    series = stacked(**changes)
    events, dense = (np.stack(list(series.rows(0, dense=d))).astype(float) for d in (False, True))
    met = (series._view(0)[1] > 0).sum(0)
    assert met.max() == 3
    for region in (met == 0, met == 1, met >= 2):
        a, b = events[region].sum(0), dense[region].sum(0)
        enough = a + b > 20
        chi2, n = ((a - b)[enough] ** 2 / (a + b)[enough]).sum(), enough.sum()
        assert n > 400
        assert chi2 == pytest.approx(n, abs=5 * np.sqrt(2 * n))


def deflected_like_the_direct_beam(share: float) -> Again:
    """The second particle's reflection, which takes a share of any beam at 10 nm: the sphere is flat."""
    width = (np.arcsin(np.sqrt(share)) / (np.pi * 100)) ** 2
    g = np.array([[0.0, 9.0, 0.0]])  # px, as place
    one = np.array([width])
    return Again(1e6, 0.0, np.eye(2), np.array([0, 0, 1]), g, one, one, np.zeros(2), True)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("sequential", "shares"), [(False, (0.5, 0.2, 0.0)), (True, (0.3, 0.2, 0.2))])
def test_sequential_scattering_adds_the_vectors(dense, sequential, shares):
    """The upper particle takes a half to +10 columns, the lower two fifths to +9 rows."""
    mix = counts.Mixture(
        center=np.array([8.0, 8.0]),
        ellipse=np.eye(2),
        disk_px=1.5,
        rings=1,
        sequential=sequential,
        radii=np.full((2, 3), 2.0),
        material=np.array([1, 1]),
        mean_free_path=np.array([1e9, 1e9]),
        steps=np.array([1, 1]),
        step_nm=np.array([10.0, 10.0]),
        first=np.array([0, 1, 2]),
        table=np.array([0, 6]),
        shares=np.array([0] * 3 + [0.5] * 3 + [0] * 3 + [0.4] * 3, "f4"),
        place=np.array([[18.0, 8.0], [8.0, 17.0]]),
        again=deflected_like_the_direct_beam(0.4),
    )
    out, rng, shift = np.zeros((50, 26, 27), np.uint16), np.random.default_rng(3), np.zeros((50, 2))
    sensor, row = make_sensor(Camera(), (26, 27), rng), counts.Row(np.full((2, 50), 10.0), np.zeros(50), shift)
    if dense:
        render.draw_patterns(rng, 2000.0, mix, row, sensor, render.make_canvas(mix, sensor, (26, 27), shift), out)
    else:
        counts.draw_electrons(rng, 2000.0, mix, row, sensor, out)
    picture = out.sum(0) / 1e5
    upper, lower, both = picture[4:13, 14:].sum(), picture[13:, 4:13].sum(), picture[13:, 14:].sum()
    np.testing.assert_allclose([upper, lower, both], shares, atol=0.008)
    assert picture[4:13, 4:13].sum() == pytest.approx(0.3, abs=0.008)


def test_descan_is_seen_in_the_centroids():
    descan = {"fast_px": (2.0, -1.0), "slow_px": (0.5, 3.0), "fast_bow_px": (0.0, 0.8), "slow_bow_px": (-0.6, 0.0)}
    m = {"descan": descan, "electrons_per_pattern": 20_000, "detector": (41, 41), "beam_offset_px": (0, 0)}
    series = simulate(changed(particles=[AWAY], film={"thickness_nm": 0}, instrument=m, drift=STILL), CIFS)
    scan = series.scan(0).astype(float)
    total, (i, j) = scan.sum((2, 3)), np.indices((41, 41))
    found = np.stack([(scan * j).sum((2, 3)) / total, (scan * i).sum((2, 3)) / total], -1) - 20
    v, u = np.meshgrid(np.linspace(-0.5, 0.5, 24), np.linspace(-0.5, 0.5, 32), indexing="ij")
    design = np.stack([u, v, 4 * u**2, 4 * v**2, np.ones_like(u)], -1).reshape(-1, 5)
    fitted = np.linalg.lstsq(design, found.reshape(-1, 2), rcond=None)[0]
    np.testing.assert_allclose(fitted, [*descan.values(), (0, 0)], atol=0.01)
    np.testing.assert_allclose(series.truth.centers_px[0], [20, 20], atol=1e-9)


def test_dose_comes_from_current_and_dwell():
    m = TINY.instrument.model_dump() | {"electrons_per_pattern": None, "current_pa": 0.08, "dwell_ms": 2.0}
    scene = changed(instrument=m)
    electrons = 0.08e-12 * 2e-3 / ELEMENTARY_CHARGE
    assert scene.instrument.electrons == pytest.approx(electrons) == pytest.approx(998.6, rel=1e-3)
    stated = scene.experiment(["Ti"]).beam
    assert (stated.current_pa, stated.dwell_ms, stated.electrons_per_pattern) == (0.08, 2.0, None)
    scan = simulate(changed(instrument=m, particles=[AWAY], film={"thickness_nm": 0}), CIFS).scan(0)
    assert scan.sum((2, 3)).mean() == pytest.approx(electrons, abs=5 * np.sqrt(electrons / (24 * 32)))
    for wrong in ({"current_pa": 1.0}, {"electrons_per_pattern": 5, "current_pa": 1.0, "dwell_ms": 1.0}, {}):
        with pytest.raises(InputError, match="instrument"):
            changed(instrument=TINY.instrument.model_dump() | {"electrons_per_pattern": None} | wrong)


RASTER = {"shear_deg": 4.0, "fast_scale": 1.05, "slow_scale": 0.93, "flyback_px": 3.0, "row_jitter_px": 0.6}


def test_masks_and_thickness_show_the_raster_and_the_drift_within_a_scan():
    """A ball drawn anew, by the distance of every probe's real place from its centre."""
    drift = {**STILL, "steady_px": (3.0, -1.5), "jumps": [{"tilt": 0, "shift_px": (2, 1), "row": 15}]}
    series = simulate(changed(particles=[BALL], instrument={"raster": RASTER}, drift=drift), CIFS)
    motion, truth = series.motion, series.truth
    y, x = np.meshgrid(np.arange(24) - 11.5, np.arange(32) - 15.5, indexing="ij")
    real_y = 0.93 * y
    real_x = 1.05 * x + real_y * np.tan(np.radians(4)) + 3 * np.exp(-(x + 15.5) / 4)
    for tilt in range(4):
        shift = np.linspace(-0.5, 0.5, 24)[:, None] * [3.0, -1.5]
        shift[15 if tilt == 0 else 0 :] += [2, 1]
        np.testing.assert_allclose(truth.drift_px[tilt], shift.mean(0), atol=1e-9)
        np.testing.assert_allclose(motion.drift_px[tilt] + motion.row_px[tilt], shift, atol=1e-9)
        seen = (tilt_rotation(31.0, truth.alpha_deg[tilt]) @ truth.positions_nm[0])[:2] / 4
        dx, dy = real_x - seen[0] - shift[:, :1], real_y - seen[1] - shift[:, 1:]
        mask, thickness = truth.masks.full(tilt), series._view(tilt)[1][0]
        # the jitter is not known, but it must be one shift per row
        sure, out = np.hypot(np.abs(dx) + 2.0, dy) < 5.5, np.hypot(np.maximum(np.abs(dx) - 2.0, 0), dy) >= 5.5
        assert mask[sure].all()
        assert not mask[out].any()
        assert ((thickness > 0) == mask).all()
        jitter = []
        for row in np.flatnonzero(mask.sum(1) > 5):
            half = thickness[row][mask[row]] / 8  # px, of the chord along the beam
            inner = half > 2
            square = 5.5**2 - dy[row][mask[row]] ** 2 - half**2  # (dx + jitter)²
            place = dx[row][mask[row]]
            fits = [np.abs((place + j) ** 2 - square)[inner].max() for j in np.linspace(-2, 2, 4001)]
            jitter.append(np.linspace(-2, 2, 4001)[np.argmin(fits)])
            assert min(fits) < 0.05
        assert 0.2 < np.std(jitter) < 1.2


def test_regular_rasters_are_exact_without_jitter():
    moved = {"raster": {"fast_scale": 1 + 1e-7}}
    for samples in (1, 3):
        plain = simulate(changed(particles=[BALL], instrument={"probe_samples": samples}), CIFS)
        bent = simulate(changed(particles=[BALL], instrument={"probe_samples": samples, **moved}), CIFS)
        np.testing.assert_allclose(bent._view(1)[1], plain._view(1)[1], atol=1e-3)


def test_film_coat_and_needle_are_met_where_the_probes_are():
    """On a raster that leaves the field a bent scan sees what a wider regular one sees there."""
    bent = {"raster": {"fast_scale": 1.5, "slow_scale": 1.25}, "probe_samples": 1}
    coated = BALL | {"positions_nm": [(66, -12, 0)], "shell": {"thickness_nm": 9}}
    film = {
        "thickness_nm": 30,
        "contamination": None,
        "holes": {"diameter_nm": 50, "period_nm": 81},
        "needle": {"tip_nm": (-40, 8), "azimuth_deg": 200},
    }
    seen = [
        simulate(changed(particles=[coated], film=film, drift=STILL, field_fraction=3.0, instrument=m), CIFS)
        for m in (bent, {"scan": (240, 384), "step_nm": 0.5})
    ]
    seen[1] = replace(seen[1], film=seen[0].film)  # holes are drawn by the size of the field
    for tilt in range(4):
        coarse, fine = (s._film(tilt) for s in seen)
        # probe (i, j) of the bent scan lies 5 nm · (i − 11.5), 6 nm · (j − 15.5) off the centre
        rows, columns = 119.5 + 10 * (np.arange(24) - 11.5), 191.5 + 12 * (np.arange(32) - 15.5)
        high, low = (f(fine, 3)[np.ix_(rows.round().astype(int), columns.round().astype(int))] for f in EXTREMES)
        assert (coarse <= high + 1e-9).all()
        assert (coarse >= low - 1e-9).all()
        assert np.ptp(coarse[:, [0, -1]]) > 0.1


def test_drift_within_a_scan_is_drawn_anew_for_every_scan():
    tilts = {"angles": list(np.linspace(-60, 60, 300))}
    motion = simulate(changed(particles=[BALL], drift={**STILL, "scan_px": 0.7}, tilts=tilts), CIFS).motion
    slide = motion.row_px[:, -1] - motion.row_px[:, 0]
    np.testing.assert_allclose(slide.std(0), 0.7, rtol=0.15)
    np.testing.assert_allclose(motion.row_px.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(motion.row_px, axis=1), np.repeat(slide[:, None] / 23, 23, 1), atol=1e-12)


def test_an_axis_beside_the_field_moves_it():
    tilts = {"angles": [-60, -20, 0, 45], "sigma_deg": 0}
    m = {"tilt_axis_deg": 90}
    motion = simulate(changed(drift={**STILL, "lateral_nm": 30}, tilts=tilts, instrument=m), CIFS).motion
    # axis along y: the field lies 30 nm toward −x of it, at −30 cos α when tilted
    expected = (30 - 30 * np.cos(np.radians([-60, -20, 0, 45]))) / 4
    np.testing.assert_allclose(motion.drift_px, np.column_stack([expected, np.zeros(4)]), atol=1e-9)


def test_tilts_come_in_their_order():
    angles = {"start": -6, "stop": 6, "step": 3}
    for order, expected in (
        ("given", [-6, -3, 0, 3, 6]),
        ("down", [6, 3, 0, -3, -6]),
        ("dose-symmetric", [0, 3, -3, 6, -6]),
    ):
        assert Tilts(**angles, order=order).stated_deg() == expected
    assert Tilts(angles=[5, -1, 2], order="up").stated_deg() == [-1, 2, 5]


def test_missing_tilts_change_nothing_else():
    angles = {"angles": list(range(-20, 20, 2)), "sigma_deg": 0.1, "uneven_deg": 0.3}
    whole = simulate(changed(tilts=angles), CIFS).motion
    kept = [i for i in range(20) if i not in (3, 19)]
    some = simulate(changed(tilts={**angles, "missing": [3, 19]}), CIFS)
    for name in ("stated_deg", "alpha_deg", "drift_px", "row_px", "centers_px"):
        np.testing.assert_array_equal(getattr(some.motion, name), getattr(whole, name)[kept], err_msg=name)
    assert len(some) == 18 == len(some.truth.alpha_deg)
    assert len(simulate(changed(tilts={**angles, "missing": 0.25}), CIFS)) == 15
    assert np.std(whole.stated_deg - range(-20, 20, 2)) == pytest.approx(0.3, rel=0.5)
    np.testing.assert_allclose(whole.stated_deg, np.round(whole.stated_deg, 2))


def test_dose_adds_up_in_the_order_of_the_scans():
    series = simulate(changed(tilts={"angles": [30, 14, 0, -20], "order": "dose-symmetric", "missing": [1]}), CIFS)
    assert series.stated_deg.tolist() == [0, -20, 30]
    np.testing.assert_allclose(accumulated_dose(series.scene, 3), 400 / 40**2 * np.array([0.5, 1.5, 2.5]))
    assert series._view(2)[0].dose_e_per_A2 == pytest.approx(2.5 * 400 / 1600)


def test_film_is_met_probe_by_probe():
    holes = {"thickness_nm": 60, "holes": {"diameter_nm": 40, "period_nm": 64}}
    series = simulate(changed(particles=[AWAY], film=holes, instrument={"electrons_per_pattern": 4000}), CIFS)
    scan, share = series.scan(2), series._film(2)
    assert (share == 0).any()
    assert share.max() > 0.3
    i, j = np.indices((64, 48))
    outside = np.hypot(j - series.truth.centers_px[2, 0], i - series.truth.centers_px[2, 1]) > 3
    assert not scan[share == 0][:, outside].any()
    assert scan[share > 0.3][:, outside].sum(1).mean() > 200


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"drift": {"jumps": [{"tilt": 9, "shift_px": (1, 1)}]}}, r"drift\.jumps\.0\.tilt"),
        ({"drift": {"jumps": [{"tilt": 1, "shift_px": (1, 1), "row": 24}]}}, r"drift\.jumps\.0\.row"),
        ({"tilts": {"missing": [4]}}, r"tilts\.missing"),
        ({"tilts": {"missing": [0, 1, 2, 3]}}, r"tilts\.missing"),
        ({"instrument": {"camera": {"kind": "ccd"}}}, r"instrument\.camera\.kind"),
        ({"instrument": {"camera": {"hot_pixels": 4000}}}, r"instrument\.camera\.hot_pixels"),
    ],
)
def test_what_does_not_exist_is_named(tables, key):
    with pytest.raises(InputError, match=key):
        simulate(changed(**tables), CIFS)
