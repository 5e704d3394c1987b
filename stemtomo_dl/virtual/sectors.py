"""Sectors of the dark field, rings × azimuths about the beam: a pattern in few numbers, to tell crystals by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A sector is about as wide as it is long, and wider than a Bragg disk: few enough for every probe of a scan.
RINGS, AZIMUTHS = 4, 16
SECTORS = RINGS * AZIMUTHS
_LEAST_THERE = 0.5  # share of a sector that must be on the detector and good
_MOST_BYTES = 16 << 20  # of a tilt; of larger scans, neighbouring probes are added up


@dataclass(frozen=True)
class SectorMap:
    """Which pixels make up the sectors, on a detector that is wider by a margin.

    Attributes
    ----------
    sector : (qy + 2 margin, qx + 2 margin) i2 array
        Number of the sector, −1 outside all.
    area_px : (sector) array
        Pixels of each sector on a detector without end.
    """

    sector: np.ndarray
    area_px: np.ndarray

    @classmethod
    def around(cls, x: np.ndarray, y: np.ndarray, inner: float, reach: float) -> SectorMap:
        """Sectors of the dark field inner < r ≤ reach.

        Parameters
        ----------
        x, y : (row, column) arrays
            Of the pixels, from the beam.
        inner, reach : float
            Detector pixels.
        """
        sector = _sector(x, y, inner, reach)
        whole = np.arange(-int(reach), int(reach) + 1)
        everywhere = _sector(*np.meshgrid(whole, whole), inner, reach)
        return cls(sector, np.bincount(everywhere[everywhere >= 0], minlength=SECTORS))

    def there(self, oy: int, ox: int, good: np.ndarray) -> np.ndarray:
        """Good pixels (sector) of each sector for a pattern whose window starts there, ``good`` being (qy, qx)."""
        qy, qx = good.shape
        seen = self.sector[oy : oy + qy, ox : ox + qx][good]
        return np.bincount(seen[seen >= 0], minlength=SECTORS)

    def enough(self, offset: np.ndarray, good: np.ndarray) -> np.ndarray:
        """Whether at least half of a sector (sector) is there and good at every offset (n, 2).

        For a whole scan alike, or a sector would come and go with the beam.
        """
        least = np.min([self.there(oy, ox, good) for oy, ox in np.unique(offset, axis=0)], 0)
        return np.asarray(least >= np.maximum(_LEAST_THERE * self.area_px, 1))


def _sector(x: np.ndarray, y: np.ndarray, inner: float, reach: float) -> np.ndarray:
    """Numbers of the sectors that pixels at (x, y) from the beam belong to, i2; −1 outside all."""
    r = np.hypot(x, y)
    ring = np.ceil((r - inner) / max(reach - inner, 1e-9) * RINGS).astype(int) - 1
    azimuth = np.floor(np.arctan2(y, x) / (2 * np.pi) * AZIMUTHS).astype(int) % AZIMUTHS
    return np.where((r > inner) & (r <= reach), ring * AZIMUTHS + azimuth, -1).astype("i2")


def probes_together(shape: tuple[int, int]) -> int:
    """How many probes along each direction of a scan (rows, columns) share one reduced pattern."""
    probes = int(np.ceil(np.sqrt(shape[0] * shape[1] * SECTORS * 4 / _MOST_BYTES)))
    return max(probes, 1)


def bragg(sectors: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bragg scattering of every probe, in units of its counting noise.

    That is what counts less the bare support's, and less its mean over each ring, which a round pattern would have.

    Parameters
    ----------
    sectors : (y, x, sector) array
        Of `VirtualImages`.
    free : (y, x) bool array
        Probes of the scan, maybe more than ``sectors`` has, that no particle covers.

    Returns
    -------
    rows : (y, x, sector) f4 array
    noise : (y, x) f4 array
        Variance of a probe's row by counting alone, summed over its sectors.
    """
    together = -(-free.shape[0] // sectors.shape[0])
    covered = np.add.reduceat(
        np.add.reduceat(~free, np.arange(0, free.shape[0], together), 0), np.arange(0, free.shape[1], together), 1
    )
    counts = sectors.astype("f4")
    bare = counts[covered == 0] if (covered == 0).sum() > 1 else counts.reshape(-1, SECTORS)
    gain = float(bare.var(0).sum() / max(float(bare.mean(0).sum()), 1e-30))
    rings = (counts - bare.mean(0)).reshape(*counts.shape[:2], RINGS, AZIMUTHS)
    excess = (rings - rings.mean(3, keepdims=True)).reshape(counts.shape)
    mean = counts.mean((0, 1))
    scale = gain * np.maximum(mean, mean.mean() / 20)  # sectors that hardly count are no measure of their own noise
    noise = gain * (counts / scale).sum(2) * (1 - 1 / AZIMUTHS)
    return (excess / np.sqrt(scale)).astype("f4"), noise.astype("f4")
