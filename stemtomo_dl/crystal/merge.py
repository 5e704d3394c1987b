"""Particles -> phases: those of one lattice and one structure, in one setting, on one scale, merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from stemtomo_dl.crystal import scale, statistics
from stemtomo_dl.crystal.absences import Absence, SpaceGroup, candidates, wilson_statistic
from stemtomo_dl.crystal.ambiguity import (
    LEAST_COMMON,
    Aligned,
    Amplitudes,
    align,
    normalised,
    resolution_mean,
    tabulated,
)
from stemtomo_dl.crystal.laue import (
    ClassTest,
    LaueClass,
    OperationTest,
    find_laue,
    laue_classes,
    triplet,
    unique_codes,
    unpacked,
    weighted_cc,
)
from stemtomo_dl.crystal.nouns import Crystal, Reflections
from stemtomo_dl.crystal.settings import Change, changed_cell, changes, direct_basis, primitive_basis, reindexed
from stemtomo_dl.records import Record, array

_LEAST_REFLECTIONS = 30  # of a particle that is merged
_LEAST_SHARE = 0.3  # of the reflections, of particles whose lattice is to be the phase's
_REPEATED_CC = 0.9  # where hardly any reflection was measured twice
_RESOLVED = 0.3  # CC1/2 of the outermost shell that tells something
_FRIEDEL = np.array([np.eye(3), -np.eye(3)], "i4")


class Member(NamedTuple):
    """One particle: its track, its crystal, and its reflections in the crystal's setting."""

    track: int
    crystal: Crystal
    reflections: Reflections


class Joined(NamedTuple):
    """A particle in a phase.

    Attributes
    ----------
    track : int
    operator : (3, 3) f8
        h of the phase = operator · h of the particle.
    scale : float
        Its intensities are so many times the merged ones.
    b_factor : float
        Å², relative to the mean of the phase.
    cc : float
        Correlation of its normalised amplitudes with those of all others; NaN where it is alone.
    common : int
        Reflections compared for it.
    second_cc : float
        That of the best other indexing; NaN where there is none.
    r_merged : float
        Σ|I/g − <I>| / Σ<I> of its observations with the merged intensities.
    observations, rejected : int
    curve : tuple of (alpha_deg, scale)
        Scales over the angle, at B = 0.
    """

    track: int
    operator: np.ndarray
    scale: float
    b_factor: float
    cc: float
    common: int
    second_cc: float
    r_merged: float
    observations: int
    rejected: int
    curve: tuple[tuple[float, float], ...]


class LeftOut(NamedTuple):
    """A particle of the phase's lattice that is not merged, and why."""

    track: int
    reason: str


