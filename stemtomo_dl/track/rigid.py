"""Particles on one rigid stage: 3-D positions, drift and own motion from linked sightings, jointly and robustly.

In the axis frame (u across the tilt axis, v along it) a particle at (U, V, Z) is seen at tilt α at

    u = U cos α − Z sin α + s_u(α) + c_u,    v = V + s_v(α) + c_v

with the drift s common to all particles and the particle's own slow motion c. This is linear in everything but the
axis and the angles. The particles are eliminated one by one (each meets only the drift), which leaves a system as
large as the number of tilts. After Levine et al., J. Struct. Biol. 157 (2007) 254.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import dsyrk

from stemtomo_dl.track.series import Series
from stemtomo_dl.track.solution import hat_functions

_STEP_PX = 0.7  # by how much the voted step of a tilt against the one before is wrong, where it is not all wrong
ROBUST = 3.0  # noises at which a sighting begins to count as wrong
_KNOT_TILTS, _MOST_KNOTS = 8, 24  # own motion: tilts per knot, and knots at most


@dataclass(frozen=True, eq=False)
class Model:
    """What is assumed when positions are solved for; (rank) arrays run over the tilts by angle.

    Attributes
    ----------
    axis_deg : float
        Direction of the tilt axis, from x toward y.
    alpha : (rank) array
        Tilt angles, rad.
    scale : float
        Of the stated angles, from which single angles are taken to deviate.
    time : (rank) array
        Tilt numbers: the order in which slow motion happens.
    steps, ratio : (rank, 2), (rank) arrays
        Voted motion of the field (x, y) from the rank before, px, after shrinking by ``ratio`` across the axis.
    noise_px : float
    creep : float
        Own motion as a random walk: variance along each axis per tilt, px².
    spread_px : (2,) array
        Spread of the positions in the plane and in height.
    """

    axis_deg: float
    alpha: np.ndarray
    scale: float
    time: np.ndarray
    steps: np.ndarray
    ratio: np.ndarray
    noise_px: float
    creep: float
    spread_px: np.ndarray

    @property
    def frame(self) -> np.ndarray:
        """Columns: the unit vectors across and along the axis, (2, 2)."""
        c, s = np.cos(np.radians(self.axis_deg)), np.sin(np.radians(self.axis_deg))
        return np.array([[-s, c], [c, s]])

    @property
    def knots(self) -> np.ndarray:
        """Tilt numbers between which own motion is linear; none where nothing moves by itself."""
        n = len(self.time)
        if self.creep == 0:
            return np.zeros(0)
        return np.linspace(self.time.min(), self.time.max(), int(np.clip(n // _KNOT_TILTS, 2, _MOST_KNOTS)))

    def bases(self) -> tuple[np.ndarray, np.ndarray]:
        """What a particle's unknowns add to u (rank, 2 + knots) and to v (rank, 1 + knots)."""
        u = np.stack([np.cos(self.alpha), -np.sin(self.alpha)], 1)
        v = np.ones((len(self.alpha), 1))
        if self.creep == 0:
            return u, v
        hats = hat_functions(self.knots, self.time)
        return np.concatenate([u, hats], 1), np.concatenate([v, hats], 1)

    def priors(self) -> tuple[np.ndarray, np.ndarray]:
        """Prior precision of the unknowns of u and of v."""
        plane, height = 1 / self.spread_px**2
        knots = self.knots
        own = np.zeros((len(knots), len(knots)))
        if len(knots):
            difference = np.diff(np.eye(len(knots)), axis=0)
            own = difference.T @ difference / (self.creep * (knots[1] - knots[0]))
            own += np.eye(len(knots)) / (self.creep * len(self.time) * len(knots))
        out = []
        for first in ([plane, height], [plane]):
            prior = np.zeros((len(first) + len(own),) * 2)
            prior[: len(first), : len(first)] = np.diag(first)
            prior[len(first) :, len(first) :] = own
            out.append(prior)
        return out[0], out[1]


@dataclass(frozen=True, eq=False)
class Fit:
    """A solved model.

    Attributes
    ----------
    u, v : (track, 2 + knots), (track, 1 + knots) arrays
        The particles' unknowns.
    u_root, v_root : (track, m, m) arrays
        Inverse Cholesky factors of each particle's own precision.
    shift : (rank, 2) array
        Drift across and along the axis, px.
    weight, misfit : (track, rank) arrays
        Robust weights (0 where unseen) and distances to the solution, px (0 where unseen).
    noise : (track) array
        Standard deviation of each track's sightings, px.
    precision : (track, rank) array
        What each sighting counts: its weight over its variance, px⁻².
    """

    model: Model
    u: np.ndarray
    v: np.ndarray
    u_root: np.ndarray
    v_root: np.ndarray
    shift: np.ndarray
    weight: np.ndarray
    misfit: np.ndarray
    noise: np.ndarray
    precision: np.ndarray

    def predict(self) -> tuple[np.ndarray, np.ndarray]:
        """Expected positions (track, rank, 2) from the field's centre, px, and their variance (track, rank), px²."""
        basis_u, basis_v = self.model.bases()
        place = np.stack([self.u @ basis_u.T, self.v @ basis_v.T], -1) + self.shift
        variance = 0.5 * (((self.u_root @ basis_u.T) ** 2).sum(1) + ((self.v_root @ basis_v.T) ** 2).sum(1))
        variance += 1 / (self.precision.sum(0) + 0.1 / self.model.noise_px**2)  # of the drift
        if len(self.model.knots):
            variance += self.model.creep * (self.model.knots[1] - self.model.knots[0]) / 6  # between knots
        return place @ self.model.frame.T, variance


