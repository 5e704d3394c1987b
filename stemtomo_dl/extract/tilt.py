"""One tilt: combinations of probes and a scan -> the particles' patterns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from stemtomo_dl.config import ExtractConfig
from stemtomo_dl.extract.adding import KINDS
from stemtomo_dl.extract.bragg import Region, purity, signal
from stemtomo_dl.extract.collect import PARTS, Plan, Sums, collect, gauge_probes, plan
from stemtomo_dl.extract.ellipse import stretch
from stemtomo_dl.extract.finish import COUNTING, Camera, camera_noise, finish
from stemtomo_dl.extract.separate import Combination
from stemtomo_dl.records import Instrument, Scan, TiltPatterns
from stemtomo_dl.stream import THREADS

_ARRAYS = KINDS + 3  # in memory for each particle: sums, two of lost weight, squares


def extract_tilt(
    scan: Scan,
    track: np.ndarray,
    combinations: list[Combination],
    beam_px: np.ndarray,
    bad: np.ndarray,
    center_px: np.ndarray,
    instrument: Instrument,
    config: ExtractConfig,
) -> TiltPatterns:
    """Pattern of every particle at one tilt without neighbours and support, the beam moved to one centre.

    Parameters
    ----------
    scan : Scan
        Only tiles that hold probes in use are read, once; more often where the sums exceed ``config.memory_mb``.
    track : (particle) int array
    combinations : list of Combination
        One for each particle.
    beam_px : (y, x, 2) array
        Beam position (column, row) at every probe.
    bad : (qy, qx) bool array
    center_px : (2,) array
        Where the beam shall be (column, row).
    instrument : Instrument
    config : ExtractConfig

    Returns
    -------
    TiltPatterns

    Raises
    ------
    BadScan
        If a tile cannot be read.
    """
    qy, qx = scan.shape[2:]
    size = max(1, int(config.memory_mb * 2**20 / (4 * _ARRAYS * qy * qx)))
    region = Region(center_px, (qy, qx), instrument)
    parts, gauged = [], gauge_probes(combinations)
    camera, rings = COUNTING, np.full(2, np.nan)
    for first in range(0, max(len(combinations), 1), size):
        chosen = combinations[first : first + size]
        todo = plan(chosen, beam_px, center_px, gauged if first == 0 else gauged[:0])
        sums = collect(scan, todo, len(chosen), bad, config)
        if sums.n_gauge:
            camera = camera_noise(sums, bad)
            at = beam_px.reshape(-1, 2)[gauged].mean(0)
            rings = stretch(sums.gauge[0] / sums.n_gauge, ~bad, at, region.inner_px)
        parts.append(_patterns(chosen, todo, sums, camera, region))
    found = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    return TiltPatterns(gain=camera.gain, stretch=rings, track=track.astype("i4"), **found)


def _patterns(
    chosen: list[Combination], todo: Plan, sums: Sums, camera: Camera, region: Region
) -> dict[str, np.ndarray]:
    """The fields of `TiltPatterns` from the sums of a pass."""
    shape = sums.squares.shape
    out = {"patterns": np.zeros(shape, "f4"), "variance": np.zeros(shape, "f4"), "measured": np.zeros(shape, bool)}
    bragg, pure = np.zeros(len(chosen), "f4"), np.zeros(len(chosen), "f4")

    def complete(k: int) -> None:
        c = chosen[k]
        squared = np.concatenate([c.own_coefficient, c.rest_coefficient]) ** 2
        floor = float(squared.sum()), float((c.own_coefficient**2).sum()) / max(len(c.own), 1)
        p = finish(sums.sums[k, :2], sums.lost[k], sums.squares[k], todo.total[k], todo.remaining[k], floor, camera)
        out["patterns"][k], out["variance"][k], out["measured"][k] = p
        spots = region.spots(p)
        bragg[k] = signal(p, region, spots)
        pure[k] = _purity(sums, todo, k, region, spots, p.measured, camera)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(complete, range(len(chosen))))
    n_probes = np.array([len(c.own) for c in chosen], "i4")
    n_support = np.array([len(c.support) for c in chosen], "i4")
    separated = np.array([c.separated for c in chosen], bool)
    return out | {
        "n_probes": n_probes,
        "n_support": n_support,
        "separated": separated,
        "bragg_signal": bragg,
        "purity": pure,
    }


def _purity(
    sums: Sums, todo: Plan, k: int, region: Region, spots: np.ndarray, measured: np.ndarray, camera: Camera
) -> float:
    n = np.bincount(todo.sums[(todo.sums // KINDS == k)] % KINDS, minlength=KINDS)[2:]
    assert len(n) == PARTS
    return purity(sums.sums[k, 2:], n, region, spots, measured, camera)
