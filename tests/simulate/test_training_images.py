"""Images drawn without patterns against those made from patterns, and against what counting statistics demand."""

from dataclasses import replace

import numpy as np
import pytest
from small_fields import plain_sample, rutile_responses, small

from stemtomo_dl import resources
from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.records import Instrument, Tile
from stemtomo_dl.simulate import diffuse
from stemtomo_dl.simulate import library as lib
from stemtomo_dl.simulate.images import DETECTORS, Glow, ImageSample, draw_images, expected_planes
from stemtomo_dl.simulate.library import Specimen, make_responses
from stemtomo_dl.simulate.optics import ADF, Optics, zones
from stemtomo_dl.simulate.planes import DIRECT, blur, lay_film
from stemtomo_dl.simulate.readout import Readout
from stemtomo_dl.simulate.scene import Scene
from stemtomo_dl.simulate.series import simulate
from stemtomo_dl.simulate.shape import ball, footprint
from stemtomo_dl.virtual import DETECTORS as PIPELINE_DETECTORS
from stemtomo_dl.virtual import virtual_images

FILM_NM, PATH_NM, TILT = 15.0, 120.0, 1


class InMemory:
    """A scan that is an array."""

    name = "memory"

    def __init__(self, patterns: np.ndarray) -> None:
        self.patterns, self.shape, self.dtype = patterns, patterns.shape, patterns.dtype

    def tiles(self, budget: int) -> list[Tile]:
        return [Tile(0, self.shape[0], 0, self.shape[1])]

    def read(self, tile: Tile) -> np.ndarray:
        return self.patterns[tile.window]


def scene(electrons: float) -> Scene:
    microscope = {
        "voltage_kv": 200,
        "convergence_mrad": 0.8,
        "electrons_per_pattern": electrons,
        "scan": (36, 44),
        "step_nm": 4.0,
        "detector": (88, 104),
        "pixel_inv_angstrom": 0.0245,
        "tilt_axis_deg": 20,
        "rotation_deg": 10,
        "beam_offset_px": (1.2, -0.7),
    }
    cube = [{"hkl": (1, 0, 0)}, {"hkl": (0, 1, 0)}, {"hkl": (0, 0, 1)}]
    return Scene.model_validate(
        {
            "title": "the same field twice",
            "seed": 3,
            "instrument": microscope,
            "tilts": {"angles": [0.0, 25.0]},
            "film": {"thickness_nm": FILM_NM, "mean_free_path_nm": PATH_NM},
            "particles": [
                {"cif": "brookite.cif", "count": 4, "size_nm": 30, "shape": "random", "mean_free_path_nm": 150},
                {"cif": "cspbbr3.cif", "count": 3, "size_nm": 36, "faces": cube, "mean_free_path_nm": 150},
            ],
        }
    )


def as_sample(series) -> ImageSample:
    """One tilt of a series as the sample of an image."""
    m, motion = series.scene.instrument, series.motion
    rotation = tilt_rotation(m.tilt_axis_deg, motion.alpha_deg[TILT])
    particles = series.cast.particles
    order = np.argsort([(rotation @ p.position_nm)[2] for p in particles], kind="stable")
    particles = [particles[i] for i in order]
    optics = Optics(
        m.voltage_kv,
        m.convergence_mrad,
        m.pixel_inv_angstrom,
        m.detector,
        tuple(motion.centers_px[TILT]),
        rings=series.cast.beam.rings,
        rotation_deg=m.rotation_deg,
    )
    specimens = [Specimen(p.structure, 2 * p.solid.bound(), (rotation @ p.ub)[None]) for p in particles]
    responses = make_responses(optics, specimens, 80)
    origin = field_centre(m.scan) + motion.drift_px[TILT]
    share = 1 - np.exp(-FILM_NM / np.cos(np.radians(motion.alpha_deg[TILT])) / PATH_NM)
    return plain_sample(
        responses,
        m.electrons_per_pattern,
        np.full(m.scan, share, "f4"),
        m.step_nm,
        tuple(p.solid.turned(rotation) for p in particles),
        np.array([origin + (rotation @ p.position_nm)[:2] / m.step_nm for p in particles]),
        np.arange(len(particles)),
        np.array([p.mean_free_path_nm for p in particles]),
    )


@pytest.fixture(scope="module")
def responses():
    return rutile_responses()


def test_detectors_are_those_of_the_pipeline():
    assert DETECTORS == PIPELINE_DETECTORS


