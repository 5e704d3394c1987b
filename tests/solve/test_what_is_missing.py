"""What an unsolved structure is said to lack, and what it is not blamed for."""

from dataclasses import replace

import numpy as np
import pytest
from solve.synthetic import known, measured

from stemtomo_dl.solve import solve
from stemtomo_dl.solve.objections import possible_reasons
from stemtomo_dl.solve.solution import _completeness, _missing
from stemtomo_dl.solve.symmetry import compatible_groups, laue_rotations, merge
from stemtomo_dl.solve.wilson import wilson_statistic

CENTRINGS = {  # of a lattice, as a condition that its reflections meet
    "I": lambda h: h.sum(1) % 2 == 0,
    "C": lambda h: h[:, :2].sum(1) % 2 == 0,
    "F": lambda h: (h % 2 == h[:, :1] % 2).all(1),
    "R": lambda h: (-h[:, 0] + h[:, 1] + h[:, 2]) % 3 == 0,
}
CELLS = {"R": (5.0, 5.0, 14.0, 90.0, 90.0, 120.0), "C": (9.0, 8.0, 5.0, 90.0, 105.0, 90.0)}


def sphere(cell, d_min):
    """Some intensities, every reflection of the zirconia set's form replaced by all of a cell to d_min."""
    data = replace(measured(known("zirconia"), "Zr,O", 2.0, 1.0), cell=cell)
    n = np.arange(-20, 21)
    hkl = np.stack(np.meshgrid(n, n, n, indexing="ij"), -1).reshape(-1, 3).astype("i4")
    q = np.linalg.norm(hkl @ data.reciprocal, axis=1)
    hkl = hkl[(q > 0) & (q <= 1 / d_min)]
    value = np.random.default_rng(0).exponential(size=len(hkl))
    return replace(data, hkl=hkl, intensity=value, sigma=0.05 * value + 0.01)


@pytest.mark.parametrize("symbol", CENTRINGS)
@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize("shown", [True, False])
def test_what_the_centring_forbids_is_not_missed(symbol, share, shown):
    data = sphere(CELLS.get(symbol, (6.0, 6.0, 6.0, 90.0, 90.0, 90.0)), 0.9)
    kept = CENTRINGS[symbol](data.hkl)
    drawn = np.random.default_rng(1).random(len(kept)) < share
    # absences that were integrated hold nothing; a group of this lattice is what a model then says
    value = np.where(kept, data.intensity, 1e-3)
    kept = drawn & (kept if not shown else True)
    data = replace(data, hkl=data.hkl[kept], intensity=value[kept], sigma=data.sigma[kept])
    groups = [g for g in compatible_groups(data) if g.xhm()[0] == symbol]
    groups = groups[:1] if shown else compatible_groups(data)
    merged = merge(data, np.array([np.eye(3, dtype=int)]))
    assert _completeness(data, merged, groups) == pytest.approx(share, rel=0.1)


def test_reasons_are_those_of_the_data():
    data = replace(measured(known("zirconia"), "Zr,O", 1.2, 1.0), rint=0.62)
    merged = merge(data, laue_rotations(known("zirconia").operations))
    assert np.isnan(merged.rint)  # one row a reflection, as merged phases of a run are
    told = (*_missing(data, merged, 0.4), *possible_reasons(data, merged, []))
    for part in ("completeness is 40 %", "resolution is 1.2", "Rint is 0.62", "only Zr, O were tried"):
        assert any(part in t for t in told), part
    fine = replace(measured(known("zirconia"), "Zr,O", 0.8, 1.0), rint=0.1)
    assert not _missing(fine, merged, 0.9)


def test_noise_without_a_mean_has_no_say_in_the_statistic():
    data = measured(known("zirconia"), "Zr,O", 0.7, 1.0, noise=0.05)
    merged = merge(data, laue_rotations(known("zirconia").operations))
    whole = wilson_statistic(merged, data.reciprocal)
    outer = np.linalg.norm(merged.hkl @ data.reciprocal, axis=1) > 1.2
    noise = np.where(outer, np.random.default_rng(0).normal(size=len(outer)), merged.intensity)
    spoiled = replace(merged, intensity=noise, sigma=np.where(outer, 1.0, merged.sigma))
    assert wilson_statistic(spoiled, data.reciprocal) == pytest.approx(whole, rel=0.15)
    nothing = replace(merged, intensity=np.zeros(len(outer)))
    assert np.isnan(wilson_statistic(nothing, data.reciprocal))


def test_a_face_centred_part_is_tried():
    data = sphere((5.6402, 5.6402, 5.6402, 90.0, 90.0, 90.0), 0.8)
    kept = CENTRINGS["F"](data.hkl) & (np.random.default_rng(0).random(len(data.hkl)) < 0.3)
    data = replace(data, hkl=data.hkl[kept], intensity=data.intensity[kept], sigma=data.sigma[kept])
    assert solve(data, np.random.default_rng(0), starts=1).starts == 1
