"""One lattice that is in truth the coincidence lattice of a twin -> the lattices of its individuals.

Twins that share a third of their nodes or so (Σ3 of fcc, rutile (101), monoclinic cells turned about a or c, obverse
and reverse) put all their spots on one lattice whose other nodes stay empty: in a way that no centring makes, for what
is filled is no lattice but the union of a sublattice M of it with R M, R being a rotation of the lattice that M has not
(Donnay & Donnay 1974; Nespolo & Ferraris 2004). All sublattices of small index are tried, with all rotations that the
metric bears; what speaks for a union is the likelihood of which nodes were seen and which crossed the Ewald sphere
unseen. Absences by glides and screws are on planes and rows only, those by atoms in special positions leave no such
union, and a superlattice's weak reflections are seldom seen on the further nodes of either kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from stemtomo_dl.crystal.cells import PRIMITIVE, cell_of, reciprocal_basis, turn_between
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.joint import refine_jointly
from stemtomo_dl.crystal.metric import with_symmetry
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.refine import indices
from stemtomo_dl.crystal.settings import changes, rotations

_INDICES = range(2, 13)  # of a sublattice
_SHELLS, _CROSSED = 5, 2  # kinds of nodes that are compared with their like: by length, and by frames near the sphere
_NEAR = 0.004  # 1/Å of a node from the sphere, in a frame that could show it
_LEAST = 20.0  # nats by which the union must be likelier than the lattice, beyond the number of unions tried
_ADDED = 12.0  # nats that a further individual must add
_HELD = 0.93  # of the nodes seen, on the union
_EMPTY = 0.12  # rate at which other nodes are seen, at most, over that of the nodes that one individual has alone
_SHARED = (
    0.4  # rate at which nodes of all individuals are seen, at least, over the same: no lattice lacks its inmost nodes
)
_KEPT = 0.9  # of the spots on the lattice, on its individuals as refined
_OWN_SPOTS = 25  # that an individual is refined on, if they are its alone
_ALONE = 8, 0.05  # nodes seen that only this individual has: least, and least share of all


class Twin(NamedTuple):
    """Individuals, each by the integer matrix (3, 3) whose columns are its reciprocal basis in the common one."""

    parts: list[np.ndarray]
    nats: float


class Nodes(NamedTuple):
    """Nodes of a lattice that crossed the Ewald sphere within the detector, one of each Friedel pair."""

    hkl: np.ndarray  # (n, 3) of the primitive lattice
    seen: np.ndarray  # (n,) whether a spot lies there
    kind: np.ndarray  # (n,) of nodes that are alike in length and in how long they were near the sphere


def parted(spots: Spots, stated: Geometry, crystal: Crystal) -> list[Crystal]:
    """The individuals of the twin whose coincidence lattice a crystal's is, each refined on its own spots.

    Parameters
    ----------
    spots : Spots
        Of the series.
    stated : Geometry
    crystal : Crystal

    Returns
    -------
    list of Crystal
        In one setting, their spots counted with those that they share, the one with most first; the crystal itself
        where no twin is told.
    """
    twin = individuals(spots, stated, crystal)
    if twin is None:
        return [crystal]
    primitive = PRIMITIVE[crystal.lattice[1]]
    common = crystal.ub @ np.linalg.inv(primitive)
    hkl, fits = indices(spots, stated, crystal)
    at = hkl @ primitive.T
    on = np.array([fits & _whole(at @ np.linalg.inv(m).T) for m in twin.parts])
    own = [o & (on.sum(0) == 1) if (o & (on.sum(0) == 1)).sum() >= _OWN_SPOTS else o for o in on]
    some = [spots.some(o) for o in own]
    ub = common @ twin.parts[0]
    start = replace(crystal, lattice="aP", ub=ub, cell=cell_of(np.linalg.inv(ub)))
    first = with_symmetry(some[0], stated, start)[1]
    setting = np.rint(np.linalg.inv(first.ub) @ ub)  # its rows: the conventional vectors by the primitive ones
    bases = _turned(twin.parts, rotations(np.linalg.inv(common)))
    b = reciprocal_basis(first.cell)
    starts = [common @ m @ np.linalg.inv(setting) for m in bases]
    others = [replace(first, ub=turn_between(b, u) @ b) for u in starts[1:]]
    geometry, refined = refine_jointly(some, [first, *others], stated)
    held = [indices(spots, geometry, c)[1] for c in refined]
    alike = all(changes(refined[0].cell, first.lattice, c.cell, first.lattice) for c in refined[1:])
    if not alike or np.any(held, axis=0).sum() < _KEPT * fits.sum():
        return [crystal]
    counted = (
        replace(c, n_indexed=int(h.sum()), indexed_fraction=float(h.mean())) for c, h in zip(refined, held, strict=True)
    )
    return sorted(counted, key=lambda c: -c.n_indexed)


def _whole(values: np.ndarray) -> np.ndarray:
    """Which rows (n, 3) are integers."""
    return np.asarray(np.abs(values - np.rint(values)).max(1) < 1e-3)


def _turned(parts: Sequence[np.ndarray], turns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Bases of the individuals onto which rotations of the common lattice bring that of the first."""
    out = []
    for part in parts:
        made = (t @ parts[0] for t in turns)
        out.append(next(m for m in made if _whole(np.linalg.inv(part) @ m).all()))
    return out


