"""A phase's lattice is of the crystal system of its Laue class, though its metric be higher."""

import numpy as np
import pytest
from crystal.powder import Truth, particle

from stemtomo_dl.crystal.laue import lattice_of_class, laue_classes
from stemtomo_dl.crystal.merge import merge_particles
from stemtomo_dl.phases import _label
from stemtomo_dl.store.phases import write_phase


@pytest.mark.parametrize("lattice", ["aP", "mC", "oF", "tI", "hP", "hR", "cF"])
def test_the_highest_class_leaves_a_lattice_as_it_is(lattice):
    assert lattice_of_class(laue_classes(lattice)[-1], lattice) == lattice


def test_an_orthorhombic_crystal_of_tetragonal_metric(tmp_path):
    """As perovskites are: indexed as tP, of Laue class mmm."""
    truth, rng = Truth("P b c a", (8.0, 8.0, 11.5, 90, 90, 90)), np.random.default_rng(2)
    hkl = truth.all_hkl(1.2)
    known = hkl, truth.intensity(hkl)
    members = [particle(truth, n, "tP", rng, table=known, cell_error=0.0) for n in range(4)]
    (phase,) = merge_particles(members)
    assert (phase.lattice, phase.laue.name) == ("oP", "mmm")
    assert _label(phase) == "oP_8.00_8.00_11.50"
    write_phase(tmp_path, phase, "perovskite", 0.0251)
    lines = (tmp_path / "merged.ins").read_text().splitlines()
    assert lines[0] == "TITL perovskite: oP, Laue class mmm, 4 particles"
    assert "LATT 1" in lines
    assert [line for line in lines if line.startswith("SYMM")] == ["SYMM -X,-Y,Z", "SYMM -X,Y,-Z", "SYMM X,-Y,-Z"]


def test_a_monoclinic_label_names_the_oblique_angle():
    """Of a crystal whose metric is hexagonal, γ."""
    truth, rng = Truth("P 1 1 2", (7, 7, 8, 90, 90, 120)), np.random.default_rng(2)
    hkl = truth.all_hkl(1.2)
    known = hkl, truth.intensity(hkl)
    (phase,) = merge_particles([particle(truth, n, "hP", rng, table=known, cell_error=0.0) for n in range(3)])
    assert _label(phase) == "mP_7.00_7.00_8.00_120.0"
