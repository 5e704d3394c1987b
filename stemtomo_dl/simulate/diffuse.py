"""Diffuse scattering: how many electrons lose their phase with the crystal, and how far from the beam they land.

Inelastic scattering follows Iakoubovskii et al. (2008), which needs the density alone; elastic scattering the
scattering factors: all of them where a material is amorphous, in a crystal what thermal motion and damage take
from the Bragg reflections.

A distribution is a table of quantiles of the distance from the beam's centre on the detector, the illumination
disk already folded in: entry i of n + 1 is the radius within which a share i/n of the electrons lands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import gemmi
import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import wavelength
from stemtomo_dl.simulate.crystal import Species, Structure, scattering_power
from stemtomo_dl.simulate.damage import Damage, fading

FINE = 4  # parts of a pixel in each direction, over which densities are averaged
UNBENT = np.eye(2)
_QUANTILES = 2048
_Q_MAX = 12.0  # 1/Å; what goes further is a thousandth of all elastic scattering
_CUTOFF_MRAD = 20.0  # θ_C of the inelastic scattering, Iakoubovskii et al. 2008
_HALOES = ((0.48, 0.07, 1.2), (0.84, 0.10, 0.5))  # 1/Å, width, height: the rings of amorphous carbon
_DALTON = 1.66053907  # g/cm³ of one dalton per Å³
_AMORPHOUS_G_CM3 = {"C": 2.0, "Si": 2.2, "Ge": 5.3, "Au": 19.3, "Al": 2.7, "Cu": 8.9, "Ti": 4.5, "Mo": 10.2, "Pt": 21.4}


@dataclass(frozen=True)
class Material:
    """What scatters diffusely, after a dose that may have damaged it."""

    species: tuple[Species, ...]
    amorphous: bool
    damage: Damage | None = None
    dose_e_per_A2: float = 0.0

    @property
    def density_g_cm3(self) -> float:
        """Mass density."""
        return float(sum(_DALTON * s.density * gemmi.Element(s.element).weight for s in self.species))


def amorphous(element: str) -> Material:
    """An amorphous film of one element, with the density that is usual for it (carbon: 2.0 g/cm³).

    Raises
    ------
    InputError
        If the density of such films is not known.
    """
    if element not in _AMORPHOUS_G_CM3:
        raise InputError(f"key 'film.element': '{element}' is none of {', '.join(_AMORPHOUS_G_CM3)}")
    per_volume = _AMORPHOUS_G_CM3[element] / (_DALTON * gemmi.Element(element).weight)
    return Material((Species(element, float(per_volume), 0.0),), amorphous=True)


def crystal(structure: Structure) -> Material:
    """What a crystal scatters diffusely while it is fresh."""
    return Material(structure.species, amorphous=False)


def damaged_path(path_nm: float | None, material: Material, voltage_kv: float) -> float:
    """A mean free path that held before any damage, nm, shortened by what the Bragg reflections have lost.

    None stands for the one that composition and density give.
    """
    if path_nm is None:
        return mean_free_path(material, voltage_kv)
    if material.damage is None or material.dose_e_per_A2 <= 0:
        return path_nm
    fresh = elastic_path(replace(material, dose_e_per_A2=0.0), voltage_kv)
    return 1 / (1 / path_nm + 1 / elastic_path(material, voltage_kv) - 1 / fresh)


def mean_free_path(material: Material, voltage_kv: float) -> float:
    """Mean free path in nm of all diffuse scattering, inelastic and elastic."""
    return 1 / (1 / inelastic_path(material, voltage_kv) + 1 / elastic_path(material, voltage_kv))


def inelastic_path(material: Material, voltage_kv: float) -> float:
    """Mean free path in nm of inelastic scattering by any angle.

    1/λ = 11 ρ^0.3/(200 F E₀) · ln(θ_C²/θ_E²), ρ in g/cm³, E₀ in keV, θ_E = 5.5 ρ^0.3/(F E₀) mrad, θ_C = 20 mrad,
    F = (1 + E₀/1022)/(1 + E₀/511)²: the formula of Iakoubovskii et al. (2008, Microsc. Res. Tech. 71, 626) for a
    collection angle beyond θ_C.
    """
    ratio = (_CUTOFF_MRAD / _characteristic_mrad(material, voltage_kv)) ** 2
    energy = _relativistic(voltage_kv) * voltage_kv
    return float(200 * energy / (11 * material.density_g_cm3**0.3 * np.log(ratio)))


@lru_cache(1024)
def elastic_path(material: Material, voltage_kv: float) -> float:
    """Mean free path in nm of elastic scattering that keeps no phase: σ = γ²λ² ∫ f_diffuse² 2πq dq."""
    q = _grid()
    gamma = 1 + voltage_kv / 510.99895
    area = np.trapezoid(_elastic(material, q) * 2 * np.pi * q, q)  # per Å³
    return float(0.1 / max((gamma * wavelength(voltage_kv)) ** 2 * area, 1e-12))


@lru_cache(256)
def quantiles(material: Material, voltage_kv: float, pixel: float, disk_px: float) -> np.ndarray:
    """Quantile table (n + 1,) in detector px of a material's diffuse scattering.

    Inelastic scattering is 1/(θ² + θ_E²) − 1/(θ² + θ_C²), whose integral is the mean free path above; elastic
    scattering the |f|² of the elements: with rings where the material is amorphous, and in a crystal by what
    thermal motion and damage leave, 1 − exp(−2Bs²)·fading.
    """
    q = _grid()
    lambda_mrad = wavelength(voltage_kv) * 1e3
    near, far = (angle / lambda_mrad for angle in (_characteristic_mrad(material, voltage_kv), _CUTOFF_MRAD))
    inelastic = 1 / (q**2 + near**2) - 1 / (q**2 + far**2)
    total = mean_free_path(material, voltage_kv)
    weight = total / inelastic_path(material, voltage_kv)
    share = weight * _cumulative(q, inelastic) + (1 - weight) * _cumulative(q, _elastic(material, q))
    return _fold_disk(q / pixel, share, disk_px)


def _grid() -> np.ndarray:
    return np.concatenate([[0.0], np.geomspace(1e-5, _Q_MAX, 6000)])


def _relativistic(voltage_kv: float) -> float:
    return (1 + voltage_kv / 1022) / (1 + voltage_kv / 511) ** 2


def _characteristic_mrad(material: Material, voltage_kv: float) -> float:
    return float(5.5 * material.density_g_cm3**0.3 / (_relativistic(voltage_kv) * voltage_kv))


def _elastic(material: Material, q: np.ndarray) -> np.ndarray:
    """Diffuse |f|² per volume, 1/Å, at q = 1/d."""
    out = np.zeros_like(q)
    left = fading(material.damage, material.dose_e_per_A2, q)
    for element, density, u in material.species:
        lost = 1.0 if material.amorphous else 1 - np.exp(-4 * np.pi**2 * u * q**2) * left
        out += density * scattering_power(element, q) * lost
    if material.amorphous:
        rings = out * (1 + sum(h * np.exp(-(((q - c) / w) ** 2)) for c, w, h in _HALOES))
        out = rings * (np.trapezoid(out * q, q) / np.trapezoid(rings * q, q))  # they redistribute, and add nothing
    return out


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


def template(
    table: np.ndarray, center_px: np.ndarray, shape: tuple[int, int], ellipse: np.ndarray = UNBENT
) -> np.ndarray:
    """Share of a distribution's electrons in every detector pixel, (row, column); parameters as `fine_template`."""
    fine = fine_template(table, center_px, shape, ellipse)
    return np.asarray(fine.reshape(shape[0], FINE, shape[1], FINE).sum((1, 3)))


