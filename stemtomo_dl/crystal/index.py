"""Spots -> crystals: one lattice, or several, or none where there is not enough to tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stemtomo_dl.crystal.adjust import spreads
from stemtomo_dl.crystal.azimuth import find_azimuth
from stemtomo_dl.crystal.bravais import reduced
from stemtomo_dl.crystal.evidence import Points, evidence, settled
from stemtomo_dl.crystal.friedel import center_shifts
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.group import Seen, grouped
from stemtomo_dl.crystal.metric import with_symmetry
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.refine import indices, refine
from stemtomo_dl.crystal.search import find_bases
from stemtomo_dl.records import Instrument

_MOST_REFLECTIONS = 2000  # that a lattice is searched in: the strongest
_LEAST_SPOTS = 25  # of one lattice; with fewer, a lattice is a guess
_LEAST_EVIDENCE = 40.0  # nats: a lattice is one of very many that are tried
_CANDIDATES = 4  # lattices that are refined before one is chosen


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
    stated = Geometry(instrument, alpha_deg)
    left = np.isfinite(stated.lab(spots)).all(1)
    if left.sum() < _LEAST_SPOTS:
        return []
    geometry, shift = _sharpest(spots.some(left), stated)
    found: list[Crystal] = []
    while left.sum() >= _LEAST_SPOTS and len(found) < most:
        some = spots.some(left)
        free = _best(some, geometry)
        if free is None:
            break
        free = replace(free, center_shift_px=free.center_shift_px + shift)
        own, crystal = with_symmetry(some, stated, free)
        _, fits = indices(spots, own, crystal)
        n = int((fits & left).sum())
        found.append(replace(crystal, n_indexed=n, indexed_fraction=n / len(spots)))
        left &= ~fits
    return sorted(found, key=lambda c: -c.n_indexed)


def _sharpest(spots: Spots, stated: Geometry) -> tuple[Geometry, np.ndarray]:
    """The geometry with the tilt axis and the centre that spots show before a lattice is known, and what that adds."""
    told = []
    for shift in center_shifts(spots):
        moved = replace(stated, shift_px=np.tile(shift, (len(stated.alpha_deg), 1)))
        off, sharpness = find_azimuth(moved.lab(spots), moved.turns()[spots.frame], spots.intensity)
        told.append((sharpness, moved.with_axis(stated.instrument.tilt_axis_deg + off), shift))
    _, geometry, shift = max(told, key=lambda t: t[0])
    return geometry, shift


def _best(spots: Spots, geometry: Geometry) -> Crystal | None:
    """The lattice that the spots speak for most, triclinic; None where it might be chance."""
    seen = grouped(spots, geometry)
    q = seen.vectors(spots, geometry)
    strength = np.bincount(seen.label, spots.intensity)
    strongest = np.argsort(-strength, kind="stable")[:_MOST_REFLECTIONS]
    told = [t for b in find_bases(q[strongest], _CANDIDATES) if (t := _settled(spots, seen, geometry, b)) is not None]
    if not told:
        return None
    nats, crystal = max(told, key=lambda t: t[0])
    if nats < _LEAST_EVIDENCE or crystal.n_indexed < _LEAST_SPOTS:
        return None
    return crystal


def _settled(spots: Spots, seen: Seen, geometry: Geometry, basis: np.ndarray) -> tuple[float, Crystal] | None:
    """Evidence and crystal, triclinic, of a basis or of that multiple or fraction of it that the spots speak for."""
    crystal = refine(spots, geometry, np.linalg.inv(reduced(basis)), "aP")
    for _ in range(3):
        if crystal is None:
            return None
        points = _points(spots, seen, geometry, crystal)
        now = np.linalg.inv(crystal.ub)
        better = settled(points, now)
        if abs(abs(np.linalg.det(better @ crystal.ub)) - 1) < 0.01:
            return evidence(points, now), crystal
        crystal = refine(spots, geometry, np.linalg.inv(better), "aP", crystal.center_shift_px)
    return None


def _points(spots: Spots, seen: Seen, geometry: Geometry, crystal: Crystal) -> Points:
    """Reflections with the errors that a crystal's own have."""
    here = geometry.of(crystal)
    hkl, fits = indices(spots, geometry, crystal)
    middle = seen.middle
    sigma = spreads(spots, hkl, geometry, crystal, fits)[middle]
    return Points(seen.vectors(spots, here), here.turns()[spots.frame[middle]], sigma)
