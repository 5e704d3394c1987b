"""Least squares of crystals and the geometry that they share, on where spots are and when they flash up.

Gauss-Newton on the misfits of place and of excitation error, each in units of its spread, with weights 1/√(1 + (r/2)²)
against spots that were given wrong indices (Charbonnier's loss). Every unknown counts in units of what its start is
good to and is held with weight 1, the camera and the tilts to what was stated, the axis and crystals to their start:
what the spots do not tell stays where it was. Tilts' turns are held the tighter the less they scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg, sparse
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import FREE, constrained, reciprocal_basis, turn_between
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.tilt_scatter import hold_of_turns
from stemtomo_dl.geometry import rotate_in_plane

ROCKING = 0.003  # 1/Å: half width of a rocking curve beyond what step and convergence make of it
_STEPS = 4
_SIGMA = 1.4826  # of normal errors, over their median absolute value
_FAINT = 1e-3  # of the largest: less counts as that
_HELD_SLOPE = 5.0  # spots that say: no slope
_SMALL = 1e-4  # of an unknown's unit: for differences
_PER_CRYSTAL = 11  # unknowns: three angles, six of the cell, two of the centre
_PER_TILT = 5
_SHARED = 6
_SCALE = 5  # place of the camera length among the unknowns
_BLOCKS = 10  # of neighbouring tilts, whose errors are not independent


@dataclass(frozen=True)
class Held:
    """What the start is good to; 0 keeps it as it is."""

    axis_deg: float = 3.0
    elevation_deg: float = 0.0
    ellipse: float = 0.0
    rate: float = 0.0  # of the tilt, relative: true steps over stated ones
    scale: float = 0.0  # of the camera length, relative
    tilt_turn_rad: float = 0.0
    tilt_shift_px: float = 0.0
    turn_rad: float = 0.1
    cell: float = 0.05  # relative, radians
    shift_px: float = 2.0


def misfit(spots: Spots, hkl: np.ndarray, geometry: Geometry, crystal: Crystal) -> np.ndarray:
    """Seen less predicted place (x, y) in the lab frame, and the excitation error, (spot, 3), 1/Å."""
    geometry = geometry.of(crystal)
    g = np.einsum("nij,nj->ni", geometry.turns()[spots.frame], hkl @ crystal.ub.T)
    s = geometry.excitation(g)
    return np.concatenate([geometry.lab(spots)[:, :2] - g[:, :2], np.nan_to_num(s, nan=1.0)[:, None]], 1)


def spreads(
    spots: Spots, hkl: np.ndarray, geometry: Geometry, crystal: Crystal, fits: np.ndarray | None = None
) -> np.ndarray:
    """What misfits (spot, 3) are expected to be, 1/Å, as those of the spots that ``fits`` names (all: None) scatter.

    Of place from how they scatter; along the beam from the tilt's step, the convergence and the crystal's rocking; of
    both by how bright a spot is and how far out (`_uneven`): a bright one is near the sphere and its place well known,
    a weak one may be the tail of a rocking curve.
    """
    length = np.linalg.norm(hkl @ crystal.ub.T, axis=1)
    m = geometry.instrument
    along = np.sqrt((length * geometry.step / 2) ** 2 + (length * m.convergence_mrad * 1e-3) ** 2 + ROCKING**2)
    which = np.ones(len(hkl), bool) if fits is None else fits
    off = np.abs(misfit(spots, hkl, geometry, crystal))
    in_plane = np.clip(_SIGMA * np.median(off[which, :2]), 0.1 * geometry.pixel, max(geometry.pixel, 0.004))
    along *= np.clip(_SIGMA * np.median((off[:, 2] / along)[which]), 0.1, 2.0)
    told = np.stack([_log(spots.intensity), length], 1)
    in_plane = in_plane * _uneven(off[:, :2].max(1), told, which)
    return np.stack([in_plane, in_plane, along * _uneven(off[:, 2] / along, told, which)], 1)


def _uneven(off: np.ndarray, told: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Factors (spot,) of a spread by what is told (spot, 2) of the spots; their median misfit stays what it is.

    The logarithm of the misfits ``off`` is linear in what is told (Harvey 1976, Econometrica 44, 461), by as much as
    the spots that ``which`` names tell of it.
    """
    off, unit = off[which], np.maximum(told[which].std(0), 1e-9)
    z = (told - told[which].mean(0)) / unit
    size = _log(off)
    slope = np.linalg.solve(z[which].T @ z[which] + _HELD_SLOPE * np.eye(2), z[which].T @ (size - size.mean()))
    factor = np.exp(z @ slope)
    return np.asarray(factor * np.median(off / factor[which]) / max(float(np.median(off)), 1e-300))


