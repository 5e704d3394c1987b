"""Peak resident memory of the stages that read raw scans, for a scan of a given size.

    python benchmarks/memory.py [GB] [.h5|.npy|.mib]

Writes a one-tilt experiment of that size to a temporary folder, runs `images` and `extract` in processes of their
own, and prints their peak resident memory and speed.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stemtomo_dl.store.scans.write import write_scan

DETECTOR, COLUMNS = 256, 256


def rows(n: int) -> Iterator[np.ndarray]:
    """Scan rows (1, x, qy, qx): noise, a direct beam, and a bright square in the middle of the field."""
    rng = np.random.default_rng(0)
    y, x = np.indices((DETECTOR, DETECTOR))
    mean = np.full((DETECTOR, DETECTOR), 0.3)
    mean[np.hypot(x - 127, y - 128) < 4] += 60
    film = rng.poisson(mean, (COLUMNS, DETECTOR, DETECTOR)).astype("u2")
    crystal = film.copy()
    crystal[COLUMNS // 2 - 10 : COLUMNS // 2 + 10, 60:66, 80:86] += 30
    for i in range(n):
        yield (crystal if abs(i - n // 2) < 10 else film)[None]


EXPERIMENT = """
[scans]
files = "scan{suffix}"
tilts = [0.0]
shape = [{rows}, {columns}]
[beam]
voltage_kv = 200
convergence_mrad = 0.8
[scan]
step_nm = 2.0
[detector]
pixel_inv_angstrom = 0.01
[stage]
tilt_axis_deg = 0.0
"""


def main() -> None:
    """Measure."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    suffix = sys.argv[2] if len(sys.argv) > 2 else ".h5"
    n = max(40, round(gigabytes * 1e9 / (COLUMNS * DETECTOR**2 * 2)))
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder, f"scan{suffix}")
        write_scan(scan, rows(n), (n, COLUMNS, DETECTOR, DETECTOR), np.dtype("u2"))
        toml = Path(folder, "e.toml")
        toml.write_text(EXPERIMENT.format(suffix=suffix, rows=n, columns=COLUMNS))
        size = n * COLUMNS * DETECTOR**2 * 2 / 1e9
        for until in ("images", "report"):
            began = time.perf_counter()
            command = ["stemtomo", "run", str(toml), "-o", f"{folder}/run", "--until", until]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
            figures = {
                "until": until,
                "status": status,
                "scan_GB": round(size, 2),
                "format": suffix,
                "on_disk_GB": round(scan.stat().st_size / 1e9, 2),
                "peak_resident_GB": round(usage.ru_maxrss * 1024 / 1e9, 3),
                "seconds": round(seconds, 1),
                "GB_per_s": round(size / seconds, 2),
            }
            print(json.dumps(figures), flush=True)
    print(f"this script itself: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
