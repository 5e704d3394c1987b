"""Where on the dark field its electrons land: pseudo-sectors, so that every crystal has a pattern of its own.

No pattern is made: the electrons that reflections send to the dark field are shared out by random weights, few of
them large, that belong to the crystal and blend into others as it bends; what is scattered diffusely is shared out
evenly. Counts are then drawn for the number of electrons that the dark field received.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.special import ndtri

from stemtomo_dl.simulate.readout import Readout

SECTORS = 24
_SPIKES = (0.05, 1.0)  # concentrations of the weights' Dirichlet distribution: from a spot or two to many
_FEW = 24.0  # electrons that are shared out one by one; more are drawn as normal numbers
_NORMAL = ndtri((np.arange(4096) + 0.5) / 4096).astype("f4")  # as many equally likely values as 12 bits can tell


class Sectors(NamedTuple):
    """How the reflections of a field's parts are shared out.

    Attributes
    ----------
    weights : (part, 2, sector) f4 array
        At either end of the row of orientations of a part's crystal; each sums to 1.
    bragg : (y, x, sector) f4 array
        What reflections are expected to send there, per electron.
    """

    weights: np.ndarray
    bragg: np.ndarray


def no_sectors(parts: int, shape: tuple[int, int]) -> Sectors:
    """A field of which nobody asks where electrons land."""
    return Sectors(np.zeros((parts, 2, 0), "f4"), np.zeros((*shape, 0), "f4"))


def random_sectors(parts: int, shape: tuple[int, int], rng: np.random.Generator) -> Sectors:
    """Weights drawn for every part; nothing lands anywhere yet.

    A Dirichlet distribution of small concentration puts nearly all into few sectors, as Bragg spots do.
    """
    concentration = np.exp(rng.uniform(np.log(_SPIKES[0]), np.log(_SPIKES[1]), (parts, 1, 1)))
    weights = rng.standard_gamma(concentration, (parts, 2, SECTORS)) + 1e-9
    weights /= weights.sum(2, keepdims=True)
    return Sectors(weights.astype("f4"), np.zeros((*shape, SECTORS), "f4"))


def draw_sectors(
    rng: np.random.Generator,
    electrons: np.ndarray,
    counts: np.ndarray,
    dark: np.ndarray,
    sectors: Sectors,
    camera: Readout,
    area_px: float,
) -> np.ndarray:
    """Counts in every sector; they add up to those of the dark field.

    Electrons are shared out as multinomial numbers. The camera's noise is that of `readout.read_out`; what it adds
    evenly (offset, the tail of its point spread) makes up for the difference to ``counts``.

    Parameters
    ----------
    electrons, counts : (y, x) arrays
        That the dark field received, and what the camera made of them.
    dark : (y, x) array
        Electrons that it was expected to receive, per electron of the probe.
    area_px : float
        Pixels of the dark field.

    Returns
    -------
    (y, x, sector) f4 array
    """
    noise = np.float32(camera.read_noise**2 * area_px / SECTORS)
    out = np.empty_like(sectors.bragg)
    spread, gain = np.float32(camera.gain_spread**2), np.float32(camera.gain)
    f4 = (np.ascontiguousarray(a, np.float32) for a in (electrons, counts, dark))
    _share_out(rng, *f4, sectors.bragg, spread, noise, gain, _NORMAL, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _share_out(
    rng: np.random.Generator,
    electrons: np.ndarray,
    counts: np.ndarray,
    dark: np.ndarray,
    bragg: np.ndarray,
    spread: float,
    noise: float,
    gain: float,
    normal: np.ndarray,
    out: np.ndarray,
) -> None:
    """`draw_sectors`, probe by probe."""
    rows, columns, count = bragg.shape
    z, each = np.empty(count, np.float32), np.float32(1 / count)
    for y in range(rows):
        for x in range(columns):
            here, n = out[y, x], electrons[y, x]
            reflected = bragg[y, x].sum()
            rest = max(dark[y, x] - reflected, np.float32(1e-12))
            even, total = rest * each, rest + reflected
            if n <= _FEW:
                _one_by_one(rng, n, even, bragg[y, x], total, here)
            else:
                _normal_numbers(rng, normal, z)
                scale = n / total
                for s in range(count):
                    mean = scale * (even + bragg[y, x, s])
                    here[s] = max(mean + np.sqrt(mean) * z[s], np.float32(0))
                here *= n / here.sum()
            if spread + noise > 0:
                _normal_numbers(rng, normal, z)
                for s in range(count):
                    here[s] += np.sqrt(spread * here[s] + noise) * z[s]
            here *= gain
            here += (counts[y, x] - here.sum()) * each


@njit(cache=True, nogil=True, error_model="numpy")
def _one_by_one(
    rng: np.random.Generator, n: float, even: float, bragg: np.ndarray, total: float, out: np.ndarray
) -> None:
    """Put n electrons into sectors."""
    out[:] = 0
    last = len(bragg) - 1
    for _ in range(int(n + 0.5)):
        left = rng.random() * total
        if left < even * len(bragg):
            s = min(int(left / even), last)
        else:
            left, s = left - even * len(bragg) - bragg[0], 0
            while left > 0 and s < last:
                s += 1
                left -= bragg[s]
        out[s] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _normal_numbers(rng: np.random.Generator, normal: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` with values from a table of equally likely ones; the digits of a number serve four times."""
    for first in range(0, len(out), 4):
        digits = np.uint64(rng.random() * 2.0**48)
        for s in range(first, min(first + 4, len(out))):
            out[s] = normal[digits & np.uint64(4095)]
            digits >>= np.uint64(12)
