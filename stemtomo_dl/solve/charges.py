"""Do the charges of a model balance?"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import gemmi
import numpy as np

from stemtomo_dl.solve.stated import ALIKE

ANIONS = {"O": -2, "F": -1, "Cl": -1, "Br": -1, "I": -1, "S": -2, "Se": -2}  # where they are the most electronegative
# least charge of cations in solids; textbook oxidation numbers. Elements that form cations as well as anions (C, N, P,
# H …) or metals' own phases are left out, and nothing is said of what holds them.
_LEAST = {
    1: "Li Na K Rb Cs Ag Cu Tl Ga In",
    # bonds between metals included, as in GeSe, GaSe, SmS or ZrS
    2: "Be Mg Ca Sr Ba Zn Cd Hg Pb Sn Ge Mn Fe Co Ni Ti V Cr Pd Pt Ru Zr Hf Th "
    "Sc Y La Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Tm Yb Lu",
    3: "B Al Bi Sb Rh Ir Os Re",
    4: "Si",
}
_CHARGE = {e: charge for charge, elements in _LEAST.items() for e in elements.split()} | ANIONS
KNOWN_IN_SOLIDS = (*_CHARGE, "C", "N", "P")  # elements that solids commonly hold


def least_charge(counts: Mapping[str, float], stated: Collection[str] = ()) -> float | None:
    """Sum of the charges of a cell's contents, each cation at the least that it has in solids; None if not told.

    Above 0 there are too few anions, or cations that are none: no hydrogen that was not found, and no other oxidation
    number, can make up for it.

    Parameters
    ----------
    counts : mapping of str to float
        Atoms of each element, in any unit.
    stated : collection of str
        Elements that may be there. One that scatters alike may stand for an atom's, as Al for Si in feldspars.
    """
    counts = _at_least(counts, stated)
    if not set(counts) <= set(_CHARGE) or not set(counts) & set(ANIONS) or not set(counts) - set(ANIONS):
        return None
    return float(sum(n * _CHARGE[e] for e, n in counts.items()))


def _at_least(counts: Mapping[str, float], stated: Collection[str]) -> dict[str, float]:
    """The counts with each element replaced by that of least charge which scatters like it, not told before others."""
    out: dict[str, float] = {}
    for element, n in counts.items():
        number = gemmi.Element(element).atomic_number
        like = {e for e in stated if abs(gemmi.Element(e).atomic_number - number) <= ALIKE} | {element}
        least = min(like, key=lambda e: (_CHARGE.get(e, -np.inf), e != element))
        out[least] = out.get(least, 0.0) + n
    return out


def charge_of_anion(element: str) -> int:
    """Size of the charge of an element that is an anion where it is the most electronegative."""
    return -ANIONS[element]
