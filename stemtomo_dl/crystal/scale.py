"""Scales of particles and frames, outliers, errors, and the mean of equivalents.

An observation is I = g · I_h with ln g = ln k − B/(2d²) + f(α): a scale and a relative B for each particle, and where
cross-validation asks for it a smooth function of the angle, a cubic spline whose second differences are penalised.
Sigmas become σ'² = a² (σ² + (b <I>)²), a and b such that normalised deviations of equivalents are one at all
intensities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import BSpline
from scipy.optimize import minimize

from stemtomo_dl.crystal.statistics import r_factors

_MODEL_ERROR = 0.15  # of an intensity, while scales are fitted
_TAIL = 3.0  # standard deviations beyond which observations weigh less
_ROUNDS = 10
_ROUNDS_TRIED = 6
_KNOT_DEG = 10.0
_MOST_INTERVALS = 24
_PER_PARAMETER = 12  # observations that a particle must have for each
_FOLDS = 4
_WORTH = 0.99  # of the held-out R: a model with more parameters must come below
_HELD = 1e-3  # of the information: keeps what data do not tell at nothing
_OUTLIER = 6.0  # σ' from the mean of the others
_REJECTION_ROUNDS = 4
_LEAST_FOR_ERRORS = 60
_LEAST_SHARED = 20
_MEDIAN_CHI2 = 0.455  # of one degree of freedom


class Model(NamedTuple):
    """What of ln g is fitted."""

    name: str
    b_factor: bool
    stiffness: float | None  # of the spline, in units of the information; None: no spline


MODELS = (
    Model("scale", False, None),
    Model("scale and B", True, None),
    Model("scale, B and stiff spline of the angle", True, 3.0),
    Model("scale, B and spline of the angle", True, 0.1),
)


class Observed(NamedTuple):
    """Observations of all particles of a phase, and the unique reflection (row) that each is of."""

    member: np.ndarray
    group: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray
    alpha_deg: np.ndarray
    inverse_d: np.ndarray

    def some(self, keep: np.ndarray) -> Observed:
        """Those that a mask picks."""
        return Observed(*(column[keep] for column in self))


class Curve(NamedTuple):
    """ln g of one particle: parameters, and the basis that they are of."""

    parameters: np.ndarray
    b_factor: bool
    knots: np.ndarray | None

    def basis(self, alpha_deg: np.ndarray, inverse_d: np.ndarray) -> np.ndarray:
        """Design matrix (observation, parameter)."""
        if self.knots is None:
            columns = np.ones((len(alpha_deg), 1))
        else:
            inside = np.clip(alpha_deg, self.knots[3], self.knots[-4])
            columns = BSpline.design_matrix(inside, self.knots, 3).toarray()
        if not self.b_factor:
            return columns
        return np.concatenate([columns, -(inverse_d[:, None] ** 2) / 2], 1)

    def factor(self, alpha_deg: np.ndarray, inverse_d: np.ndarray) -> np.ndarray:
        """G of observations (n,)."""
        return np.exp(self.basis(alpha_deg, inverse_d) @ self.parameters)

    @property
    def b(self) -> float:
        """Relative B, Å²."""
        return float(self.parameters[-1]) if self.b_factor else 0.0

    @property
    def scale(self) -> float:
        """Geometric mean over the angles of g at B = 0."""
        return float(np.exp(self.parameters[: -1 if self.b_factor else None].mean()))


class ErrorModel(NamedTuple):
    """σ'² = a² (σ² + (b <I>)²), times the square of a factor that shells of resolution have."""

    a: float
    b: float
    shells: tuple[tuple[float, float], ...] = ()  # 1/d and the factor there; see `error_shells`


def fit_scales(
    observed: Observed, n_members: int, n_groups: int, rng: np.random.Generator
) -> tuple[Model, list[Curve]]:
    """The model that predicts reflections best that it was not fitted to, and its curves, one a particle."""
    fold = rng.integers(0, _FOLDS, n_groups)[observed.group]
    chosen, lowest = MODELS[0], np.inf
    for model in MODELS:
        held = []
        for f in range(_FOLDS):
            curves = _fitted(observed.some(fold != f), model, n_members, n_groups, _ROUNDS_TRIED)
            test = observed.some(fold == f)
            held.append(r_factors(test.group, test.intensity / factors(test, curves), n_groups)[1])
        r = float(np.nanmean(held)) if np.isfinite(held).any() else np.inf
        stiffer = chosen.stiffness is not None  # then nothing is added but freedom, which costs no parameter
        if r < (lowest if stiffer else _WORTH * lowest):
            chosen, lowest = model, r
    return chosen, _fitted(observed, chosen, n_members, n_groups, _ROUNDS)


