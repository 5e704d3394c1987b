"""Scattering factors of atoms for electrons."""

from __future__ import annotations

import gemmi
import numpy as np

from stemtomo_dl.errors import InputError


def scattering_factor(element: str, s2: np.ndarray) -> np.ndarray:
    """Scattering factor of one atom for electrons at rest, Å; s² = (sin θ/λ)² = q²/4 in 1/Å².

    The five Gaussians of International Tables C, 4.3.2.2.

    Raises
    ------
    InputError
        If there is no such element.
    """
    found = gemmi.Element(element)
    if found.atomic_number == 0 or found.c4322 is None:
        raise InputError(f"element '{element}' is unknown; give a chemical symbol")
    gaussians = found.c4322
    return np.asarray((np.array(gaussians.a) * np.exp(-np.multiply.outer(s2, gaussians.b))).sum(-1))
