"""Particles that saw hardly the same reflections come together by their cell, where the cell tells how."""

import numpy as np
from crystal.powder import Truth, particle

from stemtomo_dl.crystal.laue import laue_classes, proper_half
from stemtomo_dl.crystal.merge import merge_particles


def sparse(truth, track, lattice, rng, share, *, known, operator=None, cell_error=0.0005):
    """A particle that has seen a share of all reflections only, as coarse steps of the tilt leave it."""
    seen = rng.random(len(known[0])) < share
    table = known[0][seen], known[1][seen]
    return particle(
        truth, track, lattice, rng, table=table, operator=operator, noise=0.08, wedge_deg=90, cell_error=cell_error
    )


def all_of(truth, d_min):
    hkl = truth.all_hkl(d_min)
    return hkl, truth.intensity(hkl)


def test_triclinic_particles_of_one_cell_are_one_phase():
    truth, rng = Truth("P -1", (5.57, 7.13, 7.85, 106, 90, 101.1)), np.random.default_rng(2)
    known, other = all_of(truth, 0.7), np.diag([-1, 1, -1])
    members = [
        sparse(truth, n, "aP", rng, 0.022, known=known, operator=other if n % 2 else None, cell_error=0.0005)
        for n in range(8)
    ]
    sets = [
        {max(tuple(h), tuple(-h)) for h in m.reflections.hkl @ (other if m.track % 2 else np.eye(3, dtype=int))}
        for m in members
    ]
    assert min(len(a & b) for a in sets for b in sets) < 12  # some pairs cannot be compared
    (phase,) = merge_particles(members)
    assert sorted(m.track for m in phase.members) == list(range(8))
    first = phase.members[0].operator @ (other if phase.members[0].track % 2 else np.eye(3))
    for m in phase.members:
        assert np.allclose(np.abs(m.operator @ (other if m.track % 2 else np.eye(3))), np.abs(first))
    true = truth.intensity(np.rint(phase.hkl @ np.linalg.inv(first).T).astype(int))
    assert np.corrcoef(phase.intensity, true)[0, 1] > 0.95


def test_cells_that_are_less_near_than_one_phases_bring_nothing_together():
    truth, rng = Truth("P -1", (5.57, 7.13, 7.85, 106, 90, 101.1)), np.random.default_rng(2)
    known = all_of(truth, 0.7)
    first = sparse(truth, 0, "aP", rng, 0.02, known=known)
    away = Truth("P -1", (5.57 * 1.018, 7.13, 7.85, 106, 90, 101.1))
    second = sparse(away, 1, "aP", rng, 0.02, known=all_of(away, 0.7))
    (phase,) = merge_particles([first, second])
    assert len(phase.members) == 1
    assert "shares only" in phase.left_out[0].reason


def test_particles_that_symmetry_lets_compare_show_a_higher_class_together():
    truth, rng = Truth("P 42/m n m", (4.59, 4.59, 2.96, 90, 90, 90)), np.random.default_rng(5)
    known = all_of(truth, 0.6)
    turns = [np.eye(3, dtype=int), *(r.T for r in proper_half(laue_classes("tP")[-1].rotations))]
    members = [
        sparse(truth, n, "tP", rng, 0.1, known=known, operator=turns[rng.integers(len(turns))]) for n in range(5)
    ]
    (phase,) = merge_particles(members)
    assert (phase.laue.name, len(phase.members)) == ("4/mmm", 5)
