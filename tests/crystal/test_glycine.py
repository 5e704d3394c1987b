"""Someone else's peaks on a real crystal, as PETS2 found them, index to glycine's cell."""

import os
from pathlib import Path

import numpy as np
import pytest

from stemtomo_dl.crystal.index import index
from stemtomo_dl.crystal.nouns import Spots
from stemtomo_dl.records import Instrument

REAL = Path(os.environ.get("STEMTOMO_REAL") or Path(__file__).resolve().parents[3] / "shared" / "real")
PETS = REAL / "glycine-pets"

pytestmark = pytest.mark.skipif(not PETS.is_dir(), reason="the real data are absent (set STEMTOMO_REAL)")

PUBLISHED = np.array([5.0876, 11.8092, 5.4615, 90.0, 111.992, 90.0])  # the project's own reference cell
CAMERA = Instrument(200.0, 0.0, 0.00534, np.nan, -230.0)  # PETS2's omega is counter-clockwise, y up


@pytest.fixture(scope="module")
def peaks():
    """Spots of glycine.rpl and the frames' angles; every twentieth frame was left out."""
    table, centers = np.loadtxt(PETS / "glycine.rpl"), np.loadtxt(PETS / "glycine.cenloc")
    frame = table[:, 11].astype("i4") - 1
    known, first = np.unique(frame, return_index=True)
    alpha = np.interp(np.arange(len(centers)), known, table[first, 9])
    columns = (table[:, 7:9].copy(), table[:, 3].copy(), table[:, 4].copy())
    return Spots(4.0, frame, *columns, centers[:, :2].copy()), alpha


def test_peaks_index_to_the_cell(peaks):
    spots, alpha = peaks
    first, *others = index(spots, CAMERA, alpha)
    assert first.lattice == "mP"
    # a camera length good to some percent, and published lengths that its authors scaled to
    ratio = first.cell[:3] / PUBLISHED[:3]
    assert np.abs(ratio - 1).max() < 0.04
    assert abs(first.cell[4] - PUBLISHED[4]) < 0.5
    assert first.indexed_fraction > 0.95
    assert not others


def test_the_known_cell_is_found_in_its_own_setting(peaks):
    spots, alpha = peaks
    cell = PUBLISHED[[2, 1, 0, 3, 4, 5]]
    first = index(spots, CAMERA, alpha, most=1, cell=cell)[0]
    assert np.abs(first.cell / cell - 1).max() < 0.04
    assert first.lattice == "mP"
