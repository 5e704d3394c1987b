"""One experiment in several formats gives one result."""

import shutil

import h5py
import hdf5plugin  # noqa: F401  the scans are compressed with its filters
import pytest

from stemtomo_dl.store.scans.write import write_scan


def convert(tiny, folder, suffix):
    """The tiny experiment with its scans in another format."""
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("scan_*.h5"))
    text = (folder / "experiment.toml").read_text().replace(".h5", suffix)
    (folder / "experiment.toml").write_text(text.replace("[scans]", "[scans]\nshape = [24, 32]"))
    (folder / "tilts.csv").write_text((tiny / "tilts.csv").read_text().replace(".h5", suffix))
    for path in sorted((tiny / "scans").iterdir()):
        with h5py.File(path) as f:
            data = next(d for d in f.values() if d.ndim == 4)[:]
        target = folder / "scans" / f"{path.stem}{suffix}"
        if suffix in (".npy", ".mib", ".hspy"):
            write_scan(target, iter(data[:, None]), data.shape, data.dtype)
        else:
            write_zspy(target, data)
    return folder / "experiment.toml"


def write_zspy(path, data):
    rsciio_zspy = pytest.importorskip("rsciio.zspy", reason="RosettaSciIO (extra [formats]) is not installed")
    names = [("y", True), ("x", True), ("ky", False), ("kx", False)]
    axes = [
        {"name": n, "size": s, "index_in_array": i, "navigate": nav, "scale": 1.0, "offset": 0.0, "units": "px"}
        for i, ((n, nav), s) in enumerate(zip(names, data.shape, strict=True))
    ]
    signal = {
        "data": data,
        "axes": axes,
        "metadata": {"Signal": {"signal_type": ""}, "General": {"title": ""}},
        "original_metadata": {},
        "attributes": {"_lazy": False, "ragged": False},
        "learning_results": {},
        "tmp_parameters": {},
        "models": {},
        "package_info": {"package": "", "package_version": ""},
    }
    rsciio_zspy.file_writer(str(path), signal)


@pytest.mark.parametrize("suffix", [".npy", ".mib", ".hspy", ".zspy"])
def test_same_result_from_every_format(suffix, tiny, tiny_run, tmp_path, command):
    toml = convert(tiny, tmp_path / "other", suffix)
    run = tmp_path / "run"
    command("run", toml, "-o", run)
    for name in ("masks.h5", "tracks.csv", "particles/p0001/series.h5"):
        assert (run / name).read_bytes() == (tiny_run / name).read_bytes(), name
