"""What decides between lattices: multiples of a cell, the beam's place, the axis, the metric."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.azimuth import find_azimuth
from stemtomo_dl.crystal.cells import cell_of, reciprocal_basis
from stemtomo_dl.crystal.evidence import Points, evidence, settled
from stemtomo_dl.crystal.friedel import center_shifts
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.group import grouped
from stemtomo_dl.crystal.index import index
from stemtomo_dl.crystal.nouns import Spots
from stemtomo_dl.records import Instrument

ALPHA = np.arange(-50.0, 51.0, 2.0)
GEOMETRY = Geometry(Instrument(200.0, 0.5, 0.014, 5.0, 40.0), ALPHA)
CENTER = np.array([100.0, 101.0])
CELL = np.array([8.2, 8.26, 11.76, 90.0, 90.0, 90.0])


def nodes(basis, rng, n, foreign, odd=0.0):
    """Reflections on a lattice, ``odd`` of them on nodes of odd l only, and foreign ones anywhere."""
    hkl = rng.integers(-6, 7, (n, 3))
    hkl = hkl[np.any(hkl != 0, axis=1)]
    hkl[:, 2] *= 2
    hkl[: round(odd * len(hkl)), 2] += 1
    q = np.concatenate([hkl @ np.linalg.inv(basis).T, rng.uniform(-1, 1, (foreign, 3))])
    sigma = np.full(q.shape, 0.003)
    return Points(q + rng.normal(0, 0.003, q.shape), np.tile(np.eye(3), (len(q), 1, 1)), sigma)


@pytest.mark.parametrize("foreign", [0, 150, 400])
def test_a_multiple_whose_further_nodes_are_empty_is_given_up(foreign):
    rng = np.random.default_rng(foreign)
    doubled = np.diag([5.1, 5.4, 18.4])
    found = settled(nodes(doubled, rng, 300, foreign), doubled)
    assert sorted(cell_of(found)[:3]) == pytest.approx([5.1, 5.4, 9.2])


@pytest.mark.parametrize("multiple", [1, 2])
def test_weak_superlattice_reflections_enlarge_the_cell(multiple):
    rng = np.random.default_rng(3)
    true = np.diag([5.1, 5.4, 18.4])
    points = nodes(true, rng, 300, 100, odd=0.06)
    start = np.diag([5.1, 5.4, 18.4 / multiple])
    assert sorted(cell_of(settled(points, start))[:3]) == pytest.approx([5.1, 5.4, 18.4])


def test_a_lattice_is_worth_more_than_its_multiple():
    points = nodes(np.diag([5.1, 5.4, 18.4]), np.random.default_rng(1), 200, 100)
    assert evidence(points, np.diag([5.1, 5.4, 9.2])) > evidence(points, np.diag([5.1, 5.4, 18.4])) + 100


def spots_of(ub, rng, geometry=GEOMETRY, shift=0.0, keep=700):
    """Spots of a crystal about a beam that is off its stated place."""
    hkl = np.stack(np.meshgrid(*[np.arange(-14, 15)] * 3, indexing="ij"), -1).reshape(-1, 3)
    g0 = hkl @ ub.T
    length = np.linalg.norm(g0, axis=1)
    g0 = g0[(length > 0.08) & (length < 1.1)]
    frame, px = [], []
    for f, turn in enumerate(geometry.turns()):
        g = g0 @ turn.T
        near = rng.random(len(g)) < np.exp(-((geometry.excitation(g) / 0.003) ** 2) / 2)
        px.append(geometry.to_detector(g[near], CENTER + shift))
        frame.append(np.full(near.sum(), f, "i4"))
    frame, px = np.concatenate(frame), np.concatenate(px)
    some = rng.permutation(len(px))[:keep]
    px, ones = px[some] + rng.normal(0, 0.15, (len(some), 2)), np.ones(len(some))
    return Spots(2.0, frame[some], px, 100 * ones, ones, np.tile(CENTER, (len(ALPHA), 1)))


def crystal(seed, cell=CELL):
    return Rotation.random(random_state=seed).as_matrix() @ reciprocal_basis(cell)


def test_the_beam_is_between_friedel_mates():
    shift = np.array([3.2, -1.7])
    spots = spots_of(crystal(2), np.random.default_rng(1), shift=shift, keep=1500)
    near = [np.linalg.norm(s - shift) for s in center_shifts(spots)]
    assert min(near) < 0.2


def test_the_stated_centre_stays_a_candidate_where_midpoints_gather_elsewhere():
    # a row of nodes beside the beam: its midpoints gather 4 px away in every frame
    row = CENTER + [4.0, 0.0] + np.array([[0.0, 12.0]]) * np.arange(-3, 4)[:, None]
    n = len(ALPHA)
    frame, px, ones = np.repeat(np.arange(n, dtype="i4"), len(row)), np.tile(row, (n, 1)), np.ones(n * len(row))
    told = center_shifts(Spots(2.0, frame, px, 100 * ones, ones, np.tile(CENTER, (n, 1))))
    assert told[0] == pytest.approx([4.0, 0.0], abs=0.2)
    assert any(not s.any() for s in told)


def test_few_spots_of_a_small_cell_with_axis_and_centre_off():
    gold = np.array([4.078 / np.sqrt(2)] * 3 + [60.0] * 3)
    axis = GEOMETRY.instrument.tilt_axis_deg - 1.3
    shift = np.array([2.0, -1.8])
    spots = spots_of(crystal(5, gold), np.random.default_rng(3), GEOMETRY.with_axis(axis), shift=shift, keep=110)
    found = index(spots, GEOMETRY.instrument, ALPHA, most=1)
    assert found[0].lattice == "cF"
    assert found[0].cell[0] == pytest.approx(4.078, rel=2e-3)


def test_the_axis_is_found_before_the_lattice():
    spots = spots_of(crystal(4), np.random.default_rng(2), GEOMETRY.with_axis(43.1))
    off, _ = find_azimuth(GEOMETRY.lab(spots), GEOMETRY.turns()[spots.frame], spots.intensity)
    assert off == pytest.approx(3.1, abs=0.3)


def test_spots_of_neighbouring_frames_are_one_reflection():
    still = Geometry(GEOMETRY.instrument, np.arange(-1.0, 1.1, 0.5))
    g = np.array([[0.5, 0.1, 0.0], [-0.2, 0.7, 0.0]])
    frame = np.array([1, 2, 3, 0, 4], "i4")
    which = np.array([0, 0, 0, 1, 1])  # the second is seen again only four frames later
    px = still.to_detector(np.einsum("nij,nj->ni", still.turns()[frame], g[which]), CENTER)
    spots = Spots(2.0, frame, px, np.array([1.0, 3.0, 1.0, 1.0, 1.0]), np.ones(5), np.tile(CENTER, (5, 1)))
    seen = grouped(spots, still)
    assert len(seen.middle) == 3
    assert len(set(seen.label[:3])) == 1
    assert 1 in seen.middle  # the strongest


@pytest.mark.parametrize(("b", "name"), [(8.26, "oP"), (8.2, "tP")])
def test_axes_half_a_percent_apart_are_told_from_equal_ones(b, name):
    cell = np.array([8.2, b, 11.76, 90, 90, 90])
    spots = spots_of(crystal(5, cell), np.random.default_rng(5), GEOMETRY.with_axis(41.5), np.array([1.0, -2.0]))
    found = index(spots, GEOMETRY.instrument, ALPHA, most=1)[0]
    assert found.lattice == name
    assert sorted(found.cell[:3]) == pytest.approx(sorted(cell[:3]), rel=2e-3)
