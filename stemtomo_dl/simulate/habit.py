"""Habits: crystal faces from a scene's forms or from a shorthand."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.simulate.crystal import Structure
from stemtomo_dl.simulate.population import Face, HabitName, Indices

_AXES: tuple[Indices, ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_PRISM: tuple[Indices, ...] = ((1, 1, 0), (1, -1, 0))
_PYRAMID: tuple[Indices, ...] = ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1))
_REGULAR = 2 / np.sqrt(3)  # distance of squares over that of hexagons in the regular truncated octahedron


def shorthand(habit: HabitName, aspect: float) -> list[Face]:
    """The forms of a habit. They close for every crystal class; equivalent ones are named more than once."""

    def at(distance: float, *forms: Indices) -> list[Face]:
        opposite = [(-hkl[0], -hkl[1], -hkl[2]) for hkl in forms]  # not the same faces in every class
        return [Face(hkl=hkl, distance=distance) for hkl in (*forms, *opposite)]

    match habit:
        case "block":  # a cube where the crystal is cubic
            return at(1, *_AXES)
        case "rod":
            return at(1, *_PRISM) + at(1.1, *_AXES[:2]) + at(aspect, _AXES[2])
        case "plate":
            return at(1, *_AXES[:2]) + at(1.15, *_PRISM) + at(1 / aspect, _AXES[2])
        case "octahedron":
            return at(1, *_PYRAMID)
        case "truncated-octahedron":
            return at(1, *_PYRAMID) + at(_REGULAR, *_AXES)


def faces(structure: Structure, forms: list[Face]) -> tuple[np.ndarray, np.ndarray]:
    """All faces of a habit: unit normals (face, 3) in the crystal frame, and distances (face,) in half sizes.

    A face that several forms share counts once, with the distance that the first of them states.
    """
    normals = np.concatenate([structure.form(form.hkl) for form in forms])
    distances = np.concatenate([np.full(len(structure.form(form.hkl)), form.distance) for form in forms])
    same = np.triu(normals @ normals.T > 1 - 1e-9, 1).any(0)  # as an earlier one
    return normals[~same], distances[~same]
