"""Statistics of intensities in shells of resolution: Wilson, Acta Cryst. 2 (1949) 318."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stemtomo_dl.solve.symmetry import Merged

_STANDS_OUT = 5.0  # standard errors by which a shell's mean intensity must differ from zero
_SHELL = 50  # reflections in a shell of resolution
_CENTRIC, _ACENTRIC = (0.968, 1.031), (0.736, 0.677)  # mean and standard deviation of |E² − 1| of one reflection
_DEPARTS = 0.15  # of the mean, by what crystals do besides: thick ones flatten, atoms on special places sharpen
_LEAST = 50  # reflections that a centre is told by


def shells_of(s2: np.ndarray) -> list[np.ndarray]:
    """Places of reflections in shells of about fifty, ``s2`` (reflection,) ascending."""
    return np.array_split(np.argsort(s2, kind="stable"), max(1, len(s2) // _SHELL))


def strangers(intensity: np.ndarray, s2: np.ndarray) -> np.ndarray:
    """Intensities (reflection,) after those of like resolution changed places; ``s2`` grows with resolution."""
    moved, rng = np.empty_like(intensity), np.random.default_rng(0)
    for shell in shells_of(s2):
        moved[shell] = intensity[rng.permutation(shell)]
    return moved


def wilson_statistic(merged: Merged, reciprocal: np.ndarray, some: np.ndarray | None = None) -> float:
    """Mean of |E² − 1| with E normalised in shells of about fifty reflections; 0.968 centric, 0.736 acentric.

    Shells without a mean that stands out of its noise have no say; NaN where none has. ``some``: a mask (reflection,).
    """
    chosen = np.ones(len(merged.hkl), bool) if some is None else some
    intensity, sigma = merged.intensity[chosen], merged.sigma[chosen]
    kept = [intensity[s] for s in shells_of(((merged.hkl[chosen] @ reciprocal) ** 2).sum(1))
            if intensity[s].sum() > _STANDS_OUT * np.sqrt((sigma[s] ** 2).sum())]  # fmt: skip
    return float(np.mean(np.concatenate([np.abs(s / s.mean() - 1) for s in kept]))) if kept else float("nan")


def centre_likelihood(merged: Merged, reciprocal: np.ndarray) -> float:
    """How much likelier intensities are with an inversion centre than without, as a logarithm.

    The mean of |E² − 1| over reflections in general places, for zones are centric in other groups too, is normal about
    what either leads one to expect, with the error of its sample and what crystals depart by besides. As that is large,
    and a mean beyond both tells of nothing but such departures, the answer is never sure. 0 where too few tell.
    """
    images = np.einsum("ni,oij->noj", merged.hkl.astype(int), merged.rotations) @ np.array([1 << 40, 1 << 20, 1])
    general = (np.diff(np.sort(images, axis=1), axis=1) != 0).all(1)
    mean = wilson_statistic(merged, reciprocal, general)
    if (n := int(general.sum())) < _LEAST or np.isnan(mean):
        return 0.0
    mean, logs = float(np.clip(mean, _ACENTRIC[0], _CENTRIC[0])), []
    for expected, deviation in (_CENTRIC, _ACENTRIC):
        variance = deviation**2 / n + _DEPARTS**2
        logs.append(-0.5 * ((mean - expected) ** 2 / variance + np.log(variance)))
    return float(logs[0] - logs[1])
