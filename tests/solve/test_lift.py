"""Atoms of a model of few symmetries become the images that they nearly are."""

import gemmi
import numpy as np
import pytest

from stemtomo_dl.solve.lift import lifted
from stemtomo_dl.solve.model import Model, Symmetry

CELL = (9.12, 10.84, 12.57, 90.0, 101.1, 90.0)
CELLS = {"P -1": (7.12, 7.84, 5.57, 90.0, 101.1, 106.0), "P 1 21/c 1": CELL, "C 1 2/c 1": CELL, "P 1 21 1": CELL}
ELEMENTS = ("Al", "Si", "O", "O", "O")
SHAKE_A = 0.05


def symmetry(name, cell):
    return Symmetry(gemmi.SpaceGroup(name).operations(), cell)


def spread(group, rng, n=5, apart=1.6):
    """Places (n, 3) whose images under a group keep away from each other."""
    sites = []
    while len(sites) < n:
        new = rng.uniform(0, 1, 3)
        own = group.images(new, new)[1]
        if np.sort(own)[1] > apart and all(group.apart(new, old) > apart for old in sites):
            sites.append(new)
    return np.array(sites)


def shaken(group, sites, origin, rng):
    """All atoms of the cell in P1, away from where they belong and from the origin."""
    plain = symmetry("P 1", group.cell.parameters)
    every = np.einsum("oij,nj->noi", group.rotations, sites) + group.shifts
    names = np.repeat(ELEMENTS[: len(sites)], len(group.rotations))
    off = rng.normal(0, SHAKE_A, (len(names), 3)) @ plain.reciprocal.T
    order = rng.permutation(len(names))
    return Model.of(plain, tuple(names[order]), (every.reshape(-1, 3) + origin + off)[order], [0.01] * len(names))


def distances(group, model, sites):
    """Å from each known site to the model's nearest atom, whatever the origin that the group allows."""
    shifts = np.stack(np.meshgrid(*[(0, 0.5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return min(
        (np.array([min(group.apart(site + t, own) for own in model.sites) for site in sites]) for t in shifts),
        key=np.max,
    )


@pytest.mark.parametrize("name", ["P -1", "P 1 21/c 1", "C 1 2/c 1"])
@pytest.mark.parametrize("seed", range(3))
def test_the_asymmetric_unit_is_found(name, seed):
    rng = np.random.default_rng(seed)
    group = symmetry(name, CELLS[name])
    sites, origin = spread(group, rng), rng.uniform(0, 1, 3)
    found = lifted(shaken(group, sites, origin, rng), group, origin + rng.normal(0, 0.01, 3))
    assert sorted(found.elements) == sorted(ELEMENTS)
    off = distances(group, found, sites)
    assert np.sqrt((off**2).mean()) < 1.5 * SHAKE_A  # √3 of one atom, √(3/2) of a mean of two; a little of the origin


def test_an_atom_near_a_special_position_is_one_atom_there():
    rng = np.random.default_rng(5)
    group = symmetry("P -1", CELLS["P -1"])
    plain = symmetry("P 1", CELLS["P -1"])
    sites = spread(group, rng, 3)
    each = np.concatenate([[[0.01, 0.0, -0.01]], sites, -sites])
    found = lifted(Model.of(plain, ("Ti",) + ("O",) * 6, each, [0.01] * 7), group, np.zeros(3))
    assert sorted(found.elements) == ["O", "O", "O", "Ti"]
    at = found.sites[found.elements.index("Ti")]
    assert group.apart(at, at) < 1e-6
    assert np.linalg.norm(plain.direct @ ((at + 0.5) % 1 - 0.5)) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_a_structure_without_the_symmetry_has_no_such_model(seed):
    rng = np.random.default_rng(seed)
    polar = symmetry("P 1 21 1", CELL)
    model = Model.of(polar, ELEMENTS, spread(polar, rng), [0.01] * 5)
    assert lifted(model, symmetry("P 1 21/c 1", CELL), np.zeros(3)) is None
