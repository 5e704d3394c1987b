"""Measured intensities of an organic crystal, from phases of nothing to its authors' atoms."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stemtomo_dl.solve import solve
from stemtomo_dl.solve.compare import compare
from stemtomo_dl.store.intensities import read_intensities

REAL = Path(os.environ.get("STEMTOMO_REAL") or Path(__file__).resolve().parents[3] / "shared" / "real")
HKL = REAL / "cinchonine.hkl"
ATOM = re.compile(r"[A-Z]\w*\s+([134])\s+([-\d.]+)\s+([-\d.]+)\s+([-\d.]+)\s+11\.0")  # C, N or O, by their SFAC


@pytest.mark.skipif(not HKL.is_file(), reason="the real data are absent (set STEMTOMO_REAL)")
def test_most_atoms_of_cinchonine_are_where_its_authors_found_them():
    lines = HKL.with_suffix(".ins").read_text().splitlines()
    theirs = np.array([[float(v) for v in m.groups()[1:]] for m in map(ATOM.match, lines) if m])
    assert len(theirs) == 22
    solution = solve(read_intensities(HKL), np.random.default_rng(0))
    assert solution.solved
    assert solution.best is not None
    model = solution.best.fit.model
    # C, N and O scatter too much alike for their names to count
    match = compare(replace(model, elements=("C",) * len(model.elements)), ("C",) * len(theirs), theirs, 0.5)
    assert match.share >= 0.8
    assert match.extra <= 3
