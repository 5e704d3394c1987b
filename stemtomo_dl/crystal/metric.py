"""Which lattice symmetry a crystal's metric has: the highest that its spots bear.

A tolerance on lengths and angles cannot tell a tetragonal cell seen through an elliptical camera from an orthorhombic
one whose axes differ by half a percent. So every setting within tolerance is refined, with all that the camera may be
off, and the highest symmetry is taken whose misfit is hardly greater than with any lower one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stemtomo_dl.crystal.adjust import misfit, spreads
from stemtomo_dl.crystal.bravais import Lattice, settings
from stemtomo_dl.crystal.cells import FREE, cell_of, constrained, reciprocal_basis, turn_between
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.joint import refine_jointly
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.refine import indices

_CAP = 4.0  # widths beyond which a spot is foreign
_PER_PARAMETER = 10.0  # by how much a free parameter may lower half of χ² by chance and by small systematic errors
_LENGTH, _ANGLE_DEG = 0.001, 0.1  # a metric that is this near cannot be told from the symmetric one
_SYSTEMATIC = 0.005  # of the misfit with less symmetry


def with_symmetry(spots: Spots, geometry: Geometry, crystal: Crystal) -> tuple[Geometry, Crystal]:
    """A triclinic crystal in the conventional setting of the highest lattice symmetry that its spots bear.

    Parameters
    ----------
    spots : Spots
    geometry : Geometry
    crystal : Crystal
        Its cell primitive.

    Returns
    -------
    Geometry, Crystal
        As refined with that symmetry, the ellipse as stated.
    """
    stated = geometry
    options = settings(np.linalg.inv(crystal.ub))
    refined = [_refined(spots, geometry, crystal, o) for o in options]
    here, free = refined[-1]
    _, fits = indices(spots, here, free)
    if not fits.any():
        return here, free
    widths = spreads(spots, indices(spots, here, free)[0], here, free, fits)
    loss = [_loss(spots, g, c, widths) for g, c in refined]
    free_of = [len(FREE[c.lattice[0]]) for _, c in refined]
    bears = [all(loss[n] <= _bound(loss, free_of, n, m) for m in range(n, len(loss))) for n in range(len(loss))]
    close = [o.length_deviation < _LENGTH and o.angle_deviation_deg < _ANGLE_DEG for o in options]
    chosen = next(n for n in range(len(loss)) if bears[n] or close[n])
    geometry, (crystal,) = refine_jointly([spots], [refined[chosen][1]], stated)
    return geometry, crystal


def _bound(loss: list[float], free_of: list[int], higher: int, lower: int) -> float:
    """What the misfit of a higher symmetry may be beside that of a lower one."""
    return (1 + _SYSTEMATIC) * loss[lower] + _PER_PARAMETER * (free_of[lower] - free_of[higher])


def _refined(spots: Spots, geometry: Geometry, crystal: Crystal, lattice: Lattice) -> tuple[Geometry, Crystal]:
    """A crystal refined in another setting."""
    ub = np.linalg.inv(lattice.basis)
    cell = constrained(cell_of(lattice.basis), lattice.name)
    start = replace(
        crystal,
        lattice=lattice.name,
        cell=cell,
        ub=turn_between(reciprocal_basis(cell), ub) @ reciprocal_basis(cell),
        length_deviation=lattice.length_deviation,
        angle_deviation_deg=lattice.angle_deviation_deg,
    )
    here, (out,) = refine_jointly([spots], [start], geometry, with_ellipse=True)
    return here, out


def _loss(spots: Spots, geometry: Geometry, crystal: Crystal, widths: np.ndarray) -> float:
    """Half of χ² of all spots against their nearest nodes, robust as the refinement is, foreign ones at the cap."""
    r = np.minimum(np.abs(misfit(spots, indices(spots, geometry, crystal)[0], geometry, crystal) / widths), _CAP)
    r = np.where((r == _CAP).any(1)[:, None], _CAP, r)
    return float(4 * (np.sqrt(1 + (r / 2) ** 2) - 1).sum())