def one_by_one(series, sample) -> tuple[np.ndarray, np.ndarray]:
    """Images from patterns, and the mean of many images drawn without."""
    m = series.scene.instrument
    instrument = Instrument(m.voltage_kv, m.convergence_mrad, m.pixel_inv_angstrom, m.step_nm, m.tilt_axis_deg)
    scan = InMemory(series.scan(TILT))
    made = virtual_images(scan, instrument, np.zeros(m.detector, bool), ImagesConfig()).images
    drawn = np.stack([draw_images(sample, np.random.default_rng(k)).images for k in range(40)])
    return made, drawn


@pytest.mark.parametrize("electrons", [4000.0, 200.0])
def test_images_agree_with_patterns(electrons):
    cifs = {n: (resources.synthetic() / "structures" / n).read_text() for n in ("brookite.cif", "cspbbr3.cif")}
    series = simulate(scene(electrons), cifs)
    sample = as_sample(series)
    made, drawn = one_by_one(series, sample)
    masks = draw_images(sample, np.random.default_rng(0)).masks
    truth = series.truth.masks.at(TILT)
    true = {series.truth.masks.full(i).tobytes() for i in truth}
    assert {masks.full(i).tobytes() for i in range(len(masks))} == true
    outlines = [masks.full(i) for i in range(len(masks))]
    assert len(outlines) == 7
    areas = [*outlines, ~np.any(outlines, axis=0)]
    tolerance = {"bf": 0.03, "adf": 0.03, "haadf": 0.03, "variance": 0.06, "maximum": 0.06}
    for k, name in enumerate(DETECTORS):
        mean, spread = drawn[:, k].mean(0), drawn[:, k].std(0)
        alike = float(1 / np.sqrt(1 + np.mean(spread**2) / mean.var()))  # all that the noise leaves of the correlation
        assert np.corrcoef(mean.ravel(), made[k].ravel())[0, 1] == pytest.approx(alike, abs=0.3 * (1 - alike)), name
        for area in areas:
            counting = float(4 * np.sqrt((spread[area] ** 2).sum()) / mean[area].sum())
            assert mean[area].mean() == pytest.approx(made[k][area].mean(), rel=tolerance[name] + counting), name
        # the scatter of single probes about what is expected is that of the patterns
        noise = np.sqrt(np.mean((made[k] - mean) ** 2) / np.mean(spread**2))
        assert noise == pytest.approx(1, abs=0.2), name


def test_counts_are_independent_poisson_numbers(responses):
    sample = small(responses, count=1, radius_nm=300.0)
    sample = replace(sample, at_px=np.array([[30.0, 24.0]]))  # covers the field
    images = np.stack([draw_images(sample, np.random.default_rng(k)).images for k in range(300)]).astype(float)
    counts = images[:, :3] * responses.area_px[:, None, None]
    np.testing.assert_allclose(counts, np.round(counts), atol=2e-3)
    mean, variance = counts.mean(0), counts.var(0, ddof=1)
    np.testing.assert_allclose(variance.mean((1, 2)) / mean.mean((1, 2)), 1, atol=0.02)
    bf, adf, haadf = (counts - mean).reshape(300, 3, -1).transpose(1, 0, 2)
    for a, b in ((bf, adf), (bf, haadf), (adf, haadf)):
        assert abs((a * b).mean() / np.sqrt((a**2).mean() * (b**2).mean())) < 0.01


def test_electrons_are_shared_out_without_loss(responses):
    """With all of a crystal's disks on the detector, what the zones and the gaps get adds up to the dose."""
    sample = small(responses)
    seen = [footprint(s, at, sample.step_nm, sample.shape) for s, at in zip(sample.solids, sample.at_px, strict=True)]
    planes, *_ = expected_planes(sample, seen)
    total = planes[..., DIRECT] + planes[..., lib.IN_BF : lib.IN_HAADF + 1].sum(-1)
    assert (total <= 1 + 1e-5).all()
    assert (planes[..., DIRECT] < 0.9 + 1e-6).all()
    for outline in (f.outline for f in seen):
        assert outline.any()


def test_variance_of_a_film_is_its_mean(responses):
    """Poisson counts about their mean: the scatter equals the counts per pixel, whatever the profile."""
    sample = small(responses, electrons=3000.0, count=0)
    image = draw_images(sample, np.random.default_rng(1))
    dark = (image["adf"] * responses.area_px[1] + image["haadf"] * responses.area_px[2]) / responses.area_px[1:].sum()
    assert image["variance"].mean() == pytest.approx(dark.mean(), rel=0.03)


def test_dose_scales_the_counts(responses):
    means = [draw_images(small(responses, e), np.random.default_rng(2)).images.mean((1, 2)) for e in (100.0, 3000.0)]
    np.testing.assert_allclose(means[1][:3] / means[0][:3], 30, rtol=0.02)


