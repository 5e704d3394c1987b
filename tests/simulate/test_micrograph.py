"""Plain micrographs: outlines that fit what is shown, styles that order brightness as they must, overlays left out."""

import numpy as np
import pytest

from stemtomo_dl.config import check
from stemtomo_dl.errors import InputError
from stemtomo_dl.simulate.micrograph import Micrograph, draw_micrograph
from stemtomo_dl.simulate.micrograph_layout import Layout, Rounded, silhouettes
from stemtomo_dl.simulate.micrograph_recording import expose
from stemtomo_dl.simulate.micrograph_settings import MicrographSettings
from stemtomo_dl.simulate.shape import ball
from stemtomo_dl.simulate.stock import random_bodies
from stemtomo_dl.simulate.training import load_training

SETTINGS = load_training().micrographs
BODIES = random_bodies(12, np.random.default_rng(0))
PLAIN = {
    "shape": (128, 128),
    "insides": ["solid"],
    "grounds": ["flat"],
    "layouts": ["scattered"],
    "size_px": (10, 30),
    "supported_share": 0,
    "empty_share": 0,
    "warped_share": 0,
    "contrast_spread": (0, 0),
    "diffracting_share": 0,
    "grain": (0, 0),
    "gradient": (0, 0),
    "debris_share": 0,
    "phase_share": 0,
    "blur_px": (0.1, 0.1),
    "noiseless_share": 1,
    "line_share": 0,
    "vignetting": (0, 0),
    "inverted_share": 0,
    "saturated_share": 0,
    "span": (1, 1),
    "gamma": (1, 1),
    "jpeg_share": 0,
    "overlay_share": 0,
}


def changed(**keys) -> MicrographSettings:
    return check(MicrographSettings, SETTINGS.model_dump() | keys, "test")


def drawn(seed: int, **keys) -> Micrograph:
    return draw_micrograph(changed(**(PLAIN | keys)), BODIES, np.random.default_rng(seed))


def depth(micrograph: Micrograph) -> np.ndarray:
    """How many outlines lie on each pixel."""
    masks = micrograph.masks
    return np.sum([masks.full(i) for i in range(len(masks))], axis=0, initial=0) * np.ones(masks.shape, int)


@pytest.mark.parametrize("seed", range(8))
def test_outlines_are_what_a_silhouette_shows(seed):
    m = drawn(seed, styles=["silhouette"], layouts=["scattered", "clusters"])
    covered = depth(m) > 0
    assert covered.any()
    level = m.image[~covered]
    assert np.ptp(level) == 0
    assert (m.image[covered] != level[0]).all()


def test_every_style_is_drawn_and_the_same_generator_draws_the_same():
    kinds = set()
    for seed in range(40):
        a, b = (draw_micrograph(SETTINGS, BODIES, np.random.default_rng(seed), (96, 128)) for _ in range(2))
        np.testing.assert_array_equal(a.image, b.image)
        assert a.image.shape == a.masks.shape == (96, 128)
        assert 0 <= a.image.min() < a.image.max() <= 255
        assert all(crop.any() for crop in a.masks.crops)
        assert ((a.visibility >= 0) & (a.visibility <= 1)).all()
        assert (a.signal >= 0).all()
        assert len(a.visibility) == len(a.signal) == len(a.masks)
        kinds.add(a.kind)
    assert kinds == set(SETTINGS.styles)


@pytest.mark.parametrize("key", ["styles", "layouts", "insides", "grounds"])
def test_every_choice_can_be_drawn_alone(key):
    for choice in dict.fromkeys(getattr(SETTINGS, key)):
        settings = changed(**{key: [choice], "shape": (80, 100), "empty_share": 0, "supported_share": 0})
        m = [draw_micrograph(settings, BODIES, np.random.default_rng(seed)) for seed in range(3)]
        assert any(len(one.masks) for one in m), choice
        assert all(np.isfinite(one.image).all() for one in m), choice


def test_empty_fields_have_a_ground_and_no_outline():
    for style in dict.fromkeys(SETTINGS.styles):
        m = drawn(1, styles=[style], empty_share=1, grounds=["lumpy"])
        assert len(m.masks) == 0
        assert np.ptp(m.image) > 50


def test_counts_and_sizes_keep_to_their_ranges():
    many = drawn(2, count=(60, 60), size_px=(5, 5), spread=(0, 0), round_share=1, long_share=0, coverage=(2, 2))
    assert 50 <= len(many.masks) <= 60  # some lie beyond the rim
    one = drawn(3, layouts=["single"], single_fill=(0.8, 0.8), round_share=1, long_share=0)
    assert len(one.masks) == 1
    assert 0.3 < one.masks.crops[0].sum() / 128**2 < 0.7


def test_bright_fields_are_dark_on_bright_and_dark_fields_the_reverse():
    for seed in range(4):
        for style, sign in (("bright_field", -1), ("dark_field", 1)):
            m = drawn(seed, styles=[style], fullness=(0.3, 1))
            covered = depth(m) > 0
            assert (sign * (m.image[covered] - m.image[~covered].mean()) > 0).mean() > 0.97


