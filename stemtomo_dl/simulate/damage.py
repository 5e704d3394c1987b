"""Beam damage: Bragg intensities fade with the accumulated dose, those of high resolution first."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from stemtomo_dl.config import Model, Positive


class Damage(Model):
    """How fast a crystal loses its order: I(g) = I₀(g)·exp(−D/D_c(d)), D_c ∝ d^power.

    ``power`` = 1 is the linear law of dose-limited resolution, about 10 MGy per Å (Howells et al. 2009, J. Electron
    Spectrosc. 170, 4); 2 is a B factor that grows with the dose by 2·at_A²/critical_dose_e_per_A2; 0 fades all alike.
    """

    critical_dose_e_per_A2: Positive  # after which a reflection of resolution ``at_A`` has faded to 1/e
    at_A: Positive = 1.0  # Å
    power: Annotated[float, Field(ge=0, le=4)] = 1.0


def fading(damage: Damage | None, dose_e_per_A2: float, g: np.ndarray) -> np.ndarray:
    """What is left of the Bragg intensities |F|² after a dose, (n,), from 1 down to 0.

    Parameters
    ----------
    damage : Damage or None
        None: a crystal that does not suffer.
    dose_e_per_A2 : float
        Electrons per Å² that the crystal has taken, along the beam.
    g : (n,) array
        |g| = 1/d, 1/Å.
    """
    if damage is None or dose_e_per_A2 <= 0:
        return np.ones(len(g))
    return np.asarray(np.exp(-dose_e_per_A2 / damage.critical_dose_e_per_A2 * (damage.at_A * g) ** damage.power))
