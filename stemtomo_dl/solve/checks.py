"""Is a model sane: bonds, bond valences, contacts."""

from __future__ import annotations

from dataclasses import dataclass

import gemmi
import numpy as np

from stemtomo_dl.solve.refine import Fit

_CLOSE = 0.75  # of the sum of the covalent radii; atoms that are closer overlap
_ALIKE = 2  # atomic numbers that differ by no more cannot be told apart
_BOND_A = 0.45  # Å longer than the covalent radii a bond may be
_B = 0.37  # Å; Brown & Altermatt, Acta Cryst. B41 (1985) 244
# R0 of bond valences, Å, with the valence of the cation; same source, and Brese & O'Keeffe, Acta Cryst. B47 (1991) 192
_R0 = {
    ("Ti", "O"): (1.815, 4), ("Si", "O"): (1.624, 4), ("Al", "O"): (1.651, 3), ("Zr", "O"): (1.937, 4),
    ("Mg", "O"): (1.693, 2), ("Ca", "O"): (1.967, 2), ("Fe", "O"): (1.759, 3), ("Zn", "O"): (1.704, 2),
    ("Ce", "O"): (2.028, 4), ("Sr", "O"): (2.118, 2), ("Ba", "O"): (2.29, 2), ("Na", "O"): (1.80, 1),
    ("Pb", "Br"): (2.64, 2), ("Cs", "Br"): (2.95, 1), ("Pb", "I"): (2.83, 2), ("Cs", "I"): (3.18, 1),
    ("Pb", "Cl"): (2.53, 2), ("Cs", "Cl"): (2.79, 1), ("Na", "Cl"): (2.15, 1), ("K", "Cl"): (2.52, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Bond:
    """A distance between an atom and an image of another, both by their places in the model."""

    first: int
    second: int
    length: float  # Å
    esd: float  # Å


def distances(fit: Fit, reach: float) -> list[Bond]:
    """All distances to ``reach`` Å, shortest first, each image of the second atom counted."""
    model, symmetry = fit.model, fit.model.symmetry
    sigma = np.sqrt(((fit.site_esd @ symmetry.direct.T) ** 2).mean(1))  # Å along any one direction
    steps = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    found = []
    for i, site in enumerate(model.sites):
        for j, other in enumerate(model.sites):
            away = (symmetry.rotations @ other + symmetry.shifts - site + 0.5) % 1 - 0.5
            vectors = (away[:, None] + steps).reshape(-1, 3) @ symmetry.direct.T
            vectors = np.unique(np.round(vectors, 3), axis=0)  # images of special positions coincide
            for length in np.sort(np.linalg.norm(vectors, axis=1)):
                if 0.01 < length <= reach:
                    found.append(Bond(i, j, float(length), float(np.hypot(sigma[i], sigma[j]))))
    return sorted(found, key=lambda b: b.length)


def bonds(fit: Fit) -> list[Bond]:
    """Distances that the covalent radii allow as bonds, each pair of elements once."""
    radius = [gemmi.Element(e).covalent_r for e in fit.model.elements]
    reach = 2 * max(radius, default=1.0) + _BOND_A
    return [
        b
        for b in distances(fit, reach)
        if b.first <= b.second and b.length <= radius[b.first] + radius[b.second] + _BOND_A
    ]


def bond_valences(fit: Fit) -> list[tuple[int, float, int]]:
    """(atom, sum of valences, expected) of cations whose pairs are tabulated: Σ exp((R0 − d) / 0.37)."""
    elements = fit.model.elements
    near = distances(fit, 4.0)
    sums = []
    for i, element in enumerate(elements):
        pairs = [
            (b, _R0[element, elements[b.second]]) for b in near if b.first == i and (element, elements[b.second]) in _R0
        ]
        if pairs:
            sums.append((i, float(sum(np.exp((r0 - b.length) / _B) for b, (r0, _) in pairs)), pairs[0][1][1]))
    return sums


def overlaps(fit: Fit) -> list[Bond]:
    """Pairs of atoms that are closer than atoms come."""
    radius = [gemmi.Element(e).covalent_r for e in fit.model.elements]
    return [
        b
        for b in distances(fit, 2 * max(radius, default=1.0))
        if b.first <= b.second and b.length < _CLOSE * (radius[b.first] + radius[b.second])
    ]


def missing_elements(fit: Fit, elements: tuple[str, ...]) -> list[str]:
    """Elements that are said to be there, are not in the model, and differ from all that are by more than data tell."""
    numbers = [gemmi.Element(e).atomic_number for e in fit.model.elements]
    return [e for e in elements if all(abs(gemmi.Element(e).atomic_number - n) > _ALIKE for n in numbers)]


def warnings(fit: Fit, names: list[str]) -> list[str]:
    """What a chemist would object to, one line each."""
    said = [
        f"{names[b.first]} and {names[b.second]} are {b.length:.2f} Å apart, closer than atoms come"
        for b in overlaps(fit)
    ]
    for atom, total, expected in bond_valences(fit):
        if abs(total - expected) > 0.25 * expected + 0.25:
            said.append(f"{names[atom]}: bond valences sum to {total:.1f}, expected {expected}")
    u = fit.model.u
    said += [f"{names[i]}: Uiso is {u[i]:.3f} Å², which is no atom's" for i in np.flatnonzero((u > 0.2) | (u < 0.001))]
    return said
