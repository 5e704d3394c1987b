"""Least-squares refinement of a model against |F|²."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from stemtomo_dl.solve.esds import inverse_normal, spreads
from stemtomo_dl.solve.model import Factors, Model, Symmetry
from stemtomo_dl.solve.restraints import Restraints

U_RANGE = (0.0005, 0.25)  # Å²; displacements beyond are no atom's
STRONG = 2.0  # σ(I); R1 is that of stronger reflections
_RIDGE = 1e-12  # of the normal matrix' diagonal: where data tell nothing
_SMALL = 1e-4  # of an esd; shifts below end a refinement
WEIGHT = 0.1  # a of SHELX's weights


@dataclass(frozen=True, eq=False)
class Reflections:
    """Unique reflections of a space group, absences left out.

    Attributes
    ----------
    hkl : (reflection, 3) i4
    fo2, sigma : (reflection,) f8
        |F|² on any scale.
    path : (reflection,) f8
        λ³ / sin 2θ, Å³, which extinction goes with.
    """

    hkl: np.ndarray
    fo2: np.ndarray
    sigma: np.ndarray
    path: np.ndarray

    @property
    def amplitude(self) -> np.ndarray:
        """|F|, 0 where the intensity is negative."""
        return np.sqrt(np.maximum(self.fo2, 0))


@dataclass(frozen=True, eq=False)
class Fit:
    """A refined model.

    Attributes
    ----------
    model : Model
    fc : (reflection,) c16
        Å, without extinction.
    fc2 : (reflection,) f8
        What compares with ``fo2``: on its scale, with extinction.
    scale, extinction : float
    r1, r1_all, wr2, goof : float
        R1 of reflections with I > 2σ, and of all; wR2 on F² and goodness of fit with the weights.
    weight : float
        a in w = 1 / (σ² + (aP)²), P = (Fo² + 2 Fc²) / 3.
    n_parameters, n_strong : int
    site_covariance : (3 atom, 3 atom) f8
        Of all coordinates, cell edges squared; 0 where symmetry fixes a coordinate.
    u_esd : (atom,) f8
        Å², of the equivalent isotropic displacement.
    tensor_esd : (atom, 3, 3) f8
        Of the model's tensors.
    shift : float
        Largest of the last shifts, in esds.
    n_restraints : int
    restrained_goof : float
        Goodness of fit with restraints counted as observations.
    """

    model: Model
    fc: np.ndarray
    fc2: np.ndarray
    scale: float
    extinction: float
    r1: float
    r1_all: float
    wr2: float
    goof: float
    weight: float
    n_parameters: int
    n_strong: int
    site_covariance: np.ndarray
    u_esd: np.ndarray
    tensor_esd: np.ndarray
    shift: float
    n_restraints: int
    restrained_goof: float

    @property
    def site_esd(self) -> np.ndarray:
        """Standard deviations (atom, 3) of coordinates, cell edges; 0 where symmetry fixes one."""
        return np.sqrt(np.diag(self.site_covariance)).reshape(-1, 3)


@dataclass(frozen=True, eq=False)
class _State:
    model: Model
    scale: float
    extinction: float


class _Linear(NamedTuple):
    """Prediction (reflection,) and its derivatives (parameter, reflection): scale, model, extinction."""

    predicted: np.ndarray
    jacobian: np.ndarray


def refine(
    model: Model,
    data: Reflections,
    *,
    cycles: int = 15,
    extinction: bool = False,
    weight: float = WEIGHT,
    restraints: Restraints | None = None,
) -> Fit:
    """Refine scale, positions and displacements, and SHELX's extinction parameter where asked for.

    Σ w (Fo² − k y Fc²)² is lowered by Levenberg–Marquardt with w = 1 / (σ² + (aP)²) and
    y = (1 + 0.001 x Fc² λ³ / sin 2θ)^(−1/2) (Sheldrick, Acta Cryst. C71 (2015) 3). For electrons x stands for the
    loss of strong beams to multiple scattering, which goes the same way. Esds are those of the inverse normal matrix
    times the goodness of fit. Squares of the departures from restraints are added, times that of the goodness of fit
    of the reflections, whose weights are not absolute.

    Parameters
    ----------
    model : Model
    data : Reflections
    cycles : int
        At most.
    extinction : bool
    weight : float
        a of the weights.
    restraints : Restraints, optional
    """
    factors = Factors(model.symmetry, data.hkl)
    f2 = np.abs(factors.of(model)) ** 2
    state = _State(model, float((data.fo2 * f2).sum() / max((f2**2).sum(), 1e-30)), 0.0)
    damping, shift = 1e-3, 0.0
    for _ in range(cycles):
        linear = _linearise(state, data, factors, extinction)
        w = _weights(data, linear.predicted, weight)
        pull = _goof(w, data, linear) ** 2
        normal, gradient = _equations(w, pull, data, linear, restraints, state.model)
        cost = float((w * (data.fo2 - linear.predicted) ** 2).sum()) + pull * _strain(state.model, restraints)
        size = _sizes(normal)
        for _ in range(6):
            ridge = (damping + _RIDGE) * np.eye(len(size))
            step = np.linalg.lstsq(normal / np.outer(size, size) + ridge, gradient / size, rcond=None)[0] / size
            trial = _moved(state, step, extinction)
            there = float((w * (data.fo2 - _predict(trial, data, factors.of(trial.model))) ** 2).sum())
            if there + pull * _strain(trial.model, restraints) <= cost:
                break
            damping = min(damping * 8, 1e6)
        else:
            break
        state, damping = trial, damping / 4
        shift = float(np.abs(step * np.sqrt(np.diag(normal))).max() / np.sqrt(max(cost / len(w), 1e-30)))
        if shift < _SMALL:
            break
    return _figures(state, data, factors, extinction, weight, shift, restraints)


def _sizes(normal: np.ndarray) -> np.ndarray:
    """What makes the matrix's diagonal 1: the scale's share of it goes with the unit of the intensities."""
    diagonal = np.diag(normal)
    return np.sqrt(np.where(diagonal > 0, diagonal, 1.0))


def _equations(
    w: np.ndarray, pull: float, data: Reflections, linear: _Linear, restraints: Restraints | None, model: Model
) -> tuple[np.ndarray, np.ndarray]:
    """Normal matrix and gradient; ``pull`` is the weight of a restraint."""
    normal = (linear.jacobian * w) @ linear.jacobian.T
    gradient = linear.jacobian @ (w * (data.fo2 - linear.predicted))
    if restraints:
        rows = restraints.derivatives(model)
        held = slice(1, 1 + len(rows))  # after the scale; extinction is last
        normal[held, held] += pull * rows @ rows.T
        gradient[held] -= pull * rows @ restraints.departures(model)
    return normal, gradient


def _strain(model: Model, restraints: Restraints | None) -> float:
    """Sum of the squares of the departures from restraints."""
    return float((restraints.departures(model) ** 2).sum()) if restraints else 0.0


def _goof(w: np.ndarray, data: Reflections, linear: _Linear, off: np.ndarray | None = None) -> float:
    """Goodness of fit of the reflections, and of restraints from which a model departs by ``off`` deviations."""
    chi2, n = float((w * (data.fo2 - linear.predicted) ** 2).sum()), len(w)
    if off is not None:
        chi2, n = chi2 + float((off**2).sum()), n + len(off)
    return float(np.sqrt(chi2 / max(n - len(linear.jacobian), 1)))


def _weights(data: Reflections, predicted: np.ndarray, a: float) -> np.ndarray:
    p = (np.maximum(data.fo2, 0) + 2 * predicted) / 3
    return np.asarray(1 / (data.sigma**2 + (a * p) ** 2))


def _predict(state: _State, data: Reflections, f: np.ndarray) -> np.ndarray:
    f2 = np.abs(f) ** 2
    return np.asarray(state.scale * f2 / np.sqrt(1 + 0.001 * state.extinction * f2 * data.path))


def _linearise(state: _State, data: Reflections, factors: Factors, extinction: bool) -> _Linear:
    """A state's prediction and its derivatives."""
    f, df = factors.with_derivatives(state.model)
    f2 = np.abs(f) ** 2
    bracket = 1 + 0.001 * state.extinction * f2 * data.path
    predicted = state.scale * f2 / np.sqrt(bracket)
    by_f2 = state.scale * (bracket - 0.5 * (bracket - 1)) / bracket**1.5
    rows = [predicted[None] / state.scale, 2 * (f.conj() * df).real * by_f2]
    if extinction:
        rows.append((-0.5 * predicted / bracket * 0.001 * f2 * data.path)[None])
    return _Linear(predicted, np.concatenate(rows))


