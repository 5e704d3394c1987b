"""Cell, orientation, tilt axis and centre, from where the spots are and when they flash up.

A spot's place on the detector tells two coordinates of its node; that it is seen tells that the node is near the
Ewald sphere, to within its rocking curve and the step of the tilt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.bravais import cell_of
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Crystal, Spots

_NEAR = 0.12  # of a node in units of the indices, at most
_REACH = (0.025, 0.015, 0.012)  # 1/Å in the detector's plane, round by round
_ROCKING = 0.003  # 1/Å: half width of a rocking curve beyond what step and convergence make of it
_LEAST = 12
# Which of a, b, c, α, β, γ are free, and by which parameter each length is given.
_FREE = {"a": (0, 1, 2, 3, 4, 5), "m": (0, 1, 2, 4), "o": (0, 1, 2), "t": (0, 2), "h": (0, 2), "c": (0,)}


def reciprocal_basis(cell: np.ndarray) -> np.ndarray:
    """Busing & Levy's B (columns a*, b*, c*), 1/Å, of a cell: a along x, b in the xy plane."""
    a, b, c = cell[:3]
    ca, cb, cg = np.cos(np.radians(cell[3:]))
    sg = np.sqrt(1 - cg**2)
    cy = (ca - cb * cg) / sg
    direct = np.array([[a, 0, 0], [b * cg, b * sg, 0], [c * cb, c * cy, c * np.sqrt(max(1 - cb**2 - cy**2, 1e-6))]])
    return np.linalg.inv(direct)


def indices(spots: Spots, geometry: Geometry, crystal: Crystal, reach: float = _REACH[-1]) -> tuple[np.ndarray, ...]:
    """Indices (spot, 3) of the nearest nodes, and which spots they fit (spot,)."""
    geometry = geometry.of(crystal)
    turn = geometry.turns()[spots.frame]
    q = geometry.lab(spots)
    sample = np.einsum("nji,nj->ni", turn, q)
    real = np.nan_to_num(sample @ np.linalg.inv(crystal.ub).T)
    hkl = np.rint(real)
    off = q - np.einsum("nij,nj->ni", turn, hkl @ crystal.ub.T)
    limit = np.array([reach, reach, 2 * reach])
    fits = (np.abs(off) < limit).all(1) & (np.abs(real - hkl).max(1) < 3 * _NEAR) & np.any(hkl != 0, axis=1)
    return hkl.astype("i4"), fits


def refine(
    spots: Spots, geometry: Geometry, ub: np.ndarray, lattice: str, shift: np.ndarray | None = None
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

    Returns
    -------
    Crystal or None
        None where fewer than 12 spots are explained.
    """
    free = list(_FREE[lattice[0]])
    cell = _constrained(cell_of(np.linalg.inv(ub)), lattice)
    turn = _turn_between(reciprocal_basis(cell), ub)
    shift = np.zeros(2) if shift is None else shift
    state = np.concatenate([np.zeros(3), cell[free], [geometry.instrument.tilt_axis_deg], shift])

    def made(p: np.ndarray) -> Crystal:
        full = cell.copy()
        full[free] = p[3 : 3 + len(free)]
        full = _constrained(full, lattice, given=True)
        this = Rotation.from_rotvec(p[:3]).as_matrix() @ turn @ reciprocal_basis(full)
        return Crystal(lattice, 0.0, 0, 0.0, float(p[-3]), 0.0, 0.0, this, full, p[-2:].copy())

    for reach in _REACH:
        crystal = made(state)
        hkl, fits = indices(spots, geometry, crystal, reach)
        if fits.sum() < _LEAST:
            return None
        chosen = replace(spots, **{n: getattr(spots, n)[fits] for n in ("frame", "px", "intensity", "sigma")})
        hold = np.array([geometry.instrument.tilt_axis_deg, *shift])
        state = _fitted(chosen, hkl[fits], geometry, made, state, hold)
    crystal = made(state)
    hkl, fits = indices(spots, geometry, crystal)
    off = _misfit(spots, hkl, geometry, crystal)[fits, :2]
    rms = float(np.sqrt((off**2).sum(1).mean())) if fits.any() else np.nan
    return replace(crystal, n_indexed=int(fits.sum()), indexed_fraction=float(fits.mean()), rms_inv_angstrom=rms)


def _fitted(
    spots: Spots,
    hkl: np.ndarray,
    geometry: Geometry,
    made: Callable[[np.ndarray], Crystal],
    state: np.ndarray,
    hold: np.ndarray,
) -> np.ndarray:
    """Least squares, robust against spots that were given wrong indices."""
    m = geometry.instrument
    in_plane = max(0.3 * m.pixel_inv_angstrom, 0.002)
    across = np.linalg.norm(hkl @ made(state).ub.T, axis=1)
    width = np.sqrt((across * geometry.step / 2) ** 2 + (across * m.convergence_mrad * 1e-3) ** 2 + _ROCKING**2)
    loose = np.array([3.0, 2.0, 2.0])  # deg, px, px: what the start is good to

    def misfit(p: np.ndarray) -> np.ndarray:
        off = _misfit(spots, hkl, geometry, made(p))
        held = (p[-3:] - hold) / loose
        return np.concatenate([(off[:, :2] / in_plane).ravel(), off[:, 2] / width, held])

    return np.asarray(least_squares(misfit, state, loss="soft_l1", f_scale=2.0, x_scale="jac", max_nfev=25).x)


def _misfit(spots: Spots, hkl: np.ndarray, geometry: Geometry, crystal: Crystal) -> np.ndarray:
    """Seen less predicted place (x, y) in the lab frame, and the excitation error, (spot, 3), 1/Å."""
    geometry = geometry.of(crystal)
    g = np.einsum("nij,nj->ni", geometry.turns()[spots.frame], hkl @ crystal.ub.T)
    s = geometry.excitation(g)
    return np.concatenate([geometry.lab(spots)[:, :2] - g[:, :2], np.nan_to_num(s, nan=1.0)[:, None]], 1)


def _constrained(cell: np.ndarray, lattice: str, given: bool = False) -> np.ndarray:
    """A cell with the constraints of its system; ``given``: dependent lengths follow a, rather than the mean."""
    out, system = cell.copy(), lattice[0]
    if system in "thc":
        same = [0, 1, 2] if system == "c" else [0, 1]
        out[same] = out[0] if given else out[same].mean()
    if system != "a":
        out[[3, 5]] = 90
        out[4] = out[4] if system == "m" else 90
    if system == "h":
        out[5] = 120
    return out


def _turn_between(b: np.ndarray, ub: np.ndarray) -> np.ndarray:
    """The rotation that brings B nearest to UB (Kabsch 1976)."""
    u, _, vt = np.linalg.svd(ub @ np.linalg.inv(b))
    return np.asarray(u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt)
