"""Intensities of known structures with noise and holes, for the tests of structure solution."""

from __future__ import annotations

from itertools import product

import gemmi
import numpy as np

from stemtomo_dl import resources
from stemtomo_dl.simulate.cif import Contents, read_contents
from stemtomo_dl.simulate.crystal import structure_factors
from stemtomo_dl.solve.model import Model
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.symmetry import laue_rotations

BACKGROUND = 0.01  # σ of the noise, of the mean intensity


def known(name: str) -> Contents:
    path = resources.synthetic() / f"structures/{name}.cif"
    return read_contents(name, path.read_text(encoding="utf-8"))


def measured(
    contents: Contents, elements: str, d_min: float, share: float, noise: float = 0.2, seed: int = 0
) -> Intensities:
    """Unique reflections, absent ones too; a share of them, each with relative and background noise."""
    rng = np.random.default_rng(seed)
    limits = contents.cell.get_hkl_limits(d_min)
    axes = [np.arange(-n, n + 1) for n in limits]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype("i4")
    hkl = hkl[hkl.any(1)]
    hkl = hkl[contents.cell.calculate_1_d2_array(np.ascontiguousarray(hkl)) <= d_min**-2]
    images = np.einsum("ni,oij->noj", hkl, laue_rotations(contents.operations))
    highest = (images @ np.array([10**8, 10**4, 1])).argmax(1)
    hkl = np.unique(images[np.arange(len(hkl)), highest], axis=0)
    hkl = hkl[rng.random(len(hkl)) < share]
    present = ~np.asarray(contents.operations.systematic_absences(np.ascontiguousarray(hkl, "i4")), bool)
    true = np.zeros(len(hkl))
    true[present] = np.abs(structure_factors(contents, hkl[present])) ** 2
    ground = BACKGROUND * true.mean()
    intensity = true * (1 + noise * rng.normal(size=len(hkl))) + ground * rng.normal(size=len(hkl))
    return Intensities(
        name="synthetic",
        cell=tuple(contents.cell.parameters),
        wavelength=0.0251,
        operations=None,
        composition=tuple((e, 0.0) for e in elements.split(",")),
        hkl=hkl.astype("i4"),
        intensity=intensity,
        sigma=np.hypot(noise * np.abs(intensity), ground),
    )


def worst_distance(contents: Contents, model: Model) -> float:
    """Å between atoms and the nearest of their element, both ways, at the best choice of origin and hand."""
    truth = [(site.element.name, np.array(site.fract.tolist())) for site in contents.sites]
    found = list(zip(model.elements, model.sites, strict=True))

    def nearest(element: str, at: np.ndarray, others: list) -> float:
        return min((model.symmetry.apart(at, x) for e, x in others if e == element), default=np.inf)

    best = np.inf
    for shift, hand in product(product(np.arange(8) / 8, repeat=3), (1, -1)):
        moved = [(e, hand * x + shift) for e, x in truth]
        far = max(nearest(e, x, moved) for e, x in found)
        if far < best:
            best = min(best, max(far, *(nearest(e, x, found) for e, x in moved)))
    return float(best)


def number_of(group: gemmi.SpaceGroup) -> int:
    return int(gemmi.find_spacegroup_by_ops(group.operations()).number)
