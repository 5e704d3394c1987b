"""Excitation errors and intensities against straightforward computations."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation
from scipy.stats import qmc

from stemtomo_dl import resources
from stemtomo_dl.geometry import wavelength
from stemtomo_dl.simulate import cone
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.simulate.diffraction import (
    WEAKEST,
    Excited,
    excite,
    extinction_distance,
    kinematic_bound,
    kinematic_shares,
    ladder,
    make_beam,
    two_beam_shares,
)

WAVE = wavelength(200)
ROTATION = 12.0
BEAM = make_beam(200, WAVE, 1.5, 3, ROTATION)
UB = Rotation.from_rotvec([0.4, 1.1, -0.3]).as_matrix()


@pytest.fixture(scope="module")
def brookite():
    return read_structure("brookite", (resources.synthetic() / "structures/brookite.cif").read_text(), 0.8)


def distance_to_sphere(g: np.ndarray, transverse: np.ndarray) -> float:
    """Along z, from g to the sphere through the origin about −k for an incident wave vector k."""
    k = np.array([*transverse, np.sqrt(1 / WAVE**2 - transverse @ transverse)])
    return brentq(lambda s: np.linalg.norm(k + g + [0, 0, s]) - 1 / WAVE, -0.5, 0.5, xtol=1e-14)


def test_excitation_errors_solve_the_ewald_geometry(brookite):
    excited = excite(brookite, UB @ brookite.b, BEAM, 30)
    assert len(excited.index) > 50
    turn = np.radians(-ROTATION)
    back = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    deltas = cone.middles(3) @ back.T * 1.5e-3 / WAVE
    for r in range(0, len(excited.index), 5):
        g = UB @ brookite.b @ brookite.hkl[excited.index[r]]
        assert excited.s[r] == pytest.approx(distance_to_sphere(g, np.zeros(2)), abs=1e-9)
        for c in (0, 5, 20):
            exact = distance_to_sphere(g, deltas[c])
            assert excited.s[r] + excited.slope[r, c] == pytest.approx(exact, abs=5e-5 * np.hypot(*g[:2]) + 1e-6)


def test_inside_the_sphere_is_positive(brookite):
    excited = excite(brookite, UB @ brookite.b, BEAM, 30)
    to_centre = np.linalg.norm(excited.g + np.array([0, 0, 1 / WAVE]), axis=1)
    assert (np.sign(excited.s) == np.sign(1 / WAVE - to_centre)).all()


def test_no_strong_reflection_is_left_out(brookite):
    ub = UB @ brookite.b
    kept = set(excite(brookite, ub, BEAM, 30).index.tolist())
    g, xi = brookite.hkl @ ub.T, extinction_distance(brookite, BEAM)
    s = np.sqrt(1 / WAVE**2 - (g[:, :2] ** 2).sum(1)) - (1 / WAVE + g[:, 2])
    for delta in BEAM.direction * 1.5e-3:
        error = s - g[:, :2] @ delta
        effective = np.sqrt(error**2 + xi**-2)
        strongest = max((np.sin(np.pi * t * effective) ** 2 / (xi * effective) ** 2).max() for t in (50, 200, 300))
        assert strongest > WEAKEST
        at_most = (np.sin(np.pi * 300 * effective) / (xi * effective)) ** 2
        assert set(np.flatnonzero(at_most > WEAKEST).tolist()) <= kept


def single(s: float, xi: float) -> Excited:
    one = np.array([float(s)])
    return Excited(np.zeros(1, "i8"), np.zeros((1, 3)), one, np.zeros((1, 1)), np.array([float(xi)]), np.zeros(1))


def test_two_beam_intensity_of_one_reflection():
    at_bragg = two_beam_shares(single(0, 800), 4, 5.0)[:, 0, 0]  # up to 200 Å = ξ/4
    np.testing.assert_allclose(at_bragg, np.sin(np.pi * np.arange(5) * 50 / 800) ** 2, rtol=1e-6)
    assert at_bragg[-1] == pytest.approx(0.5)
    off = two_beam_shares(single(1 / 800, 800), 1, 80 / 2**0.5 / 2)[1, 0, 0]  # thickness where sin² is 1/2
    assert off == pytest.approx(np.sin(np.pi * 400 / 2**0.5 * 2**0.5 / 800) ** 2 / 2, rel=1e-6)


def test_kinematic_limit_of_two_beam(brookite):
    excited = excite(brookite, UB @ brookite.b, BEAM, 30)

    def gap(thickness_nm: float) -> float:
        two, kinematic = (
            np.diff(shares[-1], axis=-1, prepend=0)
            for shares in (two_beam_shares(excited, 1, thickness_nm), kinematic_shares(excited, 1, thickness_nm, 1.0))
        )
        strong = kinematic > 0.01 * kinematic.max()
        return float(np.abs(two[strong] / kinematic[strong] - 1).max())

    assert gap(0.5) < 2e-3
    assert gap(30) > 0.05


def test_kinematic_shares_are_sinc_squared(brookite):
    excited = excite(brookite, UB @ brookite.b, BEAM, 20)
    shares = np.diff(kinematic_shares(excited, 4, 5.0, 0.3).astype(float), axis=-1, prepend=0)
    s = (excited.s[:, None] + excited.slope).T
    expected = 0.3 * (np.pi * 150 / excited.extinction) ** 2 * np.sinc(150 * s) ** 2
    np.testing.assert_allclose(shares[3], expected, rtol=1e-4, atol=1e-7)
    bound = kinematic_bound(excited, 20)
    assert (kinematic_shares(excited, 20, 1.0, 1.0)[..., -1] <= bound).all()


def apart(excited: Excited, t_a: float) -> np.ndarray:
    """Two-beam intensity of every reflection by itself, (cell, reflection)."""
    s = (excited.s[:, None] + excited.slope).T
    return np.sin(np.pi * t_a * np.hypot(s, 1 / excited.extinction)) ** 2 / (1 + (s * excited.extinction) ** 2)


def test_reflections_share_what_is_there(brookite):
    zone_axis = make_beam(200, WAVE, 0.1, 2, 0)
    excited = excite(brookite, brookite.b, zone_axis, 80)
    shares = np.diff(two_beam_shares(excited, 8, 10.0).astype(float), axis=-1, prepend=0)
    assert shares.min() >= -1e-6
    for b in (1, 4, 8):
        alone = apart(excited, 100 * b)
        np.testing.assert_allclose(shares[b].sum(-1), 1 - np.prod(1 - alone, -1), rtol=1e-5)
        np.testing.assert_allclose(
            shares[b] / shares[b].sum(-1, keepdims=True), alone / alone.sum(-1, keepdims=True), rtol=1e-3, atol=2e-6
        )
    assert alone.sum(-1).max() > 1.02 > 1 > shares.sum(-1).max()


@pytest.mark.parametrize("top_nm", [20, 60])
def test_shares_between_the_steps_of_a_ladder(brookite, top_nm):
    """Linear between steps, at random thicknesses, against sin² itself; also of what is weak and oscillates fast."""
    excited = excite(brookite, UB @ brookite.b, BEAM, top_nm)
    steps, step_nm = ladder(excited, top_nm)
    table = np.diff(two_beam_shares(excited, steps, step_nm).astype(float), axis=-1, prepend=0)
    t = np.random.default_rng(4).uniform(top_nm / 2, top_nm, 300)
    below = np.minimum((t / step_nm).astype(int), steps - 1)
    above = (t / step_nm - below)[:, None, None]
    found = ((1 - above) * table[below] + above * table[below + 1]).mean(1)
    expected = np.empty_like(found)
    for i, alone in enumerate(apart(excited, 10 * one) for one in t):
        expected[i] = (alone * (1 - np.prod(1 - alone, -1, keepdims=True)) / alone.sum(-1, keepdims=True)).mean(0)
    weak = expected.mean(0) < 2e-3
    assert weak.sum() > 50
    for kind, most in ((weak, 0.015), (~weak, 0.002)):
        assert np.abs(found - expected)[:, kind].sum() < most * expected[:, kind].sum()


def test_a_ladder_never_exhausts_memory():
    far = single(0.3, 500.0)
    assert ladder(far, 30)[0] == 30 * 10 * 2 * np.hypot(0.3, 1 / 500) // 1 + 1
    wide = Excited(*(getattr(far, n) for n in ("index", "g", "s")), np.zeros((1, 10**6)), far.extinction, far.spread)
    assert ladder(wide, 30)[0] == 30


def test_mosaic_blocks_are_crystals_turned_at_random(brookite):
    """Against the average over crystals that are turned one by one."""
    ub, steps = UB @ brookite.b, (2, 10.0)
    wide = excite(brookite, ub, BEAM, 20, mosaic_deg=0.4)
    mean = np.diff(kinematic_shares(wide, *steps, 1.0).astype(float), axis=-1, prepend=0)[:, 4]
    turned, count = np.zeros((3, len(brookite.hkl))), 4096
    sample = qmc.MultivariateNormalQMC(np.zeros(3), np.radians(0.4) ** 2 * np.eye(3), seed=1).random(count)
    for turn in Rotation.from_rotvec(sample).as_matrix():
        g = brookite.hkl[wide.index] @ (turn @ ub).T
        s = np.sqrt(1 / WAVE**2 - (g[:, :2] ** 2).sum(1)) - 1 / WAVE - g[:, 2]
        s -= g[:, :2] @ BEAM.direction[4] * 1.5e-3
        for b in (1, 2):
            turned[b, wide.index] += (np.pi * 100 * b / wide.extinction * np.sinc(100 * b * s)) ** 2 / count
    for b in (1, 2):
        one, other = mean[b], turned[b, wide.index]
        strong = other > 0.02 * other.max()
        assert strong.sum() > 20
        np.testing.assert_allclose(one[strong], other[strong], rtol=0.05)
    assert len(wide.index) > 1.2 * len(excite(brookite, ub, BEAM, 20).index)
    assert (kinematic_shares(wide, *steps, 1.0)[..., -1] <= kinematic_bound(wide, 20)).all()


def test_mosaic_spread_keeps_the_integrated_intensity():
    """Over a whole rocking curve, mosaic spread only moves intensity about (kinematic: ∫ sinc² = 1/t)."""
    s = np.linspace(-0.06, 0.06, 4001)
    many = Excited(
        np.zeros(4001, "i8"), np.zeros((4001, 3)), s, np.zeros((4001, 1)), np.full(4001, 1e4), np.full(4001, 0.006)
    )
    curve = np.diff(kinematic_shares(many, 1, 40.0, 1.0)[1, 0].astype(float), prepend=0)
    strength = (np.pi * 400 / 1e4) ** 2
    beyond = 1 / (np.pi**2 * 400 * 0.06)  # share of ∫ sinc² outside the range, where sin² is a half
    assert np.trapezoid(curve, s) == pytest.approx(strength / 400 * (1 - beyond), rel=1e-3)
    blocks = np.exp(-((s / 0.006) ** 2) / 2)
    smeared = np.convolve(strength * np.sinc(400 * s) ** 2, blocks / blocks.sum(), "same")
    middle = np.abs(s) < 0.03
    np.testing.assert_allclose(curve[middle], smeared[middle], atol=1e-3 * smeared.max())


def along_blocks(excited: Excited, t_a: float) -> float:
    """Two-beam intensity of one reflection, averaged over mosaic blocks by the rectangle rule in very small steps."""
    tilt = np.linspace(-7, 7, 200_001)
    s, xi = excited.s[0] + tilt * excited.spread[0], excited.extinction[0]
    curve = np.sin(np.pi * t_a * np.hypot(s, 1 / xi)) ** 2 / (1 + (s * xi) ** 2)
    return float((curve * np.exp(-(tilt**2) / 2)).sum() / np.exp(-(tilt**2) / 2).sum())


@pytest.mark.parametrize("mosaic_deg", [0.02, 0.5, 2.0])
@pytest.mark.parametrize(("s", "xi"), [(0.0, 300.0), (0.004, 900.0), (0.03, 2000.0)])
def test_mosaic_average_is_the_integral_over_blocks(mosaic_deg, s, xi):
    """At 1.4 1/Å and up to 150 nm, where a rocking curve has hundreds of fringes within the spread."""
    spread = np.array([np.radians(mosaic_deg) * 1.4])
    blocks = Excited(np.zeros(1, "i8"), np.zeros((1, 3)), np.array([s]), np.zeros((1, 1)), np.array([xi]), spread)
    shares = two_beam_shares(blocks, 150, 1.0)[:, 0, 0]
    for b in (0, 1, 7, 60, 150):
        assert shares[b] == pytest.approx(along_blocks(blocks, 10 * b), rel=1e-3, abs=1e-6)


def test_damage_weakens_structure_factors(brookite):
    left = np.full(len(brookite.hkl), 0.25)
    fresh, damaged = (
        excite(brookite, UB @ brookite.b, BEAM, 30),
        excite(brookite, UB @ brookite.b, BEAM, 30, fading=left),
    )
    both = np.intersect1d(fresh.index, damaged.index)
    ratio = damaged.extinction[np.isin(damaged.index, both)] / fresh.extinction[np.isin(fresh.index, both)]
    np.testing.assert_allclose(ratio, 2)
    assert len(excite(brookite, UB @ brookite.b, BEAM, 30, fading=0 * left).index) == 0


def test_cells_of_the_cone_are_equal_and_numbered_alike():
    rng = np.random.default_rng(0)
    counts = np.bincount([cone.cell_of(np.sqrt(a), b, 4) for a, b in rng.random((48_000, 2))], minlength=48)
    assert ((counts - 1000) ** 2 / 1000).sum() < 48 + 5 * np.sqrt(96)
    for places in (cone.points(4, 1.0, 100), cone.middles(4)[:, None]):
        radius, turn = np.hypot(*places.T).T, (np.arctan2(places[..., 1], places[..., 0]) / (2 * np.pi)) % 1
        cells = [[cone.cell_of(r, t, 4) for r, t in zip(*rt, strict=True)] for rt in zip(radius, turn, strict=True)]
        assert all(set(found) == {c} for c, found in enumerate(cells))
