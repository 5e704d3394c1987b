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
from stemtomo_dl.crystal.cells import FREE, PRIMITIVE, cell_of, constrained, reciprocal_basis, turn_between
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.joint import refine_jointly
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.refine import indices

_CAP = 4.0  # widths beyond which a spot is foreign
_PER_PARAMETER = 10.0  # by how much a free parameter may lower half of χ² by chance and by small systematic errors
_LENGTH, _ANGLE_DEG = 0.001, 0.1  # a metric that is this near cannot be told from the symmetric one
_SURE = 3.0  # standard errors of a difference of misfits
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
        As refined with that symmetry.
    """
    stated = geometry
    # of the metric refined with every tilt's centre; with an ellipse a narrow wedge's cell would go along with it
    metric = refine_jointly([spots], [crystal], geometry, with_ellipse=False)[1][0].ub
    options = settings(np.linalg.inv(metric))
    refined = [_refined(spots, geometry, crystal, o) for o in options]
    here, free = refined[-1]
    _, fits = indices(spots, here, free)
    if not fits.any():
        return here, free
    widths = spreads(spots, indices(spots, here, free)[0], here, free, fits)
    loss = [_loss(spots, g, c, widths) for g, c in refined]
    free_of = [len(FREE[c.lattice[0]]) for _, c in refined]
    bears = [
        all(_borne(loss[n], loss[m], free_of[m] - free_of[n]) for m in range(n, len(loss))) for n in range(len(loss))
    ]
    borne = next(n for n in range(len(loss)) if bears[n])
    close = _all_but(refined[borne][1])
    chosen = next(n for n, o in enumerate(options) if n == borne or o.name in close)
    geometry, (crystal,) = refine_jointly([spots], [refined[chosen][1]], stated)
    return geometry, crystal


def _all_but(crystal: Crystal) -> set[str]:
    """The lattices from whose metric a refined one cannot be told."""
    primitive = PRIMITIVE[crystal.lattice[1]] @ np.linalg.inv(crystal.ub)
    near = (o for o in settings(primitive) if o.length_deviation < _LENGTH and o.angle_deviation_deg < _ANGLE_DEG)
    return {o.name for o in near}


def _borne(higher: np.ndarray, lower: np.ndarray, parameters: int) -> bool:
    """Whether the misfit (frame,) with a higher symmetry is hardly greater than that (frame,) with a lower one.

    Spots of one frame share its errors, so that by how much frames differ tells what the difference is good to
    (Vuong 1989).
    """
    more = higher - lower
    chance = _SYSTEMATIC * lower.sum() + _PER_PARAMETER * parameters
    return bool(more.sum() <= max(chance, _SURE * np.sqrt((more**2).sum())))


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
    # a triclinic cell takes up what an ellipse does; in a narrow wedge the two would run away together
    here, (out,) = refine_jointly([spots], [start], geometry, with_ellipse=lattice.name != "aP")
    return here, out


def _loss(spots: Spots, geometry: Geometry, crystal: Crystal, widths: np.ndarray) -> np.ndarray:
    """Half of χ² (frame,) of all spots against their nearest nodes, robust as the refinement is, foreign at the cap."""
    r = np.minimum(np.abs(misfit(spots, indices(spots, geometry, crystal)[0], geometry, crystal) / widths), _CAP)
    r = np.where((r == _CAP).any(1)[:, None], _CAP, r)
    return np.bincount(spots.frame, 4 * (np.sqrt(1 + (r / 2) ** 2) - 1).sum(1), len(geometry.alpha_deg))