def factors(observed: Observed, curves: Sequence[Curve]) -> np.ndarray:
    """G (observation,) of each observation."""
    g = np.ones(len(observed.intensity))
    for m, curve in enumerate(curves):
        mine = observed.member == m
        g[mine] = curve.factor(observed.alpha_deg[mine], observed.inverse_d[mine])
    return g


def _start(observed: Observed, model: Model, n_members: int) -> list[Curve]:
    curves = []
    for m in range(n_members):
        mine = observed.some(observed.member == m)
        level = np.log(max(float(mine.intensity.mean()) if len(mine.intensity) else 1.0, 1e-12))
        curve = _curve(mine.alpha_deg, model, level)
        if len(mine.intensity) < _PER_PARAMETER * len(curve.parameters):
            curve = _curve(mine.alpha_deg, MODELS[0], level)
        curves.append(curve)
    return curves


def _curve(alpha_deg: np.ndarray, model: Model, level: float) -> Curve:
    knots = None
    n = 1
    if model.stiffness is not None and len(alpha_deg) and np.ptp(alpha_deg) > _KNOT_DEG:
        low, high = float(alpha_deg.min()), float(alpha_deg.max())
        intervals = int(np.clip((high - low) / _KNOT_DEG, 2, _MOST_INTERVALS))
        step = (high - low) / intervals
        knots = low + step * np.arange(-3, intervals + 4)
        knots[-4] = high
        n = intervals + 3
    return Curve(np.r_[np.full(n, level), [0.0] * model.b_factor], model.b_factor, knots)


def _fitted(observed: Observed, model: Model, n_members: int, n_groups: int, rounds: int) -> list[Curve]:
    curves = _start(observed, model, n_members)
    rows = [np.flatnonzero(observed.member == m) for m in range(n_members)]
    bases = [c.basis(observed.alpha_deg[r], observed.inverse_d[r]) for c, r in zip(curves, rows, strict=True)]
    intensity, variance = observed.intensity, observed.sigma**2
    weight = None
    for _ in range(rounds):
        g = np.ones(len(intensity))
        for curve, basis, row in zip(curves, bases, rows, strict=True):
            g[row] = np.exp(basis @ curve.parameters)
        if weight is None:
            weight = 1 / (variance + (_MODEL_ERROR * np.abs(intensity)) ** 2)
        mean = np.bincount(observed.group, weight * g * intensity, n_groups) / np.maximum(
            np.bincount(observed.group, weight * g * g, n_groups), 1e-300
        )
        expected = g * np.maximum(mean[observed.group], 0)
        spread = variance + (_MODEL_ERROR * expected) ** 2
        off = intensity - expected
        weight = 1 / (spread * (1 + off**2 / (_TAIL**2 * spread)))
        curves = [
            _improved(c, basis, expected[r], off[r], weight[r], model.stiffness)
            for c, basis, r in zip(curves, bases, rows, strict=True)
        ]
        curves = _gauged(curves)
    return curves


def _improved(
    curve: Curve, basis: np.ndarray, expected: np.ndarray, off: np.ndarray, weight: np.ndarray, stiffness: float | None
) -> Curve:
    """One step of Gauss and Newton, penalised."""
    slope = basis * expected[:, None]
    information = slope.T @ (weight[:, None] * slope)
    size = max(float(np.trace(information)) / len(information), 1e-300)
    penalty = np.zeros_like(information)
    if curve.b_factor:
        penalty[-1, -1] = _HELD * max(information[-1, -1], 1e-300)
    n = len(information) - curve.b_factor
    if curve.knots is not None and stiffness is not None:
        bend = np.diff(np.eye(n), 2, axis=0)
        penalty[:n, :n] = stiffness * size * bend.T @ bend
    hold = penalty + 1e-9 * size * np.eye(len(information))
    gradient = slope.T @ (weight * off) - penalty @ curve.parameters
    step = np.linalg.solve(information + hold, gradient)
    return curve._replace(parameters=curve.parameters + np.clip(step, -1, 1))


def _gauged(curves: list[Curve]) -> list[Curve]:
    """With a mean of ln g of 0 and a mean B of 0: the merged intensities are on the particles' mean scale."""
    level = float(np.mean([np.log(c.scale) for c in curves]))
    b = float(np.mean([c.b for c in curves]))
    return [
        c._replace(parameters=c.parameters - np.r_[np.full(len(c.parameters) - c.b_factor, level), [b] * c.b_factor])
        for c in curves
    ]


