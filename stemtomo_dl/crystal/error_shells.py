"""What deviations of equivalents are in shells of resolution, over their sigmas.

Multiple scattering makes equivalents differ, and strong low orders more than the rest: a share of the intensity that is
the same at all resolutions leaves them too sure, and others not sure enough.
"""

from __future__ import annotations

import numpy as np

_PER_SHELL = 100  # observations that have equivalents
_MOST_SHELLS = 10
_FARTHEST = 16.0  # χ² beyond which an observation counts as an outlier
_LEAST, _MOST = 0.5, 4.0


def shell_factors(
    group: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, inverse_d: np.ndarray
) -> tuple[tuple[float, float], ...]:
    """What sigmas are to be multiplied by for χ² of equivalents to be 1 in every shell.

    Parameters
    ----------
    group : (observation,) array of int
        The unique reflection that each is of.
    intensity, sigma, inverse_d : (observation,) array
        ``inverse_d`` in 1/Å.

    Returns
    -------
    tuple of (1/d, factor)
        Rising, at the shells' mean 1/d; empty where fewer than 100 observations have equivalents. Between 0.5 and 4.
    """
    weight = 1 / sigma**2
    total = np.bincount(group, weight)
    several = np.bincount(group)[group] > 1
    if several.sum() < _PER_SHELL:
        return ()
    mean = np.bincount(group, weight * intensity) / np.maximum(total, 1e-300)
    # an observation is part of its mean, and the nearer to it by that
    left = 1 - (weight / total[group])[several]
    z2 = np.minimum(((intensity - mean[group])[several] / sigma[several]) ** 2 / left, _FARTHEST)
    x = inverse_d[several]
    shells = np.array_split(np.argsort(x, kind="stable"), int(np.clip(len(x) // _PER_SHELL, 1, _MOST_SHELLS)))
    return tuple((float(x[s].mean()), float(np.clip(np.sqrt(z2[s].mean()), _LEAST, _MOST))) for s in shells)


def interpolated(shells: tuple[tuple[float, float], ...], inverse_d: np.ndarray) -> np.ndarray:
    """The factors (n,) at any 1/d; 1 where there are no shells."""
    if not shells:
        return np.ones(len(inverse_d))
    middle, factor = zip(*shells, strict=True)
    return np.asarray(np.interp(inverse_d, middle, factor))
