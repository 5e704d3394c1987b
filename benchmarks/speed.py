"""How fast the stages that read raw scans are, against merely reading the same file, plain NumPy and other programs.

    python benchmarks/speed.py [GB] [--detector PX] [--dtype u2] [--formats npy,mib,…] [--peers PYTHON] [--cold]

Writes one scan with 50 particles in each format in turn to a temporary folder, and times on it, round by round so
that all see the same load of the machine: `read`, which only reads and decodes the file once, in the plainest way
its library has; our pass for virtual images; our pass for extraction, its sums alone and with all that makes patterns
of them, which does not grow with the scan; and plain NumPy.
With the interpreter of an environment that has LiberTEM and py4DSTEM (they may want another NumPy than ours), also
`speed_peers.py` there. Files are read from the page cache, which most disks are slower than; with --cold from the disk,
as those of a series are, which are more than memory holds. Wall times are the least of the rounds; so are processor
times, which a busy machine falsifies less.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from stemtomo_dl.config import ExtractConfig, ImagesConfig
from stemtomo_dl.extract import combine, extract_tilt
from stemtomo_dl.extract.collect import collect, gauge_probes, plan
from stemtomo_dl.records import Instrument, Masks, Scan
from stemtomo_dl.store.scans.open import open_scan
from stemtomo_dl.store.scans.write import write_scan
from stemtomo_dl.virtual import virtual_images

ROUNDS, PARTICLES, COLUMNS = 3, 50, 128
SERIES_GB = 400 * 256**4 * 2 / 1e9
BLOCK = 4 << 20
H5: dict[str, dict[str, Any]] = {"contiguous": {}, "chunked": {"chunks": True}, "lz4": {"chunks": True, "lz4": True}}
FORMATS = ("npy", "mib", *H5)


def make(rows: int, px: int, dtype: str) -> np.ndarray:
    """A scan (rows, COLUMNS, px, px): a direct beam and Poisson noise that falls off."""
    y, x = np.indices((px, px))
    r = np.hypot(x - px / 2, y - px / 2)
    mean = 1.5 * np.exp(-5 * r / px) + 40 * (r < 4)
    line = np.random.default_rng(0).poisson(mean, (COLUMNS, px, px)).astype(dtype)
    return np.stack([np.roll(line, 7 * i, 0) for i in range(rows)])


def rods(rows: int) -> np.ndarray:
    """PARTICLES outlines (particle, row, column), scattered at random."""
    rng = np.random.default_rng(1)
    y, x = np.indices((rows, COLUMNS))
    found = []
    for _ in range(PARTICLES):
        cy, cx, turn = rng.uniform(6, rows - 6), rng.uniform(6, COLUMNS - 6), rng.uniform(0, np.pi)
        along = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        across = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        found.append((np.abs(along) < rows / 14) & (np.abs(across) < rows / 42))
    return np.array(found)


def write(folder: Path, kind: str, data: np.ndarray) -> Path:
    """The scan in one format."""
    if kind in ("npy", "mib"):
        path = folder / f"scan.{kind}"
        write_scan(path, iter([data]), data.shape, data.dtype)
        if kind == "mib":  # py4DSTEM takes the scan's shape from there, and from its argument only without the file
            with path.with_suffix(".hdr").open("a") as header:
                header.write(f"\nScanX:\t{data.shape[1]}\nScanY:\t{data.shape[0]}\n")
        return path
    path = folder / f"{kind}.h5"
    chunks = (1, 16, *data.shape[2:]) if H5[kind].get("chunks") else None
    packed = hdf5plugin.Bitshuffle() if H5[kind].get("lz4") else {}
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, chunks=chunks, **packed)
    return path


def read_plainly(path: Path) -> None:
    """The floor: every byte read, and decoded where it is packed, once."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            data = file["data"]
            step = max(1, BLOCK // data[0].nbytes)
            buffer = np.empty((step, *data.shape[1:]), data.dtype)
            for y in range(0, data.shape[0], step):
                n = min(step, data.shape[0] - y)
                data.read_direct(buffer, np.s_[y : y + n], np.s_[:n])
        return
    block = bytearray(BLOCK)
    with open(path, "rb", buffering=0) as raw:
        while raw.readinto(block):
            pass


def numpy_plainly(path: Path, labels: np.ndarray, detectors: np.ndarray) -> None:
    """Two virtual images and label sums as one writes them with NumPy, a scan row at a time."""
    scan = open_scan(path, None, labels.shape)  # big-endian .mib included
    weight = detectors.reshape(len(detectors), -1).astype("f4").T
    sums = np.zeros((PARTICLES + 1, weight.shape[0]), "f4")
    for tile in scan.tiles(BLOCK):
        patterns = scan.read(tile).reshape(-1, weight.shape[0]).astype("f4")
        _ = patterns @ weight
        here = labels[tile.window].ravel()
        for k in np.unique(here[here > 0]):
            sums[k] += patterns[here == k].sum(0)


def ours(path: Path, outlines: np.ndarray, px: int) -> dict[str, Callable[[], object]]:
    """Our two passes."""
    rows = outlines.shape[1]
    instrument = Instrument(200, 0.8, 2.56 / px, 2.0, 0.0)
    bad = np.zeros((px, px), bool)
    bad[3, 5] = bad[px // 3] = True
    masks = Masks.pack(outlines, np.zeros(PARTICLES, int), np.ones(PARTICLES), np.zeros(1))
    everyone = np.arange(PARTICLES)
    wanted = combine(masks, everyone, everyone, None, ExtractConfig())
    y, x = np.indices((rows, COLUMNS))
    beam = px / 2 + np.stack([x / COLUMNS, y / rows], -1)
    centre = np.full(2, px / 2)
    todo = plan(wanted, beam, centre, gauge_probes(wanted))

    def scan() -> Scan:
        return open_scan(path, None, (rows, COLUMNS))  # anew: pages that stay mapped stay in the cache

    return {
        "images": lambda: virtual_images(scan(), instrument, bad, ImagesConfig()),
        "extraction, its sums alone": lambda: collect(scan(), todo, PARTICLES, bad, ExtractConfig()),
        "extraction": lambda: extract_tilt(scan(), everyone, wanted, beam, bad, centre, instrument, ExtractConfig()),
    }


def forget(path: Path) -> None:
    """Take the file out of the page cache (Linux)."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def timed(work: dict[str, Callable[[], object]], cold: Path | None) -> dict[str, tuple[float, float]]:
    """Least wall and processor seconds of each, over ROUNDS after one that compiles; not cached where `cold`."""
    least = dict.fromkeys(work, (np.inf, np.inf))
    for n in range(ROUNDS + 1):
        for name, f in work.items():
            if cold:
                forget(cold)
            wall, cpu = time.perf_counter(), time.process_time()
            f()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            if n:
                least[name] = min(least[name][0], spent[0]), min(least[name][1], spent[1])
    return least


def peers(python: str, path: Path, folder: Path, cold: bool) -> dict[str, tuple[float, float]]:
    """What `speed_peers.py` measures; programs that are absent or fail say so on stderr."""
    script = Path(__file__).with_name("speed_peers.py")
    command = [python, str(script), str(path), str(folder), str(ROUNDS), *(["cold"] if cold else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {name: tuple(spent) for name, spent in json.loads(done.stdout.splitlines()[-1]).items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gigabytes", nargs="?", type=float, default=1.0)
    parser.add_argument("--detector", type=int, default=256, help="pixels along a side")
    parser.add_argument("--dtype", default="u2", choices=("u1", "u2"))
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--folder", help="where the files are written, for a while")
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter that has LiberTEM and py4DSTEM")
    parser.add_argument("--cold", action="store_true", help="from the disk, not the page cache (Linux)")
    options = parser.parse_args()
    px, itemsize = options.detector, np.dtype(options.dtype).itemsize
    rows = max(32, round(options.gigabytes * 1e9 / (COLUMNS * px**2 * itemsize)))
    outlines, size = rods(rows), rows * COLUMNS * px**2 * itemsize / 1e9
    labels = (outlines * np.arange(1, PARTICLES + 1)[:, None, None]).max(0)
    y, x = np.indices((px, px))
    r = np.hypot(y - px / 2, x - px / 2)
    detectors = np.stack([r < px / 20, (r >= px / 10) & (r < px / 2.2)])
    print(f"{size:.2f} GB: {rows} × {COLUMNS} probes, {px}² {options.dtype}; labelled {(labels > 0).mean():.0%}")
    if not options.peers:
        print("LiberTEM and py4DSTEM left out: give --peers PYTHON")
    print(f"{'format':11}{'what':28}{'s':>8}{'GB/s':>8}{'x read':>8}{'cpu s':>8}{'x read':>8}", flush=True)
    for kind in options.formats.split(","):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            np.save(folder / "labels.npy", labels.astype("i4"))
            np.save(folder / "detectors.npy", detectors)
            path = write(folder, kind, make(rows, px, options.dtype))
            found = timed(
                {
                    "read": functools.partial(read_plainly, path),
                    **ours(path, outlines, px),
                    "NumPy, images and sums": functools.partial(numpy_plainly, path, labels, detectors),
                },
                path if options.cold else None,
            )
            if options.peers:
                found |= peers(options.peers, path, folder, options.cold)
            for what, (wall, cpu) in found.items():
                times = f"{wall / found['read'][0]:8.2f}{cpu:8.3f}{cpu / found['read'][1]:8.2f}"
                print(f"{kind:11}{what:28}{wall:8.3f}{size / wall:8.2f}{times}", flush=True)
            sums, complete = found["extraction, its sums alone"][0], found["extraction"][0]
            series = (found["images"][0] + sums) / size * SERIES_GB + 400 * max(complete - sums, 0)
            print(
                f"{kind:11}400 tilts of 256² × 256² u2 ({SERIES_GB / 1e3:.1f} TB), both passes: {series / 60:.0f} min"
            )


if __name__ == "__main__":
    main()