def table(series: Series, label: np.ndarray, tracks: int | None = None) -> np.ndarray:
    """Which sighting each track has at each rank, (track, rank), -1 for none."""
    out = np.full((int(label.max(initial=-1)) + 1 if tracks is None else tracks, len(series.alpha)), -1)
    mine = np.flatnonzero(label >= 0)
    out[label[mine], series.rank[mine]] = mine
    return out


def fit(
    series: Series,
    index: np.ndarray,
    model: Model,
    rounds: int = 5,
    noise: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> Fit:
    """Solve for all positions, drifts and own motions, by least squares with Geman and McClure's weights.

    Parameters
    ----------
    series : Series
    index : (track, rank) int array
        As `table` makes it.
    model : Model
    rounds : int
        Reweighted solutions.
    noise : (track) array, optional
        Standard deviation of each track's sightings, px; the model's where absent.
    weight : (track, rank) array, optional
        Robust weights to begin with.
    """
    seen = index >= 0
    uv = np.where(seen[..., None], series.xy[index], 0) @ model.frame
    noise = np.full(len(index), model.noise_px) if noise is None else noise
    (basis_u, basis_v), (prior_u, prior_v) = model.bases(), model.priors()
    variance = noise[:, None] ** 2 + np.where(seen, series.cut[index], 0)
    steps, weight = model.steps @ model.frame, seen.astype(float) if weight is None else weight
    ratio, trust = np.stack([model.ratio, np.ones(len(steps))], 1), np.ones(len(steps))
    for _ in range(rounds):
        precision = weight / variance
        u, u_root, shift_u = _eliminate(basis_u, prior_u, precision, uv[..., 0], steps[:, 0], ratio[:, 0], trust)
        v, v_root, shift_v = _eliminate(basis_v, prior_v, precision, uv[..., 1], steps[:, 1], ratio[:, 1], trust)
        misfit = np.hypot(uv[..., 0] - u @ basis_u.T - shift_u, uv[..., 1] - v @ basis_v.T - shift_v) * seen
        weight = seen / (1 + misfit**2 / (ROBUST**2 * variance)) ** 2
        shift = np.stack([shift_u, shift_v], 1)
        wrong = np.hypot(*(shift[1:] - ratio[1:] * shift[:-1] - steps[1:]).T) / (ROBUST * _STEP_PX)
        trust[1:] = 1 / (1 + wrong**2) ** 2
    return Fit(model, u, v, u_root, v_root, shift, weight, misfit, noise, weight / variance)


def saturated(series: Series, index: np.ndarray, fitted: Fit) -> np.ndarray:
    """Geman and McClure's misfit of each sighting, (track, rank): of noises squared, at most 1; 0 where unseen."""
    squared = fitted.misfit**2 / (ROBUST**2 * (fitted.model.noise_px**2 + np.where(index >= 0, series.cut[index], 0)))
    return squared / (1 + squared)


def _eliminate(
    basis: np.ndarray,
    prior: np.ndarray,
    precision: np.ndarray,
    y: np.ndarray,
    steps: np.ndarray,
    ratio: np.ndarray,
    trust: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unknowns (track, m), inverse Cholesky factors of their precision (track, m, m), and drift (rank) of one axis.

    The Schur complement of the particles' blocks is what the sightings say of the drift.
    """
    m, tilts = basis.shape[1], len(basis)
    products = (basis[:, :, None] * basis[:, None, :]).reshape(tilts, -1)
    root = np.linalg.inv(np.linalg.cholesky((precision @ products).reshape(-1, m, m) + prior))
    coupling = (root @ basis.T) * precision[:, None, :]
    target = np.einsum("kij,kj->ki", root, (precision * y) @ basis)
    flat = coupling.reshape(-1, tilts)
    normal = dsyrk(-1.0, flat.T, lower=1)
    right = (precision * y).sum(0) - flat.T @ target.ravel()
    # odometry ties neighbours: s_t - ratio_t s_(t-1) = step_t
    held, shrink, here = trust[1:] / _STEP_PX**2, ratio[1:], np.arange(1, tilts)
    diagonal = precision.sum(0) + 1e-6
    diagonal[1:] += held
    diagonal[:-1] += held * shrink**2
    normal[np.arange(tilts), np.arange(tilts)] += diagonal
    normal[here, here - 1] -= held * shrink
    right[1:] += held * steps[1:]
    right[:-1] -= held * shrink * steps[1:]
    shift = cho_solve(cho_factor(normal, lower=True, overwrite_a=True, check_finite=False), right, check_finite=False)
    unknown = np.einsum("kij,ki->kj", root, target - coupling @ shift)
    return unknown, root, shift
