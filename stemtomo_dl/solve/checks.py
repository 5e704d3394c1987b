"""Is a model sane: bonds, bond valences, contacts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import gemmi
import numpy as np

from stemtomo_dl.solve.charges import ANIONS
from stemtomo_dl.solve.esds import Spread
from stemtomo_dl.solve.model import Symmetry
from stemtomo_dl.solve.refine import Fit
from stemtomo_dl.solve.stated import ALIKE

_CLOSE = 0.75  # of the sum of the covalent radii; atoms that are closer overlap
_ANIONS_CLOSE = 0.88  # of it, for two anions: O2 and S2 have 0.91
# times an anion's charge, what one bond may have, if the cation has as much: V=O and uranyl's are short
_MULTIPLE = 1.25
_SAME_A = 0.02  # Å, between images of one atom that are one
_BRIDGE = 1.25  # times as far from each other as either is from an atom between them: such two only touch
_BOND_A = 0.45  # Å longer than the covalent radii a bond may be
_FAR_A = 0.8  # Å longer than the covalent radii the nearest anion of a cation may be
_LEAST_U = 0.001  # Å²
_B = 0.37  # Å; Brown & Altermatt, Acta Cryst. B41 (1985) 244
# R0 of bond valences, Å, with the valence of the cation; same source, and Brese & O'Keeffe, Acta Cryst. B47 (1991) 192
_R0 = {
    ("Ti", "O"): (1.815, 4), ("Si", "O"): (1.624, 4), ("Al", "O"): (1.651, 3), ("Zr", "O"): (1.937, 4),
    ("Mg", "O"): (1.693, 2), ("Ca", "O"): (1.967, 2), ("Fe", "O"): (1.759, 3), ("Zn", "O"): (1.704, 2),
    ("Ce", "O"): (2.028, 4), ("Sr", "O"): (2.118, 2), ("Ba", "O"): (2.29, 2), ("Na", "O"): (1.80, 1),
    ("Li", "O"): (1.466, 1), ("Be", "O"): (1.381, 2), ("B", "O"): (1.371, 3), ("P", "O"): (1.617, 5),
    ("S", "O"): (1.624, 6), ("K", "O"): (2.13, 1), ("Sc", "O"): (1.849, 3), ("Ga", "O"): (1.730, 3),
    ("Ge", "O"): (1.748, 4), ("Rb", "O"): (2.26, 1), ("Y", "O"): (2.014, 3), ("Nb", "O"): (1.911, 5),
    ("Cd", "O"): (1.904, 2), ("In", "O"): (1.902, 3), ("Cs", "O"): (2.42, 1), ("La", "O"): (2.172, 3),
    ("Nd", "O"): (2.117, 3), ("Gd", "O"): (2.065, 3), ("Yb", "O"): (1.985, 3), ("Lu", "O"): (1.971, 3),
    ("Hf", "O"): (1.923, 4), ("Ta", "O"): (1.920, 5), ("W", "O"): (1.921, 6), ("Bi", "O"): (2.09, 3),
    ("Se", "O"): (1.811, 4), ("Te", "O"): (1.977, 4), ("As", "O"): (1.767, 5), ("Sb", "O"): (1.973, 3),
    ("Sn", "O"): (1.905, 4), ("Pb", "O"): (2.112, 2), ("V", "O"): (1.803, 5), ("Cr", "O"): (1.724, 3),
    ("Mn", "O"): (1.760, 3), ("Co", "O"): (1.692, 2), ("Ni", "O"): (1.654, 2), ("Cu", "O"): (1.679, 2),
    ("Mo", "O"): (1.907, 6), ("Ag", "O"): (1.805, 1), ("Th", "O"): (2.167, 4), ("U", "O"): (2.075, 6),
    ("Ca", "F"): (1.842, 2), ("Mg", "F"): (1.581, 2), ("Na", "F"): (1.677, 1), ("Sr", "F"): (2.019, 2),
    ("Pb", "Br"): (2.64, 2), ("Cs", "Br"): (2.95, 1), ("Pb", "I"): (2.83, 2), ("Cs", "I"): (3.18, 1),
    ("Pb", "Cl"): (2.53, 2), ("Cs", "Cl"): (2.79, 1), ("Na", "Cl"): (2.15, 1), ("K", "Cl"): (2.52, 1),
}  # fmt: skip
# other valences of the same cations: R0 differs by less than bonds of a wrong element do, and the nearest is expected
_OTHERS = {
    "Ti": (3,), "Fe": (2,), "Ce": (3,), "Se": (6,), "Te": (6,), "As": (3,), "Sb": (5,), "Sn": (2,), "Pb": (4,),
    "V": (4, 3), "Cr": (6,), "Mn": (4, 2), "Co": (3,), "Ni": (3,), "Cu": (1,), "Mo": (4,), "U": (4,),
}  # fmt: skip


@dataclass(frozen=True)
class Bond:
    """A distance between an atom and an image of another, both by their places in the model."""

    first: int
    second: int
    length: float  # Å
    esd: float  # Å
    operation: int  # of the space group, that leads to the image
    cell: tuple[int, int, int]  # added then

    @property
    def symmetry(self) -> str:
        """As CIFs write it: 3_655 is operation 3, and a added; . is the atom itself."""
        if self.operation == 0 and not any(self.cell):
            return "."
        return f"{self.operation + 1}_{''.join(str(5 + c) for c in self.cell)}"


def distances(fit: Fit, reach: float) -> list[Bond]:
    """All distances to ``reach`` Å, shortest first, each image of the second atom counted."""
    model, symmetry = fit.model, fit.model.symmetry
    spread = Spread(model, fit.site_covariance)
    steps = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    found = []
    for i, site in enumerate(model.sites):
        for j, other in enumerate(model.sites):
            images = symmetry.rotations @ other + symmetry.shifts
            cells = np.floor(0.5 + site - images)[:, None] + steps
            away = (images[:, None] + cells - site).reshape(-1, 3)
            vectors = away @ symmetry.direct.T
            lengths = np.linalg.norm(vectors, axis=1)
            near = np.flatnonzero((lengths > _SAME_A) & (lengths <= reach))
            apart = np.linalg.norm(vectors[near, None] - vectors[None, near], axis=2)
            first = near[~np.tril(apart < _SAME_A, -1).any(1)]  # on special positions images coincide
            esds = spread.of_lengths(i, j, away[first], first // len(steps))
            for place, esd in zip(first.tolist(), esds.tolist(), strict=True):
                a, b, c = (round(x) for x in cells.reshape(-1, 3)[place].tolist())
                found.append(Bond(i, j, float(lengths[place]), esd, place // len(steps), (a, b, c)))
    return sorted(found, key=lambda b: b.length)


def _bonded(fit: Fit) -> list[Bond]:
    """Distances that the covalent radii allow as bonds, from each atom of the model."""
    radius = [gemmi.Element(e).covalent_r for e in fit.model.elements]
    reach = 2 * max(radius, default=1.0) + _BOND_A
    return [b for b in distances(fit, reach) if b.length <= radius[b.first] + radius[b.second] + _BOND_A]


def bonds(fit: Fit) -> list[Bond]:
    """Distances that the covalent radii allow as bonds, each pair of atoms of the model from one end."""
    return [b for b in _bonded(fit) if b.first <= b.second]


@dataclass(frozen=True)
class Angle:
    """An angle between two bonds of one atom: from its first to its second, both with that atom as their ``first``."""

    first: Bond
    second: Bond
    degrees: float
    esd: float  # degrees


def angles(fit: Fit) -> list[Angle]:
    """Angles between bonds at each atom of the model; two that a third bridges, as Ti–O–Ti, count as not bonded."""
    model, spread, every = fit.model, Spread(fit.model, fit.site_covariance), _bonded(fit)
    symmetry, found = model.symmetry, []
    for atom, site in enumerate(model.sites):
        own = [b for b in every if b.first == atom]
        arms = [symmetry.rotations[b.operation] @ model.sites[b.second] - site for b in own]
        arms = [a + symmetry.shifts[b.operation] + b.cell for a, b in zip(arms, own, strict=True)]
        away = np.array(arms).reshape(-1, 3) @ symmetry.direct.T
        legs = np.maximum(*np.broadcast_arrays(_length(away), _length(away[:, None] - away)))
        direct = [k for k in range(len(own)) if _BRIDGE * legs[k].min() >= _length(away[k])]
        for i, j in combinations(direct, 2):
            ends = own[i].operation, own[j].operation
            angle = spread.of_angles((own[i].second, atom, own[j].second), (arms[i], arms[j]), ends)
            found.append(Angle(own[i], own[j], *angle))
    return found


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(vectors, axis=-1))


def valence(cation: str, anion: str, length: float) -> tuple[float, int] | None:
    """Valence exp((R0 − d) / 0.37) of a bond of ``length`` d Å, and the cation's whole; None if not tabulated."""
    known = _R0.get((cation, anion))
    return known and (float(np.exp((known[0] - length) / _B)), known[1])


