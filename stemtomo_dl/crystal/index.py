"""Spots -> crystals: one lattice, or several, or none where there is not enough to tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stemtomo_dl.crystal.bravais import conventional, reduced
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.refine import indices, refine
from stemtomo_dl.crystal.search import find_basis
from stemtomo_dl.records import Instrument

_MOST_SPOTS = 3000  # that a lattice is searched in: the strongest
_LEAST_SPOTS = 25  # of one lattice; with fewer, a lattice is a guess


def index(spots: Spots, instrument: Instrument, alpha_deg: np.ndarray, most: int = 3) -> list[Crystal]:
    """Find the lattices on which the spots lie, without a known cell.

    Parameters
    ----------
    spots : Spots
    instrument : Instrument
        Its tilt axis good to a few degrees.
    alpha_deg : (frame,) array
    most : int
        Lattices to look for: the spots of one are taken away before the next is searched.

    Returns
    -------
    list of Crystal
        The one with most spots first; empty where there is not enough to tell a lattice from chance.
    """
    found: list[Crystal] = []
    geometry = Geometry(instrument, alpha_deg)
    left = np.isfinite(geometry.lab(spots)).all(1)
    while left.sum() >= _LEAST_SPOTS and len(found) < most:
        some = spots.some(left)
        strongest = np.argsort(-some.intensity, kind="stable")[:_MOST_SPOTS]
        basis = find_basis(geometry.sample(some)[strongest])
        crystal = None if basis is None else _crystal(some, geometry, basis)
        if crystal is None or crystal.n_indexed < _LEAST_SPOTS:
            break
        _, fits = indices(spots, geometry, crystal)
        found.append(replace(crystal, indexed_fraction=crystal.n_indexed / len(spots)))
        left &= ~fits
    return sorted(found, key=lambda c: -c.n_indexed)


def _crystal(spots: Spots, geometry: Geometry, basis: np.ndarray) -> Crystal | None:
    """The crystal of a primitive basis, refined as triclinic first: its metric decides on the symmetry."""
    free = refine(spots, geometry, np.linalg.inv(reduced(basis)), "aP")
    if free is None:
        return None
    lattice = conventional(np.linalg.inv(free.ub))
    crystal = refine(
        spots, geometry.with_axis(free.tilt_axis_deg), np.linalg.inv(lattice.basis), lattice.name, free.center_shift_px
    )
    return crystal and replace(
        crystal, length_deviation=lattice.length_deviation, angle_deviation_deg=lattice.angle_deviation_deg
    )
