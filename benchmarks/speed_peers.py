"""LiberTEM and py4DSTEM on the scan that `speed.py` has written, run by it with the interpreter that has them.

    PYTHON benchmarks/speed_peers.py SCAN FOLDER ROUNDS [cold]

FOLDER holds labels.npy (y, x) and detectors.npy (detector, qy, qx). Prints one line of JSON: least wall and
processor seconds, workers included, by what was done. Needs neither our package nor its environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def libertem(path: Path, labels: np.ndarray, detectors: np.ndarray) -> dict[str, Callable[[], object]]:
    """Its masks UDF, and a UDF that sums by label with a compiled loop; on its default executor."""
    import libertem.api as lt
    import numba
    from libertem.udf import UDF
    from libertem.udf.masks import ApplyMasksUDF

    @numba.njit(nogil=True)
    def add(tile: np.ndarray, label: np.ndarray, sums: np.ndarray) -> None:
        for i in range(tile.shape[0]):
            if label[i] > 0:
                total, values = sums[label[i] - 1], tile[i]
                for j in range(tile.shape[1]):
                    total[j] += values[j]

    class LabelSums(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {"sums": self.buffer(kind="single", extra_shape=(self.params.n, *self.meta.dataset_shape.sig))}

        def get_preferred_input_dtype(self) -> Any:
            return self.USE_NATIVE_DTYPE

        def get_tiling_preferences(self) -> dict[str, Any]:
            return {"depth": 32, "total_size": np.inf}  # whole patterns

        def process_tile(self, tile: np.ndarray) -> None:
            flat = tile.reshape(len(tile), -1)
            add(flat, self.params.labels[:].ravel(), self.results.sums.reshape(self.params.n, -1))

        def merge(self, dest: Any, src: Any) -> None:
            dest.sums[:] += src.sums

    context = lt.Context()
    if path.suffix == ".npy":
        data = context.load("npy", path=str(path))
    elif path.suffix == ".mib":
        data = context.load("mib", path=str(path), nav_shape=labels.shape)
    else:
        data = context.load("hdf5", path=str(path), ds_path="/data")
    masks = ApplyMasksUDF(mask_factories=lambda: detectors.astype("f4"))
    number = UDF.aux_data(labels.ravel(), kind="nav", dtype="i4")
    sums = LabelSums(labels=number, n=int(labels.max()))
    return {
        "LiberTEM, ApplyMasksUDF": lambda: context.run_udf(dataset=data, udf=masks),
        "LiberTEM, label sums": lambda: context.run_udf(dataset=data, udf=sums, roi=labels > 0),
    }


def py4dstem(path: Path, labels: np.ndarray, detectors: np.ndarray) -> dict[str, Callable[[], object]]:
    """Its virtual image and masked mean; a file that it cannot map is loaded whole first, as its users do."""
    import h5py
    import hdf5plugin  # noqa: F401  (registers the filters)
    import py4DSTEM

    def cube() -> Any:
        if path.suffix == ".npy":
            return py4DSTEM.DataCube(data=np.load(path, mmap_mode="r"))
        if path.suffix == ".mib":
            return py4DSTEM.import_file(str(path), mem="MEMMAP", scan=labels.shape)
        with h5py.File(path) as file:
            return py4DSTEM.DataCube(data=file["data"][()])

    def images() -> None:
        data = cube()
        for k, mask in enumerate(detectors):
            data.get_virtual_image(mode="mask", geometry=mask, name=f"image {k}", verbose=False)

    def sums() -> None:
        data = cube()
        for k in range(1, int(labels.max()) + 1):
            data.get_virtual_diffraction(method="mean", mask=labels == k, name=f"particle {k}")

    return {"py4DSTEM, two images": images, "py4DSTEM, masked means": sums}


def processor_seconds() -> float:
    """Of this process and its children."""
    import psutil

    me = psutil.Process()
    return float(sum(sum(p.cpu_times()[:2]) for p in (me, *me.children(recursive=True))))


def timed(f: Callable[[], object], rounds: int, cold: Path | None) -> tuple[float, float]:
    """Least wall and processor seconds, after one round that compiles and fills caches, but for `cold`."""
    spent = []
    for _ in range(rounds + 1):
        if cold:
            handle = os.open(cold, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
        wall, cpu = time.perf_counter(), processor_seconds()
        f()
        spent.append((time.perf_counter() - wall, processor_seconds() - cpu))
    return min(s[0] for s in spent[1:]), min(s[1] for s in spent[1:])


def main() -> None:
    """Measure each program that is there."""
    path, folder, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    cold = path if sys.argv[4:] == ["cold"] else None
    labels, detectors = np.load(folder / "labels.npy"), np.load(folder / "detectors.npy")
    found = {}
    for program in (libertem, py4dstem):
        try:
            for name, f in program(path, labels, detectors).items():
                found[name] = timed(f, rounds, cold)
        except Exception as e:  # a program that is absent, or cannot read this format, must not end the table
            print(f"{program.__name__}: {type(e).__name__}: {str(e).splitlines()[:1]}", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
