"""The highest points of a periodic map, found as fast as dual-space recycling asks for them: sixty times a start."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def peaks(density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of a map that none of their 26 neighbours exceeds.

    Parameters
    ----------
    density : (x, y, z) f8 array
        One cell of a periodic map, at least three points along each axis.

    Returns
    -------
    place : (peak, 3) i8 array
    height : (peak) f8 array
    """
    nx, ny, nz = density.shape
    place, n = np.empty((density.size // 4 + 1, 3), np.int64), 0  # of a flat map, no more than fit in
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                if n < len(place) and _is_peak(density, i, j, k):
                    place[n] = i, j, k
                    n += 1
    height = np.empty(n)
    for m in range(n):
        height[m] = density[place[m, 0], place[m, 1], place[m, 2]]
    return place[:n], height


@njit(cache=True, nogil=True)
def _is_peak(density: np.ndarray, i: int, j: int, k: int) -> bool:
    nx, ny, nz = density.shape
    here = density[i, j, k]
    up, down = k + 1 if k + 1 < nz else 0, k - 1  # a negative index counts from the end
    if density[i, j, up] > here or density[i, j, down] > here:  # rules out most points
        return False
    for a in (i - 1, i, i + 1 if i + 1 < nx else 0):
        for b in (j - 1, j, j + 1 if j + 1 < ny else 0):
            if density[a, b, k] > here or density[a, b, up] > here or density[a, b, down] > here:
                return False
    return True


def between_points(density: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Peaks (peak, 3) at points ``place`` moved to the tops of parabolas through their neighbours, in points."""
    out = place.astype(float)
    here = density[tuple(place.T)]
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        low, high = (density[tuple(((place + s * step) % density.shape).T)] for s in (-1, 1))
        curve = low - 2 * here + high
        out[:, axis] += np.where(curve < 0, 0.5 * (low - high) / np.where(curve < 0, curve, 1), 0)
    return out


@njit(cache=True, nogil=True)
def apart(
    sites: np.ndarray, rotations: np.ndarray, shifts: np.ndarray, direct: np.ndarray, least: float, atoms: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sites that are the first of those that symmetry or nearness makes the same, as many as fill the cell best.

    Parameters
    ----------
    sites : (site, 3) f8 array
        Fractional.
    rotations : (operation, 3, 3) f8 array
    shifts : (operation, 3) f8 array
    direct : (3, 3) f8 array
        Fractional to Cartesian, Å.
    least : float
        Å, between a site and any image of one kept before; closer images of one site are one atom.
    atoms : float
        In the cell.

    Returns
    -------
    kept : (site) i8 array
    orders : (site) i8 array
        Images of each that are one atom.
    """
    most = len(sites)
    kept, orders, n = np.empty(most, np.int64), np.empty(most, np.int64), 0
    images = np.empty((most, len(rotations), 3))
    there = 0.0
    for i in range(len(sites)):
        if _near(sites[i], images[:n], direct, least * least, True):
            continue
        for o in range(len(rotations)):
            for a in range(3):
                images[n, o, a] = (rotations[o, a] * sites[i]).sum() + shifts[o, a]
        orders[n] = max(1, _near(sites[i], images[n : n + 1], direct, least * least, False))
        places = len(rotations) / orders[n]
        if there + places / 2 < atoms:
            kept[n] = i
            there += places
            n += 1
        elif there > atoms / 2:  # before that, it is a place too general to be filled: atoms lie on special ones
            break
    return kept[:n], orders[:n]


@njit(cache=True, nogil=True)
def _near(site: np.ndarray, images: np.ndarray, direct: np.ndarray, least2: float, any_does: bool) -> int:
    """How many images (atom, operation, 3) are near a site; no more than one is looked for where ``any_does``."""
    away, found = np.empty(3), 0
    for m in range(images.shape[0]):
        for o in range(images.shape[1]):
            for a in range(3):
                d = images[m, o, a] - site[a]
                away[a] = d - np.round(d)
            squared = 0.0
            for a in range(3):
                squared += (direct[a, 0] * away[0] + direct[a, 1] * away[1] + direct[a, 2] * away[2]) ** 2
            if squared <= least2:
                found += 1
                if any_does:
                    return found
    return found
