"""Checksums that tell whether an input is still the one a run began with."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from stemtomo_dl.config import Experiment
from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Scan, TiltSeries

MIB = 1 << 20


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's size and its first, middle and last MiB; of the whole file up to 3 MiB.

    Reading a series of hundreds of gigabytes to the last byte would take longer than its analysis. A folder
    (.zspy) is fingerprinted by the names and sizes of the files in it.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for f in sorted(p for p in path.rglob("*") if p.is_file()):
                digest.update(f"{f.relative_to(path).as_posix()} {f.stat().st_size}\n".encode())
            return digest.hexdigest()
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= 3 * MIB:
                return hashlib.sha256(file.read()).hexdigest()
            digest.update(str(size).encode())
            for start in (0, (size - MIB) // 2, size - MIB):
                file.seek(start)
                digest.update(file.read(MIB))
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); correct the path") from e
    return digest.hexdigest()


def fingerprints(toml_path: Path, experiment: Experiment, series: TiltSeries) -> dict[str, str]:
    """Fingerprints of everything that an experiment is made of, by the name that the user gave it.

    A scan's covers the files beside it that it is read with. A scan that is left out has none.
    """
    folder = toml_path.parent
    scans, sample = experiment.scans, experiment.sample
    stated = [scans.tilts if isinstance(scans.tilts, str) else None, experiment.detector.mask, *sample.phases]
    found = {n: _of_scan(folder / n, s) for n, s in zip(series.names, series.scans, strict=True) if s is not None}
    return found | {name: fingerprint(folder / name) for name in filter(None, stated)}


def _of_scan(path: Path, scan: Scan) -> str:
    """Fingerprint of a scan's file and of those it is read with."""
    companions = list(getattr(scan, "companions", []))
    if not companions:
        return fingerprint(path)
    digest = hashlib.sha256(fingerprint(path).encode())
    for file in companions:
        digest.update(f"{file.name} {fingerprint(file)}\n".encode())
    return digest.hexdigest()
