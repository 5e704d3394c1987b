"""What the particles of one tilt series share, refined from the spots of all of them at once.

The camera length is not among it unless cells are known: everything larger by one factor looks the same but for the
curvature of the Ewald sphere, and cells would take up what it is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stemtomo_dl.crystal.adjust import Held, adjust
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.refine import REACH, indices, scored

_ROUNDS = (  # what is free, from what all spots tell to what few do
    Held(),
    Held(elevation_deg=1.0, ellipse=0.01),
    Held(elevation_deg=1.0, ellipse=0.01, tilt_turn_rad=2e-3, tilt_shift_px=1.0),
)


def refine_jointly(
    spots: Sequence[Spots], crystals: Sequence[Crystal], geometry: Geometry
) -> tuple[Geometry, list[Crystal]]:
    """Refine the geometry that particles share, and each one's cell and orientation with it.

    Parameters
    ----------
    spots : sequence of Spots
        Of each crystal; their frames are the geometry's (`goniometer.placed` makes them so).
    crystals : sequence of Crystal
        As indexed one by one.
    geometry : Geometry
        Of the whole tilt series, as stated.

    Returns
    -------
    Geometry
        With the tilt axis's azimuth and elevation, the ellipse, and every tilt's orientation error and beam centre;
        the camera length's factor as given.
    list of Crystal
        In the order given.
    """
    if not crystals:
        return geometry, []
    counts = [c.n_indexed for c in crystals]
    azimuth = [c.tilt_axis_deg for c in crystals]
    now, them = geometry.with_axis(_median(azimuth, counts)), list(crystals)
    for held, reach in zip(_ROUNDS, REACH, strict=True):
        now, them = _round(spots, now, them, held, reach)
    return now, [scored(s, now, c) for s, c in zip(spots, them, strict=True)]


def _round(
    spots: Sequence[Spots], geometry: Geometry, crystals: list[Crystal], held: Held, reach: float
) -> tuple[Geometry, list[Crystal]]:
    """Give spots their indices, and fit."""
    told = [indices(s, geometry, c, reach) for s, c in zip(spots, crystals, strict=True)]
    some = [s.some(fits) for s, (_, fits) in zip(spots, told, strict=True)]
    return adjust(some, [hkl[fits] for hkl, fits in told], geometry, crystals, held)


def _median(values: Sequence[float], weights: Sequence[float]) -> float:
    """Weighted median."""
    order = np.argsort(values)
    total = np.cumsum(np.asarray(weights, float)[order])
    return float(np.asarray(values)[order][np.searchsorted(total, total[-1] / 2)])