def _log(values: np.ndarray) -> np.ndarray:
    """Logarithms of values; those that are hardly above 0 count as a small share of the largest."""
    return np.asarray(np.log(np.maximum(values, _FAINT * values.max(initial=0.0) + 1e-300)))


def adjust(
    spots: Sequence[Spots], hkl: Sequence[np.ndarray], geometry: Geometry, crystals: Sequence[Crystal], held: Held
) -> tuple[Geometry, list[Crystal]]:
    """Fit geometry and crystals to spots with given indices.

    Parameters
    ----------
    spots : sequence of Spots
        Of each crystal; their frames are the geometry's.
    hkl : sequence of (spot, 3) arrays
    geometry : Geometry
        With the tilt axis that all crystals have.
    crystals : sequence of Crystal
    held : Held

    Returns
    -------
    Geometry, list of Crystal
        Cells with their standard deviations.
    """
    n_tilts = len(geometry.alpha_deg)
    p = np.zeros(_SHARED + _PER_TILT * n_tilts + _PER_CRYSTAL * len(crystals))
    rest = _rest(geometry, held, len(p))
    width = [spreads(s, h, geometry, c) for s, h, c in zip(spots, hkl, crystals, strict=True)]
    turns = _SHARED + _PER_TILT * np.arange(n_tilts)[:, None] + np.arange(3)
    hold = np.ones(len(p))
    for _ in range(_STEPS):
        now, them = _made(geometry, crystals, p, held)
        gradient, normal = np.zeros(len(p)), sparse.csr_matrix((len(p), len(p)))
        parts = list[tuple[np.ndarray, sparse.csr_matrix, np.ndarray]]()
        for k, (some, index, crystal) in enumerate(zip(spots, hkl, them, strict=True)):
            first = _SHARED + _PER_TILT * n_tilts + _PER_CRYSTAL * k
            j, r = _linear(some, index, now, crystal, held, first, len(p))
            r, weight = (r / width[k]).ravel(), 1 / width[k].ravel()
            robust = (1 + (r / 2) ** 2) ** -0.25
            j = sparse.diags(weight * robust) @ j
            gradient += j.T @ (r * robust)
            normal = normal + j.T @ j
            parts.append((some.frame, j, r * robust))
        active = np.flatnonzero(normal.diagonal() > 0)
        matrix = normal[active][:, active].toarray() + np.diag(hold[active])
        factor = linalg.cho_factor(matrix, lower=True)
        p[active] -= linalg.cho_solve(factor, (gradient + hold * (p - rest))[active])
        if held.tilt_turn_rad:
            hold[turns] = hold_of_turns(normal, turns, (p - rest)[turns], hold[turns])
    new, them = _made(geometry, crystals, p, held)
    place = np.full(len(p), -1)
    place[active] = np.arange(len(active))
    if held.scale:
        new = replace(new, curvature_esd=held.scale * _scale_esd(parts, matrix, active, n_tilts))
    firsts = _SHARED + _PER_TILT * n_tilts + _PER_CRYSTAL * np.arange(len(them)) + 3
    return new, [
        replace(c, cell_esd=_cell_esd(c, factor, place[f : f + 6], held)) for c, f in zip(them, firsts, strict=True)
    ]


def _cell_esd(crystal: Crystal, factor: tuple[np.ndarray, bool], place: np.ndarray, held: Held) -> np.ndarray:
    """Standard deviations (6,) of a cell, Å and degrees, from the factored normal matrix; 0 of what symmetry fixes.

    ``place`` (6,) is where the cell's unknowns are among the matrix's rows, -1 where they are none.
    """
    free = np.flatnonzero(place >= 0)
    rows = np.eye(len(factor[0]))[place[free]]
    covariance = rows @ linalg.cho_solve(factor, rows.T)
    slope = np.stack([(_moved_cell(crystal, _unit(6, int(k)), held) - crystal.cell) / _SMALL for k in free], 1)
    return np.sqrt(np.einsum("ij,jk,ik->i", slope, covariance, slope))


