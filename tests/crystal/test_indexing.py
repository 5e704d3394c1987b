"""Lattices found in spots of known crystals."""

import gemmi
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.bravais import conventional
from stemtomo_dl.crystal.cells import cell_of, reciprocal_basis
from stemtomo_dl.crystal.equivalents import disagreement, equivalents
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.index import index
from stemtomo_dl.crystal.integrate import integrate
from stemtomo_dl.crystal.nouns import Spots
from stemtomo_dl.crystal.spots import find_spots
from stemtomo_dl.geometry import disk_radius_px, excitation_error, g_to_detector, tilt_rotation, wavelength
from stemtomo_dl.records import DiffractionSeries, Instrument

INSTRUMENT = Instrument(200.0, 0.7, 0.018, 5.0, 31.0, rotation_deg=-6.0)
ALPHA = np.arange(-50, 50.1, 1.0)
WAVE = wavelength(200.0)
CENTER = np.array([64.3, 63.1])


def passages(ub, d_min=1.0, reach=0.004):
    """hkl, frame, excitation error and place of all reflections near the sphere."""
    n = 16
    hkl = np.stack(np.meshgrid(*[np.arange(-n, n + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ ub.T, axis=1)
    hkl = hkl[(length > 0) & (length < 1 / d_min)]
    rows = []
    for f, turn in enumerate(tilt_rotation(INSTRUMENT.tilt_axis_deg, ALPHA)):
        g = hkl @ ub.T @ turn.T
        s = excitation_error(g, WAVE)
        near = np.abs(s) < reach
        px = g_to_detector(g[near], INSTRUMENT.pixel_inv_angstrom, INSTRUMENT.rotation_deg, CENTER)
        rows.append((hkl[near], np.full(near.sum(), f), s[near], px))
    return [np.concatenate(c) for c in zip(*rows, strict=True)]


def seen(ub, rng, foreign=0.0, keep=400):
    """Spots of a crystal, half as many again where ``foreign`` is 0.5 of all, with errors of a fifth of a pixel."""
    _, frame, _, px = passages(ub)
    some = rng.permutation(len(px))[:keep]
    px, frame = px[some] + rng.normal(0, 0.2, (len(some), 2)), frame[some]
    extra = round(len(px) * foreign / (1 - foreign))
    px = np.concatenate([px, CENTER + rng.uniform(-55, 55, (extra, 2))])
    frame = np.concatenate([frame, rng.integers(0, len(ALPHA), extra)]).astype("i4")
    center = np.tile(CENTER, (len(ALPHA), 1))
    return Spots(2.0, frame, px, np.full(len(px), 100.0), np.ones(len(px)), center)


def turned(cell, seed):
    return Rotation.random(random_state=seed).as_matrix() @ reciprocal_basis(np.array(cell, float))


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ([9.18, 5.45, 5.15, 90, 90, 90], "oP"),
        ([5.1, 5.2, 5.3, 90, 99.2, 90], "mP"),
        ([7.1, 7.9, 5.6, 90, 101, 106], "aP"),
    ],
)
def test_a_cell_is_found_among_as_many_foreign_spots(cell, name):
    rng = np.random.default_rng(5)
    found = index(seen(turned(cell, 3), rng, foreign=0.5), INSTRUMENT, ALPHA, most=1)
    assert found[0].lattice == name
    assert sorted(found[0].cell[:3]) == pytest.approx(sorted(cell[:3]), rel=3e-3)
    assert np.linalg.det(np.linalg.inv(found[0].ub)) == pytest.approx(
        1 / np.linalg.det(reciprocal_basis(np.array(cell))), rel=6e-3
    )


def test_orientation_axis_and_centre_are_refined():
    ub = turned([9.18, 5.45, 5.15, 90, 90, 90], 8)
    spots = seen(ub, np.random.default_rng(1))
    stated = Instrument(200.0, 0.7, 0.018, 5.0, 32.0, rotation_deg=-6.0)  # 1° off
    found = index(spots, stated, ALPHA, most=1)[0]
    assert found.tilt_axis_deg == pytest.approx(31.0, abs=0.05)
    relation = np.linalg.inv(found.ub) @ ub  # whole numbers: the same lattice, in the same place
    np.testing.assert_allclose(relation, np.rint(relation), atol=0.01)
    assert found.indexed_fraction > 0.95


def test_two_crystals_in_one_series():
    rng = np.random.default_rng(2)
    one, two = (seen(turned([9.18, 5.45, 5.15, 90, 90, 90], k), rng) for k in (1, 2))
    names = ("frame", "px", "intensity", "sigma")
    both = {n: np.concatenate([getattr(one, n), getattr(two, n)]) for n in names}
    found = index(Spots(2.0, center_px=one.center_px, **both), INSTRUMENT, ALPHA)
    assert len(found) == 2
    for crystal in found:
        assert sorted(crystal.cell[:3]) == pytest.approx([5.15, 5.45, 9.18], rel=3e-3)


@pytest.mark.parametrize("n", [5, 40, 300])
def test_spots_anywhere_are_no_lattice(n):
    rng = np.random.default_rng(n)
    spots = seen(turned([5, 5, 5, 90, 90, 90], 0), rng, keep=0)
    px = CENTER + rng.uniform(-55, 55, (n, 2))
    frame = rng.integers(0, len(ALPHA), n).astype("i4")
    noise = Spots(2.0, frame, px, np.full(n, 100.0), np.ones(n), spots.center_px)
    assert index(noise, INSTRUMENT, ALPHA) == []


@pytest.mark.parametrize(
    ("cell", "points", "name"),
    [
        ([4.05, 4.05, 4.05, 90, 90, 90], [(0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)], "cF"),
        ([2.87, 2.87, 2.87, 90, 90, 90], [(0.5, 0.5, 0.5)], "cI"),
        ([4.9, 4.9, 5.4, 90, 90, 120], [], "hP"),
        ([4.76, 4.76, 12.99, 90, 90, 120], [(2 / 3, 1 / 3, 1 / 3)], "hR"),
        ([3.78, 3.78, 9.51, 90, 90, 90], [(0.5, 0.5, 0.5)], "tI"),
        ([9.8, 9.0, 5.25, 90, 105.8, 90], [(0.5, 0.5, 0)], "mC"),
        ([5.0, 6.0, 7.0, 90, 90, 90], [], "oP"),
        ([5.0, 6.0, 7.0, 80, 85, 75], [], "aP"),
    ],
)
def test_bravais_lattices_from_primitive_vectors(cell, points, name):
    basis = np.linalg.inv(reciprocal_basis(np.array(cell, float)))
    vectors = np.concatenate([np.array(points).reshape(-1, 3) @ basis, basis])
    primitive = vectors[:3] if len(points) == 3 else _spanning(vectors, np.linalg.det(basis) / (len(points) + 1), name)
    skew = np.array([[1, 1, 0], [0, 1, 2], [0, 0, 1]]) @ primitive
    found = conventional(skew)
    assert found.name == name
    assert cell_of(found.basis) == pytest.approx(cell, rel=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_lattice_symmetry_is_that_of_gemmi(seed):
    rng = np.random.default_rng(seed)
    a, b, c = np.sort(rng.uniform(4, 12, 3))
    system = "cthomatm"[seed]
    cell = {
        "c": [a, a, a, 90, 90, 90],
        "t": [a, a, c, 90, 90, 90],
        "h": [a, a, c, 90, 90, 120],
        "o": [a, b, c, 90, 90, 90],
        "m": [a, b, c, 90, rng.uniform(95, 115), 90],
        "a": [a, b, c, 83, 77, 68],
    }[system]
    letter = {"c": "F", "t": "I", "o": "C", "m": "C"}.get(system, "P")
    primitive = np.array(gemmi.UnitCell(*cell).primitive_orth_matrix(letter).tolist()).T
    skew = np.array([[1, 2, 0], [0, 1, -1], [0, 0, 1]]) @ primitive
    found = conventional(skew)
    rotations = {"a": 1, "m": 2, "o": 4, "t": 8, "h": 12, "c": 24}[found.name[0]]
    assert found.name[0] == system
    assert len(gemmi.find_lattice_symmetry(gemmi.UnitCell(*cell), letter, 0.5).sym_ops) == rotations


def _spanning(vectors, volume, name):
    volume = volume * 2 / 3 if name == "hR" else volume
    for i in range(len(vectors)):
        for j in range(i):
            for k in range(j):
                if abs(np.linalg.det(vectors[[i, j, k]])) == pytest.approx(abs(volume)):
                    return vectors[[i, j, k]]
    raise AssertionError("no basis")


def test_patterns_to_intensities_of_known_ones():
    """Disks of known intensity on a peaked background with counting noise: spots, cell, intensities."""
    rng = np.random.default_rng(4)
    ub = turned([9.18, 5.45, 5.15, 90, 90, 90], 6)
    hkl, frame, s, px = passages(ub, reach=0.012)
    strength = {h: rng.exponential(1.0) for h in {tuple(np.abs(h)) for h in hkl}}
    peak = 300 * np.array([strength[tuple(np.abs(h))] for h in hkl]) * np.exp(-((s / 0.003) ** 2) / 2)
    radius = disk_radius_px(0.7, WAVE, INSTRUMENT.pixel_inv_angstrom)
    y, x = np.mgrid[:128, :128]
    far = np.hypot(x - CENTER[0], y - CENTER[1])
    mean = np.tile(5 + 200 * np.exp(-far / 8), (len(ALPHA), 1, 1))
    for f, (cx, cy), p in zip(frame, px, peak, strict=True):
        disk = np.clip(radius + 0.5 - np.hypot(x - cx, y - cy), 0, 1)
        mean[f] += p * disk / disk.sum() if disk.any() else 0
    n = len(ALPHA)
    series = DiffractionSeries(
        INSTRUMENT,
        rng.poisson(mean).astype("f4"),
        np.ones(mean.shape, bool),
        ALPHA,
        np.arange(n, dtype="i4"),
        np.ones(n, "i4"),
        np.zeros(n, "i4"),
        CENTER,
    )
    spots = find_spots(series)
    crystal = index(spots, INSTRUMENT, ALPHA, most=1)[0]
    assert sorted(crystal.cell[:3]) == pytest.approx([5.15, 5.45, 9.18], rel=3e-3)
    found = integrate(series, spots, Geometry(INSTRUMENT, ALPHA), crystal)
    order = np.argsort(crystal.cell[:3])[np.argsort([2, 1, 0])]  # the known a > b > c
    true = np.array([strength.get(tuple(np.abs(h[order])), 0.0) for h in found.hkl])
    assert len(true) > 200
    assert np.corrcoef(true, found.intensity)[0, 1] > 0.9
    assert disagreement(equivalents(found.hkl, crystal.lattice), found.intensity) < 0.15


def test_single_electrons_are_no_spots():
    """A hundredth of an electron a pixel: two that fall together stand far out of the scatter, and mean nothing."""
    rng = np.random.default_rng(3)
    patterns = rng.poisson(0.01, (20, 96, 96)).astype("f4")
    patterns[:, 60:63, 70:73] += 1  # nine together do
    n = np.arange(20, dtype="i4")
    center = np.array([47.5, 47.5])
    instrument = Instrument(200.0, 0.5, 0.02, 5.0, 20.0)
    ones = np.ones(20, "i4")
    measured = np.ones(patterns.shape, bool)
    spots = find_spots(DiffractionSeries(instrument, patterns, measured, n * 1.0, n, ones, 0 * ones, center))
    assert len(spots) == 20
    np.testing.assert_allclose(spots.px, np.tile([71.0, 61.0], (20, 1)), atol=0.5)