def fit_errors(group: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, n_groups: int) -> ErrorModel:
    """A and b that make the deviations of equivalents as large as their sigmas, whatever their intensity."""
    count = np.bincount(group, minlength=n_groups)
    several = count[group] > 1
    if several.sum() < _LEAST_FOR_ERRORS:
        return ErrorModel(1.0, 0.0)
    weight = 1 / sigma**2
    mean = (
        np.bincount(group, weight * intensity, n_groups) / np.maximum(np.bincount(group, weight, n_groups), 1e-300)
    )[group]
    plain = (np.bincount(group, intensity, n_groups) / np.maximum(count, 1))[group]
    off2 = ((intensity - plain) ** 2 * count[group] / np.maximum(count[group] - 1, 1))[several]
    level, variance = np.maximum(plain, 0)[several], sigma[several] ** 2
    bins = np.array_split(np.argsort(mean[several]), int(np.clip(several.sum() // 30, 2, 12)))

    def misfit(p: np.ndarray) -> float:
        model = np.exp(2 * p[0]) * (variance + (np.exp(p[1]) * level) ** 2)
        ratio = off2 / model
        # the median rather than the mean: outliers do not count
        return float(
            sum(np.log(max(np.median(ratio[b]), 1e-6) / _MEDIAN_CHI2) ** 2 for b in bins) + 0.01 * (p**2).sum()
        )

    best = minimize(misfit, [0.0, np.log(0.1)], method="Nelder-Mead", options={"maxiter": 200, "xatol": 1e-3})
    a, b = np.exp(best.x)
    return ErrorModel(float(np.clip(a, 0.1, 20)), float(np.clip(b, 0.0, 1.0)))


def corrected_sigma(
    errors: ErrorModel, group: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, n_groups: int
) -> np.ndarray:
    """σ' (observation,); <I> is the plain mean of the equivalents, so that low ones do not weigh more for being low."""
    mean = np.bincount(group, intensity, n_groups) / np.maximum(np.bincount(group, minlength=n_groups), 1)
    return np.asarray(errors.a * np.sqrt(sigma**2 + (errors.b * np.maximum(mean[group], 0)) ** 2))


def member_misfits(
    member: np.ndarray, group: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, n_members: int, n_groups: int
) -> np.ndarray:
    """How many times its σ' each particle's observations are typically off what the other particles measured.

    Returns
    -------
    (member,) array
        From the median of z², 1 for Gaussian errors; NaN where fewer than 20 reflections are also others'.
    """
    weight = 1 / sigma**2
    total, sums = np.bincount(group, weight, n_groups), np.bincount(group, weight * intensity, n_groups)
    out = np.full(n_members, np.nan)
    for m in range(n_members):
        mine = np.flatnonzero(member == m)
        g = group[mine]
        rest = total[g] - np.bincount(g, weight[mine], n_groups)[g]
        mean = (sums[g] - np.bincount(g, (weight * intensity)[mine], n_groups)[g]) / np.maximum(rest, 1e-300)
        shared = rest > 1e-9 * total[g]
        if shared.sum() >= _LEAST_SHARED:
            z2 = (intensity[mine] - mean) ** 2 / (sigma[mine] ** 2 + 1 / np.maximum(rest, 1e-300))
            out[m] = np.sqrt(np.median(z2[shared]) / _MEDIAN_CHI2)
    return out


def outliers(group: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, n_groups: int) -> np.ndarray:
    """Mask (observation,) of those far from the mean of their equivalents; of at least three, the worst at a time."""
    bad = np.zeros(len(group), bool)
    for _ in range(_REJECTION_ROUNDS):
        weight = np.where(bad, 0, 1 / sigma**2)
        count = np.bincount(group, ~bad, n_groups)[group]
        rest = np.bincount(group, weight, n_groups)[group] - weight
        mean = (np.bincount(group, weight * intensity, n_groups)[group] - weight * intensity) / np.maximum(rest, 1e-300)
        z = np.abs(intensity - mean) / np.sqrt(sigma**2 + 1 / np.maximum(rest, 1e-300))
        z[bad | (count < 3)] = 0
        worst = np.zeros(n_groups)
        np.maximum.at(worst, group, z)
        new = (z > _OUTLIER) & (z == worst[group])
        if not new.any():
            break
        bad |= new
    return bad


def merge(
    group: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, n_groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted means, their sigmas and multiplicities (reflection,); NaN where nothing is left."""
    weight = 1 / sigma**2
    total = np.bincount(group, weight, n_groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(group, weight * intensity, n_groups) / total
        return mean, 1 / np.sqrt(total), np.bincount(group, minlength=n_groups).astype("i4")
