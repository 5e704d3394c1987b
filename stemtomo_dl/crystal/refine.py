"""Cell, orientation, tilt axis and centre of one crystal, from where the spots are and when they flash up.

A spot's place on the detector tells two coordinates of its node; that it is seen tells that the node is near the
Ewald sphere, to within its rocking curve and the step of the tilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stemtomo_dl.crystal.adjust import Held, adjust, misfit
from stemtomo_dl.crystal.cells import PRIMITIVE, cell_of, constrained, reciprocal_basis, turn_between
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Crystal, Spots

NEAR = 0.36  # of a node in units of the primitive indices, at most
REACH = (0.025, 0.015, 0.012)  # 1/Å in the detector's plane, round by round
# However small the reach, spots' centres are hardly known to more than this part of a pixel, and of a disk's radius: of
# a thick crystal's disk only the band is lit where the excitation error is small.
_PIXELS, _DISKS = 0.6, 0.5
_LEAST = 12


def indices(
    spots: Spots, geometry: Geometry, crystal: Crystal, reach: float = REACH[-1], along: float = 2.0
) -> tuple[np.ndarray, ...]:
    """Indices (spot, 3) of the nearest nodes, and which spots they fit (spot,).

    Fitting spots are within ``reach``, 1/Å, in the detector's plane, or within what a pixel or a disk leaves open if
    that is more, and ``along`` times that along the beam. Nodes that the lattice's centring forbids are none: every
    setting of one lattice has the same nodes.
    """
    disk = geometry.instrument.convergence_mrad * 1e-3 / geometry.wavelength_a
    reach = max(reach, _PIXELS * geometry.pixel, _DISKS * disk)
    geometry = geometry.of(crystal)
    turn = geometry.turns()[spots.frame]
    q = geometry.lab(spots)
    primitive = PRIMITIVE[crystal.lattice[1]]
    real = np.nan_to_num(np.einsum("nji,nj->ni", turn, q) @ (primitive @ np.linalg.inv(crystal.ub)).T)
    nearest = np.rint(real)
    hkl = np.rint(nearest @ np.linalg.inv(primitive).T)
    off = q - np.einsum("nij,nj->ni", turn, hkl @ crystal.ub.T)
    limit = np.array([reach, reach, along * reach])
    fits = (np.abs(off) < limit).all(1) & (np.abs(real - nearest).max(1) < NEAR) & np.any(hkl != 0, axis=1)
    return hkl.astype("i4"), fits


def refine(
    spots: Spots,
    geometry: Geometry,
    ub: np.ndarray,
    lattice: str,
    shift: np.ndarray | None = None,
    reach: Sequence[float] = REACH,
) -> Crystal | None:
    """Fit cell, orientation, tilt axis and centre to the spots that a lattice explains.

    Parameters
    ----------
    spots : Spots
    geometry : Geometry
    ub : (3, 3) array
        Start, 1/Å, in the conventional setting of ``lattice``, whose constraints the cell keeps.
    lattice : str
        Pearson's letters.
    shift : (2,) array or None
        Start of the centre's shift, px.
    reach : sequence of float
        Of spots from their nodes in the detector's plane, 1/Å, round by round. The start is taken to be good to 3° of
        the axis, 5 % of the cell and 2 px of the centre.

    Returns
    -------
    Crystal or None
        None where fewer than 12 spots are explained.
    """
    cell = constrained(cell_of(np.linalg.inv(ub)), lattice)
    start = turn_between(reciprocal_basis(cell), ub) @ reciprocal_basis(cell)
    shift = np.zeros(2) if shift is None else shift
    crystal = Crystal(lattice, 0.0, 0, 0.0, geometry.instrument.tilt_axis_deg, 0.0, 0.0, start, cell, shift.copy())
    for limit in reach:
        hkl, fits = indices(spots, geometry, crystal, limit)
        if fits.sum() < _LEAST:
            return None
        _, (crystal,) = adjust(
            [spots.some(fits)], [hkl[fits]], geometry.with_axis(crystal.tilt_axis_deg), [crystal], Held()
        )
    return scored(spots, geometry, crystal)


def scored(spots: Spots, geometry: Geometry, crystal: Crystal) -> Crystal:
    """A crystal with how many of the spots it explains, and how well."""
    hkl, fits = indices(spots, geometry, crystal)
    off = misfit(spots, hkl, geometry, crystal)[fits, :2]
    rms = float(np.sqrt((off**2).sum(1).mean())) if fits.any() else np.nan
    return replace(crystal, n_indexed=int(fits.sum()), indexed_fraction=float(fits.mean()), rms_inv_angstrom=rms)
