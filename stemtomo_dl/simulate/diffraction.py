"""What a particle does to the beam: the share of electrons that every reflection takes, for every thickness.

The illumination cone is cut into cells of equal area; within one, all electrons share an excitation error. A table
holds, for every thickness of a ladder and every cell, the cumulative share of the reflections; what is left
after the last one passes unscattered. Another theory (Bloch waves) only has to fill such a table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from stemtomo_dl.geometry import excitation_error, rotate_in_plane
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate import cone
from stemtomo_dl.simulate.crystal import Structure

LADDER_NM = 1.0  # spacing of the thicknesses between which shares are linear
MOST_SCATTERED = 0.9  # two-beam shares of a beam direction add up to no more: beyond, they are scaled down
MOST_KINEMATIC = 0.5  # the kinematic shares of a particle are scaled so as never to exceed this
WEAKEST = 1e-5  # reflections that take no more than this at any thickness are left out


@dataclass(frozen=True, eq=False)
class Beam(Record):
    """The illumination: its wavelength and the cells of its cone, numbered as in `simulate.cone`."""

    voltage_kv: float
    wavelength_a: float
    convergence_mrad: float
    rings: int
    direction: np.ndarray = array("f8", "cell 2", "1, lab frame; the cone's rim is at 1")


def make_beam(voltage_kv: float, wavelength_a: float, convergence_mrad: float, rings: int, rotation_deg: float) -> Beam:
    """Cut a cone into 3·rings² cells; ``rotation_deg`` leads from the lab frame to the detector's axes."""
    direction = rotate_in_plane(cone.middles(rings), -rotation_deg)
    return Beam(voltage_kv, wavelength_a, convergence_mrad, rings, direction)


def rings_needed(convergence_mrad: float, g_max: float, thickness_nm: float) -> int:
    """Rings, between 2 and 8, that keep the phase π·t·s within about half a radian inside a cell."""
    phase = 2 * np.pi * thickness_nm * 10 * convergence_mrad * 1e-3 * g_max
    return int(np.clip(np.ceil(phase), 2, 8))


@dataclass(frozen=True, eq=False)
class Excited(Record):
    """The reflections of one particle that matter at one tilt."""

    index: np.ndarray = array("i8", "reflection")  # row of the structure's list
    g: np.ndarray = array("f8", "reflection 3", "1/Å, lab frame")
    s: np.ndarray = array("f8", "reflection", "1/Å")
    slope: np.ndarray = array("f8", "reflection cell", "1/Å")  # excitation error in a cell less s
    extinction: np.ndarray = array("f8", "reflection", "Å")


def extinction_distance(structure: Structure, beam: Beam) -> np.ndarray:
    """ξ_g = π V / (γ λ |F_g|) for every reflection, Å, in the small-angle limit (Spence & Zuo 1992)."""
    gamma = 1 + beam.voltage_kv / 510.99895
    amplitude = np.maximum(np.abs(structure.structure_factor), 1e-9)
    return np.asarray(np.pi * structure.volume / (gamma * beam.wavelength_a * amplitude))


def excite(structure: Structure, ub_lab: np.ndarray, beam: Beam, thickness_nm: float) -> Excited:
    """Find the reflections that take more than `WEAKEST` at some thickness up to the one given.

    Parameters
    ----------
    ub_lab : (3, 3) array
        R·UB, 1/Å.
    thickness_nm : float
        Greatest thickness of the particle.
    """
    g = structure.hkl @ ub_lab.T
    s = excitation_error(g, beam.wavelength_a)
    extinction = extinction_distance(structure, beam)
    nearest = np.maximum(np.abs(s) - np.hypot(g[:, 0], g[:, 1]) * beam.convergence_mrad * 1e-3, 0)
    strength = np.minimum(1 / (1 + (nearest * extinction) ** 2), (np.pi * 10 * thickness_nm / extinction) ** 2)
    index = np.flatnonzero(strength > WEAKEST)  # NaN, beyond the sphere's rim, compares as no
    # s(δ) = s − g_xy·δ/K for a beam whose transverse wave vector is δ = K·convergence·direction
    slope = -(g[index, :2] @ beam.direction.T) * beam.convergence_mrad * 1e-3
    return Excited(index, g[index], s[index], slope, extinction[index])


def kinematic_bound(excited: Excited, thickness_nm: float) -> float:
    """An upper bound on the kinematic share of all reflections at any thickness up to this and in any cell."""
    nearest = np.abs(excited.s) - np.abs(excited.slope).max(1, initial=0)
    envelope = np.minimum(np.pi * 10 * thickness_nm, 1 / np.maximum(nearest, 1e-9))
    return float(((envelope / excited.extinction) ** 2).sum())


def ladder(thickness_nm: float) -> tuple[int, float]:
    """Number of steps and their height, nm, of a ladder of thicknesses from 0 to the greatest."""
    steps = max(1, int(np.ceil(thickness_nm / LADDER_NM)))
    return steps, thickness_nm / steps


def two_beam_shares(excited: Excited, steps: int, step_nm: float) -> np.ndarray:
    """Cumulative shares (thickness, cell, reflection) of the two-beam theory.

    I = sin²(π t √(s² + 1/ξ²)) / (1 + (sξ)²) for each reflection by itself (Hirsch et al. 1965), t along the beam.
    Where many are strong at once their sum would exceed one; it is scaled down to `MOST_SCATTERED`.
    """
    strength = excited.extinction**-2
    return np.asarray(_cumulate(excited.s, excited.slope, strength, strength, steps, step_nm * 10, MOST_SCATTERED))


def kinematic_shares(excited: Excited, steps: int, step_nm: float, scale: float) -> np.ndarray:
    """Cumulative shares (thickness, cell, reflection) of the kinematic theory, I = scale·(π t/ξ)² sinc²(t s)."""
    strength = scale * excited.extinction**-2
    uncoupled = np.full(len(strength), 1e-16)  # not 0, so that s = 0 is no special case
    return np.asarray(_cumulate(excited.s, excited.slope, strength, uncoupled, steps, step_nm * 10, np.inf))


@njit(cache=True, nogil=True)
def _cumulate(
    s: np.ndarray,
    slope: np.ndarray,
    strength: np.ndarray,
    coupling: np.ndarray,
    steps: int,
    step_a: float,
    most: float,
) -> np.ndarray:
    """Running sums over reflections of strength·sin²(π t √(s² + coupling)) / (s² + coupling)."""
    cells = slope.shape[1]
    out = np.zeros((steps + 1, cells, len(s)), np.float32)
    for b in range(1, steps + 1):
        for c in range(cells):
            total = 0.0
            for r in range(len(s)):
                effective = (s[r] + slope[r, c]) ** 2 + coupling[r]
                total += strength[r] / effective * np.sin(np.pi * b * step_a * np.sqrt(effective)) ** 2
                out[b, c, r] = total
            if total > most:
                out[b, c] *= most / total
    return out