def _scale_esd(
    parts: Sequence[tuple[np.ndarray, sparse.csr_matrix, np.ndarray]], normal: np.ndarray, active: np.ndarray, n: int
) -> float:
    """Standard deviation of the camera's scale, in units of its hold.

    What the spots' scatter leaves open, and how much blocks of neighbouring tilts change it when they are left out (the
    jackknife: Tukey 1958, Ann. Math. Stat. 29, 614; one step each), added in squares: a goniometer's errors last for
    several tilts, a reflection is seen in several, and either alone is below the errors that are met.

    Parameters
    ----------
    parts : sequence of (frame, derivatives, misfits)
        Of every crystal, weighted.
    normal : (unknown, unknown) array
        Of the ``active`` unknowns, with what holds them.
    n : int
        Tilts.
    """
    scale, moved = int(np.searchsorted(active, _SCALE)), []
    for b in range(_BLOCKS):
        left, pull = normal.copy(), np.zeros(len(active))
        for frame, j, r in parts:
            out = np.repeat(frame * _BLOCKS // n == b, 3)
            own = j[out][:, active]
            left -= (own.T @ own).toarray()
            pull += own.T @ r[out]
        moved.append(linalg.solve(left, pull, assume_a="pos")[scale])
    alone = linalg.solve(normal, np.eye(len(active))[scale], assume_a="pos")[scale]
    return float(np.sqrt(alone + (_BLOCKS - 1) / _BLOCKS * np.square(moved).sum()))


def _rest(geometry: Geometry, held: Held, size: int) -> np.ndarray:
    """What unknowns are held to: what was stated, for those of which refinement before has changed that."""
    rest = np.zeros(size)
    for k, now in enumerate((geometry.elevation_deg, *geometry.ellipse), 1):
        by = (held.elevation_deg, held.ellipse, held.ellipse)[k - 1]
        rest[k] = -now / by if by else 0.0
    tilts = rest[_SHARED : _SHARED + _PER_TILT * len(geometry.alpha_deg)].reshape(-1, _PER_TILT)
    if held.tilt_turn_rad and geometry.turn_rad is not None:
        tilts[:, :3] = -geometry.turn_rad / held.tilt_turn_rad
    if held.tilt_shift_px and geometry.shift_px is not None:
        tilts[:, 3:] = -geometry.shift_px / held.tilt_shift_px
    return rest


def _made(geometry: Geometry, crystals: Sequence[Crystal], p: np.ndarray, held: Held) -> tuple[Geometry, list[Crystal]]:
    """Geometry and crystals that are off their start by the unknowns p."""
    n = len(geometry.alpha_deg)
    tilts = p[_SHARED : _SHARED + _PER_TILT * n].reshape(n, _PER_TILT)
    new = geometry.with_axis(geometry.instrument.tilt_axis_deg + held.axis_deg * p[0])
    new = replace(
        new,
        elevation_deg=float(geometry.elevation_deg + held.elevation_deg * p[1]),
        ellipse=(float(geometry.ellipse[0] + held.ellipse * p[2]), float(geometry.ellipse[1] + held.ellipse * p[3])),
        alpha_deg=geometry.alpha_deg + held.rate * p[4] * (geometry.alpha_deg - geometry.alpha_deg.mean()),
        scale=geometry.scale + float(held.scale * p[_SCALE]),
    )
    if held.tilt_turn_rad:
        old = np.zeros((n, 3)) if geometry.turn_rad is None else geometry.turn_rad
        new = replace(new, turn_rad=old + held.tilt_turn_rad * tilts[:, :3])
    if held.tilt_shift_px:
        old = np.zeros((n, 2)) if geometry.shift_px is None else geometry.shift_px
        new = replace(new, shift_px=old + held.tilt_shift_px * tilts[:, 3:])
    own = p[_SHARED + _PER_TILT * n :].reshape(len(crystals), _PER_CRYSTAL)
    return new, [_made_crystal(c, q, held, new.instrument.tilt_axis_deg) for c, q in zip(crystals, own, strict=True)]


def _made_crystal(crystal: Crystal, p: np.ndarray, held: Held, tilt_axis_deg: float) -> Crystal:
    cell = _moved_cell(crystal, p[3:9], held)
    turn = Rotation.from_rotvec(held.turn_rad * p[:3]).as_matrix() @ _turn(crystal)
    shift = crystal.center_shift_px + held.shift_px * p[9:]
    return replace(
        crystal, cell=cell, ub=turn @ reciprocal_basis(cell), tilt_axis_deg=tilt_axis_deg, center_shift_px=shift
    )


def _turn(crystal: Crystal) -> np.ndarray:
    return turn_between(reciprocal_basis(crystal.cell), crystal.ub)


def _moved_cell(crystal: Crystal, p: np.ndarray, held: Held) -> np.ndarray:
    free = list(FREE[crystal.lattice[0]])
    unit = np.concatenate([crystal.cell[:3], np.full(3, np.degrees(1))]) * held.cell
    cell = crystal.cell.copy()
    cell[free] += (unit * p)[free]
    return constrained(cell, crystal.lattice, given=True)


def _linear(
    spots: Spots, hkl: np.ndarray, geometry: Geometry, crystal: Crystal, held: Held, first: int, size: int
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Derivatives (3 spots, unknowns) of the misfits by the unknowns, and the misfits (spot, 3).

    Both over the camera's scale: by itself a smaller one makes all misfits smaller, however wrong it is.
    """
    r = misfit(spots, hkl, geometry, crystal)
    here = geometry.of(crystal)
    turns = here.turns()[spots.frame]
    # At the sphere, where the node is when its spot is brightest: by how much s changes would else grow with s itself,
    # and least squares would shrink the lattice for smaller s (as noise in a regressor lowers its slope).
    g = np.einsum("nij,nj->ni", turns, hkl @ crystal.ub.T) + r[:, 2:] * [0.0, 0.0, 1.0]
    in_sample = np.einsum("nji,nj->ni", turns, g)
    hkl = in_sample @ np.linalg.inv(crystal.ub).T
    at = misfit(spots, hkl, geometry, crystal) / geometry.scale
    tilt = _SHARED + _PER_TILT * spots.frame
    blocks: list[tuple[np.ndarray, np.ndarray | int]] = []
    for k, name in enumerate(("axis_deg", "elevation_deg", "ellipse", "ellipse", "rate", "scale")):
        if getattr(held, name):
            moved, it = _made(geometry, [crystal], _unit(_SHARED + _PER_TILT * len(geometry.alpha_deg) + 11, k), held)
            blocks.append(((misfit(spots, hkl, moved, it[0]) / moved.scale - at) / _SMALL, k))
    for k in range(3):
        if held.tilt_turn_rad:
            blocks.append((_moved(here, g, held.tilt_turn_rad * np.cross(np.eye(3)[k], g)), tilt + k))
    changes = [held.turn_rad * np.cross(np.eye(3)[k], in_sample) for k in range(3)]
    u = _turn(crystal)
    for k in range(6):
        if k in FREE[crystal.lattice[0]] and held.cell:
            cell = _moved_cell(crystal, _unit(6, k), held)
            changes.append(hkl @ (u @ (reciprocal_basis(cell) - reciprocal_basis(crystal.cell)) / _SMALL).T)
        else:
            changes.append(np.zeros_like(in_sample))
    blocks += [(_moved(here, g, np.einsum("nij,nj->ni", turns, c)), first + k) for k, c in enumerate(changes)]
    for k in range(2):
        step = rotate_in_plane(np.linalg.solve(here.bend, np.eye(2)[k]) * here.pixel, -here.instrument.rotation_deg)
        d = np.broadcast_to(np.append(-step / here.scale, 0.0), r.shape)
        blocks += [(held.shift_px * d, first + 9 + k), (held.tilt_shift_px * d, tilt + 3 + k)]
    value = np.stack([b for b, _ in blocks], -1)  # spot, 3, block
    column = np.stack([np.broadcast_to(c, len(r)) for _, c in blocks], -1)
    column = np.broadcast_to(column[:, None], value.shape)
    row = np.broadcast_to(np.arange(3 * len(r)).reshape(-1, 3, 1), value.shape)
    keep = value.ravel() != 0
    flat = value.ravel()[keep], (row.ravel()[keep], column.ravel()[keep])
    return sparse.csr_matrix(flat, shape=(3 * len(r), size)), r / here.scale


def _moved(geometry: Geometry, g: np.ndarray, dg: np.ndarray) -> np.ndarray:
    """How misfits, over the camera's scale, change when lab vectors g change by dg."""
    k = 1 / geometry.wavelength_a
    along = np.sqrt(np.maximum(k * k - (g[:, :2] ** 2).sum(1), 1e-12))
    ds = -(g[:, :2] * dg[:, :2]).sum(1) / along - dg[:, 2]
    return np.concatenate([-dg[:, :2], ds[:, None]], 1) / geometry.scale


def _unit(n: int, k: int) -> np.ndarray:
    out = np.zeros(n)
    out[k] = _SMALL
    return out
