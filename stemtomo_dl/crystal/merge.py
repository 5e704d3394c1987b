"""Particles -> phases: those of one lattice and one structure, in one setting, on one scale, merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from stemtomo_dl.crystal import statistics
from stemtomo_dl.crystal.absences import candidates, wilson_statistic
from stemtomo_dl.crystal.ambiguity import (
    LEAST_COMMON,
    Aligned,
    Amplitudes,
    Table,
    align,
    normalised,
    resolution_mean,
    tabulated,
    turned,
)
from stemtomo_dl.crystal.common_scale import Placed, Scaled, joined, obtuse, on_one_scale
from stemtomo_dl.crystal.laue import (
    ClassTest,
    LaueClass,
    OperationTest,
    Repeated,
    find_laue,
    lattice_of_class,
    laue_classes,
    possible_reflections,
    proper_half,
    unique_codes,
    unpacked,
    weighted_cc,
)
from stemtomo_dl.crystal.nouns import Crystal, Reflections
from stemtomo_dl.crystal.phase import LeftOut, Member, Phase
from stemtomo_dl.crystal.settings import Change, changes, direct_basis

_LEAST_REFLECTIONS = 30  # of a particle that a phase begins with
_LEAST_SHARE = 0.3  # of the reflections, of particles whose lattice is to be the phase's
_REPEATED_CC = 0.9  # where hardly any reflection was measured twice
_RESOLVED = 0.3  # CC1/2 of the outermost shell that tells something
_WORST_MISFIT = 3.0  # times its errors that a particle may be off the others
_LEAST_TO_JUDGE = 4  # particles, for one of them to be left out as unlike the others
_CLASS_ROUNDS = 3  # of aligning in a class and finding the class of what agrees
_FRIEDEL = np.array([np.eye(3), -np.eye(3)], "i4")


class _Cluster(NamedTuple):
    """Members whose lattices agree, the changes of basis to the common setting, and the setting."""

    members: list[Member]
    changes: list[list[Change]]
    cell: np.ndarray
    lattice: str


def merge_particles(members: Sequence[Member], rng: np.random.Generator | None = None) -> list[Phase]:
    """Find the phases among particles and merge each.

    Parameters
    ----------
    members : sequence of Member
        Those with fewer than 12 reflections of finite intensity and positive sigma are passed over; so are those with
        fewer than 30, where they belong to no other's phase.
    rng : numpy.random.Generator or None
        For halves and folds; None: always the same.

    Returns
    -------
    list of Phase
        The one with most observations first. Every other particle is in one, or among those left out of one.
    """
    rng = rng or np.random.default_rng(0)
    usable = [m._replace(reflections=_usable(m.reflections)) for m in members]
    left = [m for m in usable if len(m.reflections.hkl) >= LEAST_COMMON]
    phases = []
    while any(len(m.reflections.hkl) >= _LEAST_REFLECTIONS for m in left):
        cluster = _cluster(left)
        tracks = {m.track for m in cluster.members}
        left = [m for m in left if m.track not in tracks]
        phases += _phases(cluster, rng)
    return sorted(phases, key=lambda p: -sum(m.observations for m in p.members))


def _usable(r: Reflections) -> Reflections:
    keep = np.isfinite(r.intensity) & np.isfinite(r.sigma) & (r.sigma > 0) & r.hkl.any(1)
    return Reflections(r.hkl[keep], r.intensity[keep], r.sigma[keep], r.alpha_deg[keep])


def _cluster(members: list[Member]) -> _Cluster:
    """The particle with most reflections, and all whose lattices are like its own."""
    leader = max(members, key=lambda m: len(m.reflections.hkl))
    maps = [_between(leader.crystal, m.crystal) for m in members]
    pairs = [(m, c) for m, c in zip(members, maps, strict=True) if c]
    weights: dict[str, int] = {}
    for m, _ in pairs:
        weights[m.crystal.lattice] = weights.get(m.crystal.lattice, 0) + len(m.reflections.hkl)
    enough = [k for k, w in weights.items() if w >= _LEAST_SHARE * sum(weights.values())]
    lattice = max(enough, key=lambda k: len(laue_classes(k)[-1].rotations))
    model = max((m for m, _ in pairs if m.crystal.lattice == lattice), key=lambda m: len(m.reflections.hkl)).crystal
    maps = [_between(model, m.crystal) for m, _ in pairs]
    kept = [(m, c) for (m, _), c in zip(pairs, maps, strict=True) if c]
    return _Cluster([m for m, _ in kept], [c for _, c in kept], model.cell, lattice)


def _between(to: Crystal, of: Crystal) -> list[Change]:
    return changes(to.cell, to.lattice, of.cell, of.lattice)


def _phases(cluster: _Cluster, rng: np.random.Generator) -> list[Phase]:
    """The phase of a cluster, and those of two or more members that it leaves and that agree among themselves."""
    phase = _phase(cluster, rng)
    out = {o.track for o in phase.left_out}
    rest = [i for i, m in enumerate(cluster.members) if m.track in out]
    if len(rest) < 2:
        return [phase]
    others = _phases(
        cluster._replace(members=[cluster.members[i] for i in rest], changes=[cluster.changes[i] for i in rest]), rng
    )
    others = [p for p in others if len(p.members) > 1]
    taken = {m.track for p in others for m in p.members}
    kept = tuple(o for o in phase.left_out if o.track not in taken)
    return [replace(phase, left_out=kept), *(replace(p, left_out=()) for p in others)]


def _phase(cluster: _Cluster, rng: np.random.Generator) -> Phase:
    amplitudes = [normalised(m.reflections, np.linalg.inv(direct_basis(m.crystal.cell))) for m in cluster.members]
    laue, operations, classes, options, aligned = _in_one_setting(cluster, amplitudes)
    left_out = [LeftOut(m.track, _reason(a)) for m, a in zip(cluster.members, aligned, strict=True) if not a.agrees]
    matrices = [o[a.choice].matrix for o, a in zip(options, aligned, strict=True)]
    kept = [n for n, a in enumerate(aligned) if a.agrees]
    turn = _standard_turn([turned(amplitudes[n], matrices[n]) for n in kept], laue, cluster.lattice)
    placed = obtuse([Placed(cluster.members[n], turn.T @ matrices[n], aligned[n]) for n in kept], laue)
    while True:
        scaled = on_one_scale(placed, laue, rng)
        worst = int(np.argmax(np.nan_to_num(scaled.misfits)))
        if len(placed) < _LEAST_TO_JUDGE or not scaled.misfits[worst] > _WORST_MISFIT:
            break
        text = f"is off the others' intensities by {scaled.misfits[worst]:.1f} times its errors"
        left_out.append(LeftOut(placed.pop(worst).member.track, text))
    inverse_d = np.linalg.norm(scaled.hkl @ np.linalg.inv(direct_basis(scaled.cell)).T, axis=1)
    setting = (scaled.cell, cluster.lattice, laue)
    shells, overall = _statistics(scaled, inverse_d, setting, rng)
    square = scaled.mean / resolution_mean(inverse_d, scaled.mean)
    groups, absences = candidates(laue, cluster.lattice, scaled.hkl, square, scaled.mean / scaled.error)
    return Phase(
        lattice=lattice_of_class(laue, cluster.lattice),
        laue=laue,
        members=tuple(joined(n, p, scaled) for n, p in enumerate(placed)),
        left_out=tuple(left_out),
        operations=tuple(operations),
        classes=tuple(classes),
        space_groups=tuple(groups),
        absences=tuple(absences),
        wilson=wilson_statistic(square),
        shells=tuple(shells),
        overall=overall,
        resolution_a=_resolved(shells),
        scaling=scaled.model.name,
        errors=scaled.errors,
        n_rejected=int(scaled.bad.sum()),
        cell=scaled.cell,
        cell_esd=scaled.cell_esd,
        hkl=scaled.hkl,
        intensity=scaled.mean,
        sigma=scaled.error,
        multiplicity=scaled.multiplicity,
    )


class _Setting(NamedTuple):
    """The Laue class, what speaks for it, and how particles are brought into its setting."""

    laue: LaueClass
    operations: list[OperationTest]
    classes: list[ClassTest]
    options: list[list[Change]]
    aligned: list[Aligned]


def _in_one_setting(cluster: _Cluster, amplitudes: Sequence[Amplitudes]) -> _Setting:
    """Align particles and find their Laue class, again where more agree with its equivalents: they may tell another."""
    options, aligned = cluster.changes, align(amplitudes, cluster.changes, _FRIEDEL)
    for _ in range(_CLASS_ROUNDS):
        agreed = sum(a.agrees for a in aligned)
        laue, operations, classes = _symmetry(options, amplitudes, aligned, cluster.lattice)
        options = [_distinct(c, laue) for c in cluster.changes]
        aligned = align(amplitudes, options, laue.rotations)
        if sum(a.agrees for a in aligned) <= agreed:
            break
    return _Setting(laue, operations, classes, options, aligned)


def _standard_turn(sets: Sequence[Amplitudes], laue: LaueClass, lattice: str) -> np.ndarray:
    """The rotation, h' = h · rotation, to the setting in which the groups of the tables suit best, as Pa-3 needs it.

    The tables have no group of a class that is much lower than the lattice, as 2/m with R centring: none suits then.
    """
    options = [np.eye(3, dtype="i4")]
    for s in proper_half(laue_classes(lattice)[-1].rotations):
        image = {(np.rint(np.linalg.inv(s)).astype("i4") @ r @ s).tobytes() for r in laue.rotations}
        new = not any(np.array_equal(o @ r, s) for o in options for r in laue.rotations)
        if new and image == {r.tobytes() for r in laue.rotations}:
            options.append(s)
    if len(options) == 1:
        return options[0]
    table = tabulated(sets, laue.rotations)
    hkl, square = unpacked(table.code), table.value**2
    groups = [candidates(laue, lattice, hkl @ o, square, np.sqrt(table.weight))[0] for o in options]
    scores = [g[0].score if g else 0.0 for g in groups]
    return options[int(np.argmax(np.round(scores, 3)))]


def _symmetry(
    options: Sequence[Sequence[Change]], amplitudes: Sequence[Amplitudes], aligned: Sequence[Aligned], lattice: str
) -> tuple[LaueClass, list[OperationTest], list[ClassTest]]:
    """The Laue class from all particles that agree, brought into one setting."""
    sets = [
        turned(a, change[outcome.choice].matrix)
        for a, change, outcome in zip(amplitudes, options, aligned, strict=True)
        if outcome.agrees
    ]
    table = tabulated(sets, _FRIEDEL)
    return find_laue(unpacked(table.code), table.value, table.weight, _repeated(sets), lattice)


def _repeated(sets: Sequence[Amplitudes]) -> Repeated:
    """Agreement on one reflection or its Friedel mate, between particles where enough is common, else within them."""
    tables = [tabulated([a], _FRIEDEL) for a in sets]
    between = _successive_cc(tables)
    if np.isfinite(between):
        return Repeated(between, True)
    code = [unique_codes(a.hkl, _FRIEDEL) for a in sets]
    within = _successive_cc([Table(c, a.value, a.weight) for c, a in zip(code, sets, strict=True)])
    return Repeated(within if np.isfinite(within) else _REPEATED_CC, False)


def _successive_cc(tables: Sequence[Table]) -> float:
    """Correlation of values with the next of the same code; NaN where there are too few."""
    code, value, weight = (np.concatenate([getattr(t, n) for t in tables]) for n in Table._fields)
    order = np.argsort(code, kind="stable")
    pair = np.flatnonzero(np.diff(code[order]) == 0)
    if len(pair) < 2 * LEAST_COMMON:
        return np.nan
    i, j = order[pair], order[pair + 1]
    w = 1 / (1 / weight[i] + 1 / weight[j])
    return weighted_cc(np.r_[value[i], value[j]], np.r_[value[j], value[i]], np.r_[w, w])


def _distinct(options: Sequence[Change], laue: LaueClass) -> list[Change]:
    """Changes of basis, one of those that the rotations of the Laue class relate: that which fits the cell best."""
    kept: list[Change] = []
    for change in options:
        relations = [change.matrix @ np.linalg.inv(k.matrix) for k in kept]
        if not any(np.abs(relation - r.T).max() < 1e-3 for relation in relations for r in laue.rotations):
            kept.append(change)
    return kept


def _reason(a: Aligned) -> str:
    if a.common < LEAST_COMMON:
        return f"shares only {a.common} reflections with the others"
    return f"does not agree with the others: correlation {a.cc:.2f} over {a.common} reflections"


def _statistics(
    scaled: Scaled, inverse_d: np.ndarray, setting: tuple[np.ndarray, str, LaueClass], rng: np.random.Generator
) -> tuple[list[statistics.Shell], statistics.Shell]:
    good = scaled.observed.some(~scaled.bad)
    observations = statistics.Observations(good.group, good.intensity, good.sigma)
    possible = possible_reflections(*setting, float(inverse_d.max()))
    edges = statistics.shell_edges(inverse_d)
    edges[0] = min(edges[0], possible.min())
    merged = scaled.mean, scaled.error
    by_shell = statistics.shells(observations, merged, inverse_d, possible, edges, rng)
    return by_shell, statistics.shells(observations, merged, inverse_d, possible, edges[[0, -1]], rng)[0]


def _resolved(shells: Sequence[statistics.Shell]) -> float:
    d = shells[0].d_max
    for shell in shells:
        if shell.cc_half < _RESOLVED:
            break
        d = shell.d_min
    return d
