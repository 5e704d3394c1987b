"""What the tail of a camera's point spread carries from one virtual detector into another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stemtomo_dl.simulate.detector import blurred, spread_weights
from stemtomo_dl.simulate.library import CUBES, GROUPS, IN_ADF, IN_BF, IN_HAADF, ON_CRYSTAL, ON_FILM, PEAK, SQUARES
from stemtomo_dl.simulate.optics import ADF, BF, HAADF, Optics, direct_beam, zones
from stemtomo_dl.simulate.planes import BY_CRYSTAL, BY_FILM, DIRECT


class Spread(NamedTuple):
    """The tail's work at one place of the beam."""

    core: float  # share that the tail does not take
    reach: np.ndarray  # (3, 3) what bf, adf, haadf get per electron whose core lands in bf (a row), adf, haadf
    crest: np.ndarray  # (group,) what the tail gives to the brightest 1, next 2, next 4, … pixels of the dark field


def make_spread(optics: Optics, diffuse: np.ndarray, tail_share: float, tail_px: float) -> Spread:
    """Follow the light of the direct beam, and that of diffuse scattering in the dark fields.

    Spots count as if they lay where diffuse scattering does. What the core brings from the rim of the direct beam
    into the dark field is counted too.

    Parameters
    ----------
    optics : Optics
        With the core of the point spread as ``psf_px``.
    diffuse : (qy, qx) array
        A template of `Optics.template`.
    tail_share : float
        Share of the electrons, or of their light, in the tail.
    tail_px : float
        Its sigma.
    """
    zone, direct = zones(optics), direct_beam(optics)
    weights = spread_weights(tail_px if tail_share > 0 else 0.0)
    reach, brightest = np.zeros((3, 3)), np.zeros(0)
    for k, source in enumerate([direct, np.where(zone == ADF, diffuse, 0), np.where(zone == HAADF, diffuse, 0)]):
        own = max(float(source[zone == k + 1].sum()), 1e-12)
        tail = tail_share * blurred(source, weights) / own
        light = (1 - tail_share) * source / own + tail
        reach[k] = [light[zone == z].sum() for z in (BF, ADF, HAADF)]
        if k == 0:
            brightest = np.sort(tail[zone >= ADF])[::-1]
    crest = [brightest[2**g - 1 : 2 ** (g + 1) - 1].mean() for g in range(GROUPS)]
    return Spread(1 - tail_share, reach, np.array(crest))


def spread_electrons(planes: np.ndarray, spread: Spread, direct: float) -> None:
    """Move expected electrons from detector to detector, in place: those of a camera that counts each of them once.

    Parameters
    ----------
    planes : (y, x, plane) array
        Of `simulate.planes`.
    direct : float
        Share of the direct beam in bf.
    """
    bright = direct * planes[..., DIRECT]
    fields = np.stack([bright + planes[..., IN_BF], planes[..., IN_ADF], planes[..., IN_HAADF]], -1) @ spread.reach
    planes[..., IN_BF] = fields[..., 0] - bright
    planes[..., IN_ADF], planes[..., IN_HAADF] = fields[..., 1], fields[..., 2]
    planes[..., [BY_FILM, BY_CRYSTAL, ON_FILM, ON_CRYSTAL]] *= spread.core
    planes[..., SQUARES] *= spread.core**2
    planes[..., CUBES] *= spread.core**3
    peaks = planes[..., PEAK : PEAK + GROUPS]
    np.maximum(spread.core * peaks, fields[..., :1] * spread.crest, out=peaks)
