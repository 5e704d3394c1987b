"""3-D positions and drift from linked sightings, jointly, by robust sparse least squares."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags, vstack
from scipy.sparse.linalg import spsolve

from stemtomo_dl.geometry import tilt_rotation

_ROUNDS = 8
_STEP_PX = 3.0  # how far the measured drift of a tilt against the one before may be wrong


def solve_positions(
    particle: np.ndarray,
    tilt: np.ndarray,
    xy: np.ndarray,
    alpha_deg: np.ndarray,
    tilt_axis_deg: float,
    drift_px: np.ndarray,
    shape: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the particles lie in the sample, and how the field drifted.

    Solves x = R(a, α)·p + s(α) for all p and s. The drift is held, loosely, to the steps that linking measured.
    What the data cannot tell (a common shift of all particles against all drifts) goes to the smallest drift
    and the smallest heights.

    Parameters
    ----------
    particle, tilt : (n) int arrays
        Which particle each sighting shows, counted from 0, and at which tilt.
    xy : (n, 2) array
        Sighted positions (x, y) from the field's centre, px.
    alpha_deg : (tilt) array
    tilt_axis_deg : float
    drift_px : (tilt, 2) array
        Start for the drift.
    shape : (int, int)
        Scan rows and columns; sets the scale of the weak priors.

    Returns
    -------
    positions : (particle, 3) array, px
    drift : (tilt, 2) array, px
    misfit : (n) array
        Distance of every sighting from the solution, px.
    """
    n_particles, n_tilts = int(particle.max(initial=-1)) + 1, len(alpha_deg)
    if not n_particles:
        return np.zeros((0, 3)), drift_px, np.zeros(0)
    design, target = _observations(particle, tilt, xy, alpha_deg, tilt_axis_deg, n_particles)
    prior, wanted = _priors(n_particles, n_tilts, drift_px, float(max(shape)))
    weight = np.ones(len(xy))
    for _ in range(_ROUNDS):
        w = diags(np.repeat(weight, 2))
        normal = design.T @ w @ design + prior.T @ prior
        solution = spsolve(normal.tocsc(), design.T @ (w @ target) + prior.T @ wanted)
        misfit = np.hypot(*(target - design @ solution).reshape(-1, 2).T)
        scale = max(1.4826 * float(np.median(misfit)), 0.05)
        weight = 1 / (1 + (misfit / (3 * scale)) ** 2) ** 2  # Geman–McClure
    positions = solution[: 3 * n_particles].reshape(-1, 3)
    drift = solution[3 * n_particles :].reshape(-1, 2)
    return positions, drift, misfit


def _observations(
    particle: np.ndarray,
    tilt: np.ndarray,
    xy: np.ndarray,
    alpha_deg: np.ndarray,
    tilt_axis_deg: float,
    n_particles: int,
) -> tuple[csr_matrix, np.ndarray]:
    """Rows x and y of every sighting: R(a, α)·p + s(α)."""
    rotation = tilt_rotation(tilt_axis_deg, alpha_deg[tilt])[:, :2]
    row = np.arange(2 * len(xy)).reshape(-1, 2)
    rows = np.concatenate([np.repeat(row.ravel(), 3), row.ravel()])
    columns = 3 * particle[:, None, None] + np.arange(3)[None, None] + np.zeros((1, 2, 1), int)
    shift = 3 * n_particles + 2 * tilt[:, None] + np.arange(2)[None]
    values = np.concatenate([rotation.ravel(), np.ones(2 * len(xy))])
    width = 3 * n_particles + 2 * len(alpha_deg)
    matrix = coo_matrix((values, (rows, np.concatenate([columns.ravel(), shift.ravel()]))), (2 * len(xy), width))
    return matrix.tocsr(), xy.ravel()


def _priors(n_particles: int, n_tilts: int, drift: np.ndarray, reach: float) -> tuple[csr_matrix, np.ndarray]:
    """Heights near the film, drift steps near the measured ones, drift small; all weak against the sightings."""
    p, t = 3 * n_particles, 2 * n_tilts
    z = np.arange(n_particles)
    height = coo_matrix((np.full(n_particles, 1 / reach), (z, 3 * z + 2)), (n_particles, p + t))
    k = np.arange(t - 2)
    one = np.full(t - 2, 1 / _STEP_PX)
    step = coo_matrix((np.r_[-one, one], (np.r_[k, k], p + np.r_[k, k + 2])), (t - 2, p + t))
    small = coo_matrix((np.full(t, 1e-2 / reach), (np.arange(t), p + np.arange(t))), (t, p + t))
    wanted = np.concatenate([np.zeros(n_particles), np.diff(drift, axis=0).ravel() / _STEP_PX, np.zeros(t)])
    return vstack([height, step, small]).tocsr(), wanted
