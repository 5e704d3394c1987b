"""Diffuse scattering: how far from the beam electrons land that kept no phase with the crystal.

A distribution is a table of quantiles of the distance from the beam's centre on the detector, the illumination
disk already folded in: entry i of n + 1 is the radius within which a share i/n of the electrons lands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stemtomo_dl.simulate.crystal import scattering_power

_QUANTILES = 2048
_Q_MAX = 3.0  # 1/Å
_INELASTIC_SHARE = 0.6
_LOSS_EV = 22.0  # a typical plasmon
_CUTOFF_MRAD = 12.0  # Bethe ridge of such a loss, beyond which inelastic scattering fades
_HALOES = ((0.48, 0.07, 1.2), (0.84, 0.10, 0.5))  # 1/Å, width, height: the rings of amorphous carbon


def quantiles(
    elements: Sequence[str], amorphous: bool, voltage_kv: float, wavelength_a: float, pixel: float, disk_px: float
) -> np.ndarray:
    """Quantile table (n + 1,) in detector px of a material's diffuse scattering.

    Inelastic scattering is a Lorentzian of the characteristic angle θ_E = ΔE/2E (Egerton 2011, non-relativistic),
    elastic scattering the mean |f|² of the elements: with rings where the material is amorphous, and in a crystal
    by what thermal motion leaves, 1 − exp(−2Bs²).
    """
    q = np.concatenate([[0.0], np.geomspace(1e-5, _Q_MAX, 6000)])
    elastic = np.mean([scattering_power(e, q) for e in elements], axis=0)
    if amorphous:
        elastic *= 1 + sum(h * np.exp(-(((q - c) / w) ** 2)) for c, w, h in _HALOES)
    else:
        elastic *= 1 - np.exp(-2 * 0.5 * q**2 / 4)
    characteristic = _LOSS_EV / (2e3 * voltage_kv) / wavelength_a
    cutoff = _CUTOFF_MRAD * 1e-3 / wavelength_a
    inelastic = np.exp(-((q / cutoff) ** 2)) / (q**2 + characteristic**2)
    share = _INELASTIC_SHARE * _cumulative(q, inelastic) + (1 - _INELASTIC_SHARE) * _cumulative(q, elastic)
    return _fold_disk(q / pixel, share, disk_px)


def _cumulative(q: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Share of electrons within q, of a density per area."""
    ring = density * q
    total = np.concatenate([[0.0], np.cumsum((ring[1:] + ring[:-1]) / 2 * np.diff(q))])
    return np.asarray(total / total[-1])


def _fold_disk(radius: np.ndarray, share: np.ndarray, disk_px: float) -> np.ndarray:
    """Quantiles of |kick + place in the disk|, by evenly spread points of (kick, place, angle between them)."""
    # the additive recurrence of the generalised golden ratio: lower discrepancy than random draws, no state
    golden = 1.2207440846057596
    u = (0.5 + np.outer(np.arange(1, 64 * _QUANTILES + 1), golden ** -np.arange(1.0, 4.0))) % 1
    kick, place = np.interp(u[:, 0], share, radius), disk_px * np.sqrt(u[:, 1])
    landed = np.sqrt(kick**2 + place**2 + 2 * kick * place * np.cos(2 * np.pi * u[:, 2]))
    return np.quantile(landed, np.linspace(0, 1, _QUANTILES + 1))


def template(table: np.ndarray, center_px: np.ndarray, shape: tuple[int, int], samples: int = 4) -> np.ndarray:
    """Share of a distribution's electrons in every detector pixel, (row, column).

    Parameters
    ----------
    table : (n + 1,) array
        Quantiles, px.
    center_px : (2,) array
        The beam (column, row).
    samples : int
        Points per pixel and direction over which the density is averaged.
    """
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    x = (np.arange(shape[1])[:, None] + offsets).ravel() - center_px[0]
    y = (np.arange(shape[0])[:, None] + offsets).ravel() - center_px[1]
    half = 0.5 / samples
    radii = np.arange(0.0, np.hypot(np.abs(x).max(), np.abs(y).max()) + 2 * half, half / 4)
    within = np.interp(radii, table, np.linspace(0, 1, len(table)), right=1.0)
    outer, inner = np.interp(radii + half, radii, within), np.interp(radii - half, radii, within)
    density = (outer - inner) / (np.pi * ((radii + half) ** 2 - np.maximum(radii - half, 0) ** 2))
    fine = np.interp(np.hypot(x, y[:, None]), radii, density)
    return np.asarray(fine.reshape(shape[0], samples, shape[1], samples).mean((1, 3)))
