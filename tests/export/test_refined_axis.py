"""Which tilt axis and reciprocal pixel the formats of other programs state."""

import json
import re
import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.interchange import export_particles
from stemtomo_dl.records import Instrument
from stemtomo_dl.store import results
from stemtomo_dl.store.shared_geometry import SharedGeometry

AXIS, ROTATION = 24.31, -7.5


class Silent:
    @contextmanager
    def stage(self, name, total):
        yield lambda: None


def stated(run):
    """The axis in the export's own file, from columns toward rows, and the pixel."""
    assert export_particles(run, ["pets"], [1], Silent()) == 1
    text = (run / "particles/p0001/pets/p0001.pts2").read_text()
    omega, pixel = (re.search(rf"{key} ([\d.]+)", text)[1] for key in ("omega", "aperpixel"))
    return -float(omega) % 360, float(pixel)


def test_exports_state_the_axis_that_indexing_has_refined(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    of_file = results.read_series(run / "particles/p0001/series.h5").instrument
    own = of_file.tilt_axis_deg % 360, of_file.pixel_inv_angstrom
    assert stated(run) == pytest.approx(own, abs=1e-3)  # of a run that has no lattice
    before = (run / "particles/p0001/series.h5").read_bytes()
    book = json.loads((run / "run.json").read_text())
    geometry = Geometry(Instrument(200.0, 0.8, 0.02, 5.0, AXIS, ROTATION), np.zeros(3), scale=1.5)
    book["indexing"] = {"geometry": SharedGeometry(np.arange(3), geometry).entry(), "particles": []}
    lattice = "particles/p0001/crystal.json"
    book["stages"]["index"] = {"key": "", "seconds": 0.0, "outputs": [lattice]}
    (run / "run.json").write_text(json.dumps(book))
    assert stated(run) == pytest.approx(own, abs=1e-3)  # of lattices that are no more
    (run / lattice).write_text("{}")
    assert stated(run) == pytest.approx((AXIS + ROTATION, 1.5 * of_file.pixel_inv_angstrom), abs=1e-3)
    assert (run / "particles/p0001/series.h5").read_bytes() == before