def _moved(state: _State, step: np.ndarray, extinction: bool) -> _State:
    """The state after a step, no atom further than 0.3 Å, displacements within their range."""
    m = state.model
    sites, tensors, at = m.sites.copy(), m.tensors.copy(), 1
    for atom in range(len(m.elements)):
        basis = m.site_basis(atom)
        shift = step[at : at + len(basis)] @ basis
        sites[atom] += shift * min(1, 0.3 / max(float(np.linalg.norm(m.symmetry.direct @ shift)), 1e-9))
        at += len(basis)
        basis = m.tensor_basis(atom)
        tensors[atom] += np.tensordot(step[at : at + len(basis)], basis, 1)
        at += len(basis)
    moved = replace(m, sites=sites, tensors=_in_range(tensors, m.symmetry))
    grown = max(state.extinction + step[-1], 0.0) if extinction else 0.0
    return _State(moved, max(state.scale + step[0], 1e-3 * state.scale), grown)


def _in_range(tensors: np.ndarray, symmetry: Symmetry) -> np.ndarray:
    """Tensors (atom, 3, 3) whose principal displacements lie within `U_RANGE`."""
    values, axes = np.linalg.eigh(symmetry.direct @ tensors @ symmetry.direct.T)
    clipped = np.einsum("aik,ak,ajk->aij", axes, np.clip(values, *U_RANGE), axes)
    return np.asarray(symmetry.reciprocal @ clipped @ symmetry.reciprocal.T)


