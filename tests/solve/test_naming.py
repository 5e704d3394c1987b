"""Which known phase a crystal is: told apart in mixtures, by part of the data, and "none" where none fits."""

from dataclasses import replace

import numpy as np
import pytest
from solve.synthetic import known, measured

from stemtomo_dl import resources
from stemtomo_dl.phases import known_phase
from stemtomo_dl.solve.naming import Known, name_phase
from stemtomo_dl.solve.symmetry import expand, laue_rotations, merge

TITANIA = ("anatase", "brookite", "rutile")


@pytest.fixture(scope="module")
def candidates() -> list[Known]:
    return [known_phase(resources.synthetic() / f"structures/{n}.cif", 0.7) for n in (*TITANIA, "zirconia")]


@pytest.mark.parametrize("name", TITANIA)
def test_particles_of_a_mixture_are_told_apart(candidates, name):
    data = measured(known(name), "Ti,O", 0.7, 0.8)
    found = name_phase(data.cell, data.hkl, data.intensity, data.sigma, candidates)
    assert [c.name for c in found if c.named] == [name]


def test_other_atoms_in_the_same_cell_are_not_the_phase(candidates):
    data = measured(known("zirconia"), "Zr,O", 0.7, 0.8)
    rng = np.random.default_rng(0)
    other = [replace(c, amplitude=rng.permutation(c.amplitude)) for c in candidates]
    assert not any(c.named for c in name_phase(data.cell, data.hkl, data.intensity, data.sigma, other))


@pytest.mark.parametrize(
    ("name", "d_min", "share"), [("rutile", 0.8, 0.4), ("anatase", 0.8, 0.5), ("brookite", 1.0, 0.6)]
)
def test_unrelated_intensities_get_a_name_by_chance_rarely(candidates, name, d_min, share):
    rng, named = np.random.default_rng(0), 0
    for seed in range(50):
        data = measured(known(name), "Ti,O", d_min, share, seed=seed)
        value = rng.exponential(size=len(data.hkl))
        # unmerged: every one is there with its equivalents, which tell nothing new
        hkl = np.concatenate([data.hkl, -data.hkl])
        found = name_phase(data.cell, hkl, np.tile(value, 2), np.full(len(hkl), 0.05), candidates[:3])
        named += any(c.named for c in found)
    assert named <= 1


@pytest.mark.parametrize("name", ["rutile", "anatase", "brookite", "zirconia"])
def test_equivalents_count_once(name):
    phase = known_phase(resources.synthetic() / f"structures/{name}.cif", 0.8)
    data = measured(known(name), "Ti,O", 0.9, 1.0)
    absent = np.asarray(known(name).operations.systematic_absences(np.ascontiguousarray(data.hkl)), bool)
    # with their equivalents; anatase has reflections besides that its special positions extinguish
    merged = merge(data, laue_rotations(known(name).operations))
    (hkl, value), (_, sigma) = expand(merged, merged.intensity), expand(merged, merged.sigma)
    (like,) = name_phase(data.cell, hkl, value, sigma, [phase])
    assert like.reflections == pytest.approx((~absent).sum(), abs=1)


def test_operator_leads_from_a_primitive_cell_to_the_candidates(candidates):
    data = measured(known("anatase"), "Ti,O", 0.7, 1.0)
    basis = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5]])  # edges of a primitive cell, in those of the centred one
    edges = basis @ np.diag(data.cell[:3])
    lengths = np.linalg.norm(edges, axis=1)
    angles = [np.degrees(np.arccos(edges[i] @ edges[j] / lengths[i] / lengths[j])) for i, j in ((1, 2), (0, 2), (0, 1))]
    present = data.hkl.sum(1) % 2 == 0
    hkl = np.rint(data.hkl[present] @ basis.T).astype(int)
    cell = (*lengths, *angles)
    best = name_phase(cell, hkl, data.intensity[present], data.sigma[present], candidates)[0]
    assert (best.name, best.named) == ("anatase", True)
    back = hkl @ np.array(best.turn)
    assert (np.sort(np.abs(back[:, :2]), 1) == np.sort(np.abs(data.hkl[present][:, :2]), 1)).all()
    assert (np.abs(back[:, 2]) == np.abs(data.hkl[present][:, 2])).all()