def test_same_generator_same_images(responses):
    a, b, c = (draw_images(small(responses), np.random.default_rng(s)).images for s in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_masks_are_footprints_even_where_they_overlap(responses):
    sample = small(responses, count=3)
    sample = replace(sample, at_px=np.array([[20.0, 20.0], [24.5, 21.0], [50.0, 40.0]]))
    image = draw_images(sample, np.random.default_rng(0))
    y, x = np.indices(sample.shape)
    for i, (cx, cy) in enumerate(sample.at_px):
        np.testing.assert_array_equal(image.masks.full(i), np.hypot(x - cx, y - cy) < 7)
    both = image.masks.full(0) & image.masks.full(1)
    assert image.visibility[0] == pytest.approx(1 - both.sum() / image.masks.full(0).sum())
    assert image.visibility[2] == 1


def test_particles_out_of_view_or_between_probes_have_no_mask(responses):
    sample = replace(small(responses, count=3), at_px=np.array([[20.0, 20.0], [-50.0, 3.0], [30.5, 30.5]]))
    sample = replace(sample, solids=(*sample.solids[:2], ball(0.8)))  # the last falls between four probes
    image = draw_images(sample, np.random.default_rng(0))
    np.testing.assert_array_equal(image.particle, [0])
    assert len(image.masks) == len(image.visibility) == len(image.signal) == 1


def test_signal_tells_what_can_be_seen(responses):
    faint, clear = (draw_images(small(responses, e), np.random.default_rng(0)) for e in (1.0, 1000.0))
    np.testing.assert_allclose(clear.signal, faint.signal * np.sqrt(1000), rtol=1e-6)
    outline = clear.masks.full(0) & ~clear.masks.full(1) & ~clear.masks.full(2)
    outside = ~np.any([clear.masks.full(i) for i in range(3)], axis=0)
    bf = clear["bf"]
    lost = (bf[outside].mean() - bf[outline]).sum() / np.sqrt(bf[outside].mean() * outline.sum())
    lost *= np.sqrt(responses.area_px[0])  # from counts per pixel to counts
    assert 0.5 * lost < clear.signal[0] < 5 * lost


def test_rows_that_are_shifted_show_the_particle_shifted(responses):
    sample = small(responses, electrons=1e5, count=1)
    sample = replace(sample, at_px=np.array([[30.0, 24.0]]))
    shift = np.zeros(sample.shape[0])
    shift[20:26] = 3.0  # these rows are taken too far right, so the particle is seen 3 px to the left
    still, moved = (
        draw_images(replace(sample, row_shift_px=s), np.random.default_rng(0)) for s in (np.zeros(48), shift)
    )
    np.testing.assert_allclose(moved["bf"][20:26, 10:40], still["bf"][20:26, 13:43], rtol=0.03)
    np.testing.assert_allclose(moved["bf"][26:], still["bf"][26:], rtol=0.03)
    expected = still.masks.full(0)
    expected[20:26] = np.roll(expected[20:26], -3, axis=1)
    np.testing.assert_array_equal(moved.masks.full(0), expected)


def test_flicker_and_shading_act_on_the_counts(responses):
    sample = small(responses, electrons=2e4, count=0)
    dose = np.ones(48)
    dose[10] = 0.5
    shading = np.zeros((3, 5))
    shading[1, 0] = 0.2  # adf loses toward the right
    image = draw_images(replace(sample, row_dose=dose, shading=shading), np.random.default_rng(0))
    rows = image["bf"].mean(1)
    assert rows[10] / rows[11] == pytest.approx(0.5, rel=0.02)
    columns = image["adf"].mean(0)
    assert columns[-10:].mean() / columns[:10].mean() == pytest.approx((1 - 0.167) / (1 + 0.167), rel=0.03)


def test_bent_lattice_runs_through_the_orientations(responses):
    sample = replace(small(responses, electrons=1e6, count=1, radius_nm=40.0), at_px=np.array([[30.0, 24.0]]))
    bent = replace(sample, rocking=np.array([[1.0, 0.08, 0.0, 0.0]]))
    flat = [replace(sample, rocking=np.array([[r, 0.0, 0.0, 0.0]])) for r in (0.0, 2.0)]
    b, left, right = (draw_images(s, np.random.default_rng(0))["adf"] for s in (bent, *flat))
    np.testing.assert_allclose(b[15:33, 12:17], left[15:33, 12:17], rtol=0.05)
    np.testing.assert_allclose(b[15:33, 44:48], right[15:33, 44:48], rtol=0.05)


def test_flyback_shows_the_particle_where_probes_are(responses):
    """Probes of the columns 20 to 27 lie 4 px too far right, so what they see lies 4 px to the left."""
    sample = replace(small(responses, electrons=1e6, count=1, radius_nm=20.0), at_px=np.array([[26.0, 24.0]]))
    ahead = np.zeros(60)
    ahead[20:28] = 4.0
    still, moved = (
        draw_images(replace(sample, column_shift_px=a), np.random.default_rng(0)) for a in (0 * ahead, ahead)
    )
    np.testing.assert_allclose(moved["bf"][:, 20:28], still["bf"][:, 24:32], rtol=0.01)
    np.testing.assert_array_equal(moved.masks.full(0)[:, 20:28], still.masks.full(0)[:, 24:32])
    np.testing.assert_array_equal(moved.masks.full(0)[:, 28:], still.masks.full(0)[:, 28:])


def test_shifted_probes_look_beyond_the_sides(responses):
    sample = replace(small(responses, count=1), at_px=np.array([[-9.0, 24.0]]))
    assert len(draw_images(sample, np.random.default_rng(0)).masks) == 0
    image = draw_images(replace(sample, row_shift_px=np.full(48, -5.0)), np.random.default_rng(0))
    y, x = np.indices(sample.shape)
    np.testing.assert_array_equal(image.masks.full(0), np.hypot(x + 4, y - 24) < 7)


def test_secondary_electrons_make_edges_bright(responses):
    sample = replace(small(responses, electrons=1e6, count=1, radius_nm=24.0), at_px=np.array([[30.0, 24.0]]))
    image = draw_images(replace(sample, glow=Glow(0.1, 0.2, 1.0)), np.random.default_rng(0))
    counts = image["adf"] * responses.area_px[1] / 1e6
    assert counts[24, 30] == pytest.approx(0.2, rel=0.05)  # flat on top
    assert counts[24, 22] == pytest.approx(0.2 / np.sqrt(1 - (8 / 12) ** 2), rel=0.05)  # a sphere: 1/cos θ
    assert counts[2, 2] == pytest.approx(0.1 * 1.1, rel=0.05)
    assert image["bf"][24, 30] < 0.98 * image["bf"][2, 2]  # what goes through is seen as ever


@pytest.mark.parametrize("electrons", [300.0, 3000.0, 20000.0])
def test_camera_adds_what_gain_and_noise_must(responses, electrons):
    """Against pixels: dark-field counts of a film drawn one by one and read out as the camera does."""
    camera = Readout(gain=20.0, gain_spread=0.4, read_noise=0.2, offset=1.0)
    sample = replace(small(responses, electrons=electrons, count=0, shape=(64, 64)), readout=camera)
    image, rng = draw_images(sample, np.random.default_rng(3)), np.random.default_rng(4)
    plain = draw_images(replace(sample, readout=Readout()), np.random.default_rng(3))
    optics = Optics(200, 0.8, 0.03, (64, 64), (31.6, 31.2))
    zone, film = zones(optics), optics.template(diffuse.amorphous("C"))
    mean = 0.1 * electrons * film[zone >= ADF]
    n = rng.poisson(mean, (1500, len(mean)))
    values = 20.0 * (1.0 + n + np.sqrt(0.16 * n + 0.04) * rng.normal(size=n.shape))
    profile = mean / np.sqrt((mean**2).sum())
    rest = values - 20.0 - np.outer(20.0 * (n @ profile), profile)
    assert image["variance"].mean() == pytest.approx((rest**2).mean(), rel=0.03)
    assert image["maximum"].mean() == pytest.approx(values.max(1).mean(), rel=0.04)
    adf = values[:, zone[zone >= ADF] == ADF].mean(1)
    assert image["adf"].mean() == pytest.approx(adf.mean(), rel=0.01)
    assert image["adf"].std() == pytest.approx(adf.std(), rel=0.06)
    assert plain["adf"].mean() == pytest.approx(image["adf"].mean() / 20 - 1, rel=0.02)


@pytest.mark.parametrize("sigma", [(0.8, 0.0), (0.0, 1.3), (0.6, 1.1)])
def test_blur_is_scipys_gaussian(sigma):
    from scipy.ndimage import gaussian_filter

    planes = np.random.default_rng(0).random((20, 33, 15)).astype("f4")
    expected = gaussian_filter(planes, (*sigma, 0), mode="nearest", radius=[int(np.ceil(2.5 * s)) for s in (*sigma, 0)])
    blur(planes, sigma)
    np.testing.assert_allclose(planes, expected, rtol=1e-5)


def test_film_alone():
    film = np.array([[0.0, 0.2, 1.0]], "f4")
    planes = lay_film(film, np.array([0.4, 0.3, 0.1]))
    np.testing.assert_allclose(planes[0, :, DIRECT], [1, 0.8, 0])
    np.testing.assert_allclose(planes[0, :, lib.IN_ADF], [0, 0.06, 0.3], rtol=1e-6)
