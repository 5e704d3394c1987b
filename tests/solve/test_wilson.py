"""What the distribution of intensities tells of an inversion centre, and how much that counts."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
from solve.synthetic import measured

from stemtomo_dl.simulate.cif import read_contents
from stemtomo_dl.solve.candidates import Candidate
from stemtomo_dl.solve.symmetry import laue_rotations, merge
from stemtomo_dl.solve.wilson import centre_likelihood, shells_of, strangers


def structure(group: str):
    """Nine carbons anywhere in a monoclinic cell."""
    rng = np.random.default_rng(1)
    angles = {"alpha": 90, "beta": 100, "gamma": 90}
    tags = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "U_iso_or_equiv")
    head = ["data_random", "_cell_length_a 9", "_cell_length_b 8", "_cell_length_c 10"]
    head += [f"_cell_angle_{name} {value}" for name, value in angles.items()]
    head += [f"_space_group_name_H-M_alt '{group}'", "loop_", *(f"_atom_site_{t}" for t in tags)]
    atoms = [f"C{i} C {x:.4f} {y:.4f} {z:.4f} .02" for i, (x, y, z) in enumerate(rng.random((9, 3)))]
    return read_contents("random", "\n".join([*head, *atoms]) + "\n")


def merged_of(group: str):
    contents = structure(group)
    data = measured(contents, "C", 0.9, 0.9, noise=0.1)
    return merge(data, laue_rotations(contents.operations)), data


@pytest.mark.parametrize(("group", "centric"), [("P 1 21 1", False), ("P 1 21/c 1", True), ("P 1 c 1", False)])
def test_distribution_speaks_for_the_centre_that_a_structure_has(group, centric):
    merged, data = merged_of(group)
    told = centre_likelihood(merged, data.reciprocal)
    assert (told > 0) == centric
    assert 0.5 < abs(told) < 3  # and never surely


def test_what_lies_beyond_both_tells_no_more_and_few_reflections_nothing():
    merged, data = merged_of("P 1 21/c 1")
    sharp = replace(merged, intensity=merged.intensity**3)
    assert centre_likelihood(sharp, data.reciprocal) < 3
    few = replace(merged, **{k: getattr(merged, k)[:40] for k in ("hkl", "intensity", "sigma")})
    assert centre_likelihood(few, data.reciprocal) == 0


def test_statistics_decide_only_between_groups_that_are_else_as_good():
    group = gemmi.SpaceGroup("P 1 21/c 1")
    plain, likely, sure = (Candidate(group, 0.6, 0.6, 0.0, np.zeros(3), s) for s in (0.0, 2.0, 100.0))
    assert plain.score < likely.score < sure.score < plain.score + 0.06
    assert sure.score < replace(plain, agreement=0.7, weakest=0.7).score


def test_strangers_are_those_of_the_same_shell():
    s2 = np.linspace(0, 1, 200)
    moved = strangers(np.arange(200.0), s2)
    for shell in shells_of(s2):
        assert sorted(moved[shell]) == list(shell)
