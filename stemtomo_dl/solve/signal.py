"""How far intensities hold a signal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.symmetry import merge

_SHELL, _SHELLS = 40, 20  # reflections of one, at least, and shells at most
_KEPT = 3  # innermost shells, whatever is in them
_LEAST = 0.5  # mean I/σ and mean I over its spread, of noise: of a crystal's intensities the second is about 1
_FRIEDEL = np.array([np.eye(3, dtype=int), -np.eye(3, dtype=int)])


def within_signal(data: Intensities) -> Intensities:
    """The intensities without the outer shells that hold none but noise, and a note of it.

    Frames show reflections as far as the camera reaches, and integration measures them all. What is noise lowers
    completeness, hides absences and leads phases astray. A shell is left out, and all beyond it, where the mean of I/σ
    as well as that of I over its spread say so: either alone may be due to errors that are stated badly, or to few
    strong reflections.

    Parameters
    ----------
    data : Intensities
    """
    merged = merge(data, _FRIEDEL)
    inverse_d = np.linalg.norm(merged.hkl @ data.reciprocal, axis=1)
    shells = np.array_split(np.argsort(inverse_d, kind="stable"), min(_SHELLS, max(1, len(inverse_d) // _SHELL)))
    kept = len(shells)
    while kept > _KEPT and _is_noise(merged.intensity[shells[kept - 1]], merged.sigma[shells[kept - 1]]):
        kept -= 1
    if kept == len(shells):
        return data
    limit = float(inverse_d[shells[kept - 1]].max())
    inside = np.linalg.norm(data.hkl @ data.reciprocal, axis=1) <= limit * (1 + 1e-9)
    return replace(
        data,
        hkl=data.hkl[inside],
        intensity=data.intensity[inside],
        sigma=data.sigma[inside],
        notes=(*data.notes, f"reflections beyond {1 / limit:.2f} Å are noise and were left out"),
    )


def _is_noise(intensity: np.ndarray, sigma: np.ndarray) -> bool:
    mean = float(intensity.mean())
    return bool((intensity / np.maximum(sigma, 1e-30)).mean() < _LEAST and mean < _LEAST * intensity.std())
