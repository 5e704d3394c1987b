"""How the crystal truly lay in every frame, by the intensities.

A goniometer misses its angle by more than a rocking curve is wide where steps are fine, and by enough to matter where
they are wide. What the other frames say of a reflection's intensity predicts it in this one as a function of the
excitation error; the small rotation about the two axes across the beam that makes all predictions come true is the
frame's error (the idea of PETS2: Palatinus et al. 2019, Acta Cryst. B75, 512). Rotation about the beam does not change
intensities.
"""

from __future__ import annotations

import numpy as np

from stemtomo_dl.crystal.disks import Sums
from stemtomo_dl.crystal.predict import Predicted
from stemtomo_dl.crystal.rocking import Rocking

_PRIOR_DEG = 0.15  # of a goniometer's errors
_TRIED_DEG = np.linspace(-0.2, 0.2, 5)
_STEPS = 4
_CONTRAST = 0.15  # of an intensity: what no orientation explains
_LEAST = 6  # measurements of a frame that tell something
_OUTLIER = 9.0
_MOST_DEG = 0.6


def frame_rotations(at: Predicted, sums: Sums, group: np.ndarray, rocking: Rocking, n_frames: int) -> np.ndarray:
    """Small rotations (frame, 2) in radians about the lab's x and y that explain the intensities best.

    A frame is judged by intensities from the other frames alone; one of which they tell too little is left as it is.
    """
    fit = _Fit.of(at, sums, group, rocking, n_frames)
    here = np.zeros((n_frames, 2))
    start = least = fit.cost(here)
    for x in np.radians(_TRIED_DEG):
        for y in np.radians(_TRIED_DEG):
            here, least = fit.better(here, least, np.tile([x, y], (n_frames, 1)))
    for _ in range(_STEPS):
        step = fit.step(here)
        for share in (1.0, 0.3):
            here, least = fit.better(here, least, np.clip(here + share * step, *np.radians([-_MOST_DEG, _MOST_DEG])))
    sure = (start - least > 2) & (fit.told >= _LEAST)  # Akaike: one for each parameter
    return np.where(sure[:, None], here, 0)


class _Fit:
    """The least-squares problems of all frames at once."""

    def __init__(self, at: Predicted, net: np.ndarray, model: np.ndarray, spread: np.ndarray, rocking: Rocking, n: int):
        self.at, self.net, self.model, self.spread, self.rocking, self.n = at, net, model, spread, rocking, n
        self.told = np.bincount(at.frame, minlength=n)

    @classmethod
    def of(cls, at: Predicted, sums: Sums, group: np.ndarray, rocking: Rocking, n: int) -> _Fit:
        """With every measurement's intensity as the other frames tell it, where they do."""
        profile = rocking.at(at.s, at.length)
        weight = 1 / (sums.noise + sums.per_count * np.maximum(sums.net, 0) + (_CONTRAST * sums.net) ** 2)
        cell = np.unique(group.astype("i8") * n + at.frame, return_inverse=True)[1]
        above, below = weight * profile * sums.net, weight * profile**2
        rest = np.bincount(group, below)[group] - np.bincount(cell, below)[cell]
        known = rest > 0.1 * np.bincount(group, below)[group]
        model = (np.bincount(group, above)[group] - np.bincount(cell, above)[cell]) / np.where(known, rest, 1)
        known &= model > 0
        peak = rocking.peak(at.length)
        spread = (
            sums.noise
            + sums.per_count * model * profile
            + (model * peak * _CONTRAST) ** 2
            + peak**2 / np.where(known, rest, 1)
        )
        return cls(at.some(known), sums.net[known], model[known], spread[known], rocking, n)

    def cost(self, here: np.ndarray) -> np.ndarray:
        """Half of the robust χ² of every frame (frame,)."""
        moved = self.at.turned(here)
        chi2 = (self.net - self.model * self.rocking.at(moved.s, moved.length)) ** 2 / self.spread
        prior = (here**2).sum(1) / np.radians(_PRIOR_DEG) ** 2
        total = np.bincount(self.at.frame, _OUTLIER * np.log1p(chi2 / _OUTLIER), self.n)
        return np.asarray((total + prior) / 2)

    def better(self, here: np.ndarray, least: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whichever rotation costs a frame less, and what it costs."""
        cost = self.cost(there)
        wins = cost < least
        return np.where(wins[:, None], there, here), np.where(wins, cost, least)

    def step(self, here: np.ndarray) -> np.ndarray:
        """Gauss and Newton's step (frame, 2), measurements weighted as the robust cost has them."""
        moved = self.at.turned(here)
        off = self.net - self.model * self.rocking.at(moved.s, moved.length)
        slope = (self.model * self.rocking.slope(moved.s, moved.length))[:, None] * self.at.turning
        weight = 1 / (1 + off**2 / self.spread / _OUTLIER) / self.spread
        f, prior = self.at.frame, 1 / np.radians(_PRIOR_DEG) ** 2
        normal = np.empty((self.n, 2, 2))
        for i in range(2):
            for j in range(2):
                normal[:, i, j] = np.bincount(f, weight * slope[:, i] * slope[:, j], self.n) + prior * (i == j)
        right = np.stack([np.bincount(f, weight * slope[:, i] * off, self.n) for i in range(2)], 1) - prior * here
        return np.asarray(np.linalg.solve(normal, right[..., None])[..., 0])