def test_surfaces_have_bright_edges_and_shells_faint_middles():
    ball_only = {"layouts": ["single"], "single_fill": (0.5, 0.5), "round_share": 1, "long_share": 0}
    ball_only |= {"flattening": (1, 1), "blockiness": (2, 2)}
    for style, inside in (("secondary", "solid"), ("dark_field", "shell")):
        m = drawn(5, styles=[style], insides=[inside], shell=(0.2, 0.2), fullness=(1, 1), **ball_only)
        y, x = (c - c.mean() for c in np.nonzero(m.masks.full(0)))
        radius, level = np.hypot(y, x), m.image[m.masks.full(0)]
        rim = (radius > 0.75 * radius.max()) & (radius < 0.95 * radius.max())
        assert level[rim].mean() > 1.1 * level[radius < 0.3 * radius.max()].mean()


@pytest.mark.parametrize(("style", "alone"), [("secondary", False), ("dark_field", True)])
def test_visible_parts_add_up(style, alone):
    m = drawn(6, styles=[style], layouts=["pile"], overlap=(0.3, 0.5))
    area = np.array([crop.sum() for crop in m.masks.crops])
    bare = (depth(m) == 1).sum() if alone else (depth(m) > 0).sum()
    assert (m.visibility * area).sum() == pytest.approx(bare)
    assert (m.visibility < 0.9).any()


def test_what_is_written_over_a_picture_is_no_particle():
    cut = hidden = other = 0
    for seed in range(30):
        plain, written = (drawn(seed, styles=["bright_field"], overlay_share=share) for share in (0, 1))
        other += (plain.image != written.image).any()
        before, after = depth(plain), depth(written)
        kept = after.any(1).nonzero()[0].max(initial=-1) + 1
        np.testing.assert_array_equal(after[:kept], before[:kept])
        cut += before[kept:].any()
        hidden += written.visibility.sum() < plain.visibility.sum() - 1e-9
    assert other > 20
    assert cut > 0
    assert hidden > 0


@pytest.mark.parametrize("correlated", [0, 1])
def test_noise_is_as_strong_as_it_says(correlated):
    settings = changed(**(PLAIN | {"noiseless_share": 0, "correlated_share": correlated, "counting": (0.5, 0.5)}))
    level = np.full((200, 200), 7.0)
    image, noise = expose(settings, level, 2.0, 20.0, np.random.default_rng(1))
    assert (image - level).std() == pytest.approx(noise, rel=0.03)
    assert 0 < noise < 2 / settings.contrast_to_noise[0]


def test_signal_is_the_contrast_over_the_noise():
    # the noise of a flat particle is a fifth of its contrast, less for small ones
    keys = {"styles": ["silhouette"], "layouts": ["single"], "noiseless_share": 0, "contrast_to_noise": (5, 5)}
    m = drawn(7, single_fill=(0.6, 0.6), **keys)
    expected = 5 * (1 + 8 / (0.6 * 128)) * np.sqrt(m.masks.crops[0].sum())
    np.testing.assert_allclose(m.signal, expected, rtol=1e-6)


def test_rounded_bodies_have_the_thickness_of_balls_rods_and_blocks():
    x, y = np.arange(-20.0, 21), np.arange(-15.0, 16)
    sphere = Rounded((12.3, 12.3, 12.3), 0.0, 2.0, 0.4)
    np.testing.assert_allclose(sphere.thickness(x, y), ball(12.3).thickness(x, y), atol=1e-9)
    fine = np.arange(-20, 20, 0.05)
    rod = Rounded((4.0, 4.0, 4.0), 11.0, 2.0, 0.7).thickness(fine, fine) > 0
    assert rod.sum() * 0.05**2 == pytest.approx(np.pi * 16 + 8 * 11, rel=1e-3)
    block = Rounded((9.0, 6.0, 5.0), 0.0, 60.0, 0.0).thickness(fine, fine)
    assert block.sum() * 0.05**2 == pytest.approx(18 * 12 * 10, rel=0.03)


def test_warps_move_outlines():
    layout = Layout(16.0, (ball(8.0),), np.array([[30.2, 24.7]]), np.array([16.0]))
    still, nowhere, moved = (
        silhouettes(
            layout, None, None if by is None else (np.full((50, 60), by[0]), np.full((50, 60), by[1])), (50, 60)
        )[0]
        for by in (None, (0.0, 0.0), (-3.0, 2.0))
    )
    full = np.zeros((3, 50, 60), bool)
    for out, part in zip(full, (still, nowhere, moved), strict=True):
        out[part.window] = part.outline
    np.testing.assert_array_equal(full[0], full[1])
    np.testing.assert_array_equal(np.roll(full[0], (3, -2), (0, 1)), full[2])


def test_shells_have_even_walls():
    layout = Layout(20.0, (Rounded((10.0, 10.0, 10.0), 0.0, 2.0, 0.0),), np.array([[25.0, 25.0]]), np.array([20.0]))
    part = silhouettes(layout, 0.3, None, (51, 51))[0]
    assert (part.thickness * 20).max() == pytest.approx(20)
    assert (part.core * 20).max() == pytest.approx(14)
    assert np.sqrt((part.core > 0).sum() / np.pi) == pytest.approx(7, abs=0.4)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("styles", [], "at least 1"), ("styles", ["xray"], "bright_field"), ("gamma", [0, 1], "above 0")],
)
def test_wrong_settings_name_their_key(key, value, words):
    with pytest.raises(InputError, match=rf"{key}.*{words}"):
        changed(**{key: value})
