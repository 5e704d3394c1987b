"""Particles of known structures are sorted, brought into one setting, and merged to the known intensities."""

import gemmi
import numpy as np
import pytest
from crystal.powder import Truth, particle

from stemtomo_dl.crystal.laue import laue_classes, possible_reflections, proper_half, rotations_of
from stemtomo_dl.crystal.merge import merge_particles

# Group, cell, lattice, and a name that the absences leave among the best.
STRUCTURES = [
    ("P -1", (7, 8, 9, 85, 95, 105), "aP", "P -1"),
    ("P 1 21/c 1", (8, 6, 9, 90, 103, 90), "mP", "P 1 21/c 1"),
    ("P b c a", (9.18, 5.45, 5.15, 90, 90, 90), "oP", "P b c a"),
    ("I 41/a", (7, 7, 9, 90, 90, 90), "tI", "I 41/a:2"),
    ("P 41 21 2", (6, 6, 9, 90, 90, 90), "tP", "P 43 21 2"),
    ("P -3", (8, 8, 6, 90, 90, 120), "hP", "P -3"),
    ("R -3 c:H", (7, 7, 15, 90, 90, 120), "hR", "R -3 c:H"),
    ("P 3 2 1", (7, 7, 8, 90, 90, 120), "hP", "P 3 2 1"),
    ("P 3 1 2", (7, 7, 8, 90, 90, 120), "hP", "P 3 1 2"),
    ("P 63/m", (8, 8, 6, 90, 90, 120), "hP", "P 63/m"),
    ("P a -3", (8, 8, 8, 90, 90, 90), "cP", "P a -3"),
    ("F d -3 m", (9, 9, 9, 90, 90, 90), "cF", "F d -3 m:2"),
]


def table(truth, d_min=1.0):
    hkl = truth.all_hkl(d_min)
    return hkl, truth.intensity(hkl)


def lattice_rotations(lattice):
    """Operators h' = operator · h of all ways to index a lattice of this symmetry."""
    return [np.eye(3, dtype=int), *(r.T for r in proper_half(laue_classes(lattice)[-1].rotations))]


def against_truth(phase, truth, operators):
    """Merged and true intensities of the same reflections, whatever setting the phase came out in."""
    first = phase.members[0]
    back = np.linalg.inv(first.operator @ operators[first.track])
    return phase.intensity, truth.intensity(np.rint(phase.hkl @ back.T).astype(int))


@pytest.mark.parametrize(("group", "cell", "lattice", "expected"), STRUCTURES, ids=[s[0] for s in STRUCTURES])
def test_laue_class_setting_and_intensities_are_found(group, cell, lattice, expected):
    truth, rng = Truth(group, cell), np.random.default_rng(1)
    known = table(truth)
    options = lattice_rotations(lattice)
    operators = [options[rng.integers(len(options))] for _ in range(6)]
    members = [
        particle(truth, n, lattice, rng, table=known, operator=o, wedge_deg=50, noise=0.1, scale=np.exp(rng.normal()))
        for n, o in enumerate(operators)
    ]
    (phase,) = merge_particles(members)
    assert len(phase.members) == 6
    assert phase.laue.name == gemmi.SpaceGroup(group).laue_str()
    # all are in one setting: what is left between any two is an operation of the Laue class
    reference = phase.members[0].operator @ operators[0]
    true_class = {r.tobytes() for r in rotations_of(gemmi.SpaceGroup(group))}
    for m in phase.members:
        between = np.linalg.inv(reference) @ m.operator @ operators[m.track]
        assert np.rint(between.T).astype("i4").tobytes() in true_class
    merged, true = against_truth(phase, truth, operators)
    assert np.corrcoef(merged, true)[0, 1] > 0.995
    best = phase.space_groups[0].score
    assert expected in [g.symbol for g in phase.space_groups if g.score > best - 1e-6]
    np.testing.assert_allclose(phase.cell, cell, rtol=0.006)


def test_thin_wedges_make_a_whole_in_an_ambiguous_class():
    truth, rng = Truth("P -3", (8, 8, 6, 90, 90, 120)), np.random.default_rng(3)
    known, options = table(truth), lattice_rotations("hP")
    operators = [options[rng.integers(len(options))] for _ in range(16)]
    members = [
        particle(truth, n, "hP", rng, table=known, operator=o, wedge_deg=15, noise=0.2) for n, o in enumerate(operators)
    ]
    (phase,) = merge_particles(members)
    assert (phase.laue.name, len(phase.members)) == ("-3", 16)
    assert phase.overall.completeness == 1
    merged, true = against_truth(phase, truth, operators)
    assert np.corrcoef(merged, true)[0, 1] > 0.99


def test_a_foreign_particle_and_a_twin_do_not_spoil_the_rest():
    truth, rng = Truth("P -3", (8, 8, 6, 90, 90, 120)), np.random.default_rng(4)
    hkl, intensity = known = table(truth)
    twin_law = np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]])
    twinned = 0.6 * intensity + 0.4 * truth.intensity(hkl @ twin_law.T)
    members = [particle(truth, n, "hP", rng, table=known, wedge_deg=50) for n in range(6)]
    members += [
        particle(truth, 6, "hP", rng, table=(hkl, rng.permutation(intensity)), wedge_deg=50),
        particle(truth, 7, "hP", rng, table=(hkl, twinned), wedge_deg=50),
    ]
    (phase,) = merge_particles(members)
    assert [m.track for m in phase.members] == [0, 1, 2, 3, 4, 5]
    left = {o.track: o.reason for o in phase.left_out}
    assert set(left) == {6, 7}
    assert "correlation" in left[6]
    assert phase.laue.name == "-3"
    assert phase.overall.r_int < 0.06


