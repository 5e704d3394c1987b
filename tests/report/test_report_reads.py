"""What the report reads of a series: the frames it shows, and one value a frame of the others."""

import h5py
import numpy as np
from report.test_report import make_run

from stemtomo_dl.report import build_report, gather
from stemtomo_dl.store import results


def test_frames_at_some_tilts_are_those_of_the_whole_series(tmp_path):
    path = make_run(tmp_path / "run") / results.series_name(1)
    whole = results.read_series(path)
    some = results.read_frames_of(path, {0, 4, 99})
    at = np.isin(whole.tilt, (0, 4))
    for name in ("patterns", "measured", "alpha_deg", "tilt", "n_probes", "n_support"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[at])
    np.testing.assert_array_equal(some.center_px, whole.center_px)
    assert some.variance is None
    np.testing.assert_array_equal(results.read_frame_facts(path).n_probes, whole.n_probes)


def test_no_variance_is_needed_and_the_signal_is_drawn_where_it_is_known(tmp_path):
    folder = make_run(tmp_path / "run")
    before = build_report(gather(folder))
    with h5py.File(folder / results.series_name(1), "a") as f:
        f["variance"] = np.zeros(3)  # not one a frame: whoever reads it fails
        f["bragg_signal"] = np.arange(len(f["tilt"]), dtype="f4")
    after = build_report(gather(folder))
    assert "Bragg counts a probe" not in before
    assert after.count("Bragg counts a probe") == 2  # the axis and the text for those who cannot see it
    assert "could not be read" not in after
