"""Whether anions have the room that their neighbours' elements ask for."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.solve.charges import charge_of_anion
from stemtomo_dl.solve.checks import Bond, distances
from stemtomo_dl.solve.refine import Fit

_NEGATIVE = ("F", "O", "Cl", "Br", "I", "S", "Se")  # the most electronegative first
_B = 0.37  # Å
REACH_A = 3.5  # of bonds; longer ones add nothing that tells
_FAR = 2.5  # times an anion's charge; sums of true structures, metallic sulfides' among them, stay below 2
_MOST = 0.5  # of the anions
# r (Å) and c of each element: O'Keeffe & Brese, J. Am. Chem. Soc. 113 (1991) 3226
_SIZE = {
    "Ag": (1.12, 1.42), "Al": (1.13, 1.47), "As": (1.21, 2.23), "B": (0.79, 1.6), "Ba": (1.88, 0.97),
    "Be": (0.81, 1.47), "Bi": (1.54, 1.67), "Br": (1.13, 2.58), "C": (0.78, 2.0), "Ca": (1.5, 1.04),
    "Cd": (1.28, 1.46), "Ce": (1.68, 1.08), "Cl": (0.99, 2.74), "Co": (1.09, 1.7), "Cr": (1.16, 1.56),
    "Cs": (2.05, 0.86), "Cu": (0.87, 1.75), "Dy": (1.54, 1.1), "Er": (1.51, 1.11), "Eu": (1.62, 1.01),
    "F": (0.58, 3.98), "Fe": (1.16, 1.64), "Ga": (1.14, 1.82), "Gd": (1.58, 1.11), "Ge": (1.21, 1.51),
    "Hf": (1.42, 1.23), "Hg": (1.32, 1.44), "Ho": (1.53, 1.1), "I": (1.33, 2.38), "In": (1.34, 1.49),
    "Ir": (1.37, 1.55), "K": (1.73, 0.91), "La": (1.71, 1.08), "Li": (1.0, 0.97), "Lu": (1.47, 1.14),
    "Mg": (1.21, 1.23), "Mn": (1.17, 1.6), "Mo": (1.37, 1.3), "N": (0.72, 2.61), "Na": (1.36, 1.01),
    "Nb": (1.4, 1.23), "Nd": (1.64, 1.07), "Ni": (1.04, 1.75), "O": (0.63, 3.15), "P": (1.09, 1.96),
    "Pb": (1.53, 1.55), "Pd": (1.11, 1.35), "Pr": (1.66, 1.07), "Rb": (1.84, 0.89), "Re": (1.37, 1.46),
    "Rh": (1.18, 1.54), "Ru": (1.21, 1.42), "S": (1.03, 2.35), "Sb": (1.41, 1.72), "Sc": (1.34, 1.2),
    "Se": (1.18, 2.51), "Si": (1.12, 1.58), "Sm": (1.61, 1.07), "Sn": (1.37, 1.72), "Sr": (1.66, 0.99),
    "Ta": (1.39, 1.33), "Tb": (1.56, 1.1), "Te": (1.4, 2.72), "Th": (1.7, 1.11), "Ti": (1.27, 1.32),
    "Tl": (1.62, 1.44), "Tm": (1.5, 1.11), "U": (1.59, 1.22), "V": (1.21, 1.45), "W": (1.38, 1.4), "Y": (1.52, 1.11),
    "Yb": (1.49, 1.06), "Zn": (1.07, 1.66), "Zr": (1.43, 1.22),
}  # fmt: skip


def unit_length(first: str, second: str) -> float | None:
    """Length, Å, of a bond of valence 1 between two elements; None if one of them is not tabulated.

    R = r₁ + r₂ − r₁ r₂ (√c₁ − √c₂)² / (c₁ r₁ + c₂ r₂), which fits bonds of any two elements to 0.05 Å as a rule.
    """
    if first not in _SIZE or second not in _SIZE:
        return None
    (r, c), (s, d) = _SIZE[first], _SIZE[second]
    return float(r + s - r * s * (np.sqrt(c) - np.sqrt(d)) ** 2 / (c * r + d * s))


def anion_sum(fit: Fit, near: list[Bond], atom: int, anion: str) -> float:
    """Sum of the bond valences of an atom, were it the anion named, to all cations of ``near``, see `distances`.

    Anions are the elements that are ones beside any cation; pairs that are not tabulated count nothing.
    """
    elements = fit.model.elements
    others = [b for b in near if b.first == atom and elements[b.second] not in _NEGATIVE]
    units = [unit_length(anion, elements[b.second]) for b in others]
    return float(sum(np.exp((r - b.length) / _B) for r, b in zip(units, others, strict=True) if r is not None))


def crowded(fit: Fit) -> list[tuple[int, float, int]]:
    """(atom, sum of bond valences, charge) of the anions, if most of them are far too near their neighbours.

    Sums far above the charge say that the elements are smaller ones, or the cell is too small: ZnO named CdS has them
    at 9 in the place of 2. Sums below it say nothing, for hydrogen is not in the model. Only anions of the model's most
    electronegative element count; another, as S beside O, may be a cation.
    """
    elements, places = fit.model.elements, fit.model.multiplicities
    anion = next((e for e in _NEGATIVE if e in elements), None)
    if anion is None:
        return []
    near, charge = distances(fit, REACH_A), charge_of_anion(anion)
    sums = [(i, anion_sum(fit, near, i, anion), charge) for i, e in enumerate(elements) if e == anion]
    beyond = [s for s in sums if s[1] > _FAR * charge]
    whole = sum(places[atom] for atom, *_ in sums)
    return beyond if sum(places[atom] for atom, *_ in beyond) > _MOST * whole else []
