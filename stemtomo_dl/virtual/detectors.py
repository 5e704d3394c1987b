"""Virtual detectors that follow the beam: their maps, and the kernel that applies them to patterns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.geometry import virtual_radii
from stemtomo_dl.virtual.sectors import SectorMap, add_runs

DETECTORS = ("bf", "adf", "haadf", "variance", "maximum")


@dataclass(frozen=True)
class DetectorMaps:
    """Bright field, dark field, high-angle dark field and the support's dark-field profile about one centre.

    ``stack`` (4, qy + 2 margin, qx + 2 margin) is centred on the beam's integer position; a pattern whose beam
    is displaced by whole pixels (ox, oy) uses the window that starts at (margin − oy, margin − ox).
    """

    stack: np.ndarray
    sectors: SectorMap
    anchor: np.ndarray  # integer beam position (column, row) that offset (0, 0) stands for
    margin: int

    @classmethod
    def around(
        cls,
        centre: np.ndarray,
        pattern: np.ndarray,
        good: np.ndarray,
        disk_px: float,
        margin: int,
        config: ImagesConfig,
    ) -> DetectorMaps:
        """Maps about a beam centre.

        Parameters
        ----------
        centre : (2,) array
            Column, row.
        pattern : (qy, qx) array
            A mean pattern, which gives the support's radial profile.
        good : (qy, qx) bool array
        disk_px : float
            Radius of the diffraction disks.
        margin : int
            How far the beam may be from the centre, whole pixels.
        config : ImagesConfig
        """
        qy, qx = pattern.shape
        anchor = np.round(centre).astype(int)
        y, x = np.mgrid[-margin : qy + margin, -margin : qx + margin]
        r = np.hypot(x - anchor[0], y - anchor[1])
        bf, inner, outer, reach = virtual_radii(centre, (qy, qx), disk_px, config.bf_disk_radii, config.haadf_from)
        dark = (r > inner) & (r <= reach)
        profile = _radial_profile(pattern, good, centre)
        support = np.interp(r, np.arange(len(profile)), profile) * dark
        stack = np.stack([r <= bf, dark & (r <= outer), dark & (r > outer), support]).astype("f4")
        sectors = SectorMap.around(x - anchor[0], y - anchor[1], inner, reach)
        return cls(stack, sectors, anchor, margin)

    def offsets(self, centres: np.ndarray) -> np.ndarray:
        """Where each pattern's window starts in the maps, (n, 2) int (row, column), for beams at (column, row)."""
        shift = np.round(centres).astype(int) - self.anchor
        return self.margin - np.clip(shift, -self.margin, self.margin)[:, ::-1]

    def normalise(self, sums: np.ndarray, offset: np.ndarray, good: np.ndarray) -> np.ndarray:
        """Detector images (detector, n) per good pixel, from `detect`'s sums (n, 6)."""
        qy, qx = good.shape
        starts, which = np.unique(offset, axis=0, return_inverse=True)
        norm = np.zeros((len(starts), 4))
        for k, (oy, ox) in enumerate(starts):
            window = self.stack[:, oy : oy + qy, ox : ox + qx] * good
            norm[k, :3], norm[k, 3] = window[:3].sum((1, 2)), (window[3] ** 2).sum()
        n = np.maximum(norm[which.ravel()], 1e-12)
        bf, adf, haadf, peak, squares, product = sums.T.astype("f8")
        # what scatters about the profile whatever the profile's strength in this pattern
        variance = np.maximum(squares - product**2 / n[:, 3], 0) / (n[:, 1] + n[:, 2])
        return np.stack([bf / n[:, 0], adf / n[:, 1], haadf / n[:, 2], variance, peak]).astype("f4")


def _radial_profile(pattern: np.ndarray, good: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Mean over good pixels at each integer radius."""
    y, x = np.indices(pattern.shape)
    r = np.round(np.hypot(x - centre[0], y - centre[1])).astype(int)
    weight = np.bincount(r.ravel(), good.ravel().astype(float))
    counts = np.bincount(r.ravel(), np.where(good, pattern, 0).ravel())
    filled = np.flatnonzero(weight)
    return np.interp(np.arange(len(weight)), filled, counts[filled] / weight[filled])


# Reassociation lets the sums run in vector registers; full fastmath would also assume that there are no NaN.
@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def detect(
    patterns: np.ndarray,
    offset: np.ndarray,
    good: np.ndarray,
    maps: np.ndarray,
    runs: np.ndarray,
    first: np.ndarray,
    out: np.ndarray,
    sectors: np.ndarray,
    total: np.ndarray,
    peak: np.ndarray,
) -> None:
    """Apply the maps to patterns (n, qy, qx) and add them up, in one pass.

    ``out`` (n, 6) receives the sums over bright field, dark field and high-angle dark field, then over the dark
    field the maximum and, for what is left of the pattern without the support's profile, the sum of squares and the
    product with that profile: the profile is subtracted first because squares of a detector's offset would leave no
    digits for the scatter about it. Values that are not finite count as nothing. ``sectors`` (n, sector) takes in
    the sums over the sectors of `sectors.SectorMap`, ``total`` and ``peak`` (qy, qx) the sum and the maximum over
    the patterns.
    """
    n, rows, cols = patterns.shape
    zero: Any = np.float32(0)
    line = np.empty(cols, np.float32)
    for i in range(n):
        oy, ox = offset[i]
        top = zero
        bf_all = adf_all = haadf_all = squares_all = product_all = 0.0
        for y in range(rows):
            bf = adf = haadf = squares = product = zero
            row, ok = patterns[i, y], good[y]
            m_bf, m_adf = maps[0, y + oy, ox : ox + cols], maps[1, y + oy, ox : ox + cols]
            m_haadf, m_film = maps[2, y + oy, ox : ox + cols], maps[3, y + oy, ox : ox + cols]
            for x in range(cols):
                v = np.float32(row[x])
                use = ok[x] if np.isfinite(v) else zero
                v = v if use > zero else zero
                line[x] = v
                total[y, x] += v
                peak[y, x] = max(peak[y, x], v)
                dark = (m_adf[x] + m_haadf[x]) * use
                rest = (v - m_film[x]) * dark
                bf += m_bf[x] * v
                adf += m_adf[x] * v
                haadf += m_haadf[x] * v
                squares += rest * rest
                product += rest * m_film[x]
                top = max(top, dark * v)
            add_runs(line, runs, first[y + oy], first[y + oy + 1], ox, sectors[i])
            bf_all += bf
            adf_all += adf
            haadf_all += haadf
            squares_all += squares
            product_all += product
        out[i, 0], out[i, 1], out[i, 2] = bf_all, adf_all, haadf_all
        out[i, 3], out[i, 4], out[i, 5] = top, squares_all, product_all
