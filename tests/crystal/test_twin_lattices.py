"""Twins whose spots all lie on one lattice, and lattices with empty nodes that are no twins."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import cell_of, reciprocal_basis
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.index import index
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.refine import refine
from stemtomo_dl.crystal.twin_law import twin_law, twin_laws
from stemtomo_dl.crystal.twins import individuals, parted, sublattices
from stemtomo_dl.records import Instrument

ALPHA = np.arange(-45.0, 45.1, 1.0)
STAGE = Geometry(Instrument(200.0, 0.5, 0.0105, 5.0, 40.0), ALPHA)
CENTER = np.array([100.0, 101.0])
TURN = Rotation.random(random_state=3).as_matrix()
FCC, RUTILE = np.array([4.07, 4.07, 4.07, 90, 90, 90]), np.array([4.594, 4.594, 2.959, 90, 90, 90])
ZIRCONIA, CORUNDUM = np.array([5.15, 5.21, 5.32, 90, 99.2, 90]), np.array([4.76, 4.76, 12.99, 90, 90, 120])
PEROVSKITE, A15 = np.array([8.2, 8.26, 11.76, 90, 90, 90]), np.array([5.29, 5.29, 5.29, 90, 90, 90])


def face_centred(hkl):
    return np.ptp(hkl % 2, axis=1) == 0


def obverse(hkl):
    return (hkl @ [-1, 1, 1]) % 3 == 0


def diamond(hkl):
    return face_centred(hkl) & ((hkl.sum(1) % 4 != 2) | (hkl % 2).any(1))


def screws(hkl):
    """P4₂/mnm: 0kl with k + l odd and h0l with h + l odd are absent."""
    even = hkl.sum(1) % 2 == 0
    return even | ((hkl[:, 0] != 0) & (hkl[:, 1] != 0))


def a15(hkl):
    """Nb3Sn: tin at 2a and niobium at 6c of Pm-3n; reflections to which they add up to little are not seen."""
    tin, niobium = [[0, 0, 0], [2, 2, 2]], [[1, 0, 2], [3, 0, 2], [2, 1, 0], [2, 3, 0], [0, 2, 1], [0, 2, 3]]
    waves = (z * np.exp(0.5j * np.pi * hkl @ np.transpose(at)).sum(1) for z, at in ((50, tin), (41, niobium)))
    return np.abs(sum(waves)) > 41


def everything(hkl):
    return np.ones(len(hkl), bool)


def superlattice(hkl):
    """Pbnm of a perovskite, with one in twelve of the reflections that the small cube lacks strong enough."""
    strong = ((hkl[:, 0] + hkl[:, 1]) % 2 == 0) & (hkl[:, 2] % 2 == 0)
    return strong | (np.abs(hkl) @ [7, 11, 13] % 12 == 0)


def drawn(parts, seed=0, reach=1.4):
    """Spots of lattices, (UB, which reflections they have, share of these that are strong enough to be seen) each."""
    rng = np.random.default_rng(seed)
    hkl = np.stack(np.meshgrid(*[np.arange(-13, 14)] * 3, indexing="ij"), -1).reshape(-1, 3)
    hkl = hkl[hkl.any(1)]
    frame, px = [], []
    for ub, present, share in parts:
        some = hkl[present(hkl) & (np.linalg.norm(hkl @ ub.T, axis=1) < reach)]
        name = np.unique(np.sort(np.abs(some), axis=1), axis=0, return_inverse=True)[1].ravel()
        g0 = some[(rng.random(name.max() + 1) < share)[name]] @ ub.T
        for f, turn in enumerate(STAGE.turns()):
            g = g0 @ turn.T
            near = np.abs(STAGE.excitation(g)) < 0.004
            px.append(STAGE.to_detector(g[near], CENTER))
            frame.append(np.full(near.sum(), f, "i4"))
    frame, px = np.concatenate(frame), np.concatenate(px)
    whole = np.unique(np.column_stack([frame, np.rint(px / 3)]), axis=0, return_index=True)[1]  # two at once are one
    frame, px = frame[whole], px[whole] + rng.normal(0, 0.15, (len(whole), 2))
    ones = np.ones(len(px))
    return Spots(2.0, frame, px, 100 * ones, ones, np.tile(CENTER, (len(ALPHA), 1)))


def lattice(ub):
    return Crystal("aP", 1.0, 0, 0.0, 40.0, 0.0, 0.0, ub, cell_of(np.linalg.inv(ub)), np.zeros(2))


def twin(cell, axis):
    """UB of two individuals, the second turned by 180° about a direction of the first (Cartesian, of its B)."""
    b = reciprocal_basis(cell)
    own = Rotation.from_rotvec(np.pi * np.asarray(axis) / np.linalg.norm(axis)).as_matrix()
    return TURN @ b, TURN @ own @ b


B_RUTILE = reciprocal_basis(RUTILE)
TWINS = {  # cell, axis of the twin, reflections, the coincidence lattice by the cell's vectors, letters, how it is told
    "spinel law": (FCC, [1, 1, 1], face_centred, [[0.5, -0.5, 0], [0, 0.5, -0.5], [1, 1, 1]], "cF"),
    "rutile (101)": (RUTILE, B_RUTILE @ [1, 0, 1], screws, [[1, 0, -1], [0, 1, 0], [2, 0, 3]], "tP"),
    "monoclinic about a": (ZIRCONIA, [1, 0, 0], everything, [[1, 0, 0], [0, 1, 0], [0, 0, 3]], "mP"),
    "obverse and reverse": (CORUNDUM, [0, 0, 1], obverse, np.eye(3), "hR"),
}


@pytest.mark.parametrize("name", TWINS)
def test_a_coincidence_lattice_is_parted_into_the_twin_s_individuals(name):
    cell, axis, present, change, letters = TWINS[name]
    one, two = twin(cell, axis)
    spots = drawn([(one, present, 0.7), (two, present, 0.55)])
    by_one = np.array(change) @ np.linalg.inv(one)
    by_two = np.rint(2 * by_one @ two) / 2 @ np.linalg.inv(two)  # which is a little off, in rutile
    common = refine(spots, STAGE, np.linalg.inv((by_one + by_two) / 2), "aP")
    found = parted(spots, STAGE, common)
    assert [c.lattice for c in found] == [letters] * 2
    for crystal in found:
        assert crystal.cell == pytest.approx(cell, rel=0.004)
        assert 0.4 < crystal.indexed_fraction < 0.85
    assert all(any(is_rotated(c.ub, ub) for c in found) for ub in (one, two))
    assert twin_laws(found).startswith("twinned: lattice 2 is the first turned by 180° about ")


def is_rotated(ub, other):
    """Whether two orientations of one cell are one lattice: a change of indices that is whole, or of the centring."""
    change = np.linalg.inv(ub) @ other
    return np.abs(change * 6 - np.rint(change * 6)).max() < 0.2 and np.abs(np.linalg.det(change)) == pytest.approx(
        1, rel=0.03
    )


@pytest.mark.parametrize(
    ("cell", "present"),
    [(FCC, face_centred), (FCC * [1.4, 1.4, 1.4, 1, 1, 1], diamond), (CORUNDUM, obverse), (RUTILE, screws),
     (FCC, lambda hkl: hkl.sum(1) % 2 == 0), (ZIRCONIA, lambda hkl: hkl[:, :2].sum(1) % 2 == 0),
     (PEROVSKITE, superlattice), (PEROVSKITE, everything)],
    ids=["F", "diamond", "R", "rutile", "I", "C", "superlattice", "P"],
)  # fmt: skip
def test_centring_glides_and_superlattices_are_no_twins(cell, present):
    ub = TURN @ reciprocal_basis(cell)
    spots = drawn([(ub, present, 0.7)])
    doubled = np.linalg.inv(np.diag([1, 1, 2]) @ np.linalg.inv(ub))
    for basis in (ub, doubled):
        assert individuals(spots, STAGE, lattice(basis)) is None


@pytest.mark.parametrize("reach", [1.2, 1.4])
def test_nodes_that_atoms_in_special_positions_leave_empty_are_no_twin_s(reach):
    ub = TURN @ reciprocal_basis(A15)
    assert individuals(drawn([(ub, a15, 1.0)], reach=reach), STAGE, lattice(ub)) is None


def test_two_thirds_of_empty_nodes_are_a_smaller_cell_and_another_crystal_s_nodes_are_no_twin_of_this():
    one = TURN @ reciprocal_basis(ZIRCONIA)
    other = Rotation.from_rotvec([0.3, 0.5, -0.2]).as_matrix() @ one
    spots = drawn([(one, everything, 0.7), (other, everything, 0.5)])
    tripled = lattice(np.linalg.inv(np.diag([1, 1, 3]) @ np.linalg.inv(one)))
    assert individuals(spots, STAGE, tripled) is None


def test_a_twin_is_found_from_its_spots_alone():
    one, two = twin(FCC, [1, 1, 1])
    found = index(drawn([(one, face_centred, 0.7), (two, face_centred, 0.55)]), STAGE.instrument, ALPHA)
    assert [c.lattice for c in found] == ["cF", "cF"]
    assert twin_law(*found).startswith("180° about [1 ")


@pytest.mark.parametrize(("name", "letters"), [("monoclinic about a", "mP"), ("obverse and reverse", "hR")])
def test_a_twin_is_found_with_its_cell_known(name, letters):
    cell, axis, present, _, _ = TWINS[name]
    one, two = twin(cell, axis)
    found = index(drawn([(one, present, 0.7), (two, present, 0.55)]), STAGE.instrument, ALPHA, cell=cell)
    assert [c.lattice for c in found] == [letters] * 2
    assert all(any(is_rotated(c.ub, ub) for c in found) for ub in (one, two))


def test_sublattices_are_as_many_as_hermite_normal_forms():
    assert [len(sublattices(n)) for n in (2, 3, 4, 5, 6)] == [7, 13, 35, 31, 91]
    assert all(abs(np.linalg.det(m)) == pytest.approx(6) for m in sublattices(6))


def test_grains_and_other_cells_are_no_twins():
    crystal = replace(lattice(TURN @ reciprocal_basis(RUTILE)), lattice="tP", cell=RUTILE)
    little, far = (
        replace(crystal, ub=Rotation.from_rotvec(v).as_matrix() @ crystal.ub) for v in ([0, 0.01, 0], [0.4, 0.3, 0.7])
    )
    cubic = replace(lattice(TURN @ reciprocal_basis(FCC)), lattice="cF", cell=FCC)
    assert twin_laws([crystal, little, far, cubic]) == ""
    about = twin(RUTILE, B_RUTILE @ [1, 0, 1])[1]
    assert (
        twin_laws([crystal, replace(crystal, ub=about)])
        == "twinned: lattice 2 is the first turned by 180° about [1 0 -1]"
    )
