"""Ab initio phases by charge flipping in P1, where reflections that were not measured float."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

_THRESHOLD = 1.1  # of the map's standard deviation; what lies below is flipped
_WEAK = 0.2  # share of the measured reflections whose phases are turned by a quarter instead
_FLOAT = 0.9  # of the map's own amplitude, kept by reflections that were not measured
_CYCLES = 400
_LOOK = 20  # cycles from one look at the skewness to the next
_POLISH = 10  # cycles of low-density elimination at the end


@dataclass(frozen=True, eq=False)
class Amplitudes:
    """Measured amplitudes laid on the half of a reciprocal grid that `scipy.fft.rfftn` fills.

    Attributes
    ----------
    shape : tuple of int
        Points of the map along a, b, c.
    value : (a, b, c // 2 + 1) f8
        |F|, 0 where nothing was measured.
    measured, inside : (a, b, c // 2 + 1) bool
        What was measured; what lies within the resolution limit, without the origin.
    """

    shape: tuple[int, int, int]
    value: np.ndarray
    measured: np.ndarray
    inside: np.ndarray

    @classmethod
    def on_grid(cls, hkl: np.ndarray, value: np.ndarray, reciprocal: np.ndarray) -> Amplitudes:
        """Lay out amplitudes of P1, both Friedel mates given; rows of ``reciprocal`` (3, 3) are a*, b*, c* in 1/Å."""
        sizes = [fft.next_fast_len(2 * int(np.abs(hkl[:, i]).max()) + 2) for i in range(3)]
        shape = (sizes[0], sizes[1], sizes[2] + sizes[2] % 2)
        half = (*shape[:2], shape[2] // 2 + 1)
        amplitude, measured = np.zeros(half), np.zeros(half, bool)
        upper = hkl[:, 2] >= 0
        at = tuple((hkl[upper] % shape).T)
        amplitude[at], measured[at] = value[upper], True
        q2 = ((hkl @ reciprocal) ** 2).sum(1).max()
        inside = ((indices(shape) @ reciprocal) ** 2).sum(-1) <= q2 * (1 + 1e-9)
        inside[0, 0, 0] = measured[0, 0, 0] = False
        return cls(shape, amplitude, measured, inside)


def indices(shape: tuple[int, int, int]) -> np.ndarray:
    """Hkl (a, b, c // 2 + 1, 3) of the half grid."""
    axes = (fft.fftfreq(shape[0], 1 / shape[0]), fft.fftfreq(shape[1], 1 / shape[1]), np.arange(shape[2] // 2 + 1))
    return np.rint(np.stack(np.meshgrid(*axes, indexing="ij"), -1)).astype(int)


def flip(amplitudes: Amplitudes, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Phase amplitudes from one random start.

    Charge flipping [1]_ with the weak reflections' phases turned by π/2 [2]_; reflections that were not measured
    take 0.9 of the amplitude that the flipped map gives them, or the holes that 3D ED leaves would stay holes. It
    stops when the skewness of the map has risen and is flat; low-density elimination [3]_ then cleans the map.

    Parameters
    ----------
    amplitudes : Amplitudes
    rng : numpy.random.Generator
        Draws the phases to start from.

    Returns
    -------
    factors : (a, b, c // 2 + 1) c16
        Structure factors in the convention F(h) = Σ f exp 2πi h·x, at an arbitrary origin; measured ones have
        their measured amplitudes.
    skewness : float
        Of the map: high where it has peaks and flat ground.

    References
    ----------
    .. [1] Oszlányi & Sütő, Acta Cryst. A60 (2004) 134.
    .. [2] Oszlányi & Sütő, Acta Cryst. A61 (2005) 147.
    .. [3] Shiono & Woolfson, Acta Cryst. A48 (1992) 451.
    """
    a = amplitudes
    limit = np.quantile(a.value[a.measured], _WEAK)
    strong, weak = a.measured & (a.value > limit), a.measured & (a.value <= limit)
    floating = a.inside & ~a.measured
    turn = np.where(weak, 1j, 0) + np.where(floating, _FLOAT, 0)
    turn[0, 0, 0] = 1
    target = np.where(strong, a.value, 0)
    n = float(np.prod(a.shape))
    density = fft.irfftn(a.value * np.exp(2j * np.pi * rng.random(a.value.shape)), a.shape) * n
    seen: list[float] = []
    for cycle in range(1, _CYCLES + 1):
        below = density < _THRESHOLD * density.std()
        np.negative(density, out=density, where=below)
        g = fft.rfftn(density) / n
        g *= turn + target / (np.abs(g) + 1e-30)
        density = fft.irfftn(g, a.shape) * n
        if cycle % _LOOK == 0:
            seen.append(_skewness(density))
            if len(seen) > 6 and seen[-1] > 1.3 * np.median(seen[:4]) and abs(seen[-1] / seen[-3] - 1) < 0.02:
                break
    for _ in range(_POLISH):
        density[density < 0.8 * _THRESHOLD * density.std()] = 0
        g = fft.rfftn(density) / n
        g = np.where(a.measured, a.value * np.exp(1j * np.angle(g)), np.where(a.inside, g, 0))
        density = fft.irfftn(g, a.shape) * n
    return g.conj(), _skewness(density)


def of_heavy_atom(amplitudes: Amplitudes) -> tuple[np.ndarray, float]:
    """Phases of one heavy atom alone at the origin, which are all 0, and what `flip` gives with them.

    Where one atom outweighs the rest and lies on every element of symmetry they are nearly right, and charge flipping
    may always settle on something else: LiCoO₂ from 66 reflections, as R 3 m.
    """
    return amplitudes.value.astype(complex), _skewness(fft.irfftn(amplitudes.value, amplitudes.shape))


def _skewness(density: np.ndarray) -> float:
    away = density - density.mean()
    return float((away**3).mean() / max(float((away**2).mean()), 1e-300) ** 1.5)
