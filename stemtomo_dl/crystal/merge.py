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
    Table,
    align,
    normalised,
    resolution_mean,
    tabulated,
    turned,
)
from stemtomo_dl.crystal.laue import (
    ClassTest,
    LaueClass,
    OperationTest,
    Repeated,
    find_laue,
    laue_classes,
    proper_half,
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
_WORST_MISFIT = 3.0  # times its errors that a particle may be off the others
_LEAST_TO_JUDGE = 4  # particles, for one of them to be left out as unlike the others
_CURVE_POINTS = 25
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
    misfit : float
        How many times σ' its observations are typically off those of the others; its sigmas are raised by what is
        above 1. NaN where it shares too little to tell.
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
    misfit: float
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


class _Placed(NamedTuple):
    """A particle that agrees, and how it is brought into the common setting."""

    member: Member
    matrix: np.ndarray
    aligned: Aligned


class _Scaled(NamedTuple):
    """Particles on one scale; observations are divided by their g and carry corrected sigmas."""

    cell: np.ndarray
    cell_esd: np.ndarray
    observed: scale.Observed
    bad: np.ndarray  # observations that are outliers
    model: scale.Model
    curves: list[scale.Curve]
    errors: scale.ErrorModel
    misfits: np.ndarray  # a particle
    hkl: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    count: np.ndarray


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
    left_out = [LeftOut(m.track, _reason(a)) for m, a in zip(cluster.members, aligned, strict=True) if not a.agrees]
    matrices = [o[a.choice].matrix for o, a in zip(options, aligned, strict=True)]
    kept = [n for n, a in enumerate(aligned) if a.agrees]
    turn = _standard_turn([turned(amplitudes[n], matrices[n]) for n in kept], laue, cluster.lattice)
    placed = [_Placed(cluster.members[n], turn.T @ matrices[n], aligned[n]) for n in kept]
    while True:
        scaled = _scaled(placed, laue, rng)
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
        lattice=cluster.lattice,
        laue=laue,
        members=tuple(_joined(n, p, scaled) for n, p in enumerate(placed)),
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
        multiplicity=scaled.count,
    )


def _standard_turn(sets: Sequence[Amplitudes], laue: LaueClass, lattice: str) -> np.ndarray:
    """The rotation, h' = h · rotation, to the setting in which the groups of the tables suit best, as Pa-3 needs it."""
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
    scores = [candidates(laue, lattice, hkl @ o, square, np.sqrt(table.weight))[0][0].score for o in options]
    return options[int(np.argmax(np.round(scores, 3)))]


def _scaled(placed: Sequence[_Placed], laue: LaueClass, rng: np.random.Generator) -> _Scaled:
    """Particles in one setting on one scale, their errors, and the means of what is no outlier."""
    cell, esd = _mean_cell(placed, laue)
    observed, code = _observed(placed, cell, laue)
    model, curves = scale.fit_scales(observed, len(placed), len(code), rng)
    g = scale.factors(observed, curves)
    observed = observed._replace(intensity=observed.intensity / g, sigma=observed.sigma / g)
    errors, sigma, bad, misfits = _errors(observed, len(placed), len(code))
    observed = observed._replace(sigma=sigma)
    good = observed.some(~bad)
    mean, error, count = scale.merge(good.group, good.intensity, good.sigma, len(code))
    return _Scaled(cell, esd, observed, bad, model, curves, errors, misfits, unpacked(code), mean, error, count)


def _symmetry(
    cluster: _Cluster, amplitudes: Sequence[Amplitudes], aligned: Sequence[Aligned]
) -> tuple[LaueClass, list[OperationTest], list[ClassTest]]:
    """The Laue class from all particles that agree, brought into one setting."""
    sets = [
        turned(a, change[outcome.choice].matrix)
        for a, change, outcome in zip(amplitudes, cluster.changes, aligned, strict=True)
        if outcome.agrees
    ]
    table = tabulated(sets, _FRIEDEL)
    return find_laue(unpacked(table.code), table.value, table.weight, _repeated(sets), cluster.lattice)


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


