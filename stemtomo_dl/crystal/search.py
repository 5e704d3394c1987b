"""Reciprocal vectors -> a primitive basis of the lattice they lie on, without a known cell.

Direct-lattice vectors v are the maxima of Σ cos(2π q·v). The sum is taken on a grid by a 3-D Fourier transform of the
points q (Bricogne 1986; Campbell 1998), maxima are refined by Newton's method, and the triple of them is taken that
explains the most points beyond chance.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy import fft, ndimage

_GRID = 192
LONGEST_A = 45.0  # of an axis that is searched
_GRID_A = 2 * LONGEST_A / _GRID  # of the grid of v
_LOOSE = 0.08  # relative, of a known length
_SHORTEST_A = 2.3
_PEAKS = 300  # that are refined
_CLIMBS, _STRIDE_A, _ARRIVED_A = 12, 0.25, 1e-4  # steps to a maximum at most, and how far one goes; near enough
_VECTORS = 24  # that triples are made of
_COPLANAR = 14  # of them in one plane, at most
_FLAT = 1.0  # Å from that plane
_LEAST_VOLUME = 20.0  # Å³
_FLATTEST = 0.15  # V / abc of a triple
DISTANCE = 0.02  # 1/Å between a point and the node that explains it
_TRIED = 40  # triples that are fitted
_LEAST_POINTS = 12
_LEAST_SHARE = 0.25  # of the points, in one lattice
_CHANCE = 3.0  # times what chance would explain


def find_bases(q: np.ndarray, most: int, distance: float = DISTANCE) -> list[np.ndarray]:
    """Primitive bases of lattices on which many points lie.

    Parameters
    ----------
    q : (n, 3) array
        Reciprocal vectors, 1/Å, up to half of them foreign.
    most : int
        How many to give; multiples of one lattice are among them.
    distance : float
        1/Å between a point and the node that explains it, at most.

    Returns
    -------
    list of (3, 3) arrays
        Rows a, b, c in Å, the most telling first; empty where no lattice explains the points well beyond chance.
    """
    if len(q) < _LEAST_POINTS:
        return []
    vectors = direct_vectors(q)
    some: list[tuple[float, np.ndarray]] = []
    for triple in combinations(range(len(vectors)), 3):
        basis = vectors[list(triple)]
        volume = abs(float(np.linalg.det(basis)))
        if volume > max(_LEAST_VOLUME, _FLATTEST * np.prod(np.linalg.norm(basis, axis=1))):
            some.append((explained(q, basis, distance) * -np.log(chance(volume, distance)), basis))
    some.sort(key=lambda b: -b[0])
    fitted = (polished(q, b, distance) for _, b in some[:_TRIED])
    told = sorted(((_told(q, b, distance), b) for b in fitted), key=lambda b: -b[0])
    out: list[np.ndarray] = []
    for value, basis in told:
        if value > 0 and len(out) < most and not any(_same(basis, other) for other in out):
            out.append(basis)
    return out


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two bases span one lattice, nearly."""
    change = one @ np.linalg.inv(other)
    return bool(np.abs(change - np.rint(change)).max() < 0.1 and abs(abs(np.linalg.det(change)) - 1) < 0.1)


def _told(q: np.ndarray, basis: np.ndarray, distance: float) -> float:
    """What a lattice tells of the points, nats a point: share explained · −ln(chance); 0 where it tells too little.

    A large cell explains points anywhere: so two lattices together are no lattice, and no supercell is better.
    """
    by_chance = chance(abs(float(np.linalg.det(basis))), distance)
    share = explained(q, basis, distance)
    enough = share * len(q) >= _LEAST_POINTS and share >= max(_LEAST_SHARE, _CHANCE * by_chance)
    return -share * float(np.log(by_chance)) if enough else 0.0


def polished(q: np.ndarray, basis: np.ndarray, distance: float = DISTANCE) -> np.ndarray:
    """A basis fitted to the points that it explains, from those nearest to the origin outward."""
    length, b = np.linalg.norm(q, axis=1), np.linalg.inv(basis).T
    for reach in (0.4, 0.6, 0.9, 1.3, np.inf):
        near = q[length < reach]
        hkl = np.rint(near @ np.linalg.inv(b))
        off = near - hkl @ b
        fits = (np.linalg.norm(off, axis=1) < 1.5 * distance) & np.any(hkl != 0, axis=1)
        if fits.sum() >= _LEAST_POINTS and np.linalg.matrix_rank(hkl[fits]) == 3:
            b = np.linalg.lstsq(hkl[fits], near[fits], rcond=None)[0]
    return np.linalg.inv(b).T