def fine_template(
    table: np.ndarray, center_px: np.ndarray, shape: tuple[int, int], ellipse: np.ndarray = UNBENT
) -> np.ndarray:
    """Share of a distribution's electrons in every one of `FINE`² parts of a pixel, (fine row, fine column).

    Parameters
    ----------
    table : (n + 1,) array
        Quantiles, px.
    center_px : (2,) array
        The beam (column, row).
    shape : (int, int)
        Rows and columns of whole pixels.
    ellipse : (2, 2) array
        What the projector does to vectors (column, row); it keeps areas.
    """
    offsets, back = (np.arange(FINE) + 0.5) / FINE - 0.5, np.linalg.inv(ellipse)
    x = (np.arange(shape[1])[:, None] + offsets).ravel() - center_px[0]
    y = ((np.arange(shape[0])[:, None] + offsets).ravel() - center_px[1])[:, None]
    radius = np.hypot(back[0, 0] * x + back[0, 1] * y, back[1, 0] * x + back[1, 1] * y)
    half = 0.5 / FINE
    radii = np.arange(0.0, radius.max() + 2 * half, half / 4)
    within = np.interp(radii, table, np.linspace(0, 1, len(table)), right=1.0)
    outer, inner = np.interp(radii + half, radii, within), np.interp(radii - half, radii, within)
    density = (outer - inner) / (np.pi * ((radii + half) ** 2 - np.maximum(radii - half, 0) ** 2))
    return np.asarray(np.interp(radius, radii, density) / FINE**2)
