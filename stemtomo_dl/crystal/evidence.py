"""How much reflections speak for a lattice, and which of its multiples and fractions they speak for.

Modulo a lattice, foreign reflections lie anywhere and its own lie at the origin within the errors of measurement. With
a share f of its own, a reflection's density over that of chance is 1 - f + f N(r) / V, where r is how far it is from
the nearest node, N the density of such errors, normal but for the tails of rocking curves, and V the cell's volume: 1 /
V is that of a node's surroundings. A multiple of the true cell halves N / V for every reflection to explain the few
that chance puts on its further nodes; a superlattice's weak reflections lie at its nodes more often than chance and
closer. So nodes of the one kind and of the other get a share each, and further nodes are kept where they raise the
likelihood by more than chance would.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

from stemtomo_dl.crystal.bravais import reduced

_SWEEPS = 40
_FURTHER = 12.0  # nats by which further nodes must raise the likelihood: 20 sublattices are tried
_TAILS = 0.1, 3.0  # of rocking curves, along the beam: their part, and how many times wider they are
_APART = 8.0  # errors between two nodes that a reflection tells apart
_LEAST_FURTHER = 5  # reflections
# Of all that a lattice explains, on further nodes: two spots that are found as one lie half way between their nodes.
_LEAST_PART = 0.03
_RULES = [
    (n, np.array(m)) for n in (2, 3) for m in product(range(n), repeat=3) if any(m) and next(c for c in m if c) == 1
]


class Points(NamedTuple):
    """Reflections to be explained."""

    q: np.ndarray  # (n, 3) in the sample frame, 1/Å
    turns: np.ndarray  # (n, 3, 3) to the lab frame, where errors are along its axes
    sigma: np.ndarray  # (n, 3) of these errors, 1/Å


def evidence(points: Points, basis: np.ndarray) -> float:
    """Log likelihood, nats, of a lattice (rows, Å, primitive) against reflections lying anywhere."""
    hkl, density = _density(points, basis)
    return _shares(np.where(np.any(hkl != 0, axis=1), density, 0)[:, None])[0]


def settled(points: Points, basis: np.ndarray) -> np.ndarray:
    """The multiple or the fraction of a lattice (rows, Å, primitive) that the reflections speak for."""
    for _ in range(4):
        smaller = _without_empty_nodes(points, basis)
        if smaller is None:
            break
        basis = smaller
    for _ in range(3):
        larger = _with_further_nodes(points, basis)
        if larger is None:
            break
        basis = larger
    return reduced(basis)


def _without_empty_nodes(points: Points, basis: np.ndarray) -> np.ndarray | None:
    """The lattice with 1/n of the nodes where hardly more than chance lies on the others."""
    hkl, density = _density(points, basis)
    tried = []
    for n, m in _RULES:
        even = hkl @ m % n == 0
        # the same reflections, told by the nodes of a cell of V / n and by the others
        tried.append((_further(density * even * n, density * ~even * n / (n - 1)), n, m))
    gain, n, m = min(tried, key=lambda t: t[0])
    return _divided(basis, m, n) if gain < _FURTHER else None


def _with_further_nodes(points: Points, basis: np.ndarray) -> np.ndarray | None:
    """The lattice with n times the nodes where reflections lie on the further ones.

    A reflection whose nearest node of the one kind is hardly further than its errors from that of the other tells
    nothing, and all that lie nearest to one node tell no more than one: the tails of rocking curves are no nodes.
    """
    hkl, own, off = _nearest(points, basis)
    best: tuple[float, int, np.ndarray] = (_FURTHER, 1, np.zeros(3, int))
    for n, m in _RULES:
        nodes, told = [hkl * n], [own]
        for k in range(1, n):
            there, density, apart = _nearest(points, basis, k * m / n)
            nodes.append(there * n + k * m)
            told.append(density * (np.linalg.norm(apart - off, axis=1) > _APART))
        which = np.argmax(told, 0)
        once = 1 / _sharing(np.stack(nodes)[which, np.arange(len(which))])
        gain = _further(own, np.mean(told[1:], 0), once)
        if gain > best[0]:
            best = gain, n, m
    return None if best[1] == 1 else _multiplied(basis, best[2], best[1])


def _sharing(hkl: np.ndarray) -> np.ndarray:
    """How many reflections (n,) have each one's node (n, 3) or its Friedel mate."""
    both = np.concatenate([hkl, -hkl])
    _, name = np.unique(both, axis=0, return_inverse=True)
    one = np.minimum(name[: len(hkl)], name[len(hkl) :])
    return np.bincount(one)[one]


def _further(own: np.ndarray, further: np.ndarray, weight: np.ndarray | float = 1.0) -> float:
    """By how much the further nodes raise the log likelihood; 0 where they explain too few reflections."""
    alone = _shares(own[:, None], weight)[0]
    both, _, part = _shares(np.stack([own, further], 1), weight)
    count = (part * np.reshape(weight, (-1, 1))).sum(0)
    return both - alone if count[1] >= max(_LEAST_FURTHER, _LEAST_PART * count.sum()) else 0.0


def _density(points: Points, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest nodes (n, 3) and N(r) / V (n,)."""
    return _nearest(points, basis)[:2]


def _nearest(
    points: Points, basis: np.ndarray, offset: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest nodes (n, 3), of indices off by ``offset``, N(r) / V (n,), and r (n, 3) in units of the errors."""
    real = points.q @ basis.T - offset
    hkl = np.rint(real)
    off = np.einsum("nij,nj->ni", points.turns, (real - hkl) @ np.linalg.inv(basis).T) / points.sigma
    norm = (2 * np.pi) ** 1.5 * points.sigma.prod(1) * abs(np.linalg.det(basis))
    part, wide = _TAILS
    along = (1 - part) * np.exp(-0.5 * off[:, 2] ** 2) + part / wide * np.exp(-0.5 * (off[:, 2] / wide) ** 2)
    return hkl.astype(int), np.exp(-0.5 * (off[:, :2] ** 2).sum(1)) * along / norm, off


def _shares(density: np.ndarray, weight: np.ndarray | float = 1.0) -> tuple[float, np.ndarray, np.ndarray]:
    """Greatest log likelihood, the shares (kind,) that give it, and each reflection's part in each kind (n, kind)."""
    kinds = density.shape[1]
    weight = np.broadcast_to(weight, len(density))
    share = np.full(kinds, 0.5 / kinds)
    for _ in range(_SWEEPS):
        total = 1 - share.sum() + density @ share
        part = density * share / total[:, None]
        share = np.average(part, 0, weight)
        share *= min(1.0, 0.99 / max(share.sum(), 1e-12))
    total = 1 - share.sum() + density @ share
    return float((weight * np.log(total)).sum()), share, density * share / total[:, None]


def _divided(basis: np.ndarray, m: np.ndarray, n: int) -> np.ndarray:
    """The lattice with m / n among its vectors."""
    out = basis.copy()
    out[int(np.flatnonzero(m == 1)[0])] = m @ basis / n
    return reduced(out)


def _multiplied(basis: np.ndarray, m: np.ndarray, n: int) -> np.ndarray:
    """The lattice of those vectors whose coefficients c have c·m divisible by n."""
    k = int(np.flatnonzero(m == 1)[0])
    change = np.eye(3, dtype=int)
    change[:, k] -= m  # rows e_i - m_i e_k, of which c·m = 0
    change[k] = n * np.eye(3, dtype=int)[k]
    return reduced(change @ basis)
