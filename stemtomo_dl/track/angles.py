"""Errors of the stated tilt angles, as far as the particles' motion shows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stemtomo_dl.track.rigid import Fit, Model
from stemtomo_dl.track.series import Series

_LEAST_RAD = np.radians(0.05)  # smaller errors than this change no link, and no orientation that matters


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
    weight = fitted.weight / fitted.noise[:, None] ** 2
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
