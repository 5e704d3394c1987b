"""How the crystal truly lay in every frame, by the intensities.

A goniometer misses its angle by more than a rocking curve is wide where steps are fine, and by enough to matter where
they are wide. What the other frames say of a reflection's intensity predicts it in this one as a function of the
excitation error; the small rotation about the two axes across the beam that makes all predictions come true is the
frame's error (the idea of PETS2: Palatinus et al. 2019, Acta Cryst. B75, 512). Rotation about the beam does not change
intensities. How far frames stray about either axis is learned from all of them (empirical Bayes), so that a series of a
good goniometer is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.crystal.disks import Sums
from stemtomo_dl.crystal.predict import Predicted
from stemtomo_dl.crystal.rocking import Rocking

_PRIOR_DEG = (0.15, 0.005, 0.4)  # of a frame's error: at first, least, most
_TRIED_DEG = np.linspace(-0.2, 0.2, 5)
_SWEEPS, _STEPS = 4, 4
_CONTRAST = (0.03, 0.3)  # of an intensity: what no orientation explains, least and most
_STRONG, _NEAR = (
    10.0,
    2.0,
)  # standard deviations of the noise, widths of the rocking curve: what contrast is learned from
_OUTLIER = 9.0
_MOST_DEG = 0.6


def frame_rotations(at: Predicted, sums: Sums, group: np.ndarray, rocking: Rocking, start: np.ndarray) -> np.ndarray:
    """Small rotations that explain the intensities best.

    Parameters
    ----------
    at, sums : Predicted, Sums
    group : (n,) array of int
        Numbers that equivalent reflections share. A frame is judged by intensities from the other frames alone.
    rocking : Rocking
    start : (frame, 2) array
        Rotations, as returned, by which intensities are known so far.

    Returns
    -------
    (frame, 2) array
        Radians about the tilt axis and across it.
    """
    fit = _fit(at, sums, group, rocking, start)
    if fit is None:
        return start
    least, most = np.radians(_PRIOR_DEG[1:])
    prior = np.full(2, np.radians(_PRIOR_DEG[0]))
    here = start
    for _ in range(_SWEEPS):
        here, spread = fit.solved(here, prior)
        prior = np.clip(np.sqrt((here**2 + spread).mean(0)), least, most)
    return here


def _fit(at: Predicted, sums: Sums, group: np.ndarray, rocking: Rocking, start: np.ndarray) -> _Fit | None:
    """The problem, with every measurement's intensity as the other frames tell it; None where they tell nothing."""
    n, moved, peak = len(start), at.turned(start), rocking.peak(at.length)
    profile = rocking.at(moved.s, at.length)
    weight = 1 / (sums.noise + sums.per_count * np.maximum(sums.net, 0) + (_CONTRAST[1] / 2 * sums.net) ** 2)
    cell = np.unique(group.astype("i8") * n + at.frame, return_inverse=True)[1].ravel()
    above, below = weight * profile * sums.net, weight * profile**2
    rest = np.bincount(group, below)[group] - np.bincount(cell, below)[cell]
    known = rest > 0.1 * np.bincount(group, below)[group]
    model = (np.bincount(group, above)[group] - np.bincount(cell, above)[cell]) / np.where(known, rest, 1)
    known &= model > 0
    counts = sums.noise + sums.per_count * np.maximum(model, 0) * profile
    off, top = np.abs(sums.net - model * profile), model * peak
    strong = known & (top > _STRONG * np.sqrt(sums.noise)) & (np.abs(moved.s) < _NEAR * rocking.width(at.length))
    if not strong.any():
        return None
    contrast = float(np.clip(np.median(off[strong] / top[strong]) / 0.6745, *_CONTRAST))
    spread = counts + (contrast * top) ** 2
    return _Fit(at.some(known), sums.net[known], model[known], spread[known], rocking, n)


@dataclass(frozen=True, eq=False)
class _Fit:
    """The least-squares problems of all frames at once."""

    at: Predicted
    net: np.ndarray
    model: np.ndarray  # intensities by the other frames
    spread: np.ndarray  # variances
    rocking: Rocking
    n: int

    def solved(self, here: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rotations (frame, 2) and their variances, from a start and with a prior (2,) about either axis."""
        least = self._cost(here, prior)
        for x in np.radians(_TRIED_DEG):
            for y in np.radians(_TRIED_DEG):
                here, least = self._better(here, least, np.tile([x, y], (self.n, 1)), prior)
        for _ in range(_STEPS):
            step, _ = self._step(here, prior)
            for share in (1.0, 0.3):
                there = np.clip(here + share * step, *np.radians([-_MOST_DEG, _MOST_DEG]))
                here, least = self._better(here, least, there, prior)
        return here, self._step(here, prior)[1]

    def _cost(self, here: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """Half of the robust χ² of every frame (frame,)."""
        moved = self.at.turned(here)
        chi2 = (self.net - self.model * self.rocking.at(moved.s, moved.length)) ** 2 / self.spread
        total = np.bincount(self.at.frame, _OUTLIER * np.log1p(chi2 / _OUTLIER), self.n)
        return np.asarray((total + (here**2 / prior**2).sum(1)) / 2)

    def _better(
        self, here: np.ndarray, least: np.ndarray, there: np.ndarray, prior: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whichever rotation costs a frame less, and what it costs."""
        cost = self._cost(there, prior)
        wins = cost < least
        return np.where(wins[:, None], there, here), np.where(wins, cost, least)

    def _step(self, here: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gauss and Newton's step and the variances, (frame, 2); measurements weigh as the robust cost has them."""
        moved = self.at.turned(here)
        off = self.net - self.model * self.rocking.at(moved.s, moved.length)
        slope = (self.model * self.rocking.slope(moved.s, moved.length))[:, None] * self.at.turning
        weight = 1 / (1 + off**2 / self.spread / _OUTLIER) / self.spread
        normal = np.empty((self.n, 2, 2))
        for i in range(2):
            for j in range(2):
                normal[:, i, j] = np.bincount(self.at.frame, weight * slope[:, i] * slope[:, j], self.n)
        normal += np.diag(1 / prior**2)
        right = np.stack([np.bincount(self.at.frame, weight * slope[:, i] * off, self.n) for i in range(2)], 1)
        inverse = np.linalg.inv(normal)
        step = np.einsum("fij,fj->fi", inverse, right - here / prior**2)
        return step, np.stack([inverse[:, 0, 0], inverse[:, 1, 1]], 1)