@dataclass(frozen=True, eq=False)
class Phase(Record):
    """Particles of one lattice that agree, merged.

    Attributes
    ----------
    lattice : str
        Pearson's letters of the setting.
    laue : LaueClass
    members : tuple of Joined
    left_out : tuple of LeftOut
    operations : tuple of OperationTest
    classes : tuple of ClassTest
        The likeliest first.
    space_groups : tuple of SpaceGroup
        The likeliest first.
    absences : tuple of Absence
    wilson : float
        Mean of |E² − 1|: 0.968 centric, 0.736 acentric.
    shells : tuple of Shell
    overall : Shell
    resolution_a : float
        Of the outermost shell, from within, up to which CC1/2 is at least 0.3; Å.
    scaling : str
        What was scaled, chosen by cross-validation.
    errors : ErrorModel
    n_rejected : int
        Observations far from their equivalents.
    cell_esd : (6,) f8
        Of the weighted mean over members, from their spread; NaN with fewer than two.
    """

    lattice: str
    laue: LaueClass
    members: tuple[Joined, ...]
    left_out: tuple[LeftOut, ...]
    operations: tuple[OperationTest, ...]
    classes: tuple[ClassTest, ...]
    space_groups: tuple[SpaceGroup, ...]
    absences: tuple[Absence, ...]
    wilson: float
    shells: tuple[statistics.Shell, ...]
    overall: statistics.Shell
    resolution_a: float
    scaling: str
    errors: scale.ErrorModel
    n_rejected: int
    cell: np.ndarray = array("f8", "6", "Å, deg")
    cell_esd: np.ndarray = array("f8", "6", "Å, deg")
    hkl: np.ndarray = array("i4", "reflection 3")
    intensity: np.ndarray = array("f8", "reflection")
    sigma: np.ndarray = array("f8", "reflection")
    multiplicity: np.ndarray = array("i4", "reflection")


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
        Those with fewer than 30 reflections are passed over.
    rng : numpy.random.Generator or None
        For halves and folds; None: always the same.

    Returns
    -------
    list of Phase
        The one with most observations first. Every particle is in one, or among those left out of one.
    """
    rng = rng or np.random.default_rng(0)
    left = [m for m in members if len(m.reflections.hkl) >= _LEAST_REFLECTIONS]
    phases = []
    while left:
        cluster = _cluster(left)
        tracks = {m.track for m in cluster.members}
        left = [m for m in left if m.track not in tracks]
        phases += _phases(cluster, rng)
    return sorted(phases, key=lambda p: -sum(m.observations for m in p.members))


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
    first = align(amplitudes, cluster.changes, _FRIEDEL)
    laue, operations, classes = _symmetry(cluster, amplitudes, first)
    options = [_distinct(c, laue) for c in cluster.changes]
    aligned = align(amplitudes, options, laue.rotations)
    chosen = [options[n][a.choice] for n, a in enumerate(aligned)]
    kept = [n for n, a in enumerate(aligned) if a.agrees]
    left_out = tuple(LeftOut(cluster.members[n].track, _reason(a)) for n, a in enumerate(aligned) if not a.agrees)
    members = [cluster.members[n] for n in kept]
    cell, esd = _mean_cell(members, [chosen[n].matrix for n in kept], laue)
    observed, code = _observed(members, [chosen[n].matrix for n in kept], cell, laue)
    model, curves = scale.fit_scales(observed, len(members), len(code), rng)
    g = scale.factors(observed, curves)
    intensity, sigma = observed.intensity / g, observed.sigma / g
    errors, sigma, bad = _errors(observed.group, intensity, sigma, len(code))
    good = statistics.Observations(observed.group[~bad], intensity[~bad], sigma[~bad])
    mean, error, count = scale.merge(*good, len(code))
    hkl, inverse_d = unpacked(code), np.linalg.norm(unpacked(code) @ np.linalg.inv(direct_basis(cell)).T, axis=1)
    shells, overall = _statistics(good, (mean, error), inverse_d, (cell, cluster.lattice, laue), rng)
    square = mean / resolution_mean(inverse_d, mean)
    groups, absences = candidates(laue, cluster.lattice, hkl, square, mean / error)
    joined = tuple(
        _joined(
            m, aligned[n], chosen[n], curves[i], observed.some(observed.member == i), (mean, bad[observed.member == i])
        )
        for i, (n, m) in enumerate(zip(kept, members, strict=True))
    )
    return Phase(
        cluster.lattice,
        laue,
        joined,
        left_out,
        tuple(operations),
        tuple(classes),
        tuple(groups),
        tuple(absences),
        wilson_statistic(square),
        tuple(shells),
        overall,
        _resolved(shells),
        model.name,
        errors,
        int(bad.sum()),
        cell,
        esd,
        hkl,
        mean,
        error,
        count,
    )


def _symmetry(
    cluster: _Cluster, amplitudes: Sequence[Amplitudes], aligned: Sequence[Aligned]
) -> tuple[LaueClass, list[OperationTest], list[ClassTest]]:
    """The Laue class from all particles that agree, brought into one setting."""
    sets = []
    for a, change, outcome in zip(amplitudes, cluster.changes, aligned, strict=True):
        if outcome.agrees:
            hkl, whole = reindexed(a.hkl, change[outcome.choice].matrix)
            sets.append(Amplitudes(hkl[whole], a.value[whole], a.weight[whole]))
    table = tabulated(sets, _FRIEDEL)
    return find_laue(unpacked(table.code), table.value, table.weight, _repeated_cc(sets), cluster.lattice)


def _repeated_cc(sets: Sequence[Amplitudes]) -> float:
    """Correlation of measurements of one reflection or its Friedel mate, every other against the rest."""
    code = np.concatenate([unique_codes(a.hkl, _FRIEDEL) for a in sets])
    order = np.argsort(code, kind="stable")
    code, value = code[order], np.concatenate([a.value for a in sets])[order]
    weight = np.concatenate([a.weight for a in sets])[order]
    pair = np.flatnonzero(code[1:] == code[:-1])
    if len(pair) < LEAST_COMMON:
        return _REPEATED_CC
    a, b = value[pair], value[pair + 1]
    w = 1 / (1 / weight[pair] + 1 / weight[pair + 1])
    return weighted_cc(np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([w, w]))


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


def _mean_cell(
    members: Sequence[Member], matrices: Sequence[np.ndarray], laue: LaueClass
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of the cells (6,), with the metric of the Laue class, and its standard deviation."""
    cells = np.array(
        [_symmetric(changed_cell(m.crystal.cell, t), laue) for m, t in zip(members, matrices, strict=True)]
    )
    weight = np.array([max(m.crystal.n_indexed, 1) / max(m.crystal.rms_inv_angstrom, 1e-4) ** 2 for m in members])
    mean = np.average(cells, axis=0, weights=weight)
    if len(members) < 2:
        return mean, np.full(6, np.nan)
    share = weight / weight.sum()
    esd = np.sqrt((share * (cells - mean).T ** 2).sum(1) / (1 - (share**2).sum()) * (share**2).sum())
    return mean, esd