def individuals(spots: Spots, geometry: Geometry, crystal: Crystal) -> Twin | None:
    """The twin whose coincidence lattice a crystal's is; None where the spots do not tell one.

    Parameters
    ----------
    spots : Spots
        Of the series; those on the crystal's lattice are used.
    geometry : Geometry
    crystal : Crystal

    Returns
    -------
    Twin or None
        In terms of the crystal's primitive lattice (`cells.PRIMITIVE`); the individual of most nodes seen first.
    """
    nodes = crossed(spots, geometry, crystal)
    if nodes.seen.sum() < 2 * _ALONE[0]:
        return None
    turns = rotations(PRIMITIVE[crystal.lattice[1]] @ np.linalg.inv(crystal.ub))
    tried, found = 0, list[Twin]()
    for n in _INDICES if len(turns) > 1 else ():
        table, known, masks = _table(nodes, n), sublattices(n), _masks(n)
        nats = _nats(table, masks)
        richer = np.flatnonzero(nats > _ADDED)
        tried += len(turns) * len(known)
        found += [Twin([known[k]], float(nats[k])) for k in richer]  # no twin, but a smaller cell
        for k, images in zip(richer, _images(turns, n, richer), strict=True):
            made = _grown(table, masks, int(k), images) if images else None
            found += [Twin([known[p] for p in made[1]], made[0])] if made else []
    # a lattice is the union of three of its own sublattices, too: each individual more has to pay
    best = max(found, key=lambda t: t.nats - _ADDED * len(t.parts), default=None)
    told = best is not None and len(best.parts) > 1 and best.nats > _LEAST + np.log(tried)
    return best if told else None


def crossed(spots: Spots, geometry: Geometry, crystal: Crystal) -> Nodes:
    """The nodes that could have been seen, as far out as spots were found, and which were."""
    hkl, fits = indices(spots, geometry, crystal)
    here, primitive = geometry.of(crystal), PRIMITIVE[crystal.lattice[1]]
    ub = crystal.ub @ np.linalg.inv(primitive)
    at = np.rint(hkl[fits] @ primitive.T).astype(int)
    reach = float(np.linalg.norm(at @ ub.T, axis=1).max(initial=0))
    most = np.ceil(reach * np.linalg.norm(np.linalg.inv(ub), axis=1)).astype(int)
    every = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in most], indexing="ij"), -1).reshape(-1, 3)
    g0 = every @ ub.T
    length = np.linalg.norm(g0, axis=1)
    inside = (length > 0) & (length <= reach)
    every, g0, length = every[inside], g0[inside], length[inside]
    low, high = spots.px.min(0), spots.px.max(0)
    times = np.zeros(len(every), int)
    for turn, center in zip(here.turns(), here.centers(spots), strict=True):
        g = g0 @ turn.T
        near = np.flatnonzero(np.abs(here.excitation(g)) < _NEAR)
        px = here.to_detector(g[near], center)
        times[near[((px >= low) & (px <= high)).all(1)]] += 1
    name, size = _names(every, most)
    seen, count = np.zeros(size, bool), np.zeros(size, int)
    seen[_names(at, most)[0]] = True
    np.add.at(count, name, times)
    _, first = np.unique(name, return_index=True)
    first = first[(count[name[first]] > 0) | seen[name[first]]]
    count = count[name[first]]
    shell = np.searchsorted(np.quantile(length[first], np.arange(1, _SHELLS) / _SHELLS), length[first])
    return Nodes(every[first], seen[name[first]], shell * _CROSSED + (count > np.median(count)))


def _names(hkl: np.ndarray, most: np.ndarray) -> tuple[np.ndarray, int]:
    """One number for each Friedel pair of nodes (n, 3), and how many numbers there may be."""
    wide = 2 * most + 1
    number = np.ravel_multi_index(tuple((hkl + most).T), tuple(wide))
    return np.minimum(number, wide.prod() - 1 - number), int(wide.prod())


