"""Virtual detectors that follow the beam: their maps, and the kernel that applies them to patterns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np

from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.geometry import virtual_radii
from stemtomo_dl.stream import is_finite
from stemtomo_dl.virtual.blocks import WIDTH, add_block, cut_blocks, masks
from stemtomo_dl.virtual.sectors import SECTORS, SectorMap

DETECTORS = ("bf", "adf", "haadf", "variance", "maximum")


_BRIGHT = 2 * SECTORS  # bin of the bright field; a sector's dark field has bin 2 · sector, its high-angle part the next
_BINS = _BRIGHT + 1


class Window(NamedTuple):
    """The maps as patterns of one offset meet them, pixel after pixel."""

    blocks: np.ndarray  # (block, 3), of `cut_blocks`
    dark: np.ndarray  # (qy · qx) u1, 1 in the dark field
    film: np.ndarray  # (qy · qx) f4, the support's profile there
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
        bright, adf, haadf, film = self.stack[:, oy : oy + qy, ox : ox + qx] * good
        dark = adf + haadf
        bins = np.where(bright > 0, _BRIGHT, -1)
        bins = np.where(dark > 0, 2 * self.sectors.sector[oy : oy + qy, ox : ox + qx] + (haadf > 0), bins)
        norm = np.array([bright.sum(), adf.sum(), haadf.sum(), np.sum(film**2, dtype="f8")])
        there = self.sectors.there(oy, ox, good > 0)
        return Window(cut_blocks(bins.ravel()), (dark > 0).astype("u1").ravel(), film.ravel(), norm, there)


def normalised(sums: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """Detector images (detector, n) per good pixel, from `Totals`' sums (n, 6) and `Window.norm`."""
    n = np.maximum(norm, 1e-12)
    bf, adf, haadf, peak, squares, product = sums.T
    # what scatters about the profile whatever the profile's strength in this pattern
    variance = np.maximum(squares - product**2 / n[3], 0) / (n[1] + n[2])
    return np.stack([bf / n[0], adf / n[1], haadf / n[2], variance, peak]).astype("f4")


