"""Disks of thick crystals, lit in a band only: spots are off their nodes. Pairs of disks that are found as one."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import cell_of, reciprocal_basis
from stemtomo_dl.crystal.evidence import Points, settled
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.index import index
from stemtomo_dl.crystal.nouns import Spots
from stemtomo_dl.records import Instrument

ALPHA = np.arange(-48.0, 48.1, 2.0)
STAGE = Geometry(Instrument(200.0, 1.1, 0.033, 5.0, 85.0), ALPHA)
CENTER = np.array([44.0, 44.0])


def banded(seed, keep=500):
    """Spots of garnet's lattice: of each disk only that line is lit where s = 0, which lies along g off its middle."""
    rng = np.random.default_rng(seed)
    hkl = np.stack(np.meshgrid(*[np.arange(-16, 17)] * 3, indexing="ij"), -1).reshape(-1, 3)
    g0 = hkl[(hkl.sum(1) % 2 == 0) & hkl.any(1)] @ reciprocal_basis(np.array([12.0, 12, 12, 90, 90, 90])).T
    g0 = g0[np.linalg.norm(g0, axis=1) < 1.4] @ Rotation.random(random_state=seed).as_matrix().T
    disk = STAGE.instrument.convergence_mrad * 1e-3 / STAGE.wavelength_a
    frame, px = [], []
    for f, turn in enumerate(STAGE.turns()):
        g = g0 @ turn.T
        length = np.linalg.norm(g[:, :2], axis=1)
        off = STAGE.excitation(g) / (STAGE.wavelength_a * np.maximum(length, 0.1))
        lit = np.abs(off) < disk / 2
        along = g[lit, :2] / length[lit, None] * off[lit, None]
        px.append(STAGE.to_detector(np.concatenate([g[lit, :2] + along, g[lit, 2:]], 1), CENTER))
        frame.append(np.full(lit.sum(), f, "i4"))
    frame, px = np.concatenate(frame), np.concatenate(px)
    some = rng.permutation(len(px))[:keep]
    px = px[some] + rng.normal(0, 0.15, (len(some), 2))
    return Spots(1.5, frame[some], px, np.full(len(some), 100.0), np.ones(len(some)), np.tile(CENTER, (len(ALPHA), 1)))


def test_spots_off_their_nodes_are_one_lattice_and_no_echoes_of_it():
    spots = banded(1)
    (crystal,) = index(spots, STAGE.instrument, ALPHA)
    assert crystal.lattice == "cI"
    assert crystal.cell[0] == pytest.approx(12.0, rel=3e-3)
    assert crystal.indexed_fraction > 0.9


def test_spots_half_way_between_two_nodes_are_no_superlattice():
    """Two neighbours on one row that are found as one spot lie there, wherever the row is."""
    rng, true = np.random.default_rng(9), np.diag([8.2, 8.3, 11.8])
    hkl = rng.integers(-6, 7, (500, 3)).astype(float)
    hkl = hkl[hkl.any(1)]
    hkl[:9, 2] += 0.5
    q = hkl @ np.linalg.inv(true).T + rng.normal(0, 0.003, hkl.shape)
    points = Points(q, np.tile(np.eye(3), (len(q), 1, 1)), np.full(q.shape, 0.003))
    for start in (true, true * [[1], [1], [2]]):
        assert sorted(cell_of(settled(points, start))[:3]) == pytest.approx([8.2, 8.3, 11.8])