def chance(volume: float, distance: float = DISTANCE) -> float:
    """Share of points anywhere that a lattice of this volume, Å³, explains."""
    return float(min(1.0, 4 / 3 * np.pi * distance**3 * volume))


def explained(q: np.ndarray, basis: np.ndarray, distance: float = DISTANCE) -> float:
    """Share of the points that lie within a distance, 1/Å, of a node of the lattice with this basis (rows, Å)."""
    off = q - np.rint(q @ basis.T) @ np.linalg.inv(basis).T
    return float((np.einsum("ij,ij->i", off, off) < distance**2).mean())


def direct_vectors(q: np.ndarray) -> np.ndarray:
    """The direct-lattice vectors (n, 3), Å, that Σ cos(2π q·v) speaks for most, v and −v being one."""
    refined = peaks(q)
    height = np.cos(2 * np.pi * q @ refined.T).mean(0)
    chosen: list[np.ndarray] = []
    # short ones first among those that are nearly as good: multiples of a vector are as good as itself
    for n in np.lexsort((np.linalg.norm(refined, axis=1), -np.round(height * 10))):
        v = refined[n]
        new = all(min(np.linalg.norm(v - c), np.linalg.norm(v + c)) > 0.3 for c in chosen)
        if new and np.linalg.norm(v) > _SHORTEST_A and _in_plane(chosen, v) < _COPLANAR:
            chosen.append(v)
        if len(chosen) == _VECTORS:
            break
    return np.array(chosen).reshape(-1, 3)


def peaks(q: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """The highest maxima (n, 3), Å, of Σ cos(2π q·v), the highest first; one may occur twice, and as −v.

    With ``lengths``, Å, of those vectors only that are about as long as one of them.
    """
    step = 1 / (2 * LONGEST_A)
    near = q[np.abs(q).max(1) < (_GRID / 2 - 2) * step]
    cells = np.rint(near / step).astype(int) % _GRID
    density = np.zeros((_GRID,) * 3, np.float32)
    np.add.at(density, tuple(cells.T), 1)
    total = fft.rfftn(density).real
    axis = fft.fftfreq(_GRID, step)
    top = ndimage.maximum_filter(total, size=3, mode="wrap") == total
    i, j, k = np.nonzero(top & (total > 0.2 * len(near)))
    start = np.stack([axis[i], axis[j], fft.rfftfreq(_GRID, step)[k]], 1)
    length = np.linalg.norm(start, axis=1)
    keep = (length > _SHORTEST_A) & (length < LONGEST_A)
    if lengths is not None:
        keep &= (np.abs(length[:, None] - lengths) < _GRID_A + _LOOSE * lengths).any(1)
    order = np.argsort(-total[i, j, k][keep])[:_PEAKS]
    return np.array([_climb(near, v) for v in start[keep][order]]).reshape(-1, 3)


def _in_plane(chosen: list[np.ndarray], v: np.ndarray) -> int:
    """How many of the chosen vectors lie in one plane with this one and the best two: a long axis is not among them."""
    if len(chosen) < 2:
        return 0
    normal = np.cross(chosen[0], next((c for c in chosen[1:] if _apart(chosen[0], c)), chosen[0]))
    flat = [bool(abs(c @ normal) < _FLAT * np.linalg.norm(normal)) for c in (*chosen, v)]
    return sum(flat[:-1]) if flat[-1] else 0


def _apart(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two vectors are more than a few degrees from one line."""
    return bool(np.linalg.norm(np.cross(one, other)) > 0.1 * np.linalg.norm(one) * np.linalg.norm(other))


def _climb(q: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Nearest maximum of Σ cos(2π q·v), by Newton's method; the start where it leads away.

    Between the points of the grid the sum may still bend upwards along a direction in which q reaches far: there the
    step goes uphill all the same, by the size of the curvature, and no farther than the grid leaves open.
    """
    at = v.copy()
    for _ in range(_CLIMBS):
        phase = 2 * np.pi * q @ at
        bend, along = np.linalg.eigh(2 * np.pi * (q * np.cos(phase)[:, None]).T @ q)
        step = along @ ((np.sin(phase) @ q @ along) / np.maximum(np.abs(bend), 1e-9 * np.abs(bend).max()))
        length = float(np.linalg.norm(step))
        at = at - step * min(1.0, _STRIDE_A / max(length, 1e-30))
        if np.linalg.norm(at - v) > 1.0:
            return v
        if length < _ARRIVED_A:
            break
    return at