def test_pseudo_symmetric_axes_are_told_apart():
    # a and b of CsPbBr3's Pbnm differ by less than cells of particles do
    truth, rng = Truth("P b n m", (8.20, 8.26, 11.76, 90, 90, 90)), np.random.default_rng(3)
    known, exchange = table(truth, 1.2), np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]])
    operators = [np.eye(3), exchange, np.eye(3), exchange, np.eye(3), exchange]
    members = [
        particle(truth, n, "oP", rng, table=known, operator=o, noise=0.15, wedge_deg=50, cell_error=0.005)
        for n, o in enumerate(operators)
    ]
    (phase,) = merge_particles(members)
    assert (phase.laue.name, len(phase.members)) == ("mmm", 6)
    axes = {tuple(np.abs(np.rint(m.operator @ operators[m.track])).astype(int).ravel()) for m in phase.members}
    assert len(axes) == 1


def test_particles_given_other_lattices_and_settings_come_together():
    # β = 90.3°: half of the particles are taken for orthorhombic, with their axes in any order
    truth, rng = Truth("P 1 21/c 1", (6.0, 6.05, 6.1, 90, 90.3, 90)), np.random.default_rng(3)
    known = table(truth, 0.9)
    turns = [np.eye(3), np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]), np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])]
    operators = [turns[n % 3] for n in range(7)]
    members = [
        particle(truth, n, "oP" if n % 2 else "mP", rng, table=known, operator=o, noise=0.1, wedge_deg=50)
        for n, o in enumerate(operators)
    ]
    (phase,) = merge_particles(members)
    assert (phase.laue.name, len(phase.members)) == ("2/m", 7)
    merged, true = against_truth(phase, truth, operators)
    assert np.corrcoef(merged, true)[0, 1] > 0.995


def test_structures_of_one_cell_are_two_phases():
    cell, other = (8, 6, 9, 90, 103, 90), np.array([[1, 0, 0], [0, -1, 0], [-1, 0, -1]])  # a, −b, −a − c
    truths, rng = [Truth("P 1 21/c 1", cell, seed) for seed in (1, 2)], np.random.default_rng(5)
    known = [table(t) for t in truths]
    members = [
        particle(truths[n > 4], n, "mP", rng, table=known[n > 4], operator=other if n % 2 else None, wedge_deg=50)
        for n in range(8)
    ]
    first, second = merge_particles(members)
    assert [m.track for m in first.members] == [0, 1, 2, 3, 4]
    assert [m.track for m in second.members] == [5, 6, 7]
    assert not first.left_out
    assert not second.left_out


def test_other_lattices_are_other_phases_and_few_reflections_none():
    one, two = Truth("P -1", (7, 8, 9, 85, 95, 105)), Truth("P b c a", (9.18, 5.45, 5.15, 90, 90, 90))
    rng = np.random.default_rng(6)
    known = table(one, 1.2)
    few = particle(one, 3, "aP", rng, table=(known[0][:10], known[1][:10]), wedge_deg=90)
    members = [
        particle(one, 1, "aP", rng, table=known),
        particle(two, 2, "oP", rng, table=table(two)),
        few,
    ]
    phases = merge_particles(members)
    assert [[m.track for m in p.members] for p in phases] == [[1], [2]]
    assert np.isnan(phases[0].members[0].cc)
    assert np.isnan(phases[0].cell_esd).all()
    assert merge_particles([]) == []


def test_values_that_are_none_and_particles_without_signal_do_no_harm():
    truth, rng = Truth("P b c a", (9.18, 5.45, 5.15, 90, 90, 90)), np.random.default_rng(7)
    known = table(truth)
    members = [particle(truth, n, "oP", rng, table=known) for n in range(3)]
    spoilt = members[0].reflections
    spoilt.intensity[:5], spoilt.sigma[5:9] = np.nan, 0
    noise = particle(truth, 3, "oP", rng, table=known)
    noise.reflections.intensity[:] = rng.normal(size=len(noise.reflections.hkl))
    (phase,) = merge_particles([*members, noise])
    assert [m.track for m in phase.members] == [0, 1, 2]
    assert [o.track for o in phase.left_out] == [3]
    assert phase.members[0].observations == len(spoilt.hkl) - 9
    assert np.isfinite(phase.intensity).all()
    assert merge_particles([noise])[0].overall.n_unique > 0


@pytest.mark.parametrize("group", ["P -1", "C 1 2/m 1", "I m m m", "F m -3 m", "R -3 m:H", "P 6/m m m", "P m -3"])
def test_offered_reflections_are_those_of_gemmi(group):
    cells = {"triclinic": (5, 6, 7, 80, 95, 100), "monoclinic": (8, 5, 7, 90, 105, 90), "orthorhombic": (5, 6, 7)}
    cells |= {"cubic": (6, 6, 6), "trigonal": (5, 5, 12, 90, 90, 120), "hexagonal": (5, 5, 7, 90, 90, 120)}
    space_group = gemmi.SpaceGroup(group)
    cell = np.array((*cells[space_group.crystal_system_str()], 90, 90, 90)[:6], float)
    d_min = 0.91
    expected = gemmi.make_miller_array(gemmi.UnitCell(*cell), space_group, d_min)
    system = {"triclinic": "a", "monoclinic": "m", "orthorhombic": "o", "cubic": "c"}
    lattice = system.get(space_group.crystal_system_str(), "h") + space_group.hm[0]
    laue = next(c for c in laue_classes(lattice) if np.array_equal(c.rotations, rotations_of(space_group)))
    found = possible_reflections(cell, lattice, laue, 1 / d_min)
    assert len(found) == len(expected)
    np.testing.assert_allclose(
        np.sort(found), np.sort(np.sqrt(gemmi.UnitCell(*cell).calculate_1_d2_array(expected))), rtol=1e-9
    )
