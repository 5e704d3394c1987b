"""The tilt axis and the tilt angles as the particles' motion shows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize_scalar

from stemtomo_dl.track.rigid import ROBUST, Fit, Model, fit, saturated
from stemtomo_dl.track.series import Series

_SCALE_REACH, _CLEARLY = 0.02, 30.0  # of the tilt angles in a round; and the fall of χ² that asks for it
_LEAST_RAD = np.radians(0.05)  # smaller errors than this change no link, and no orientation that matters


def axis_cost(series: Series, index: np.ndarray, trial: Model) -> float:
    """Robust mean squared misfit of a trial: of noises, saturating for wrong sightings."""
    solved = fit(series, index, trial, rounds=2)
    return float(saturated(series, index, solved).sum() / max((index >= 0).sum(), 1))


def refine_axis(series: Series, index: np.ndarray, model: Model, reach_deg: float) -> Model:
    """The model with the axis, within a reach of its present one, about which the tracks are most nearly rigid."""

    def cost(axis_deg: float) -> float:
        return axis_cost(series, index, replace(model, axis_deg=axis_deg))

    bounds = (model.axis_deg - reach_deg, model.axis_deg + reach_deg)
    found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 0.01})
    return replace(model, axis_deg=float(found.x))


def refine_scale(series: Series, index: np.ndarray, model: Model) -> Model:
    """The model with the scale of the tilt angles, if another than the present one explains the motion clearly better.

    Single angles are set back to what the scale says.
    """

    def trial(scale: float) -> Model:
        return replace(model, scale=scale, alpha=series.alpha * scale)

    found = minimize_scalar(
        lambda scale: axis_cost(series, index, trial(scale)),
        bounds=(model.scale - _SCALE_REACH, model.scale + _SCALE_REACH),
        method="bounded",
        options={"xatol": 5e-4},
    )
    gain = (axis_cost(series, index, trial(model.scale)) - found.fun) * (index >= 0).sum() * ROBUST**2
    return trial(float(found.x)) if gain > _CLEARLY else model


def refine_angles(series: Series, index: np.ndarray, fitted: Fit) -> Model:
    """The model with tilt angles that explain the motion across the axis better, where the data ask for it.

    At one tilt, a wrong angle moves every particle by its lever −U sin α − Z cos α, which the drift cannot take up.
    Each angle's correction is drawn to zero by how much of the corrections' scatter is noise. A common correction is
    left out, since it only turns the sample.
    """
    model = fitted.model
    lever = -fitted.u[:, :1] * np.sin(model.alpha) - fitted.u[:, 1:2] * np.cos(model.alpha)
    basis_u, _ = model.bases()
    across = np.where(index >= 0, series.xy[index] @ model.frame[:, 0], 0)
    rest = (across - fitted.u @ basis_u.T - fitted.shift[:, 0]) * (index >= 0)
    weight = fitted.precision
    total = weight.sum(0) + 1e-12
    lever = lever - (weight * lever).sum(0) / total
    rest = rest - (weight * rest).sum(0) / total
    strength = (weight * lever**2).sum(0)
    stated = series.alpha * model.scale
    raw = model.alpha - stated + (weight * lever * rest).sum(0) / (strength + 1e-12)
    known = strength > 1 / np.radians(1.0) ** 2  # better than a degree
    if known.sum() < 5:
        return model
    raw = np.where(known, raw - np.average(raw[known], weights=strength[known]), 0)
    noise = 1 / strength[known]
    true = (1.4826 * np.median(np.abs(raw[known]))) ** 2 - np.median(noise)
    if true < max(_LEAST_RAD**2, np.median(noise)):
        return replace(model, alpha=stated)
    shrunk = np.zeros(len(raw))
    shrunk[known] = raw[known] * true / (true + noise)
    return replace(model, alpha=stated + np.clip(shrunk, -np.radians(2.0), np.radians(2.0)))
