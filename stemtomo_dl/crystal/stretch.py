"""A stretch along the tilt axis, which spots of triclinic lattices cannot tell from an ellipse of the camera.

Along the axis a node is seen as far out at every tilt, so a camera that is longer there shows any lattice as another
one, D = (1 + t) a aᵀ + (1 − t) (1 − a aᵀ) times it. Symmetry would tell the two apart; a triclinic cell takes D up. But
crystals of one phase have one cell however they lie, and D makes different ones of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from stemtomo_dl.crystal.cells import cell_of
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.joint import refine_jointly
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.settings import changes

_REACH, _STEP, _FINE = 0.05, 0.002, 0.00025  # of the stretch
_ELLIPSE = 0.004  # what a camera's is
_NEAR = 0.1  # of the tolerances of lengths and angles: as near cells of one phase are
_FOREIGN = 4.0  # of that: crystals of two phases
_COMPARED = 8  # crystals, those with most spots


def with_one_cell(
    spots: Sequence[Spots], geometry: Geometry, crystals: Sequence[Crystal]
) -> tuple[Geometry, list[Crystal]]:
    """Jointly refined geometry and crystals, without a stretch that only triclinic cells have taken up.

    Parameters
    ----------
    spots, geometry, crystals
        As `refine_jointly` takes and gives them. Left as they are if any lattice is not triclinic.

    Returns
    -------
    Geometry, list of Crystal
        Such that crystals of one phase have one cell; where no two do, with the ellipse along the axis as stated.
    """
    if not crystals or any(c.lattice != "aP" for c in crystals):
        return geometry, list(crystals)
    along = 2 * np.radians(geometry.instrument.tilt_axis_deg + geometry.instrument.rotation_deg)
    direction = np.array([np.cos(along), np.sin(along)])
    compared = sorted(crystals, key=lambda c: -c.n_indexed)[:_COMPARED]
    ubs = [c.ub for c in compared]
    present = float(direction @ geometry.ellipse)

    def score(t: float) -> float:
        cells = [cell_of(np.linalg.inv(_stretch(geometry.axis, t) @ ub)) for ub in ubs]
        return sum(_agreement(*two) for two in combinations(cells, 2)) - ((present - t) / _ELLIPSE) ** 2 / 2

    t = max(np.arange(-_REACH, _REACH + _STEP / 2, _STEP) + present, key=score)
    t = max(np.arange(t - _STEP, t + _STEP + _FINE / 2, _FINE), key=score)
    ellipse = np.array(geometry.ellipse) - t * direction
    moved = [_moved(c, _stretch(geometry.axis, t)) for c in crystals]
    return refine_jointly(spots, moved, replace(geometry, ellipse=(ellipse[0], ellipse[1])), with_ellipse=False)


def _stretch(axis: np.ndarray, t: float) -> np.ndarray:
    along = np.outer(axis, axis)
    return np.asarray((1 + t) * along + (1 - t) * (np.eye(3) - along))


def _moved(crystal: Crystal, stretch: np.ndarray) -> Crystal:
    ub = stretch @ crystal.ub
    return replace(crystal, ub=ub, cell=cell_of(np.linalg.inv(ub)))


def _agreement(cell: np.ndarray, other: np.ndarray) -> float:
    """Log likelihood that two triclinic cells are one, above that of any two."""
    found = changes(cell, "aP", other, "aP", slack=_FOREIGN * _NEAR)
    return (_FOREIGN**2 - (found[0].misfit / _NEAR) ** 2) / 2 if found else 0.0
