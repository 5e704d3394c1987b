"""Whether the particles move as the stated stage says: judged on tracks made without it, over all axes and scales."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar

from stemtomo_dl.track.angles import axis_cost
from stemtomo_dl.track.rigid import Fit, Model, fit
from stemtomo_dl.track.series import Series

_AXES = np.arange(-90.0, 90.0, 7.5)
_SCALES = np.array([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.25, 1.45, 1.7, 2.0, 2.4])  # of the tilt angles, besides 1
_ENOUGH_TILTS = 100
_FEWEST_TOLD = 10  # tilts that tell wrong angles from a few wrong links
_CLEARLY_LESS = 0.9  # a stage is another than the stated one where its misfit is less than this share of that one's
_LEAST_NOISE_PX = 0.2
OPEN = (
    "no tilt axis was stated: which of its two directions is right is open, and so are the sign of z and the hand of "
    "every lattice"
)


@dataclass(frozen=True)
class Survey:
    """What the motion says before anything is linked by it.

    Attributes
    ----------
    axis_deg : float
        Where the axis is to be looked for, in the direction nearest to the stated one.
    scale : float
        Of the stated tilt angles.
    note : str
        How that differs from what was stated; empty if it does not.
    """

    axis_deg: float
    scale: float
    note: str


def survey(series: Series, index: np.ndarray, model: Model, stated_deg: float | None, reach_deg: float) -> Survey:
    """Look for the axis over the half circle and for a scale of the angles, unless the stated ones do as well.

    Parameters
    ----------
    series : Series
    index : (track, rank) int array
        Tracks made by nearness alone.
    model : Model
        To begin with, its steps voted without shrinking.
    stated_deg : float or None
    reach_deg : float
        How far the axis may be from the stated one without a word.
    """
    trial = replace(model, noise_px=smooth_noise(series, index), creep=0.0)
    index, trial = _thinned(index, trial)

    def cost_of(axis: float) -> float:
        return axis_cost(series, index, replace(trial, axis_deg=float(axis)))

    def best(axes: np.ndarray) -> tuple[float, float]:
        """The best of some axes, and what is best about it: a scale would else make up for what it is off."""
        least = min(axes, key=cost_of)
        half = (axes[1] - axes[0]) / 2
        found = minimize_scalar(cost_of, bounds=(least - half, least + half), method="bounded", options={"xatol": 0.2})
        return float(found.fun), float(found.x)

    cost, axis = best(_AXES)
    notes, turn = [], 0.0
    if stated_deg is None:
        notes.append(OPEN)
    else:
        nearby = best(stated_deg + np.linspace(-reach_deg, reach_deg, 5))
        if _CLEARLY_LESS * nearby[0] <= cost:
            cost, axis = nearby
        turn = (axis - stated_deg + 90) % 180 - 90
        axis = stated_deg + turn
    if abs(turn) > reach_deg:
        notes.append(f"the particles turn about an axis {abs(turn):.0f}° from the stated one: check tilt_axis_deg")
    scale = 1.0
    if index.shape[1] >= _FEWEST_TOLD:
        scale = _scale(series, index, replace(trial, axis_deg=axis), cost)
    if scale != 1:
        notes.append(f"the particles move as if the tilt angles were {scale:.2f} times the stated ones: check them")
    return Survey(axis, scale, "; ".join(notes))


def _thinned(index: np.ndarray, model: Model) -> tuple[np.ndarray, Model]:
    """Every so many-th rank only: a coarse look needs no more."""
    every = slice(None, None, max(1, index.shape[1] // _ENOUGH_TILTS))
    steps = np.diff(np.cumsum(model.steps, 0)[every], axis=0, prepend=np.zeros((1, 2)))
    alpha, time, ratio = (a[every] for a in (model.alpha, model.time, model.ratio))
    return index[:, every], replace(model, alpha=alpha, time=time, ratio=ratio, steps=steps)


def _scale(series: Series, index: np.ndarray, model: Model, stated: float) -> float:
    """The scale of the tilt angles: 1 unless another is clearly better than what the stated angles cost."""

    def cost(scale: float) -> float:
        return axis_cost(series, index, replace(model, scale=scale, alpha=model.alpha * scale))

    tried = {float(s): cost(float(s)) for s in _SCALES}
    best = min(tried, key=tried.__getitem__)
    if tried[best] > _CLEARLY_LESS * stated:
        best = 1.0
    elif best in (_SCALES[0], _SCALES[-1]):  # it falls beyond: this is no scale, but other angles
        return 1.0
    found = minimize_scalar(cost, bounds=(0.88 * best, 1.14 * best), method="bounded", options={"xatol": 2e-3})
    return float(found.x) if found.fun < _CLEARLY_LESS * stated else 1.0


def smooth_noise(series: Series, index: np.ndarray) -> float:
    """Noise of a sighting along each axis, px, from how tracks bend from tilt to tilt beyond what all of them do."""
    if index.shape[1] < 3 or not len(index):
        return 1.0
    xy = np.where((index >= 0)[..., None], series.xy[index], np.nan)
    bend = xy[:, 2:] - 2 * xy[:, 1:-1] + xy[:, :-2]
    known = np.isfinite(bend).any(0).all(-1)
    if not known.any():
        return 1.0
    bend = bend[:, known] - np.nanmedian(bend[:, known], axis=0)
    return max(1.4826 * float(np.nanmedian(np.abs(bend))) / np.sqrt(6), _LEAST_NOISE_PX)


def affine_motion(series: Series, index: np.ndarray, model: Model) -> float:
    """Motion that goes by the particles' places and is not that of the rigid stage, rms px along each axis.

    At every tilt, what is left of the motion is fitted by a linear function of (U, V, Z): wrong angles, a wrong axis
    or magnification leave much, particles' own motion only what chance does, which is taken off. Few tilts tell none.
    """
    if index.shape[1] < _FEWEST_TOLD:
        return 0.0
    fitted = fit(series, index, replace(model, creep=0.0), 5)
    left, where = _left(series, index, fitted), np.column_stack([fitted.u[:, 0], fitted.v[:, 0], fitted.u[:, 1]])
    where = np.column_stack([np.ones(len(where)), (where - where.mean(0)) / (where.std(0) + 1e-9)])
    explained, tilts = 0.0, 0
    for rank in range(index.shape[1]):
        seen = index[:, rank] >= 0
        if seen.sum() < 2 * where.shape[1]:
            continue
        rest, basis = left[seen, rank], where[seen]
        model_of = basis @ np.linalg.lstsq(basis, rest, rcond=None)[0]
        chance = basis.shape[1] * ((rest - model_of) ** 2).sum() / (len(rest) - basis.shape[1])
        explained += ((model_of**2).sum() - chance) / (2 * len(rest))
        tilts += 1
    return float(np.sqrt(max(explained, 0.0) / max(tilts, 1)))


def _left(series: Series, index: np.ndarray, fitted: Fit) -> np.ndarray:
    """Sightings less their predictions, (track, rank, 2) px, no larger than a wrong link's; 0 where unseen."""
    rest = np.where((index >= 0)[..., None], series.xy[index] - fitted.predict()[0], 0)
    size, most = np.hypot(*np.moveaxis(rest, -1, 0)), 10 * fitted.model.noise_px
    return np.asarray(rest * np.minimum(1, most / np.maximum(size, 1e-9))[..., None])
