"""Unmerged intensities that others measured, merged as they did."""

import os
from pathlib import Path

import numpy as np
import pytest

from stemtomo_dl.crystal.merge import merge_particles
from stemtomo_dl.crystal.nouns import Crystal, Reflections
from stemtomo_dl.crystal.phase import Member
from stemtomo_dl.crystal.settings import direct_basis
from stemtomo_dl.store.intensities import read_intensities

REAL = Path(os.environ.get("STEMTOMO_REAL") or Path(__file__).resolve().parents[3] / "shared" / "real")

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="the real data are absent (set STEMTOMO_REAL)")


def merged(name, lattice, elements=None):
    data = read_intensities(REAL / name, elements=elements)
    cell = np.array(data.cell)
    crystal = Crystal(lattice, 1.0, 100, 0.005, 0.0, 0.0, 0.0, np.linalg.inv(direct_basis(cell)), cell, np.zeros(2))
    (phase,) = merge_particles(
        [Member(1, crystal, Reflections(data.hkl, data.intensity, data.sigma, np.zeros(len(data.hkl))))]
    )
    return phase, [g.symbol for g in phase.space_groups if g.verdict != "unlikely"]


def test_dynamical_quartz_is_trigonal_with_its_screw_axis():
    phase, groups = merged("quartz.cif_pets", "hP", "Si,O")
    assert phase.laue.symbol == "P -3 m 1"  # its axes agree to 0.5 to 0.9, those of 6/mmm to 0.3
    assert groups[:2] == ["P 31 2 1", "P 32 2 1"]


def test_cinchonine_is_as_complete_as_its_authors_say():
    phase, groups = merged("cinchonine.hkl", "mP")
    assert phase.laue.name == "2/m"
    assert phase.overall.completeness == pytest.approx(0.70, abs=0.01)
    assert phase.overall.cc_half > 0.95
    assert phase.wilson == pytest.approx(0.736, abs=0.03)  # acentric
    assert "P 1 21 1" in groups[:3]
