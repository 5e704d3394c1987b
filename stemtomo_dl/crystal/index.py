"""Spots -> crystals: one lattice, or several, or none where there is not enough to tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stemtomo_dl.crystal.adjust import spreads
from stemtomo_dl.crystal.azimuth import find_azimuth
from stemtomo_dl.crystal.bravais import reduced
from stemtomo_dl.crystal.cells import PRIMITIVE
from stemtomo_dl.crystal.evidence import Points, evidence, settled
from stemtomo_dl.crystal.friedel import center_shifts
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.group import Seen, grouped
from stemtomo_dl.crystal.joint import refine_jointly
from stemtomo_dl.crystal.known_cell import alike, bases_of, lattice_of
from stemtomo_dl.crystal.metric import with_symmetry
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.refine import REACH, indices, refine
from stemtomo_dl.crystal.search import DISTANCE, chance, find_bases
from stemtomo_dl.crystal.settings import changes
from stemtomo_dl.crystal.twins import individuals, parted
from stemtomo_dl.records import Instrument

_MOST_REFLECTIONS = 2000  # that a lattice is searched in: the strongest
_LEAST_SPOTS = 25  # of one lattice; with fewer, a lattice is a guess
LEAST_OF_CELL = 15  # of a lattice whose cell is known
_LEAST_OF_KNOWN = 25.0  # nats: of a known cell only orientations are tried
_LEAST_EVIDENCE = 40.0  # nats: a lattice is one of very many that are tried
_TAILS = 4.0  # how far along the beam a lattice's spots are taken away, in units of the reach in the plane
_ECHO_REACH, _ECHO = 0.04, 0.8  # 1/Å; share of a lattice's spots so near another's nodes, beyond which it is none
_TRUSTED = 0.6  # share of the spots on the first lattice, beyond which no other axis is tried
_BETTER = 1.5  # times as telling must a lattice about another axis be
_WHOLE = 0.1  # by which what should be whole numbers may miss it
_CANDIDATES = 4  # lattices that are refined before one is chosen
# How far from a lattice's nodes its spots may be at first, 1/Å: of a small cell there are few, and from few spots axis
# and centre are known badly before there is a lattice; but nodes are far apart.
_APART = ((DISTANCE, REACH), (2 * DISTANCE, (0.06, 0.03, *REACH)))
_FEW = 150  # reflections, up to which the second is tried


def index(
    spots: Spots, instrument: Instrument, alpha_deg: np.ndarray, most: int = 3, cell: np.ndarray | None = None
) -> list[Crystal]:
    """Find the lattices on which the spots lie.

    Parameters
    ----------
    spots : Spots
    instrument : Instrument
        Its tilt axis good to a few degrees; where little is found with it, any is tried.
    alpha_deg : (frame,) array
    most : int
        Lattices to look for: the spots of one are taken away before the next is searched.
    cell : (6,) array or None
        A known cell, Å and degrees: only lattices that have it, in this setting; fewer spots are enough then.

    Returns
    -------
    list of Crystal
        The one with most spots first; empty where there is not enough to tell a lattice from chance.
    """
    stated = Geometry(instrument, alpha_deg)
    least = _LEAST_SPOTS if cell is None else LEAST_OF_CELL
    there = np.isfinite(stated.lab(spots)).all(1)
    if there.sum() < least:
        return []
    found = _lattices(spots, there, stated, most, cell)
    if not found or found[0].indexed_fraction <= _TRUSTED:
        others = [_lattices(spots, there, o, most, cell) for o in _other_axes(spots.some(there), stated)]
        best = max(others, key=_telling)
        found = best if _telling(best) > _BETTER * _telling(found) else found
    told = [(crystal, parted(spots, stated, crystal)) for crystal in found]
    found = [c for one, parts in told for c in (parts if cell is None or alike(parts[0].cell, cell) else [one])]
    return sorted(found, key=lambda c: -c.n_indexed)[:most]


def index_as(
    spots: Spots, instrument: Instrument, alpha_deg: np.ndarray, siblings: Sequence[Crystal]
) -> Crystal | None:
    """The lattice, of those that other crystals of the series have, on which most spots lie.

    Parameters
    ----------
    spots : Spots
        Too few for a lattice whose cell is not known.
    instrument : Instrument
        With the tilt axis that the other crystals were refined with: no other is tried.
    alpha_deg : (frame,) array
    siblings : sequence of Crystal
        One of each lattice.

    Returns
    -------
    Crystal or None
        None where no lattice is told from chance, or where most spots are of something else.
    """
    stated = Geometry(instrument, alpha_deg)
    some = spots.some(np.isfinite(stated.lab(spots)).all(1))
    found = list[Crystal]()
    for sibling in siblings:
        free = _best_of_cell(some, stated, sibling.cell)
        if free is not None:
            own = refine_jointly([some], [free], stated)[1][0]
            found += [own] if changes(sibling.cell, sibling.lattice, own.cell, own.lattice) else []
    best = max(found, key=lambda c: c.n_indexed, default=None)
    return best if best is not None and best.indexed_fraction > _TRUSTED else None


def _telling(found: list[Crystal]) -> float:
    """What the first lattice tells of the spots, nats: about a wrong axis large cells explain many by chance."""
    if not found:
        return 0.0
    primitive = PRIMITIVE[found[0].lattice[1]] @ np.linalg.inv(found[0].ub)
    return found[0].n_indexed * -float(np.log(chance(abs(float(np.linalg.det(primitive))))))


def _lattices(spots: Spots, there: np.ndarray, stated: Geometry, most: int, cell: np.ndarray | None) -> list[Crystal]:
    """Lattices one after another, each from the spots that those before left.

    Spots that lie badly on a lattice, in disks unevenly lit above all, can look like one a little larger or smaller:
    an echo, which is left out.
    """
    geometry, shift = _sharpest(spots.some(there), stated)
    left, found, about = there.copy(), list[Crystal](), np.zeros(len(spots), bool)
    while left.sum() >= (_LEAST_SPOTS if cell is None else LEAST_OF_CELL) and len(found) < most:
        some = spots.some(left)
        free = _best(some, geometry) if cell is None else _best_of_cell(some, geometry, cell)
        if free is None:
            break
        free = replace(free, center_shift_px=free.center_shift_px + shift)
        if cell is None:
            own, crystal = with_symmetry(some, stated, free)
        else:
            own, (crystal,) = refine_jointly([some], [free], stated)
        _, fits = indices(spots, own, crystal)
        fits &= left
        n = int(fits.sum())
        if (fits & about).sum() > _ECHO * n:
            left &= ~fits
            continue
        found.append(replace(crystal, n_indexed=n, indexed_fraction=n / len(spots)))
        about |= indices(spots, own, crystal, _ECHO_REACH, _TAILS)[1]
        # tails of rocking curves lie on rods along the beam: they would make a lattice of their own
        left &= ~indices(spots, own, crystal, along=_TAILS)[1]
    return sorted(found, key=lambda c: -c.n_indexed)


def _other_axes(spots: Spots, stated: Geometry) -> list[Geometry]:
    """The geometry with the axis of any azimuth at which the spots are sharpest, and with its opposite.

    Only the curvature of the Ewald sphere tells the two apart, which lattices show better than directions do.
    """
    off, _ = find_azimuth(stated.lab(spots), stated.turns()[spots.frame], spots.intensity, reach_deg=180.0)
    axis = stated.instrument.tilt_axis_deg + off
    return [stated.with_axis(azimuth) for azimuth in (axis, axis + 180)]


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
    for distance, reach in _APART if len(q) <= _FEW else _APART[:1]:
        bases = find_bases(q[strongest], _CANDIDATES, distance)
        told = [t for b in bases if (t := _settled(spots, seen, geometry, b, reach)) is not None]
        nats, crystal = max(told, key=lambda t: t[0], default=(0.0, None))
        if crystal is not None and nats >= _LEAST_EVIDENCE and crystal.n_indexed >= _LEAST_SPOTS:
            return crystal
    return None


def _best_of_cell(spots: Spots, geometry: Geometry, cell: np.ndarray) -> Crystal | None:
    """The lattice of a known cell that the spots speak for most; None where it might be chance."""
    seen = grouped(spots, geometry)
    q = seen.vectors(spots, geometry)
    told: list[tuple[float, Crystal]] = []
    for basis in bases_of(q, cell, _CANDIDATES):
        crystal = refine(spots, geometry, np.linalg.inv(basis), "aP")
        if crystal is None or not alike(crystal.cell, cell):
            continue
        direct = np.linalg.inv(crystal.ub)
        points = _points(spots, seen, geometry, crystal)
        primitive = settled(points, direct)
        lattice = lattice_of(cell, direct @ np.linalg.inv(primitive))
        if lattice is None:  # a multiple of the known cell tells more: so this is another crystal, or a twin
            part = _individual(spots, geometry, primitive, direct)
            lattice = None if part is None else lattice_of(cell, direct @ np.linalg.inv(part))
            if part is None or lattice is None:
                continue
            primitive = part
        own = refine(spots, geometry, crystal.ub, lattice, crystal.center_shift_px)
        if own is not None:
            told.append((evidence(points, primitive), own))
    nats, best = max(told, key=lambda t: t[0], default=(0.0, None))
    return best if best is not None and nats >= _LEAST_OF_KNOWN and best.n_indexed >= LEAST_OF_CELL else None


def _individual(spots: Spots, geometry: Geometry, common: np.ndarray, direct: np.ndarray) -> np.ndarray | None:
    """The primitive basis of a twin's individual that has a conventional basis; None where ``common`` is no twin's."""
    crystal = refine(spots, geometry, np.linalg.inv(common), "aP")
    twin = None if crystal is None else individuals(spots, geometry, crystal)
    if crystal is None or twin is None:
        return None
    reciprocal = (crystal.ub @ part for part in twin.parts)
    return next((np.linalg.inv(r) for r in reciprocal if np.abs(direct @ r - np.rint(direct @ r)).max() < _WHOLE), None)


def _settled(
    spots: Spots, seen: Seen, geometry: Geometry, basis: np.ndarray, reach: Sequence[float]
) -> tuple[float, Crystal] | None:
    """Evidence and crystal, triclinic, of a basis or of that multiple or fraction of it that the spots speak for."""
    crystal = refine(spots, geometry, np.linalg.inv(reduced(basis)), "aP", reach=reach)
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
