"""What the Bragg spots of a pattern tell: how strong they are, and whether all of an outline shows them."""

from __future__ import annotations

import numba
import numpy as np

from stemtomo_dl.extract.finish import Camera, Pattern
from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.records import Instrument

_SPOT_SIGMA = 4.0
_LEAST_SIGNAL = 5.0  # of the spots' power over its noise, for purity to be told


class Region:
    """The detector about the beam: rings of one radius, and what lies beyond the direct beam.

    Parameters
    ----------
    center_px : (2,) array
        Column, row of the beam.
    shape : (int, int)
        Rows and columns of the detector.
    instrument : Instrument
    """

    def __init__(self, center_px: np.ndarray, shape: tuple[int, int], instrument: Instrument) -> None:
        y, x = np.indices(shape)
        radius = np.hypot(x - center_px[0], y - center_px[1])
        i = instrument
        disk = disk_radius_px(i.convergence_mrad, wavelength(i.voltage_kv), i.pixel_inv_angstrom)
        self.inner_px = 2 * disk + 2
        self.beyond = radius > self.inner_px
        self.ring = np.round(radius).astype(int)
        self.rings = int(self.ring.max()) + 1

    def excess(self, pattern: np.ndarray, plain: np.ndarray) -> np.ndarray:
        """A pattern less the mean over rings of its ``plain`` pixels."""
        return _less_rings(pattern, plain, self.ring, self.rings)

    def spots(self, pattern: Pattern) -> np.ndarray:
        """Pixels that stand out of their ring, bool."""
        plain = pattern.measured & self.beyond
        sigma = np.sqrt(pattern.variance)
        for _ in range(2):
            found = pattern.measured & self.beyond & (self.excess(pattern.values, plain) > _SPOT_SIGMA * sigma)
            plain = pattern.measured & self.beyond & ~found
        return found


@numba.njit(nogil=True, cache=True)
def _less_rings(pattern: np.ndarray, plain: np.ndarray, ring: np.ndarray, rings: int) -> np.ndarray:
    """As `Region.excess`; f8, one loop for the means and one for what is left."""
    total, n = np.zeros(rings), np.zeros(rings)
    for y in range(pattern.shape[0]):
        for x in range(pattern.shape[1]):
            if plain[y, x]:
                total[ring[y, x]] += pattern[y, x]
                n[ring[y, x]] += 1
    level = total / np.maximum(n, 1)
    out = np.empty(pattern.shape)
    for y in range(pattern.shape[0]):
        for x in range(pattern.shape[1]):
            out[y, x] = pattern[y, x] - level[ring[y, x]]
    return out


def signal(pattern: Pattern, region: Region, spots: np.ndarray) -> float:
    """Strength of the Bragg scattering, counts per probe: the root of its power, free of the power of its noise."""
    use = region.beyond & pattern.measured
    power = region.excess(pattern.values, use & ~spots)[use] ** 2 - pattern.variance[use]
    return float(np.sqrt(max(power.sum(dtype="f8"), 0.0)))


def purity(
    parts: np.ndarray, n: np.ndarray, region: Region, spots: np.ndarray, measured: np.ndarray, camera: Camera
) -> float:
    """Share of the Bragg power in the parts of an outline that one pattern, stronger or weaker, explains.

    It is the largest eigenvalue of the parts' Gram matrix over their sum, after the power of counting noise has been
    taken from its diagonal: 1 where all parts show one crystal, ½ where two halves show two.

    Parameters
    ----------
    parts : (part, qy, qx) array
        Mean patterns of the parts.
    n : (part) array
        Their numbers of probes.
    region : Region
    spots, measured : (qy, qx) bool arrays
    camera : Camera

    Returns
    -------
    float
        NaN where the parts are too few or their spots too weak to tell.
    """
    if n.min() < 1 or not spots.any():
        return float("nan")
    plain = region.beyond & measured & ~spots
    found = np.stack([region.excess(part, plain)[spots] for part in parts]).astype("f8")
    gram = found @ found.T
    noise = np.array([(camera.gain * part[spots] + camera.readout).sum(dtype="f8") for part in parts]) / n
    power = np.trace(gram) - noise.sum()
    if power < _LEAST_SIGNAL * noise.sum() / np.sqrt(spots.sum()):
        return float("nan")
    values = np.linalg.eigvalsh(gram - np.diag(noise))
    return float(np.clip(values[-1] / np.maximum(values, 0).sum(), 0, 1))