def _symmetric(cell: np.ndarray, laue: LaueClass) -> np.ndarray:
    """The cell whose metric is the mean over the rotations of a Laue class."""
    basis = direct_basis(cell)
    r = laue.rotations.astype(float)
    metric = (np.swapaxes(r, 1, 2) @ (basis @ basis.T) @ r).mean(0)
    length = np.sqrt(np.diag(metric))
    cosine = [metric[i, j] / (length[i] * length[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.r_[length, np.degrees(np.arccos(np.clip(cosine, -1, 1)))]


def _observed(
    members: Sequence[Member], matrices: Sequence[np.ndarray], cell: np.ndarray, laue: LaueClass
) -> tuple[scale.Observed, np.ndarray]:
    """All observations in the common setting, and the codes of the unique reflections."""
    parts = []
    reciprocal = np.linalg.inv(direct_basis(cell))
    for n, (member, matrix) in enumerate(zip(members, matrices, strict=True)):
        r = member.reflections
        hkl, whole = reindexed(r.hkl, matrix)
        keep = whole & np.isfinite(r.intensity) & (r.sigma > 0)
        length = np.linalg.norm(hkl[keep] @ reciprocal.T, axis=1)
        code = unique_codes(hkl[keep], laue.rotations)
        parts.append((np.full(keep.sum(), n), code, r.intensity[keep], r.sigma[keep], r.alpha_deg[keep], length))
    member_of, code, *rest = (np.concatenate(c) for c in zip(*parts, strict=True))
    unique, group = np.unique(code, return_inverse=True)
    return scale.Observed(member_of, group, *rest), unique


def _errors(
    group: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, n: int
) -> tuple[scale.ErrorModel, np.ndarray, np.ndarray]:
    """Error model, corrected sigmas and outliers; the model is fitted again to what is left."""
    bad = np.zeros(len(group), bool)
    for _ in range(2):
        model = scale.fit_errors(group[~bad], intensity[~bad], sigma[~bad], n)
        corrected = scale.corrected_sigma(model, group, intensity, sigma, n)
        bad = scale.outliers(group, intensity, corrected, n)
    return model, corrected, bad


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


def _statistics(
    good: statistics.Observations,
    merged: tuple[np.ndarray, np.ndarray],
    inverse_d: np.ndarray,
    setting: tuple[np.ndarray, str, LaueClass],
    rng: np.random.Generator,
) -> tuple[list[statistics.Shell], statistics.Shell]:
    possible = possible_reflections(*setting, float(inverse_d.max()))
    edges = statistics.shell_edges(inverse_d)
    edges[0] = min(edges[0], possible.min())
    by_shell = statistics.shells(good, merged, inverse_d, possible, edges, rng)
    return by_shell, statistics.shells(good, merged, inverse_d, possible, edges[[0, -1]], rng)[0]


def _resolved(shells: Sequence[statistics.Shell]) -> float:
    d = shells[0].d_max
    for shell in shells:
        if shell.cc_half < _RESOLVED:
            break
        d = shell.d_min
    return d


def _joined(
    member: Member,
    aligned: Aligned,
    change: Change,
    curve: scale.Curve,
    observed: scale.Observed,
    outcome: tuple[np.ndarray, np.ndarray],
) -> Joined:
    mean, bad = outcome
    expected = mean[observed.group]
    off = np.abs(
        observed.intensity / scale.factors(observed._replace(member=np.zeros_like(observed.member)), [curve]) - expected
    )
    angles = np.linspace(observed.alpha_deg.min(), observed.alpha_deg.max(), 25)
    return Joined(
        member.track,
        change.matrix,
        curve.scale,
        curve.b,
        aligned.cc,
        aligned.common,
        aligned.second,
        float(off[~bad].sum() / max(np.abs(expected[~bad]).sum(), 1e-12)),
        len(observed.intensity),
        int(bad.sum()),
        tuple(zip(angles.tolist(), curve.factor(angles, np.zeros(25)).tolist(), strict=True)),
    )


def operator_text(matrix: np.ndarray) -> str:
    """A change of indices as h,k,l text, as -k,h,l."""
    return triplet(np.rint(matrix).astype(int)).translate(str.maketrans("xyz", "hkl"))