def cation_sum(fit: Fit, near: list[Bond], atom: int, cation: str) -> tuple[float, int] | None:
    """Sum of the bond valences of an atom, were it the cation named, and what is expected; None if none is tabulated.

    ``near`` are bonds, see `distances`. Of cations that occur with several valences, the nearest is expected.
    """
    found = [valence(cation, fit.model.elements[b.second], b.length) for b in near if b.first == atom]
    told = [v for v in found if v is not None]
    if not told:
        return None
    total = sum(v for v, _ in told)
    valences = (told[0][1], *_OTHERS.get(cation, ()))
    return total, min(valences, key=lambda whole: abs(total - whole))


def bond_valences(fit: Fit) -> list[tuple[int, float, int]]:
    """(atom, sum of valences, expected) of cations whose pairs are tabulated, see `cation_sum`."""
    near = distances(fit, 4.0)
    sums = [(i, cation_sum(fit, near, i, e)) for i, e in enumerate(fit.model.elements)]
    return [(i, *told) for i, told in sums if told is not None]


def stands_still(fit: Fit) -> np.ndarray:
    """Mask (atom,) of those whose displacement is less than any atom's, even at rest."""
    return np.asarray(fit.model.u < _LEAST_U)


def is_off(total: float, expected: int) -> bool:
    """Whether bond valences sum to something else than the atom's valence."""
    return abs(total - expected) > 0.25 * expected + 0.25


