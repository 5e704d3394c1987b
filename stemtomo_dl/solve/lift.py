"""A model of few symmetries as one of more: atoms that are nearly images of each other become images."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.solve.model import Model, Symmetry

_NEAR_A = 0.5  # Å between an atom and the image that it is
_ALONE = 0.1  # share of the atoms that may have no images
_ROUNDS = 3  # of origin and partners


def lifted(model: Model, symmetry: Symmetry, origin: np.ndarray) -> Model | None:
    """The atoms of a model under the operations of a group with more symmetry.

    Atoms of a structure that was refined with too few symmetries go apart along directions that the data hardly tell,
    and phases that they give are off; means over the true symmetries are not.

    Parameters
    ----------
    model : Model
    symmetry : Symmetry
        Of more operations, in the same cell.
    origin : (3,) f8
        Of the group in the model's axes, roughly; it is refined.

    Returns
    -------
    Model or None
        Isotropic; None where more than a tenth of the atoms are no images of others.
    """
    elements, places, u = _whole(model)
    places = places - origin
    for _ in range(_ROUNDS):
        gaps = _partners(places, symmetry)[1]
        places = places - _origin(gaps, symmetry)
    partner, gaps = _partners(places, symmetry)
    together = (np.linalg.norm(gaps @ symmetry.direct.T, axis=-1) < _NEAR_A).all(0)
    if together.mean() < 1 - _ALONE:
        return None
    # the gap from an image to the partner, brought back by the operation, is what the partner says of the atom's place
    back = np.linalg.inv(symmetry.rotations)
    mean = places + np.einsum("oij,onj->oni", back, gaps).mean(0)
    kept: list[int] = []
    taken = ~together
    for atom in range(len(places)):
        if not taken[atom]:
            kept.append(atom)
            taken[partner[:, atom]] = True
    named = tuple(_most(elements[partner[:, atom]]) for atom in kept)
    return Model.of(symmetry, named, mean[kept], [float(u[partner[:, atom]].mean()) for atom in kept])


def _whole(model: Model) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Elements (atom,), places (atom, 3) and displacements (atom,), Å², of all atoms of the cell."""
    elements, places, u = [], [], []
    for element, site, spread in zip(model.elements, model.sites, model.u, strict=True):
        own: list[np.ndarray] = []
        for image in model.symmetry.rotations @ site + model.symmetry.shifts:
            away = np.array([image - other for other in own]).reshape(-1, 3)
            if not (np.linalg.norm((away - np.round(away)) @ model.symmetry.direct.T, axis=1) < _NEAR_A).any():
                own.append(image)
        places += own
        elements += [element] * len(own)
        u += [spread] * len(own)
    return np.array(elements), np.array(places), np.array(u)


def _partners(places: np.ndarray, symmetry: Symmetry) -> tuple[np.ndarray, np.ndarray]:
    """The atom (operation, atom) nearest to each one's image under each operation, and the way there, in edges."""
    nearest, gaps = [], []
    for rotation, shift in zip(symmetry.rotations, symmetry.shifts, strict=True):
        away = places[None] - (places @ rotation.T + shift)[:, None]
        away -= np.round(away)
        nearest.append(np.linalg.norm(away @ symmetry.direct.T, axis=-1).argmin(1))
        gaps.append(away[np.arange(len(places)), nearest[-1]])
    return np.array(nearest), np.array(gaps)


def _origin(gaps: np.ndarray, symmetry: Symmetry) -> np.ndarray:
    """By how much (3,) the origin is off: gaps (operation, atom, 3) are (1 − R) times that, and noise."""
    middle = np.median(gaps, axis=1)
    rows = (np.eye(3) - symmetry.rotations).reshape(-1, 3)
    return np.asarray(np.linalg.lstsq(rows, middle.ravel(), rcond=None)[0])


def _most(names: np.ndarray) -> str:
    found, counts = np.unique(names, return_counts=True)
    return str(found[counts.argmax()])
