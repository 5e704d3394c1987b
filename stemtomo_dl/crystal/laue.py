"""Laue classes that a lattice may have, unique indices in them, and which of them the intensities show.

An operation's correlation cc is that of normalised amplitudes of reflections with those of their images. Of a class
with the operations S the likelihood is p(S) = ∫ dμ p(μ) Π_{g∈S} N(cc_g; μ, s_g) · Π_{g∉S} p₀(cc_g) (after Evans 2006,
Acta Cryst. D62, 72; there μ is known). Dynamical scattering lowers μ, for all operations of a class about alike: a
class is right where its operations agree about as well as each other, not as well as repeated measurements do. A
class is out where a subgroup's operations all leave far less disagreement, 1 − cc, than all its others: those are
pseudo-symmetry, as of perovskites, whose images agree much better than chance but not as well as equivalents.

Classes that do not ask for the lattice's metric are the less likely beforehand: few crystals have right angles and
equal axes that no symmetry asks for. So the lattice decides where too few reflections have an image to test.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import gemmi
import numpy as np

from stemtomo_dl.crystal.settings import direct_basis, primitive_basis, reindexed

_HOLOHEDRY = {"a": "P -1", "m": "P 1 2/m 1", "o": "P m m m", "t": "P 4/m m m", "h": "P 6/m m m", "c": "P m -3 m"}
_SYSTEM = {"-1": "a", "2/m": "m", "mmm": "o", "4/m": "t", "4/mmm": "t", "m-3": "c", "m-3m": "c"}
_SYSTEM |= dict.fromkeys(("-3", "-3m", "6/m", "6/mmm"), "h")
_BIAS = 512  # indices are packed into ten bits each
_LEAST_PAIRS = 8  # of an operation's test
_ALIKE = 0.06  # spread of the correlations of true operations, beyond their sampling error, where μ is the highest
_UNLIKE = 0.5  # what the spread grows by, of what μ is lower
# Of μ below the correlation of repeated measurements: mean of its exponential prior. Repeated by one particle, they
# share its multiple scattering and tell nothing of how unlike it makes equivalents; other particles' do.
_DROP, _DROP_INDEPENDENT = 0.15, 0.04
_FALSE = 0.3  # spread of the correlation of false operations about 0
_PSEUDO = 0.3  # of the false operations, those of pseudo-symmetry, with any correlation from 0 to 1
_WORSE = 2.0  # times 1 − cc of equivalents that pseudo-symmetry leaves at the least
_SURE = 2.0  # standard deviations by which it must besides
_BY_CHANCE = 0.05  # beforehand, of a class of a lower crystal system than the lattice's, against one of its own


class LaueClass(NamedTuple):
    """A Laue class in the setting of a lattice.

    Attributes
    ----------
    name : str
        As 4/mmm.
    symbol : str
        Hermann–Mauguin symbol of the primitive symmorphic group, which tells the axes, as P 1 2/m 1.
    rotations : (operation, 3, 3) i4
        The inversion included; h' = h · rotation.
    """

    name: str
    symbol: str
    rotations: np.ndarray


class Repeated(NamedTuple):
    """How well measurements of one reflection agree."""

    cc: float  # of normalised amplitudes
    independent: bool  # whether other particles repeated them


class OperationTest(NamedTuple):
    """How well reflections agree with their images under one rotation of the lattice."""

    operation: str  # as a triplet, h' = h · R
    order: int
    cc: float  # NaN where there are too few pairs
    pairs: int
    in_class: bool


class ClassTest(NamedTuple):
    """How well the intensities fit one Laue class."""

    name: str
    symbol: str
    probability: float
    cc: float  # mean over its operations; NaN where it has none that could be tested


def rotations_of(group: gemmi.SpaceGroup) -> np.ndarray:
    """Rotations (operation, 3, 3) of a space group and the inversion, in a fixed order."""
    r = np.array([op.rot for op in group.operations().sym_ops]) // gemmi.Op.DEN
    return np.unique(np.concatenate([r, -r]), axis=0).astype("i4")


def lattice_of_class(laue: LaueClass, lattice: str) -> str:
    """Pearson's letters of what a Laue class leaves of a lattice in its setting: the crystal system is the class's.

    A metric may be higher than the symmetry, as of perovskites that are all but tetragonal: tP with mmm is oP.
    """
    return _SYSTEM[laue.name] + lattice[1]


@cache
def laue_classes(lattice: str) -> tuple[LaueClass, ...]:
    """Laue classes whose rotations a lattice of these Pearson letters has, the lowest first."""
    holohedry = gemmi.SpaceGroup("R -3 m:H" if lattice[1] == "R" else _HOLOHEDRY[lattice[0]])
    whole = {r.tobytes() for r in rotations_of(holohedry)}
    found: dict[bytes, LaueClass] = {}
    for group in gemmi.spacegroup_table():
        if group.ext in ("1", "R") or not (group.is_centrosymmetric() and group.is_symmorphic()):
            continue
        r = rotations_of(group)
        if {one.tobytes() for one in r} <= whole and (r.tobytes() not in found or group.hm[0] == "P"):
            found.setdefault(r.tobytes(), LaueClass(group.laue_str(), group.hm, r))
    return tuple(sorted(found.values(), key=lambda c: len(c.rotations)))


def unique_codes(hkl: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """A whole number (n,) for each reflection, the same for all that the rotations (inversion included) relate."""
    code = np.zeros(len(hkl), "i8")
    for r in rotations:
        h = hkl.astype("i8") @ r + _BIAS
        np.maximum(code, (h[:, 0] << 20) | (h[:, 1] << 10) | h[:, 2], out=code)
    return code


def unpacked(code: np.ndarray) -> np.ndarray:
    """Indices (n, 3) of the representative that a code stands for."""
    return np.stack([(code >> 20) - _BIAS, ((code >> 10) & 1023) - _BIAS, (code & 1023) - _BIAS], 1).astype("i4")


def proper_half(rotations: np.ndarray) -> np.ndarray:
    """The rotations of determinant 1 other than the identity."""
    own = (np.rint(np.linalg.det(rotations)) == 1) & (rotations != np.eye(3)).any((1, 2))
    return np.asarray(rotations[own])


def proper(rotations: np.ndarray) -> np.ndarray:
    """The rotations of determinant 1 other than the identity, one of each and its inverse."""
    kept: list[np.ndarray] = []
    for r in proper_half(rotations):
        back = np.rint(np.linalg.inv(r)).astype("i4")
        if not any(np.array_equal(back, k) for k in kept):
            kept.append(r)
    return np.array(kept, "i4").reshape(-1, 3, 3)


def weighted_cc(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    """Correlation coefficient of two sets of values with common weights; 0 where one of them does not vary."""
    if not weight.sum() > 0:
        return 0.0
    a, b = a - np.average(a, weights=weight), b - np.average(b, weights=weight)
    norm = np.sqrt((weight * a * a).sum() * (weight * b * b).sum())
    return float((weight * a * b).sum() / norm) if norm > 0 else 0.0


def find_laue(
    hkl: np.ndarray, value: np.ndarray, weight: np.ndarray, repeated: Repeated, lattice: str
) -> tuple[LaueClass, list[OperationTest], list[ClassTest]]:
    """The Laue class that intensities show.

    Parameters
    ----------
    hkl : (reflection, 3) array
        Each once, Friedel mates merged.
    value : (reflection,) array
        Normalised amplitudes.
    weight : (reflection,) array
    repeated : Repeated
    lattice : str

    Returns
    -------
    LaueClass
        The likeliest; of equally likely ones, the lowest of the lattice's crystal system.
    list of OperationTest
    list of ClassTest
        The likeliest first.
    """
    classes = laue_classes(lattice)
    operations = proper(classes[-1].rotations)
    tests = [_image_cc(hkl, value, weight, r) for r in operations]
    cc, pairs = np.array([t[0] for t in tests]), np.array([t[1] for t in tests])
    known = np.isfinite(cc)
    holds = np.array([[any(np.array_equal(g, r) for r in c.rotations) for g in operations] for c in classes])
    holds = holds.reshape(len(classes), len(operations)).astype(bool)
    log = np.array([_log_likelihood(cc[known], pairs[known], h[known], repeated) for h in holds])
    log += np.log([1.0 if _metric(c) == _metric(classes[-1]) else _BY_CHANCE for c in classes])
    log[_pseudo(cc[known], pairs[known], holds[:, known])] = -np.inf
    best = int(np.argmax(log))
    share = np.exp(log - log.max())
    share /= share.sum()
    shown = [
        OperationTest(triplet(r), _order(r), float(c), int(n), bool(i))
        for r, c, n, i in zip(operations, cc, pairs, holds[best], strict=True)
    ]
    ranked = [
        ClassTest(c.name, c.symbol, float(p), float(cc[h & known].mean()) if (h & known).any() else np.nan)
        for c, p, h in zip(classes, share, holds, strict=True)
    ]
    return classes[best], shown, sorted(ranked, key=lambda t: -t.probability)


def _image_cc(hkl: np.ndarray, value: np.ndarray, weight: np.ndarray, r: np.ndarray) -> tuple[float, int]:
    """Correlation with the images under a rotation, and the number of pairs; an axis' own reflections tell nothing."""
    friedel = np.array([np.eye(3), -np.eye(3)], "i4")
    code, image = unique_codes(hkl, friedel), unique_codes(hkl @ r, friedel)
    order = np.argsort(code)
    at = np.minimum(np.searchsorted(code[order], image), len(code) - 1)
    other = order[at]
    pair = (code[other] == image) & (image != code)
    if pair.sum() < 2 * _LEAST_PAIRS:
        return np.nan, int(pair.sum() // 2)
    w = 1 / (1 / weight[pair] + 1 / weight[other[pair]])
    # each pair is met from both ends (for a rotation of higher order, once as an image): made symmetric
    a, b = value[pair], value[other[pair]]
    cc = weighted_cc(np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([w, w]))
    return cc, int(pair.sum() // (2 if _order(r) == 2 else 1))


def _log_likelihood(cc: np.ndarray, pairs: np.ndarray, inside: np.ndarray, repeated: Repeated) -> float:
    sampling = (1 - np.clip(cc, 0, 0.95) ** 2) / np.sqrt(pairs)
    wide = np.hypot(_FALSE, sampling)
    chance = np.exp(-(cc**2) / (2 * wide**2)) / (wide * np.sqrt(2 * np.pi))
    outside = np.log((1 - _PSEUDO) * chance + _PSEUDO * (cc > 0))[~inside].sum()
    if not inside.any():
        return float(outside)
    mu = np.linspace(0.1, max(repeated.cc, 0.3), 60)
    prior = np.exp((mu - mu[-1]) / (_DROP_INDEPENDENT if repeated.independent else _DROP))
    spread = np.hypot(_ALIKE + _UNLIKE * (mu[-1] - mu), sampling[inside, None])
    # agreement beyond that of repeated measurements is as good as theirs
    off = np.minimum(cc[inside, None], mu[-1]) - mu
    log = (-(off**2) / (2 * spread**2) - np.log(spread * np.sqrt(2 * np.pi))).sum(0)
    top = log.max()
    return float(outside + top + np.log((np.exp(log - top) * prior).sum() / prior.sum()))


def _pseudo(cc: np.ndarray, pairs: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """Which classes (class,) hold operations that disagree far more than all those of a class within them.

    Parameters
    ----------
    cc, pairs : (operation,) array
    holds : (class, operation) bool array
    """
    log, error = np.log(np.clip(1 - cc, 1e-3, None)), (1 + np.clip(cc, 0, 1)) / np.sqrt(pairs)
    out = np.zeros(len(holds), bool)
    for c, mine in enumerate(holds):
        for within in holds[(holds <= mine).all(1) & holds.any(1)]:
            more = mine & ~within
            if more.any():
                least, most = (log - _SURE * error)[more].min(), (log + _SURE * error)[within].max()
                out[c] |= least > most + np.log(_WORSE)
    return out


def triplet(r: np.ndarray) -> str:
    """A rotation (3, 3) as x,y,z triplet."""
    op = gemmi.Op("x,y,z")
    op.rot = np.rint(r * gemmi.Op.DEN).astype(int).tolist()
    return str(op.triplet())


def _metric(laue: LaueClass) -> str:
    """The crystal system whose metric a class asks for: a trigonal one asks for the hexagonal axes."""
    system: str = gemmi.SpaceGroup(laue.symbol).crystal_system_str()
    return "hexagonal" if system == "trigonal" else system


def _order(r: np.ndarray) -> int:
    return {-1: 2, 0: 3, 1: 4, 2: 6, 3: 1}[int(np.trace(r))]


def possible_reflections(cell: np.ndarray, lattice: str, laue: LaueClass, inverse_d: float) -> np.ndarray:
    """1/d (n,) of the unique reflections that a lattice offers up to a resolution; the centring's absences left out."""
    basis = direct_basis(cell)
    most = np.floor(inverse_d * np.linalg.norm(basis, axis=1) + 1e-6).astype(int)
    # half of the sphere is enough: the other half are Friedel mates
    axes = [np.arange(0, most[0] + 1), *(np.arange(-m, m + 1) for m in most[1:])]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    reciprocal = np.linalg.inv(basis)
    length = np.linalg.norm(hkl @ reciprocal.T, axis=1)
    hkl = hkl[(length > 0) & (length <= inverse_d * (1 + 1e-9))]
    _, present = reindexed(hkl, primitive_basis(cell, lattice) @ reciprocal)
    unique = unpacked(np.unique(unique_codes(hkl[present], laue.rotations)))
    return np.asarray(np.linalg.norm(unique @ reciprocal.T, axis=1))