def overlaps(fit: Fit) -> list[Bond]:
    """Pairs of atoms that are closer than atoms come."""
    elements = fit.model.elements
    radius = [gemmi.Element(e).covalent_r for e in elements]

    def are_close(b: Bond) -> bool:
        first, second = elements[b.first], elements[b.second]
        both = first in ANIONS and second in ANIONS
        if b.length >= (_ANIONS_CLOSE if both else _CLOSE) * (radius[b.first] + radius[b.second]):
            return False
        known = [(valence(*pair, b.length), pair[1]) for pair in ((first, second), (second, first))]
        return not any(v and v[0] <= min(_MULTIPLE * -ANIONS[anion], v[1]) for v, anion in known)

    near = distances(fit, 2 * max(radius, default=1.0))
    return [b for b in near if b.first <= b.second and are_close(b)]


def without_anions(fit: Fit) -> list[int]:
    """Cations without any anion in reach, by their places in the model: in a salt there are none.

    Only of models whose charges can balance (`charges.least_charge`): metals and subvalent compounds are no salts.
    """
    elements = fit.model.elements
    radius = [gemmi.Element(e).covalent_r for e in elements]
    near = distances(fit, 2 * max(radius, default=1.0) + _FAR_A)
    held = {
        b.first
        for b in near
        if elements[b.second] in ANIONS and b.length <= radius[b.first] + radius[b.second] + _FAR_A
    }
    return [i for i, e in enumerate(elements) if e not in ANIONS and i not in held]


def missing_elements(fit: Fit, elements: tuple[str, ...]) -> list[str]:
    """Elements that are said to be there, are not in the model, and differ from all that are by more than data tell."""
    numbers = [gemmi.Element(e).atomic_number for e in fit.model.elements]
    return [e for e in elements if all(abs(gemmi.Element(e).atomic_number - n) > ALIKE for n in numbers)]


def warnings(fit: Fit, names: list[str]) -> list[str]:
    """What a chemist would object to, one line each."""
    said = [
        f"{names[b.first]} and {names[b.second]} are {b.length:.2f} Å apart, closer than atoms come"
        for b in overlaps(fit)
    ]
    for atom, total, expected in bond_valences(fit):
        if is_off(total, expected):
            said.append(f"{names[atom]}: bond valences sum to {total:.1f}, expected {expected}")
    u = fit.model.u
    said += [
        f"{names[i]}: Uiso is {u[i]:.3f} Å², which is no atom's" for i in np.flatnonzero((u > 0.2) | stands_still(fit))
    ]
    return said


def hand(symmetry: Symmetry) -> str:
    """What is known of the absolute structure, in words: kinematical intensities do not tell it."""
    if symmetry.is_centric:
        return "the structure has an inversion centre"
    what = "hand" if symmetry.is_chiral else "direction of the polar axes"
    return f"{what} not determined: kinematical intensities of a structure and of its inverse are equal"