@cache
def sublattices(n: int) -> list[np.ndarray]:
    """Hermite normal forms of all sublattices of index n, columns their bases."""
    out = []
    for a in range(1, n + 1):
        for b in range(1, n // a + 1):
            if n % (a * b) == 0:
                c = n // (a * b)
                out += [
                    np.array([[a, 0, 0], [d, b, 0], [e, f, c]]) for d in range(b) for e in range(c) for f in range(c)
                ]
    return out


@cache
def _masks(n: int) -> np.ndarray:
    """Which residues mod n (n³,) are nodes of each sublattice of index n."""
    residues = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3)
    divisors = [np.rint(np.linalg.inv(m) * n).astype(int) for m in sublattices(n)]
    return np.array([(residues @ d.T % n == 0).all(1) for d in divisors])


def _images(turns: list[np.ndarray], n: int, which: np.ndarray) -> list[list[int]]:
    """Numbers of the other sublattices of index n onto which rotations bring some of them."""
    masks, bases = _masks(n), np.array(sublattices(n))
    out = []
    for k in which:
        residue = (np.array(turns) @ bases[k]) % n
        column = np.ravel_multi_index(tuple(np.moveaxis(residue, 1, 0)), (n, n, n))  # (rotation, column)
        onto = masks[:, column].all(2).argmax(0)
        out.append(sorted(set(onto.tolist()) - {int(k)}))
    return out


def _table(nodes: Nodes, n: int) -> np.ndarray:
    """How many nodes were seen, and how many were not, by residue mod n and kind: (n³, 2, kind)."""
    residue = np.ravel_multi_index(tuple((nodes.hkl % n).T), (n, n, n))
    kinds = _SHELLS * _CROSSED
    flat = (residue * 2 + ~nodes.seen) * kinds + nodes.kind
    return np.bincount(flat, minlength=n**3 * 2 * kinds).reshape(n**3, 2, kinds)


def _grown(table: np.ndarray, masks: np.ndarray, first: int, images: list[int]) -> tuple[float, list[int]] | None:
    """A sublattice with those of its images that make the likeliest union; None where it is not such a twin's."""
    parts, union, nats = [first], masks[first], _nats(table, masks[first][None])[0]
    while True:
        left = [i for i in images if i not in parts]
        if not left:
            break
        told = _nats(table, union | masks[left])
        best = int(np.argmax(told))
        if told[best] < nats + _ADDED:
            break
        parts, union, nats = [*parts, left[best]], union | masks[left[best]], told[best]
    # many sublattices of a small index are left by atoms in special positions, too (A15)
    if len(parts) < 2 or 2 * (len(parts) - 1) >= len(union) // masks[first].sum():
        return None
    times = masks[parts].sum(0)
    seen, unseen = table.sum(2).T
    held = seen[union].sum()
    alone = [masks[p] & (times == 1) for p in parts]
    least = max(_ALONE[0], _ALONE[1] * seen.sum())
    if held < _HELD * seen.sum() or min(seen[a].sum() for a in alone) < least:
        return None
    rate = min(seen[a].sum() / (seen[a] + unseen[a]).sum() for a in alone)
    shared = times == len(parts)
    outside, inmost = (seen[w].sum() / max((seen + unseen)[w].sum(), 1) for w in (~union, shared))
    if outside > _EMPTY * rate or inmost < _SHARED * rate:
        return None
    return float(nats), sorted(parts, key=lambda p: -seen[masks[p]].sum())


def _nats(table: np.ndarray, union: np.ndarray) -> np.ndarray:
    """By how much it is likelier (m,) that nodes on a union (m, residue) and others are seen at rates of their own."""
    inside = (union.astype(float) @ table.reshape(len(table), -1)).reshape(-1, *table.shape[1:])
    outside = table.sum(0) - inside
    told = _likelihood(inside) + _likelihood(outside) - _likelihood(inside + outside)
    rate, rest = (c[:, 0].sum(1) / np.maximum(c.sum((1, 2)), 1) for c in (inside, outside))
    return np.asarray(np.where(rate > rest, told, -np.inf))


def _likelihood(counts: np.ndarray) -> np.ndarray:
    """Log likelihood (m,) of counts (m, seen or not, kind) at the rate of each kind."""
    total = counts.sum(1, keepdims=True)
    share = np.clip(counts / np.maximum(total, 1), 1e-12, 1)
    return np.asarray((counts * np.log(share)).sum((1, 2)))