def _radial_profile(pattern: np.ndarray, good: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Mean over good pixels at each integer radius."""
    y, x = np.indices(pattern.shape)
    r = np.round(np.hypot(x - centre[0], y - centre[1])).astype(int)
    weight = np.bincount(r.ravel(), good.ravel().astype(float))
    counts = np.bincount(r.ravel(), np.where(good, pattern, 0).ravel())
    filled = np.flatnonzero(weight)
    return np.interp(np.arange(len(weight)), filled, counts[filled] / weight[filled])


class Totals:
    """Sum and maximum over patterns, pixel by pixel, in numbers that hold them exactly where they are counts."""

    def __init__(self, pixels: int, dtype: np.dtype[Any]) -> None:
        self.sum = np.zeros(pixels, "f8" if dtype.kind == "f" else "i8")
        self.peak = np.zeros(pixels, dtype)
        self._narrow = np.zeros(pixels, narrow(dtype))

    def take(self, patterns: np.ndarray, chosen: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Take in some of the patterns (n, qy · qx), all of one offset, in one pass over them.

        Values that are not finite count as nothing.

        Returns
        -------
        sums : (chosen, 6) f8 array
            Sums over bright field, dark field and high-angle dark field, then over the dark field the maximum and,
            for what is left of the pattern without the support's profile, the sum of squares and the product with
            that profile: the profile is subtracted first because squares of a detector's offset would leave no
            digits for the scatter about it.
        sectors : (chosen, sector) f8 array
            Sums over the sectors of `sectors.SectorMap`.
        """
        each, sums = np.empty((len(chosen), _BINS)), np.zeros((len(chosen), 6))
        measure(patterns, chosen, *window[:3], _MASKS, each, sums, self._narrow, self.peak)
        self.sum += self._narrow
        self._narrow[:] = 0
        sums[:, 0] = each[:, _BRIGHT]
        sums[:, 1], sums[:, 2] = each[:, 0:_BRIGHT:2].sum(1), each[:, 1:_BRIGHT:2].sum(1)
        return sums, each[:, 0:_BRIGHT:2] + each[:, 1:_BRIGHT:2]


def narrow(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type for the sums of a tile: 32 bits for 2^16 counts of up to 16."""
    if dtype.kind == "f":
        return np.dtype("f8")
    return np.dtype("u4") if dtype.kind == "u" and dtype.itemsize <= 2 else np.dtype("i8")


_STRIP = 2048  # pixels of a pattern that are worked on at once: with their maps they stay in the innermost cache
_LANES = 4  # patterns that are added up side by side
_MASKS = masks()
_FAST = {"reassoc", "contract", "nsz"}  # lets the sums run in vector registers


@numba.njit(nogil=True, cache=True)
def measure(
    patterns: np.ndarray,
    chosen: np.ndarray,
    blocks: np.ndarray,
    dark: np.ndarray,
    film: np.ndarray,
    mask: np.ndarray,
    each: np.ndarray,
    sums: np.ndarray,
    total: np.ndarray,
    peak: np.ndarray,
) -> None:
    """The loops of `Totals.take`: ``each`` (chosen, bin) receives sums over bins; ``sums`` (chosen, 6) start at zero.

    Every strip of a few patterns is fetched from memory once. A lane without a pattern takes the pattern of zeros.
    """
    pixels = patterns.shape[1]
    nothing = np.zeros(pixels, patterns.dtype)
    tops = np.empty((_LANES, _STRIP), patterns.dtype)
    bins = np.empty((_LANES, each.shape[1] * WIDTH), total.dtype)
    for g in range(0, len(chosen), _LANES):
        there = min(_LANES, len(chosen) - g)
        a = patterns[chosen[g]]
        b = patterns[chosen[g + 1]] if there > 1 else nothing
        c = patterns[chosen[g + 2]] if there > 2 else nothing
        d = patterns[chosen[g + 3]] if there > 3 else nothing
        tops[:], bins[:] = 0, 0
        block = 0
        for i in range(0, pixels, _STRIP):
            j = min(i + _STRIP, pixels)
            _add(a[i:j], b[i:j], c[i:j], d[i:j], total[i:j])
            _raise(a[i:j], b[i:j], c[i:j], d[i:j], peak[i:j])
            begin = block
            while block < len(blocks) and blocks[block, 0] < j:
                block += 1
            for k in range(there):
                pattern = patterns[chosen[g + k]]
                _scatter(pattern[i:j], film[i:j], dark[i:j], tops[k], sums[g + k])
                for n in range(begin, block):
                    add_block(bins[k], blocks[n, 1], pattern, blocks[n, 0], mask, blocks[n, 2])
        for k in range(there):
            sums[g + k, 3] = tops[k].max()
            for n in range(each.shape[1]):
                each[g + k, n] = bins[k, n * WIDTH : (n + 1) * WIDTH].sum()


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _scatter(values: np.ndarray, film: np.ndarray, dark: np.ndarray, top: np.ndarray, sums: np.ndarray) -> None:
    """Add a strip to the sum of squares and the product of `Totals.take`; its highest counts stay in ``top``."""
    zero: Any = np.float32(0)
    squares, product, none = zero, zero, values.dtype.type(0)
    for x in range(len(values)):
        # Fetched and put back whatever they are, or the loop would not be vectorised; nor would it with one number
        # for the top.
        value = values[x] if is_finite(values[x]) else none
        seen = value if dark[x] else none
        rest = np.float32(seen) - film[x]
        squares += rest * rest
        product += rest * film[x]
        top[x] = max(top[x], seen)
    sums[4] += squares
    sums[5] += product


@numba.njit(nogil=True, cache=True)
def _add(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, total: np.ndarray) -> None:
    zero = a.dtype.type(0)
    for x in range(len(total)):
        total[x] += a[x] if is_finite(a[x]) else zero
        total[x] += b[x] if is_finite(b[x]) else zero
        total[x] += c[x] if is_finite(c[x]) else zero
        total[x] += d[x] if is_finite(d[x]) else zero


@numba.njit(nogil=True, cache=True)
def _raise(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, peak: np.ndarray) -> None:
    """Comparisons with NaN are false; infinity is kept out."""
    for x in range(len(peak)):
        top = peak[x]
        top = a[x] if a[x] > top and is_finite(a[x]) else top
        top = b[x] if b[x] > top and is_finite(b[x]) else top
        top = c[x] if c[x] > top and is_finite(c[x]) else top
        top = d[x] if d[x] > top and is_finite(d[x]) else top
        peak[x] = top
