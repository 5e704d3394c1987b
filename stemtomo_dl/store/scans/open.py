"""Open a scan of any format."""

from __future__ import annotations

from pathlib import Path

from stemtomo_dl.errors import BadScan
from stemtomo_dl.records import Scan
from stemtomo_dl.store.scans import hdf5, mib, npy, rosetta

HDF5 = {".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".cxi"}


def open_scan(path: str | Path, dataset: str | None = None, shape: tuple[int, int] | None = None) -> Scan:
    """Open one 4D-STEM scan without reading its patterns.

    Parameters
    ----------
    path : str or Path
        Bare HDF5, .npy, .mib, or whatever RosettaSciIO reads; the suffix decides.
    dataset : str, optional
        Path inside a bare HDF5 file; by default its one 4-D dataset.
    shape : (int, int), optional
        Rows and columns of the scan, where the file does not say.

    Returns
    -------
    Scan
        Lazy: nothing stays open, and it may be pickled and read from several threads.

    Raises
    ------
    BadScan
        If the file is missing, empty, truncated, or holds no scan; one line that names it.
    InputError
        If the format needs a package that is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise BadScan(f"{path}: no such file; correct the path or leave the tilt out")
    suffix = path.suffix.lower()
    if path.is_dir() and suffix != ".zspy":
        raise BadScan(f"{path}: is a folder, not a scan; correct [scans] files")
    if suffix in HDF5:
        return hdf5.open_hdf5(path, dataset, shape)
    if suffix == ".npy":
        return npy.open_npy(path, shape)
    if suffix == ".mib":
        return mib.open_mib(path, shape)
    # HyperSpy, py4DSTEM and NCEM files are HDF5. Our own reader streams them faster, and RosettaSciIO never closes
    # a .hspy file once it has read it lazily, so that a long series would run out of file handles.
    if suffix in (".emd", ".hspy") and hdf5.holds_one_scan(path):
        return hdf5.open_hdf5(path, dataset, shape)
    return rosetta.open_rosetta(path, shape)
