"""Particles of few spots, with the lattices that others of the series have."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl import crystals
from stemtomo_dl.crystal.cells import reciprocal_basis
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.index import index, index_as
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.siblings import attested
from stemtomo_dl.records import Instrument
from stemtomo_dl.reduction import SeriesSpots
from stemtomo_dl.run import Run

ALPHA = np.arange(-50.0, 51.0, 2.0)
STAGE = Geometry(Instrument(200.0, 0.5, 0.018, 5.0, 40.0), ALPHA)
CENTER = np.array([64.0, 63.0])
BROOKITE = np.array([5.14, 5.45, 9.18, 90.0, 90.0, 90.0])
ZINCITE = np.array([3.25, 3.25, 5.21, 90.0, 90.0, 120.0])
PEROVSKITE = np.array([8.2, 8.26, 11.76, 90.0, 90.0, 90.0])


def spots_of(ub, n, seed):
    """As many spots as asked for, of the inner reflections."""
    rng = np.random.default_rng(seed)
    hkl = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3, indexing="ij"), -1).reshape(-1, 3)
    g0 = hkl[hkl.any(1)] @ ub.T
    g0 = g0[np.linalg.norm(g0, axis=1) < 0.8]
    frame, px = [], []
    for f, turn in enumerate(STAGE.turns()):
        g = g0 @ turn.T
        near = np.abs(STAGE.excitation(g)) < 0.003
        px.append(STAGE.to_detector(g[near], CENTER))
        frame.append(np.full(near.sum(), f, "i4"))
    return drawn(np.concatenate(frame), np.concatenate(px), n, rng)


def drawn(frame, px, n, rng):
    some = rng.permutation(len(px))[:n]
    px, ones = px[some] + rng.normal(0, 0.15, (len(some), 2)), np.ones(len(some))
    return Spots(2.0, frame[some], px, 100 * ones, ones, np.tile(CENTER, (len(ALPHA), 1)))


def turned(cell, seed):
    return Rotation.random(random_state=seed).as_matrix() @ reciprocal_basis(cell)


def crystal(cell, lattice, n, share=0.9):
    shift = np.zeros(2)
    return Crystal(lattice, share, n, 0.002, 40.0, 0.0, 0.0, ub=turned(cell, n), cell=cell, center_shift_px=shift)


TITANIA, ZINC, OTHER = crystal(BROOKITE, "oP", 90), crystal(ZINCITE, "hP", 500), crystal(PEROVSKITE, "oP", 400, 0.4)
GARNET = crystal(np.array([12.0, 12.0, 12.0, 90.0, 90.0, 90.0]), "cI", 300)  # pseudo-cubic others come near it


@pytest.mark.parametrize(("cell", "name"), [(BROOKITE, "oP"), (ZINCITE, "hP")])
def test_few_spots_are_enough_with_a_sibling_s_lattice(cell, name):
    ub = turned(cell, 5)
    spots = spots_of(ub, 22, 5)
    assert index(spots, STAGE.instrument, ALPHA) == []
    found = index_as(spots, STAGE.instrument, ALPHA, [OTHER, ZINC, TITANIA])
    assert found.lattice == name
    assert found.cell == pytest.approx(cell, rel=0.01)
    relation = np.linalg.inv(found.ub) @ ub
    assert np.abs(relation - np.rint(relation)).max() < 0.05


@pytest.mark.parametrize(("n", "seed"), [(18, 50), (60, 1)])
def test_another_phase_and_spots_anywhere_are_not_taken_for_a_sibling(n, seed):
    rng = np.random.default_rng(seed)
    anywhere = drawn(rng.integers(0, len(ALPHA), 90).astype("i4"), CENTER + rng.uniform(-45, 45, (90, 2)), n, rng)
    for spots in (spots_of(turned(PEROVSKITE, seed), n, seed), anywhere):
        assert index_as(spots, STAGE.instrument, ALPHA, [TITANIA, ZINC, GARNET]) is None


def test_a_lattice_counts_once_however_it_is_set_and_most_crystals_come_first():
    swapped = BROOKITE[[2, 0, 1, 3, 4, 5]] * [1.004, 1, 1, 1, 1, 1]
    assert attested([ZINC, TITANIA, crystal(swapped, "oP", 80), OTHER]) == [TITANIA, ZINC]


def test_a_run_s_weak_particle_gets_the_lattice_of_the_others(tmp_path):
    class Silent:
        @contextmanager
        def stage(self, name, total):
            yield lambda: None

    run = SimpleNamespace(folder=tmp_path, progress=Silent(), workers=None)
    run.per_particle = lambda *a, **k: Run.per_particle(run, *a, **k)
    stated = replace(STAGE.instrument, tilt_axis_deg=44.0)  # which the others have found to be 40
    tilts = np.arange(len(ALPHA), dtype="i4")
    left = {k: SeriesSpots(stated, spots_of(turned(BROOKITE, 5), n, 5), tilts, ALPHA) for k, n in ((3, 22), (5, 4))}
    assert crystals._by_siblings(run, "key", left, []) == {}
    found = crystals._by_siblings(run, "key", left, [TITANIA])
    assert [(k, [c.lattice for c in cs]) for k, cs in found.items()] == [(3, ["oP"])]
    assert not list(tmp_path.iterdir())