def _figures(
    state: _State,
    data: Reflections,
    factors: Factors,
    extinction: bool,
    weight: float,
    shift: float,
    restraints: Restraints | None,
) -> Fit:
    linear = _linearise(state, data, factors, extinction)
    predicted = linear.predicted
    w = _weights(data, predicted, weight)
    chi2, goof = float((w * (data.fo2 - predicted) ** 2).sum()), _goof(w, data, linear)
    normal, _ = _equations(w, goof**2, data, linear, restraints, state.model)
    covariance = inverse_normal(normal, _sizes(normal)) * goof**2
    off = restraints.departures(state.model) if restraints else np.zeros(0)
    site_covariance, u_esd, tensor_esd = spreads(state.model, covariance)
    fo, fc = data.amplitude, np.sqrt(predicted)
    strong = data.fo2 > STRONG * data.sigma
    return Fit(
        model=state.model,
        fc=factors.of(state.model),
        fc2=predicted,
        scale=state.scale,
        extinction=state.extinction,
        r1=_r1(fo[strong], fc[strong]),
        r1_all=_r1(fo, fc),
        wr2=float(np.sqrt(chi2 / max(float((w * data.fo2**2).sum()), 1e-30))),
        goof=goof,
        weight=weight,
        n_parameters=len(linear.jacobian),
        n_strong=int(strong.sum()),
        site_covariance=site_covariance,
        u_esd=u_esd,
        tensor_esd=tensor_esd,
        shift=shift,
        n_restraints=len(off),
        restrained_goof=_goof(w, data, linear, off),
    )


def _r1(fo: np.ndarray, fc: np.ndarray) -> float:
    return float(np.abs(fo - fc).sum() / max(float(fo.sum()), 1e-30)) if len(fo) else 1.0
