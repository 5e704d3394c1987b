"""Space groups by the reflections that their screw axes and glide planes forbid.

Of a zone's forbidden reflections r is the mean of I / <I> at their resolution. Multiple scattering fills them: r is
below 0.005 in kinematic data, 0.015 to 0.05 in crystals of 20 nm, and up to 0.6 in single zones of thick ones. A zone
is judged by the ratio of the likelihoods of ln r for an absence, N(ln 0.03, 1.2), and for none, N(0, 0.3² + 2/n), both
with a floor, so that no single weak zone decides; a group by the sum over its zones.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import gemmi
import numpy as np

from stemtomo_dl.crystal.laue import LaueClass, rotations_of

_CLEAR = 0.1  # mean of the absent over that of all
_ABSENT, _ABSENT_SPREAD = np.log(0.03), 1.2
_PRESENT_SPREAD = 0.3
_POSSIBLE = 5.0  # of log-likelihood below the best
_FLOOR = 0.003
_CHANCE = 0.3  # of zones with hardly any reflection, those whose mean follows neither
_MANY = 20
_CENTRIC, _ACENTRIC = 0.968, 0.736  # <|E² − 1|> of Wilson's distributions
_CONDITIONS: dict[str, np.ndarray] = {
    "h": np.array([1, 0, 0]),
    "k": np.array([0, 1, 0]),
    "l": np.array([0, 0, 1]),
    "h+k": np.array([1, 1, 0]),
    "h+l": np.array([1, 0, 1]),
    "k+l": np.array([0, 1, 1]),
    "2h+l": np.array([2, 0, 1]),
    "h+k+l": np.array([1, 1, 1]),
}


_GRID = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 3, indexing="ij"), -1).reshape(-1, 3)


class Zone(NamedTuple):
    """A plane or row of reflections in which operations may forbid some."""

    name: str
    row: bool
    inside: np.ndarray  # which points of the grid lie in it
    alike: list[np.ndarray]  # rotations that leave it or one equivalent to it in place


class Absence(NamedTuple):
    """A zone or row of reflections and what a condition forbids in it."""

    zone: str  # as 0kl
    condition: str  # that reflections present fulfil, as k = 2n
    n_absent: int
    ratio: float  # mean I / <I> of those forbidden; NaN where none was measured
    i_over_sigma: float
    log_likelihood: float  # of absence against none


class SpaceGroup(NamedTuple):
    """A space group that suits cell and Laue class."""

    symbol: str
    number: int
    score: float  # log-likelihood of all its absences
    n_absent: int
    ratio: float  # mean I / <I> of all it forbids; NaN where none was measured
    verdict: str  # likely, possible or unlikely
    centrosymmetric: bool


def candidates(
    laue: LaueClass, lattice: str, hkl: np.ndarray, square: np.ndarray, signal: np.ndarray
) -> tuple[list[SpaceGroup], list[Absence]]:
    """Space groups of a Laue class, ranked, and the zones that tell them apart.

    Parameters
    ----------
    laue : LaueClass
    lattice : str
        Pearson's letters.
    hkl : (reflection, 3) array
        Unique reflections.
    square : (reflection,) array
        I over the mean at its resolution.
    signal : (reflection,) array
        I/σ.
    """
    zones = _zones(laue)
    in_row = np.any([_fixed(_GRID, r) for z in zones if z.row for r in z.alike] or [np.zeros(len(_GRID), bool)], axis=0)
    everywhere = [np.any([_fixed(hkl, r) for r in z.alike], axis=0) for z in zones]
    known: dict[tuple[str, str], Absence] = {}
    groups = []
    centric = _is_centric(square)
    for group in gemmi.spacegroup_table():
        if group.ext in ("1", "R") or group.hm[0] != lattice[1]:
            continue
        if not np.array_equal(rotations_of(group), laue.rotations):
            continue
        absent = _absent(group, hkl)
        score, counted = 0.0, np.zeros(len(hkl), bool)
        for zone, members in zip(zones, everywhere, strict=True):
            condition = _condition(group, zone, in_row)
            inside = members & absent & ~counted
            if condition is None:
                continue
            counted |= inside
            entry = _absence(zone.name, condition, square[inside], signal[inside])
            score += entry.log_likelihood
            if (zone.name, condition) not in known or entry.n_absent > known[zone.name, condition].n_absent:
                known[zone.name, condition] = entry
        ratio = float(square[absent].mean()) if absent.any() else np.nan
        groups.append((score, group, int(absent.sum()), ratio))
    best = max((g[0] for g in groups), default=0.0)
    groups.sort(key=lambda g: (-round(g[0], 6), g[1].is_centrosymmetric() != centric, g[1].number))
    ranked = [
        SpaceGroup(g.xhm(), g.number, float(s), n, r, _verdict(s, best, r), bool(g.is_centrosymmetric()))
        for s, g, n, r in groups
    ]
    return ranked, sorted(known.values(), key=lambda a: (a.zone.count("0"), a.zone, a.condition))


def wilson_statistic(square: np.ndarray) -> float:
    """Mean of |E² − 1|: 0.968 for centric, 0.736 for acentric structures."""
    return float(np.abs(square - 1).mean())


def _is_centric(square: np.ndarray) -> bool:
    return wilson_statistic(square) > (_CENTRIC + _ACENTRIC) / 2


def _verdict(score: float, best: float, ratio: float) -> str:
    if score < best - _POSSIBLE:
        return "unlikely"
    return "likely" if score > best - 1 and not ratio > _CLEAR else "possible"


def _absence(zone: str, condition: str, square: np.ndarray, signal: np.ndarray) -> Absence:
    n = len(square)
    if not n:
        return Absence(zone, condition, 0, np.nan, np.nan, 0.0)
    ratio = float(square.mean())
    x, sampling = np.log(max(ratio, _FLOOR)), np.sqrt(2 / n)
    chance = _CHANCE * np.exp(-min(n, _MANY) / 4)  # few may all be weak by chance, many hardly
    log = np.log(_density(x, _ABSENT, np.hypot(_ABSENT_SPREAD, sampling), chance))
    log -= np.log(_density(x, 0.0, np.hypot(_PRESENT_SPREAD, sampling), chance))
    return Absence(zone, condition, n, ratio, float(signal.mean()), float(log))


def _density(x: float, mean: float, spread: float, chance: float) -> float:
    """A normal distribution, of which a share is spread evenly over all logarithms that are met."""
    normal = np.exp(-(((x - mean) / spread) ** 2) / 2) / (spread * np.sqrt(2 * np.pi))
    return float((1 - chance) * normal + chance / -np.log(_FLOOR))


def _zones(laue: LaueClass) -> list[Zone]:
    """Planes, then rows, that mirrors and axes of a class leave in place; of equivalent ones the first by name."""
    found: list[Zone] = []
    seen: set[bytes] = set()
    for r in laue.rotations:
        det, trace = round(float(np.linalg.det(r))), int(np.trace(r))
        if (det == -1 and trace != 1) or (det == 1 and trace == 3):
            continue
        alike = [np.rint(np.linalg.inv(s)).astype("i4") @ r @ s for s in laue.rotations]
        inside = [_fixed(_GRID, a) for a in alike]
        if inside[0].tobytes() in seen:
            continue
        seen |= {i.tobytes() for i in inside}
        name, k = min((_name(_GRID[i]), n) for n, i in enumerate(inside))
        found.append(Zone(name, det == 1, inside[k], alike))
    return sorted(found, key=lambda z: (z.row, z.name))


def _fixed(hkl: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    return np.asarray((hkl @ rotation == hkl).all(1))


def _name(points: np.ndarray) -> str:
    """As 0kl, hhl, 00l: the first of h, k, l that each index of a zone is, up to sign, or 2h."""
    letters: list[str] = []
    for n in range(3):
        column = points[:, n]
        earlier = [(m, f) for m in range(n) for f in (1, -1, 2, -2) if np.array_equal(column, f * points[:, m])]
        if not column.any():
            letters.append("0")
        elif earlier:
            m, f = earlier[0]
            letters.append({1: "", -1: "-", 2: "2", -2: "-2"}[f] + letters[m])
        else:
            letters.append("hkl"[n])
    return "".join(letters)


def _condition(group: gemmi.SpaceGroup, zone: Zone, in_row: np.ndarray) -> str | None:
    """What reflections of a zone fulfil that a group lets be, beyond its centring; None: all may be."""
    inside = zone.inside & _GRID.any(1)
    if not zone.row:
        inside &= ~in_row  # a row also has the conditions of the other planes that it is in
    points = _GRID[inside]
    centring = np.array(group.operations().cen_ops)
    points = points[(points @ centring.T % gemmi.Op.DEN == 0).all(1)]
    present = ~_absent(group, points)
    if present.all():
        return None
    for count in (1, 2):
        for forms in combinations(_CONDITIONS.items(), count):
            for modulus in (2, 4, 3, 6):
                met = np.all([points @ f % modulus == 0 for _, f in forms], axis=0)
                if np.array_equal(met, present):
                    return f"{', '.join(n for n, _ in forms)} = {modulus}n"
    return f"as {group.xhm()}"


def _absent(group: gemmi.SpaceGroup, hkl: np.ndarray) -> np.ndarray:
    return np.asarray(group.operations().systematic_absences(np.ascontiguousarray(hkl, "i4")), bool)
