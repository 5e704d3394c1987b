"""Sequential scattering: what a crystal does to a beam that crystals above it have deflected.

Such a beam meets the Ewald sphere elsewhere: a table of shares, which is made for the undeflected cone, does not hold.
There are as many directions as ways through the crystals above, each with few electrons, so shares are computed when
an electron needs them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

_LEAST = 1e-6  # shares below are left out before their sine is taken


class Again(NamedTuple):
    """The reflections that deflected beams may excite; those of particle p at ``first[p] … first[p+1] − 1``.

    Vectors are in 1/Å, their x and y along the detector's columns and rows before the projector's ellipse.
    """

    wavenumber: float  # K, 1/Å
    cone: float  # 1/Å, transverse wave vector at the rim of the illumination cone
    to_wave: np.ndarray  # (2, 2) from px on the detector to the transverse wave vector
    first: np.ndarray  # (particle + 1,)
    g: np.ndarray  # (reflection, 3)
    strength: np.ndarray  # (reflection,) 1/Å²
    coupling: np.ndarray  # (reflection,) 1/Å²
    mosaic: np.ndarray  # (particle,) rms tilt of the blocks, rad
    shared: bool  # whether reflections share what is there, as in the two-beam theory


_NONE = np.zeros(0)
NOTHING = Again(1.0, 0.0, np.eye(2), np.zeros(1, np.int64), np.zeros((0, 3)), _NONE, _NONE, _NONE, True)


@njit(cache=True, nogil=True)
def scatter_again(
    rng: np.random.Generator, u: float, kx: float, ky: float, thickness_nm: float, p: int, again: Again
) -> tuple[int, float]:
    """Which reflection takes an electron of the transverse wave vector (kx, ky), −1 if none, and what is left of u.

    s = √(K² − |k + g|²) − (k_z + g_z), in 1/Å, for a mosaic block that is drawn; shares as in `simulate.diffraction`.

    Parameters
    ----------
    u : float
        A uniform number from 0 to 1.
    p : int
        The particle, by the order in which the beam meets them.
    """
    start, count = again.first[p], again.first[p + 1] - again.first[p]
    square, phase = again.wavenumber**2, np.pi * 10 * thickness_nm
    kz = np.sqrt(square - kx * kx - ky * ky)
    about_x, about_y = 0.0, 0.0
    if again.mosaic[p] > 0:
        about_x, about_y = again.mosaic[p] * rng.standard_normal(), again.mosaic[p] * rng.standard_normal()
    summed, total, taken = np.empty(count), 0.0, 0.0
    for r in range(count):
        gx, gy, gz = again.g[start + r]
        across = square - (kx + gx) ** 2 - (ky + gy) ** 2
        if across > 0:
            s = np.sqrt(across) - (kz + gz) + about_y * gx - about_x * gy
            effective = s * s + again.coupling[start + r]
            share = again.strength[start + r] / effective
            if share > _LEAST:
                share *= np.sin(phase * np.sqrt(effective)) ** 2
                total += share
                taken += (1 - taken) * share
        summed[r] = total
    chance = taken if again.shared else min(total, 1.0)
    if u >= chance:
        return -1, (u - chance) / (1 - chance) if chance < 1 else 0.0
    found = int(np.searchsorted(summed, u / chance * total, side="right"))
    return start + min(found, count - 1), u / chance
