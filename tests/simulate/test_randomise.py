"""Random fields: within their ranges, the same for one generator, and usable at the extremes."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import label

from stemtomo_dl.config import check
from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import wavelength
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.simulate.images import AMORPHOUS, draw_images
from stemtomo_dl.simulate.optics import ADF, zones
from stemtomo_dl.simulate.randomise import _halves, random_sample, stretched
from stemtomo_dl.simulate.shape import footprint, polyhedron
from stemtomo_dl.simulate.stock import make_library, pseudo_cif, random_bodies, random_optics
from stemtomo_dl.simulate.support import random_support, smooth_noise
from stemtomo_dl.simulate.training import TrainingSettings, load_training

SETTINGS = load_training()


def changed(**tables) -> TrainingSettings:
    """The settings with keys of some tables replaced."""
    new = SETTINGS.model_dump()
    for table, keys in tables.items():
        new[table] |= keys
    return check(TrainingSettings, new, "test")


SMALL = {"instruments": 2, "crystals": 3, "structures": ["rutile.cif"], "pseudo_structures": 1, "thickness_steps": 12}


@pytest.fixture(scope="module")
def library():
    return make_library(changed(library=SMALL), np.random.default_rng(1))


def test_shipped_ranges_cover_what_experiments_show():
    p, r = SETTINGS.particles, SETTINGS.recording
    assert p.count == (0, 300)
    assert p.size_px == (6, 70)
    assert p.extreme_px == (4, 200)
    assert r.electrons == (3, 20000)
    assert r.shape == (256, 256)


@pytest.mark.parametrize(
    ("table", "key", "value", "words"),
    [
        ("particles", "size_px", [60, 8], "runs downward"),
        ("particles", "size_px", [0, 8], "above 0"),
        ("particles", "count", [-1, 8], "from 0 up"),
        ("film", "holes_share", 1.5, "less than or equal to 1"),
        ("film", "colour", 1, "unknown key"),
    ],
)
def test_wrong_settings_name_the_key(table, key, value, words):
    with pytest.raises(InputError, match=rf"{table}\.{key}.*{words}|{words}.*{table}\.{key}"):
        changed(**{table: {key: value}})


def test_same_generator_same_field(library):
    images = [draw_images(random_sample(SETTINGS, library, rng), rng) for rng in map(np.random.default_rng, (4, 4, 5))]
    np.testing.assert_array_equal(images[0].images, images[1].images)
    assert images[0].images.tobytes() != images[2].images.tobytes()


def test_a_library_is_made_again_and_can_be_kept(library):
    again = make_library(changed(library=SMALL), np.random.default_rng(1))
    kept = pickle.loads(pickle.dumps(library))
    for a, b, c in zip(library.benches, again.benches, kept.benches, strict=True):
        np.testing.assert_array_equal(a.responses.table, b.responses.table)
        np.testing.assert_array_equal(a.responses.table, c.responses.table)
        assert (a.mean_free_path_nm > 10).all()
    assert library.benches[0].responses.table.any(axis=(1, 2, 3)).all()


def test_fields_stay_within_their_ranges(library):
    rng, p = np.random.default_rng(2), SETTINGS.particles
    counts, electrons, overlapped = [], [], 0
    for _ in range(90):  # 5 % of which are noiseless
        sample = random_sample(SETTINGS, library, rng)
        counts.append(sample.particle.max(initial=-1) + 1)
        electrons.append(sample.electrons)
        assert p.step_nm[0] <= sample.step_nm <= p.step_nm[1]
        longest = [2 * s.bound() / sample.step_nm for s in sample.solids]
        assert max(longest, default=0) <= 2.5 * p.extreme_px[1]
        assert ((sample.film >= 0) & (sample.film <= 1)).all()
        assert np.isfinite(sample.rocking).all()
        image = draw_images(sample, rng)
        assert np.isfinite(image.images).all()
        assert (image.images >= 0).all()
        assert ((image.visibility >= 0) & (image.visibility <= 1)).all()
        assert (image.signal >= 0).all()
        overlapped += bool((image.visibility < 1).any())
    assert 120 < max(counts) <= 300
    assert min(counts) < 5
    counted = [e for e in electrons if e <= SETTINGS.recording.electrons[1]]
    assert 3 <= min(counted) < 30
    assert max(counted) > 5000
    assert 0 < len(electrons) - len(counted) < 10  # as good as noiseless
    assert overlapped > 22


@pytest.mark.parametrize("shape", [(64, 64), (512, 320)])
def test_other_shapes(library, shape):
    rng = np.random.default_rng(3)
    for _ in range(3):
        image = draw_images(random_sample(changed(recording={"shape": shape}), library, rng), rng)
        assert image.images.shape == (5, *shape)
        assert image.masks.shape == shape


def test_empty_and_crowded_fields(library):
    rng = np.random.default_rng(3)
    empty = draw_images(random_sample(changed(particles={"count": [0, 0]}), library, rng), rng)
    assert len(empty.masks) == 0
    assert empty.images[0].any()
    crowded = {"count": [120, 120], "few_share": 0.0, "size_px": [8, 12], "extreme_share": 0.0}
    sample = random_sample(changed(particles=crowded), library, rng)
    assert sample.particle[-1] == 119
    tiny = {"count": [50, 50], "few_share": 0, "size_px": [1, 1], "extreme_px": [1, 1], "extreme_share": 0}
    image = draw_images(random_sample(changed(particles=tiny), library, rng), rng)
    areas = [crop.sum() for crop in image.masks.crops]
    assert 0 < len(areas) <= 50
    assert max(areas) <= 6


def test_agglomerates_hang_together(library):
    rng = np.random.default_rng(9)
    s = {"count": [20, 20], "few_share": 0.0, "coverage": [2, 2], "size_px": [14, 14], "extreme_share": 0.0}
    s |= {
        "spread": [0, 0],
        "balls": 1.0,
        "twin_share": 0.0,
        "shell_share": 0.0,
        "agglomerate_share": 1.0,
        "together": [20, 20],
        "overlap": [0.1, 0.3],
    }
    for chain in (0.0, 1.0):
        sample = random_sample(changed(particles=s | {"chain_share": chain}), library, rng)
        at = sample.at_px
        apart = np.linalg.norm(at[:, None] - at[None], axis=2)
        touch = apart < 14
        reached = np.linalg.matrix_power(touch.astype(float), 25)[0] > 0
        assert reached.all()
        steps = [np.linalg.norm(b - a) for a, b in pairwise(at)]
        assert (max(steps) < 14) == bool(chain)


def test_a_twin_is_one_particle_and_a_shell_belongs_to_it(library):
    only = {"few_share": 0.0, "count": [30, 30], "coverage": [1, 1], "size_px": [16, 16], "extreme_share": 0.0}
    still = {"shear_share": 0.0, "flyback_share": 0.0, "jitter_share": 0.0}
    twins = {"twin_share": 1.0, "amorphous_share": 0.0}
    shells = {"twin_share": 0.0, "shell_share": 1.0, "amorphous_shell_share": 1.0}
    twinned, coated = (changed(particles=only | kind, recording=still) for kind in (twins, shells))
    for settings in (twinned, coated):
        sample = random_sample(settings, library, np.random.default_rng(5))
        count = sample.particle[-1] + 1
        assert len(sample.solids) == 2 * count
        np.testing.assert_array_equal(sample.particle, np.repeat(np.arange(count), 2))
        image = draw_images(sample, np.random.default_rng(0))
        assert len(image.masks) <= count
        united = np.zeros((count, *sample.shape), bool)
        for solid, at, p in zip(sample.solids, sample.at_px, sample.particle, strict=True):
            seen = footprint(solid, at, sample.step_nm, sample.shape)
            height, width = seen.outline.shape
            united[p, seen.y0 : seen.y0 + height, seen.x0 : seen.x0 + width] |= seen.outline
        for i, p in enumerate(image.particle):
            np.testing.assert_array_equal(image.masks.full(i), united[p])
    amorphous = sample.crystal == AMORPHOUS
    assert amorphous[::2].all()  # the shells
    assert not amorphous[1::2].all()


def test_halves_of_a_twin_fill_the_whole():
    whole = random_bodies(6, np.random.default_rng(3))
    for body in whole:
        first, second = _halves(body, np.random.default_rng(1))
        at = np.linspace(-0.7, 0.7, 41)
        np.testing.assert_allclose(
            first.thickness(at, at) + second.thickness(at, at), body.thickness(at, at), atol=1e-9
        )
        assert first.thickness(at, at).any()
        assert second.thickness(at, at).any()


def test_pseudo_structures_are_crystals():
    rng = np.random.default_rng(0)
    for _ in range(4):
        structure = read_structure("pseudo", pseudo_cif(rng), 1.0)
        assert 40 < structure.volume < 1400
        assert structure.intensity.max() > 0


def test_bodies_have_one_volume_and_stretch_exactly():
    for body in random_bodies(12, np.random.default_rng(0)):
        assert body.volume == pytest.approx(np.pi / 6)
    cube = polyhedron(np.concatenate([np.eye(3), -np.eye(3)]), np.full(6, 0.5))
    box = stretched(cube, np.array([2.0, 3.0, 5.0]))
    assert box.volume == pytest.approx(30)
    np.testing.assert_allclose(np.abs(box.vertices), np.broadcast_to([1.0, 1.5, 2.5], (8, 3)), rtol=1e-9)
    assert box.thickness(np.array([0.0, 0.99, 1.01]), np.array([0.0])) == pytest.approx(np.array([[5, 5, 0]]))


def test_smooth_noise_has_unit_variance_and_a_scale():
    rng = np.random.default_rng(0)
    many = np.stack([smooth_noise((64, 80), 20, rng) for _ in range(80)])
    assert many.std() == pytest.approx(1, abs=0.05)
    near = (many[:, :, 2:] * many[:, :, :-2]).mean()
    far = (many[:, :, 50:] * many[:, :, :-50]).mean()
    assert near > 0.9
    assert abs(far) < 0.1


def test_supports_show_holes_and_edges():
    only = {f"{k}_share": 0.0 for k in ("none", "lumps", "grains", "wrinkles", "dirt", "needle")}
    rng = np.random.default_rng(1)
    holed = only | {"holes_share": 1.0, "holes": [1, 1], "hole_px": [30, 30], "gradient": [0, 0]}
    film = random_support(changed(film=holed).film, (128, 128), rng)
    assert (film == 0).any()
    assert label(film == 0)[1] == 1
    np.testing.assert_allclose(film[film > 0.999 * film.max()].std(), 0, atol=1e-6)
    needle = only | {"none_share": 1.0, "holes_share": 0.0, "needle_share": 1.0, "needle_nm_per_px": [60, 60]}
    film = random_support(changed(film=needle).film, (128, 128), rng)
    assert film.max() > 0.99
    assert film.min() == 0


def test_instruments_keep_the_dark_field_apart_from_the_beam(library):
    s = SETTINGS.instrument
    assert s.convergence_mrad[1] * 1e-3 / wavelength(min(s.voltage_kv)) < 0.5 * s.reach_inv_angstrom[0]
    for bench in library.benches:
        assert (bench.responses.area_px > 0).all()
    for seed in range(200):
        optics = random_optics(s, 60.0, np.random.default_rng(seed))
        places = np.random.default_rng(seed).normal(size=(20_000, 4))
        rho = np.sqrt(np.random.default_rng(seed + 1).random(20_000)) * optics.disk_px
        disk = rho[:, None] * places[:, :2] / np.hypot(*places[:, :2].T)[:, None]
        column, row = np.round(optics.center_px + disk + optics.psf_px * places[:, 2:]).astype(int).T
        assert (zones(optics)[row, column] >= ADF).mean() < 0.01
