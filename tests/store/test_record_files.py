"""Records, crystals and shared geometry come back from disk as they were."""

import json

import h5py
import numpy as np
import pytest

from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Instrument
from stemtomo_dl.reduction import SeriesSpots
from stemtomo_dl.store.record_h5 import read_record, write_record
from stemtomo_dl.store.reflections import read_crystals, write_crystals
from stemtomo_dl.store.shared_geometry import SharedGeometry

INSTRUMENT = Instrument(200.0, 0.8, 0.02, 5.0, 31.0, 25.0)  # electrons_per_pattern is not known
SPOTS = Spots(2.5, np.array([0, 1], "i4"), np.ones((2, 2)), np.arange(2.0), np.ones(2), np.zeros((2, 2)))


def crystal(**other):
    cell = np.array([4.0, 5.0, 6.0, 90, 90, 90])
    known = {"lattice": "oP", "indexed_fraction": 0.9, "n_indexed": 40, "rms_inv_angstrom": 0.004}
    known |= {"tilt_axis_deg": 31.2, "length_deviation": 0.001, "angle_deviation_deg": 0.1}
    known |= {"ub": np.diag(1 / cell[:3]), "cell": cell, "center_shift_px": np.array([0.1, -0.2])}
    return Crystal(**(known | other))


def test_a_record_within_a_record(tmp_path):
    seen = SeriesSpots(INSTRUMENT, SPOTS, np.array([3, 7], "i4"), np.array([-1.5, 2.0]))
    write_record(tmp_path / "seen.h5", seen)
    back = read_record(tmp_path / "seen.h5", SeriesSpots)
    assert back.instrument == INSTRUMENT
    assert back.spots.radius_px == 2.5
    for name in ("frame", "px", "intensity", "sigma", "center_px"):
        np.testing.assert_array_equal(getattr(back.spots, name), getattr(SPOTS, name))
    np.testing.assert_array_equal(back.tilt, seen.tilt)
    with h5py.File(tmp_path / "seen.h5") as f:
        assert "px" in f["spots/px"].attrs["unit"]


def test_a_record_that_lacks_an_array_is_one_line(tmp_path):
    write_record(tmp_path / "seen.h5", SeriesSpots(INSTRUMENT, SPOTS, np.array([3, 7], "i4"), np.array([-1.5, 2.0])))
    with h5py.File(tmp_path / "seen.h5", "r+") as f:
        del f["tilt"]
    with pytest.raises(InputError, match=r"seen\.h5.*tilt.*run the stage"):
        read_record(tmp_path / "seen.h5", SeriesSpots)


def test_crystals_come_back_to_the_last_bit(tmp_path):
    ub = crystal().ub @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    first = crystal(ub=ub, length_deviation=np.nan)
    write_crystals(tmp_path / "crystal.json", [first, crystal()])
    back, second = read_crystals(tmp_path / "crystal.json")
    np.testing.assert_array_equal(back.ub, ub)
    assert np.isnan(back.length_deviation)
    assert second.lattice == "oP"
    np.testing.assert_allclose(second.cell, [4, 5, 6, 90, 90, 90])


@pytest.mark.parametrize("text", ["", "{}", '{"ub": 3}', '{"ub": [[0,0,0],[0,0,0],[0,0,0]]}', "[1]"])
def test_a_crystal_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "crystal.json").write_text(text)
    with pytest.raises(InputError, match="cannot be understood"):
        read_crystals(tmp_path / "crystal.json")


def test_a_series_has_its_tilts_of_the_shared_geometry():
    shift = np.arange(6.0).reshape(3, 2)
    shared = SharedGeometry(np.array([2, 5, 9]), Geometry(INSTRUMENT, np.array([-10.0, 0, 10]), 0.3, shift_px=shift))
    back = SharedGeometry.of(json.loads(json.dumps(shared.entry())))
    at = back.at(np.array([9, 2]))
    np.testing.assert_array_equal(at.alpha_deg, [10, -10])
    np.testing.assert_array_equal(at.shift_px, shift[[2, 0]])
    assert at.turn_rad is None
    assert at.elevation_deg == 0.3
    assert at.instrument == INSTRUMENT
