"""A phase is written as SHELX reads it, and its figures are read back."""

import json

import gemmi
import numpy as np
import pytest
from crystal.powder import Truth, particle

from stemtomo_dl.crystal.merge import merge_particles
from stemtomo_dl.crystal.phase import operator_text
from stemtomo_dl.errors import InputError
from stemtomo_dl.store.intensities import read_intensities
from stemtomo_dl.store.phases import read_phase, write_phase


@pytest.fixture(scope="module")
def phase():
    truth, rng = Truth("P b c a", (9.18, 5.45, 5.15, 90, 90, 90)), np.random.default_rng(2)
    hkl = truth.all_hkl(1.0)
    table = hkl, truth.intensity(hkl)
    members = [particle(truth, n, "oP", rng, table=table) for n in range(3)]
    foreign = particle(truth, 9, "oP", rng, table=(hkl, rng.permutation(table[1])))
    return merge_particles([*members, foreign])[0]


def test_merged_files_are_what_solve_reads(phase, tmp_path):
    write_phase(tmp_path, phase, "brookite", 0.02508, ["Ti", "O"])
    read = read_intensities(tmp_path / "merged.hkl")
    assert read.wavelength == 0.02508
    assert [e for e, _ in read.composition] == ["Ti", "O"]
    np.testing.assert_allclose(read.cell, phase.cell, atol=1e-4)
    np.testing.assert_array_equal(read.hkl, phase.hkl)
    scale = read.intensity.max() / phase.intensity.max()
    np.testing.assert_allclose(read.intensity, np.maximum(phase.intensity * scale, -999), atol=0.006)
    assert read.operations is None  # the Laue class is stated, the space group is to be found
    text = (tmp_path / "merged.ins").read_text()
    assert "P b c a" in text
    symmetry = [line.split()[1].lower() for line in text.splitlines() if line.startswith("SYMM")]
    ops = gemmi.GroupOps([gemmi.Op(t) for t in ["x,y,z", "-x,-y,-z", *symmetry]])
    ops.add_missing_elements()
    assert gemmi.find_spacegroup_by_ops(ops).hm == "P m m m"


def test_figures_come_back(phase, tmp_path):
    write_phase(tmp_path, phase, "brookite", 0.02508)
    read = read_phase(tmp_path)
    assert read.name == "brookite"
    assert [s.n_unique for s in read.shells] == [s.n_unique for s in phase.shells]
    assert [s.r_int for s in read.shells] == pytest.approx([s.r_int for s in phase.shells], rel=1e-4, nan_ok=True)
    figures = read.figures
    assert {"completeness", "redundancy", "r_int", "r_meas", "r_pim", "cc_half", "i_over_sigma"} <= set(figures)
    assert [m["track"] for m in figures["members"]] == [0, 1, 2]
    assert figures["members"][0]["operator"].count(",") == 2
    assert figures["left_out"][0]["track"] == 9
    assert figures["space_groups"][0]["symbol"] == "P b c a"
    assert figures["laue_class"] == "mmm"


def test_operators_are_told_in_indices():
    assert operator_text(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])) == "-k,h,l"
    assert operator_text(np.array([[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]])) == "h/2+k/2,-h/2+k/2,l"


def test_a_folder_that_holds_no_phase_is_told(tmp_path):
    with pytest.raises(InputError, match=r"stats\.json: is no phase"):
        read_phase(tmp_path)
    (tmp_path / "stats.json").write_text(json.dumps({"shells": [{}], "name": "a"}))
    with pytest.raises(InputError, match=r"stats\.json: is no phase"):
        read_phase(tmp_path)
