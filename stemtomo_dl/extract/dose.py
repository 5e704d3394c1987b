"""Fading: how the Bragg signal of the particles falls with the dose that they have taken."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_LEAST_FRAMES = 8
_SURE = 3.0  # standard deviations from no fading, for a half-dose to be stated


class Fading(NamedTuple):
    """Dose at which the signal has halved, and the range (three standard deviations) in which it lies, e/Å².

    None is what is not known: a signal that does not fade beyond doubt has no half-dose and no upper end.
    """

    half_dose: float | None
    least: float | None
    most: float | None


UNKNOWN = Fading(None, None, None)


def fading(signal: np.ndarray, dose_e_per_A2: np.ndarray, particle: np.ndarray) -> Fading:
    """Fit S = S₀ exp(−D ln 2 / D½) with an S₀ for each particle and one D½ for all.

    The signal of a frame depends on how a crystal happens to lie far more than on dose; what neighbouring frames
    share of that is in the error, as the lag-one correlation ρ of the residuals: its variance grows by
    (1 + ρ)/(1 − ρ) (Bartlett 1946, J. R. Stat. Soc. Suppl. 8, 27).

    Parameters
    ----------
    signal : (n) array
        Of each frame of each particle; frames without a signal do not count.
    dose_e_per_A2 : (n) array
        Accumulated dose.
    particle : (n) int array
        Which particle each frame is of.

    Returns
    -------
    Fading
    """
    order = np.lexsort((dose_e_per_A2, particle))
    use = order[np.isfinite(signal[order]) & (signal[order] > 0)]
    _, member, n = np.unique(particle[use], return_inverse=True, return_counts=True)
    if len(use) < _LEAST_FRAMES + len(n):
        return UNKNOWN
    height, taken = _centred(np.log(signal[use]), member, n), _centred(dose_e_per_A2[use], member, n)
    spread = float(taken @ taken)
    if spread <= 0:
        return UNKNOWN
    slope = float(height @ taken) / spread
    rest = height - slope * taken
    same = np.diff(member) == 0
    rho = np.clip((rest[1:] * rest[:-1])[same].sum() / max(float(rest @ rest), 1e-30), 0, 0.95)
    variance = float(rest @ rest) / (len(rest) - len(n) - 1) * (1 + rho) / (1 - rho)
    error = _SURE * np.sqrt(variance / spread)
    half = [float(np.log(2) / rate) if rate > 0 else None for rate in (-slope, -slope + error, -slope - error)]
    return Fading(half[0] if half[2] else None, half[1], half[2])


def _centred(values: np.ndarray, member: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Values less their mean over each particle."""
    return np.asarray(values - (np.bincount(member, values) / n)[member])
