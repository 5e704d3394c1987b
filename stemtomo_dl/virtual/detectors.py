"""Virtual detectors that follow the beam: their maps, and the kernel that applies them to patterns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np

from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.geometry import virtual_radii
from stemtomo_dl.stream import is_finite
from stemtomo_dl.virtual.sectors import LANES, SectorMap, add_runs

DETECTORS = ("bf", "adf", "haadf", "variance", "maximum")


_ROWS = 8  # of a pattern that are worked on at once: they stay in the innermost cache


class Window(NamedTuple):
    """The maps as patterns of one offset meet them, pixel after pixel."""

    maps: np.ndarray  # (4, qy · qx) f4
    runs: np.ndarray  # (run, 3) i4: first pixel, last pixel + 1, sector
    first: np.ndarray  # (qy + 1) i4: the first run of each row
    norm: np.ndarray  # (4) good pixels of the detectors, and the profile's Σ²
    there: np.ndarray  # (sector) good pixels of the sectors


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

    def window(self, offset: np.ndarray, good: np.ndarray) -> Window:
        """What a pattern of one offset (row, column) meets, ``good`` (qy, qx) pixels alone."""
        (oy, ox), (qy, qx) = offset, good.shape
        maps = (self.stack[:, oy : oy + qy, ox : ox + qx] * good).reshape(4, -1)
        norm = np.array([*maps[:3].sum(1), maps[3] @ maps[3]])
        return Window(maps, *self.sectors.window(oy, ox, (qy, qx)), norm, self.sectors.there(oy, ox, good > 0))


def normalised(sums: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """Detector images (detector, n) per good pixel, from `detect`'s sums (n, 6) and `Window.norm` of each (n, 4)."""
    n = np.maximum(norm, 1e-12)
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


# Reassociation lets the sums run in vector registers; that there are no NaN is true of what `_clean` leaves.
_FAST = {"reassoc", "contract", "nsz", "nnan"}


@numba.njit(nogil=True, cache=True)
def detect(
    patterns: np.ndarray,
    chosen: np.ndarray,
    good: np.ndarray,
    maps: np.ndarray,
    runs: np.ndarray,
    first: np.ndarray,
    out: np.ndarray,
    sectors: np.ndarray,
    total: np.ndarray,
    peak: np.ndarray,
) -> None:
    """Apply the maps to some of the patterns (n, qy · qx), all of one offset, and add them up, in one pass.

    ``out`` (n, 6) receives the sums over bright field, dark field and high-angle dark field, then over the dark
    field the maximum and, for what is left of the pattern without the support's profile, the sum of squares and the
    product with that profile: the profile is subtracted first because squares of a detector's offset would leave no
    digits for the scatter about it. Values that are not finite count as nothing. ``sectors`` (n, sector) receives
    the sums over the sectors of `sectors.SectorMap`, ``total`` and ``peak`` (qy · qx) take in the sum and the
    maximum over the patterns. ``maps``, ``runs`` and ``first`` are a `Window`'s.
    """
    rows = len(first) - 1
    cols = len(good) // rows
    lines, tops = np.zeros((LANES, _ROWS * cols), np.float32), np.zeros((LANES, _ROWS * cols), np.float32)
    spread, sums = np.empty((LANES, sectors.shape[1]), np.float32), np.empty((LANES, 6), np.float64)
    for g in range(0, len(chosen), LANES):
        there = min(LANES, len(chosen) - g)
        spread[:], sums[:], lines[:], tops[:] = 0, 0, 0, 0
        for y in range(0, rows, _ROWS):
            i, j = y * cols, min(y + _ROWS, rows) * cols
            n = j - i
            for k in range(there):
                _clean(patterns[chosen[g + k], i:j], good[i:j], lines[k, :n])
                _measure(lines[k, :n], maps[0, i:j], maps[1, i:j], maps[2, i:j], maps[3, i:j], tops[k], sums[k])
            _add(lines[0], lines[1], lines[2], lines[3], total[i:j])
            _raise(lines[0], lines[1], lines[2], lines[3], peak[i:j])
            add_runs(lines, runs, first[y], first[min(y + _ROWS, rows)], i, spread)
        for k in range(there):
            sums[k, 3] = tops[k].max()
            out[chosen[g + k]] = sums[k]
            sectors[chosen[g + k]] = spread[k]


@numba.njit(nogil=True, cache=True)
def _clean(row: np.ndarray, ok: np.ndarray, line: np.ndarray) -> None:
    """Rows of a pattern as floats, zero where they are not good or not finite."""
    for x in range(len(line)):
        line[x] = np.float32(row[x]) * ok[x] if is_finite(row[x]) else np.float32(0)


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _measure(
    line: np.ndarray,
    m_bf: np.ndarray,
    m_adf: np.ndarray,
    m_haadf: np.ndarray,
    m_film: np.ndarray,
    top: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add rows to the sums (6) that `detect` tells of; the highest counts so far stay in ``top``."""
    zero: Any = np.float32(0)
    bf = adf = haadf = squares = product = zero
    for x in range(len(line)):
        v = line[x]
        dark = m_adf[x] + m_haadf[x]
        rest = v * dark - m_film[x]
        bf += m_bf[x] * v
        adf += m_adf[x] * v
        haadf += m_haadf[x] * v
        squares += rest * rest
        product += rest * m_film[x]
        seen = dark * v
        top[x] = seen if seen > top[x] else top[x]  # not one number, or the loop would not be vectorised
    sums[0] += bf
    sums[1] += adf
    sums[2] += haadf
    sums[4] += squares
    sums[5] += product


@numba.njit(nogil=True, cache=True)
def _add(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, total: np.ndarray) -> None:
    for x in range(len(total)):
        total[x] += np.float64((a[x] + b[x]) + (c[x] + d[x]))


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _raise(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, peak: np.ndarray) -> None:
    for x in range(len(peak)):
        ab, cd = a[x] if a[x] > b[x] else b[x], c[x] if c[x] > d[x] else d[x]
        top = ab if ab > cd else cd
        peak[x] = top if top > peak[x] else peak[x]
