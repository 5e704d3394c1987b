"""The solved stage as others read it: sample frame, scan coordinates, honest errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stemtomo_dl.track.noise import slow_motion
from stemtomo_dl.track.rigid import Fit, fit, saturated
from stemtomo_dl.track.series import Series
from stemtomo_dl.track.solution import Solution, Stage


def rigid_solution(series: Series, index: np.ndarray, fitted: Fit, alpha_deg: np.ndarray, note: str) -> Solution:
    """Positions, drift and errors of the tracks of a fit.

    Parameters
    ----------
    series : Series
    index : (track, rank) int array
    fitted : Fit
    alpha_deg : (tilt) array
        As stated.
    note : str
        For the stage.
    """
    model = fitted.model
    e_u, e_v = model.frame.T
    place, shift, gauge = _smallest_drift(fitted)
    rate = 0.0 if model.creep else slow_motion(series, index, fitted)  # else the fit has it
    own = np.sqrt(_own_error(fitted) ** 2 + rate * _taken_for_place(model.alpha) ** 2)
    offset = np.zeros(len(alpha_deg))
    offset[series.tilts] = np.degrees(model.alpha) - alpha_deg[series.tilts]
    return Solution(
        stage=Stage(model.axis_deg, axis_error(series, index, fitted), model.noise_px, rigid=True, note=note),
        shape=series.shape,
        alpha_deg=alpha_deg,
        alpha_offset_deg=offset,
        drift_px=_at_every_tilt(series, shift @ model.frame.T, len(alpha_deg)),
        position_px=np.column_stack([place[:, :2] @ model.frame.T, place[:, 2]]),
        error_px=_turned(own, e_u, e_v),
        gauge_error_px=_turned(gauge[None], e_u, e_v)[0],
        knots=model.knots,
        creep_px=fitted.u[:, 2:, None] * e_u + fitted.v[:, 1:, None] * e_v,
    )


def _smallest_drift(fitted: Fit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(U, V, Z) of the tracks, drift (rank, 2), and the standard errors (U, V, Z) of the choice.

    Drift that follows cos α or sin α across the axis, or is constant along it, is given to the positions. How much
    true drift that may have been is what a random walk with the drift's own steps has of these parts.
    """
    alpha = fitted.model.alpha
    modes = np.stack([np.cos(alpha), -np.sin(alpha)], 1)
    inverse = np.linalg.pinv(modes)
    moved, level = inverse @ fitted.shift[:, 0], fitted.shift[:, 1].mean()
    place = np.column_stack([fitted.u[:, 0] + moved[0], fitted.v[:, 0] + level, fitted.u[:, 1] + moved[1]])
    shift = np.column_stack([fitted.shift[:, 0] - modes @ moved, fitted.shift[:, 1] - level])
    step_u, step_v = np.diff(shift, axis=0).std(0)
    return place, shift, np.r_[step_u, step_v, step_u] * _taken_for_place(alpha)


def _taken_for_place(alpha: np.ndarray) -> np.ndarray:
    """Standard deviations of (U, V, Z) that a random walk of unit steps over the tilts is mistaken for."""
    inverse = np.linalg.pinv(np.stack([np.cos(alpha), -np.sin(alpha)], 1))
    walk = np.tril(np.ones((len(alpha), len(alpha) - 1)), -1)
    walk -= walk[np.argmin(np.abs(alpha))]  # where the field was centred
    u, z = np.linalg.norm(inverse @ walk, axis=1)
    return np.array([u, np.linalg.norm(walk.mean(0)), z])


def _own_error(fitted: Fit) -> np.ndarray:
    """Standard errors (track, 3) of U, V, Z against the other particles."""
    variance_u = (fitted.u_root[:, :, :2] ** 2).sum(1)
    variance_v = (fitted.v_root[:, :, 0] ** 2).sum(1)
    # the drift is known from the other particles at the same tilts only
    others = np.maximum((fitted.weight > 0).sum(0), 2)
    share = (fitted.weight * (others / (others - 1))).sum(1) / np.maximum(fitted.weight.sum(1), 1e-9)
    return np.sqrt(np.column_stack([variance_u[:, 0], variance_v, variance_u[:, 1]]) * share[:, None])


def _turned(error: np.ndarray, e_u: np.ndarray, e_v: np.ndarray) -> np.ndarray:
    """Standard errors of U, V, Z as those of x, y, z."""
    plane = np.sqrt(error[:, :1] ** 2 * e_u**2 + error[:, 1:2] ** 2 * e_v**2)
    return np.column_stack([plane, error[:, 2]])


def _at_every_tilt(series: Series, shift: np.ndarray, tilts: int) -> np.ndarray:
    """Drift (tilt, 2) in the order of the tilt numbers; between its neighbours where a tilt has no angle."""
    order = np.argsort(series.tilts)
    known = series.tilts[order]
    return np.stack([np.interp(np.arange(tilts), known, shift[order, i]) for i in range(2)], 1)


def axis_error(series: Series, index: np.ndarray, fitted: Fit, step_deg: float = 0.3) -> float:
    """Standard error of the tilt axis, degrees: how much it hangs on single particles.

    Outlines are wrong for many tilts on end, and particles move by themselves, so sightings are not independent;
    particles are. The jackknife over them (Tukey 1958), each left out by one Newton step on the sum of squares.
    """
    still, weight = replace(fitted.model, creep=0.0), fitted.weight
    total = []  # of each particle, with the axis turned back, not at all and forward
    for turn in (-step_deg, 0.0, step_deg):
        trial = fit(series, index, replace(still, axis_deg=still.axis_deg + turn), 4, weight=weight)
        total.append(saturated(series, index, trial).sum(1))
    slope, bend = (total[2] - total[0]) / (2 * step_deg), (total[0] + total[2] - 2 * total[1]) / step_deg**2
    rest = bend.sum() - bend
    if len(index) < 2 or (rest <= 0).any():
        return float("nan")
    without = -(slope.sum() - slope) / rest
    return float(np.sqrt((len(index) - 1) * without.var()))
