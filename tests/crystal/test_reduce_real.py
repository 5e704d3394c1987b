"""Raw frames that others measured, reduced by us and held against what they made of them."""

import os
from pathlib import Path

import numpy as np
import pytest

from stemtomo_dl.crystal.equivalents import equivalents
from stemtomo_dl.crystal.merge import merge_particles
from stemtomo_dl.crystal.nouns import Reflections
from stemtomo_dl.crystal.phase import Member
from stemtomo_dl.reduction import open_any, reduce
from stemtomo_dl.store.intensities import read_intensities
from stemtomo_dl.store.reflections import read_crystals

REAL = Path(os.environ.get("STEMTOMO_REAL") or Path(__file__).resolve().parents[3] / "shared" / "real")
D_MIN = 1.0  # Å, as far as the authors went

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="the real data are absent (set STEMTOMO_REAL)")


def means(group, values, n):
    return np.bincount(group, values, n) / np.maximum(np.bincount(group, minlength=n), 1)


def test_cinchonine_from_raw_frames_is_what_its_authors_found(tmp_path):
    """405 frames, about a minute; the camera length is theirs and not refined."""
    where = REAL / "cinchonine.h5"
    reduce(open_any(where, None, {}), where, tmp_path / "one", ["C", "H", "N", "O"])
    (crystal, *_) = read_crystals(tmp_path / "one" / "crystal.json")
    theirs = read_intensities(REAL / "cinchonine.hkl")
    assert crystal.lattice == "mP"
    np.testing.assert_allclose(crystal.cell[:3], theirs.cell[:3], rtol=0.015)
    np.testing.assert_allclose(
        crystal.cell[:3] / crystal.cell[0], np.array(theirs.cell[:3]) / theirs.cell[0], rtol=3e-3
    )
    np.testing.assert_allclose(crystal.cell[3:], theirs.cell[3:], atol=1.0)
    ours = read_intensities(tmp_path / "one" / "one.hkl")
    use = np.linalg.norm(ours.hkl @ crystal.ub.T, axis=1) < 1 / D_MIN
    hkl, intensity = ours.hkl[use], ours.intensity[use]
    (phase,) = merge_particles([Member(1, crystal, Reflections(hkl, intensity, ours.sigma[use], np.zeros(len(hkl))))])
    assert phase.overall.cc_half > 0.95
    assert phase.overall.completeness > 0.69
    assert "P 1 21 1" in [g.symbol for g in phase.space_groups if g.verdict != "unlikely"]
    group = equivalents(np.concatenate([hkl, theirs.hkl]), "mP")
    one, two = np.split(group, [len(hkl)])
    both = np.intersect1d(one, two)
    n = group.max() + 1
    assert len(both) > 0.9 * len(np.unique(two))
    assert np.corrcoef(means(one, intensity, n)[both], means(two, theirs.intensity, n)[both])[0, 1] > 0.97
