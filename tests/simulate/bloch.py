"""Many-beam diffraction by Bloch waves: an oracle that shares nothing with the package but structure factors.

With U_g = γF_g/(πV) and K = 1/λ, the amplitudes ψ(t) behind a crystal of thickness t solve
ψ' = (iπ/K)·A·ψ, A_gg = K² − |k + g|² = 2Ks_g, A_gh = U_(g−h), no absorption (Humphreys 1979, Rep. Prog. Phys. 42,
1825).
"""

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.geometry import wavelength
from stemtomo_dl.simulate.crystal import Structure


@dataclass(frozen=True, eq=False)
class Bloch:
    """Beams of one crystal in one orientation; beam 0 is the direct one."""

    wave_number: float  # K, 1/Å
    hkl: np.ndarray  # (beam, 3)
    g: np.ndarray  # (beam, 3) 1/Å, lab frame
    potential: np.ndarray  # (beam, beam) U, 1/Å²


def beams(structure: Structure, ub_lab: np.ndarray, voltage_kv: float, g_max: float, s_max: float) -> Bloch:
    """The beams with |g| up to g_max whose excitation error is within ±s_max (both 1/Å).

    ``structure`` must hold reflections to 2·g_max, for the coupling of beams with each other.
    """
    k = 1 / wavelength(voltage_kv)
    g = structure.hkl @ ub_lab.T
    s = (k**2 - ((g + [0, 0, k]) ** 2).sum(1)) / (2 * k)
    near = (np.abs(s) < s_max) & (np.linalg.norm(g, axis=1) < g_max)
    hkl = np.concatenate([np.zeros((1, 3), int), structure.hkl[near]])
    reach = np.abs(structure.hkl).max(0)
    table = np.zeros(2 * reach + 1, complex)
    table[tuple((structure.hkl + reach).T)] = structure.structure_factor
    difference = hkl[:, None] - hkl[None]
    inside = (np.abs(difference) <= reach).all(-1)
    index = np.where(inside[..., None], difference, 0) + reach
    factor = np.where(inside, table[tuple(np.moveaxis(index, -1, 0))], 0)
    gamma = 1 + voltage_kv / 510.99895
    return Bloch(k, hkl, hkl @ ub_lab.T, factor * gamma / (np.pi * structure.volume))


def excitation(crystal: Bloch, transverse: np.ndarray) -> np.ndarray:
    """(K² − |k + g|²)/2K (beam,) for an incident wave with this transverse wave vector (2,), 1/Å."""
    k = crystal.wave_number
    incident = np.array([*transverse, np.sqrt(k**2 - transverse @ transverse)])
    return (k**2 - ((crystal.g + incident) ** 2).sum(1)) / (2 * k)


def intensities(crystal: Bloch, transverse: np.ndarray, thickness_a: np.ndarray) -> np.ndarray:
    """Intensities (thickness, beam) behind plates of these thicknesses, Å."""
    k = crystal.wave_number
    matrix = crystal.potential + np.diag(2 * k * excitation(crystal, transverse))
    value, vector = np.linalg.eigh(matrix)
    phase = np.exp(1j * np.pi * np.multiply.outer(thickness_a, value) / k)
    return np.abs((phase * vector[0].conj()) @ vector.T) ** 2
