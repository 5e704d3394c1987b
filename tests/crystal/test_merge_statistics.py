"""Scales, errors and figures of merit against what went in and against gemmi's own."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
from crystal.powder import Truth, particle

from stemtomo_dl.crystal import scale, statistics
from stemtomo_dl.crystal.equivalents import own_shells
from stemtomo_dl.crystal.merge import merge_particles
from stemtomo_dl.crystal.nouns import Crystal, Reflections

GROUP, CELL = "P b c a", (9.18, 5.45, 5.15, 90, 90, 90)


@pytest.fixture(scope="module")
def truth():
    made = Truth(GROUP, CELL)
    hkl = made.all_hkl(0.9)
    return made, (hkl, made.intensity(hkl))


def test_r_factors_are_those_of_gemmi():
    rng = np.random.default_rng(0)
    hkl = np.array([(h, k, n) for h in range(6) for k in range(6) for n in range(1, 6)], "i4")
    group = np.repeat(np.arange(len(hkl)), rng.integers(1, 6, len(hkl)))
    intensity = rng.exponential(100, len(hkl))[group] * (1 + 0.2 * rng.normal(size=len(group)))
    judge = gemmi.Intensities()
    judge.set_data(gemmi.UnitCell(*CELL), gemmi.SpaceGroup("P m m m"), hkl[group], intensity, np.ones(len(group)))
    judge.type = gemmi.DataType.Unmerged
    theirs = judge.calculate_merging_stats(None, use_weights="U")[0]
    r_int, r_meas, r_pim = statistics.r_factors(group, intensity, len(hkl))
    assert r_int == pytest.approx(theirs.r_merge(), rel=1e-6)
    assert r_meas == pytest.approx(theirs.r_meas(), rel=1e-6)
    assert r_pim == pytest.approx(theirs.r_pim(), rel=1e-6)


def test_cc_half_is_what_signal_and_noise_make_of_it():
    # of means of n/2 with variance τ² each: CC = σ²/(σ² + 2τ²/n)
    rng, n_groups, n = np.random.default_rng(1), 4000, 4
    group = np.repeat(np.arange(n_groups), n)
    intensity = rng.normal(0, 1, n_groups)[group] + rng.normal(0, 1.2, n_groups * n)
    halves = statistics.cc_half_values(
        statistics.Observations(group, intensity, np.ones(len(group))), n_groups, np.random.default_rng(2)
    )
    found = np.mean([np.corrcoef(a, b)[0, 1] for a, b in halves])
    assert found == pytest.approx(1 / (1 + 2 * 1.2**2 / n), abs=0.02)


def test_shells_hold_everything_once():
    rng = np.random.default_rng(3)
    inverse_d = np.sort(rng.uniform(0.1, 1.2, 500))
    group = np.repeat(np.arange(500), 2)
    observed = statistics.Observations(group, rng.exponential(1, 1000), np.ones(1000))
    edges = statistics.shell_edges(inverse_d)
    merged = np.ones(500), np.ones(500)
    made = statistics.shells(observed, merged, inverse_d, np.r_[inverse_d, inverse_d], edges, rng)
    assert len(made) == 10
    assert sum(s.n_unique for s in made) == 500
    assert sum(s.n_observations for s in made) == 1000
    assert {s.completeness for s in made} == {0.5}
    assert (made[0].d_max, made[-1].d_min) == pytest.approx((1 / inverse_d[0], 1 / inverse_d[-1]))


def test_scales_b_and_course_are_recovered(truth):
    made, known = truth
    rng = np.random.default_rng(7)

    def course(alpha):
        return 1 + 0.5 * np.sin(np.radians(2 * alpha))

    wanted = [(1.0, 0.0), (3.0, 0.5), (0.4, 1.0), (1.5, 0.2), (0.8, 0.6)]
    members = [
        particle(made, n, "oP", rng, table=known, scale=k, b_factor=b, course=course, wedge_deg=55)
        for n, (k, b) in enumerate(wanted)
    ]
    (phase,) = merge_particles(members)
    assert "spline" in phase.scaling
    b = np.array([m.b_factor for m in phase.members])
    assert b - b.mean() == pytest.approx([w[1] - np.mean([x[1] for x in wanted]) for w in wanted], abs=0.08)
    for m, (k, _) in zip(phase.members, wanted, strict=True):
        alpha, found = np.array(m.curve).T
        true = k * course(alpha)
        ratio = found / true
        assert np.ptp(np.log(ratio)) < 0.15, m.track
    levels = np.array([np.mean([g for _, g in m.curve]) for m in phase.members])
    np.testing.assert_allclose(levels / levels[0], [w[0] for w in wanted], rtol=0.08)


def test_no_course_is_fitted_where_there_is_none(truth):
    made, known = truth
    rng = np.random.default_rng(8)
    members = [particle(made, n, "oP", rng, table=known, noise=0.2, wedge_deg=50, scale=n + 1.0) for n in range(4)]
    (phase,) = merge_particles(members)
    assert phase.scaling == "scale"


def test_errors_become_as_large_as_the_spread():
    rng, n_groups = np.random.default_rng(9), 800
    group = np.repeat(np.arange(n_groups), 6)
    true = rng.exponential(100, n_groups)[group]
    stated = 0.5 * np.sqrt(true + 4)  # half of what it is, and 8 % of the intensity that counting does not know
    intensity = true + rng.normal(size=len(group)) * np.hypot(2 * stated, 0.08 * true)
    model = scale.fit_errors(group, intensity, stated, n_groups)
    assert model.a == pytest.approx(2, rel=0.1)
    assert model.a * model.b == pytest.approx(0.08, rel=0.15)
    sigma = scale.corrected_sigma(model, group, intensity, stated, n_groups)
    assert np.std((intensity - true) / sigma) == pytest.approx(1, abs=0.05)


def test_outliers_are_rejected_and_others_not():
    rng, n_groups = np.random.default_rng(10), 300
    group = np.repeat(np.arange(n_groups), 5)
    intensity = 100 + rng.normal(size=len(group)) * 5
    wrong = rng.choice(len(group), 12, replace=False)
    intensity[wrong] *= 3
    assert np.flatnonzero(scale.outliers(group, intensity, np.full(len(group), 5.0), n_groups)).tolist() == sorted(
        wrong
    )


def test_pairs_that_disagree_are_kept_since_none_is_known_to_be_wrong():
    group = np.array([0, 0, 1, 1])
    assert not scale.outliers(group, np.array([1.0, 100.0, 5.0, 5.0]), np.ones(4), 2).any()


def test_a_worse_particle_weighs_less(truth):
    made, known = truth
    rng = np.random.default_rng(11)
    good = [particle(made, n, "oP", rng, table=known, noise=0.05, wedge_deg=50) for n in range(5)]
    worse = particle(made, 5, "oP", rng, table=(known[0], known[1] * np.exp(0.3 * rng.normal(size=len(known[1])))))
    (phase,) = merge_particles([*good, worse])
    misfit = {m.track: m.misfit for m in phase.members}
    assert all(abs(misfit[n] - 1) < 0.4 for n in range(5))
    assert 5 not in misfit or misfit[5] > 1.8


def test_one_particle_s_shells_are_of_its_own_reflections():
    # every reflection of an orthorhombic lattice to 1 Å, and some of their images 10 % stronger
    cell = gemmi.UnitCell(*CELL)
    hkl = np.array(gemmi.make_miller_array(cell, gemmi.SpaceGroup("P m m m"), 1.0), "i4")
    rng = np.random.default_rng(4)
    intensity, again = rng.uniform(10, 100, len(hkl)), np.arange(0, len(hkl), 3)
    ub = np.array(cell.frac.mat.tolist()).T
    crystal = Crystal("oP", 1.0, len(hkl), 1e-4, 0.0, 0.0, 0.0, ub, np.array(CELL, float), np.zeros(2))
    every = np.concatenate([hkl, hkl[again] * [-1, 1, -1]]).astype("i4")
    strong = np.concatenate([intensity, 1.1 * intensity[again]])
    rows = Reflections(every, strong, np.ones(len(every)), np.zeros(len(every)))
    *shells, whole = own_shells(crystal, rows)
    assert whole.n_observations == sum(s.n_observations for s in shells) == len(every)
    assert whole.n_unique == sum(s.n_possible for s in shells) == len(hkl)
    assert whole.completeness == 1.0
    assert whole.r_int == pytest.approx(0.05 / 1.05)
    assert whole.d_min == pytest.approx(cell.calculate_d_array(hkl).min())
    assert own_shells(crystal, replace(rows, sigma=np.zeros(len(every)))) == []
