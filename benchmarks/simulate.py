"""Speed of the forward model: full patterns, and images for training.

    python benchmarks/simulate.py [seconds]

Prints one JSON line for (a) a 64×64 scan of 128×128 patterns with 12 particles, by either way of drawing counts, and
(b) random training images of 256×256, drawn for some seconds in one process and in two at once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from stemtomo_dl.simulate.images import draw_images
from stemtomo_dl.simulate.randomise import Library, random_sample
from stemtomo_dl.simulate.scene import load_scene
from stemtomo_dl.simulate.series import simulate
from stemtomo_dl.simulate.stock import make_library
from stemtomo_dl.simulate.training import load_training


def scan(dense: bool) -> dict[str, object]:
    """Seconds for one tilt of the demo: the tables of the tilt and all its counts."""
    series = simulate(*load_scene(Path("demo")))
    assert series.shape == (64, 64, 128, 128)
    assert len(series.cast.particles) == 12
    seconds, busy = [], []
    for tilt in (0, 10, 30, 50):
        began, worked = time.perf_counter(), time.process_time()
        for _ in series.rows(tilt, dense=dense):
            pass
        seconds.append(time.perf_counter() - began)
        busy.append(time.process_time() - worked)
    return {
        "what": "64x64 scan of 128x128, 12 particles",
        "drawn": "pixels" if dense else "electrons",
        "electrons": series.scene.instrument.electrons_per_pattern,
        "seconds": round(min(seconds[1:]), 2),  # the first one compiles
        "processor_seconds": round(min(busy[1:]), 2),
    }


def images(library: Library, seed: int, seconds: float) -> tuple[int, float, float]:
    """Images drawn, the time that took, and the processor's time; what must be compiled is not counted."""
    settings, rng = load_training(), np.random.default_rng(seed)
    for _ in range(10):
        draw_images(random_sample(settings, library, rng), rng)
    began, busy, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        draw_images(random_sample(settings, library, rng), rng)
        count += 1
    return count, time.perf_counter() - began, time.process_time() - busy


def training(library: Library, processes: int, seconds: float) -> dict[str, object]:
    """Images per second with so many processes at once."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(images, [library] * processes, range(processes), [seconds] * processes))
    return {
        "what": "training images 256x256",
        "processes": processes,
        "images_per_s": round(sum(count / wall for count, wall, _ in parts), 1),
        "images_per_processor_second": round(sum(p[0] for p in parts) / sum(p[2] for p in parts), 1),
    }


def main() -> None:
    """Measure."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    for dense in (False, True):
        print(json.dumps(scan(dense) | {"cores": os.cpu_count()}), flush=True)
    began = time.process_time()
    library = make_library(load_training(), np.random.default_rng(1))
    print(json.dumps({"what": "library, compiling", "processor_seconds": round(time.process_time() - began, 1)}))
    began = time.process_time()
    library = make_library(load_training(), np.random.default_rng(2))
    print(json.dumps({"what": "library", "processor_seconds": round(time.process_time() - began, 1)}), flush=True)
    for processes in (1, 2):
        print(json.dumps(training(library, processes, seconds)), flush=True)


if __name__ == "__main__":
    main()