def _mean_cell(placed: Sequence[_Placed], laue: LaueClass) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of the cells (6,), with the metric of the Laue class, and its standard deviation."""
    crystals = [p.member.crystal for p in placed]
    cells = np.array([_symmetric(changed_cell(p.member.crystal.cell, p.matrix), laue) for p in placed])
    weight = np.array([max(c.n_indexed, 1) / max(c.rms_inv_angstrom, 1e-4) ** 2 for c in crystals])
    share = weight / weight.sum()
    mean = share @ cells
    if len(placed) < 2:
        return mean, np.full(6, np.nan)
    effective = (share**2).sum()
    return mean, np.sqrt(share @ (cells - mean) ** 2 * effective / (1 - effective))


def _symmetric(cell: np.ndarray, laue: LaueClass) -> np.ndarray:
    """The cell whose metric is the mean over the rotations of a Laue class."""
    basis = direct_basis(cell)
    r = laue.rotations.astype(float)
    metric = (np.swapaxes(r, 1, 2) @ (basis @ basis.T) @ r).mean(0)
    length = np.sqrt(np.diag(metric))
    cosine = [metric[i, j] / (length[i] * length[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.r_[length, np.degrees(np.arccos(np.clip(cosine, -1, 1)))]


def _observed(placed: Sequence[_Placed], cell: np.ndarray, laue: LaueClass) -> tuple[scale.Observed, np.ndarray]:
    """All observations in the common setting, and the codes of the unique reflections."""
    parts = []
    reciprocal = np.linalg.inv(direct_basis(cell))
    for n, p in enumerate(placed):
        r = p.member.reflections
        hkl, whole = reindexed(r.hkl, p.matrix)
        keep = whole & np.isfinite(r.intensity) & (r.sigma > 0)
        length = np.linalg.norm(hkl[keep] @ reciprocal.T, axis=1)
        code = unique_codes(hkl[keep], laue.rotations)
        parts.append((np.full(keep.sum(), n), code, r.intensity[keep], r.sigma[keep], r.alpha_deg[keep], length))
    member_of, code, *rest = (np.concatenate(c) for c in zip(*parts, strict=True))
    unique, group = np.unique(code, return_inverse=True)
    return scale.Observed(member_of, group, *rest), unique


def _errors(
    observed: scale.Observed, n_members: int, n: int
) -> tuple[scale.ErrorModel, np.ndarray, np.ndarray, np.ndarray]:
    """Error model, corrected sigmas, outliers, and particles' misfits, by which sigmas of the worse ones are raised."""
    group, intensity = observed.group, observed.intensity
    bad = np.zeros(len(group), bool)
    for _ in range(2):
        model = scale.fit_errors(group[~bad], intensity[~bad], observed.sigma[~bad], n)
        corrected = scale.corrected_sigma(model, group, intensity, observed.sigma, n)
        misfits = scale.member_misfits(observed.member, group, intensity, corrected, n_members, n)
        corrected = corrected * np.fmax(misfits, 1.0)[observed.member]
        bad = scale.outliers(group, intensity, corrected, n)
    return model, corrected, bad, misfits


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
    scaled: _Scaled, inverse_d: np.ndarray, setting: tuple[np.ndarray, str, LaueClass], rng: np.random.Generator
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


def _joined(n: int, placed: _Placed, scaled: _Scaled) -> Joined:
    mine = scaled.observed.member == n
    observed, bad, curve = scaled.observed.some(mine), scaled.bad[mine], scaled.curves[n]
    expected = scaled.mean[observed.group]
    off = np.abs(observed.intensity - expected)
    angles = np.linspace(observed.alpha_deg.min(), observed.alpha_deg.max(), _CURVE_POINTS)
    course = curve.factor(angles, np.zeros(len(angles)))
    return Joined(
        placed.member.track,
        placed.matrix,
        curve.scale,
        curve.b,
        placed.aligned.cc,
        placed.aligned.common,
        placed.aligned.second,
        float(scaled.misfits[n]),
        float(off[~bad].sum() / max(np.abs(expected[~bad]).sum(), 1e-12)),
        len(observed.intensity),
        int(bad.sum()),
        tuple(zip(angles.tolist(), course.tolist(), strict=True)),
    )


def operator_text(matrix: np.ndarray) -> str:
    """A change of indices as h,k,l text, as -k,h,l."""
    return triplet(np.rint(matrix).astype(int)).translate(str.maketrans("xyz", "hkl"))
