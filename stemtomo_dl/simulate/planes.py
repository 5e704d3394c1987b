"""What virtual detectors expect at every probe, per electron: the support first, then particle by particle.

Planes have the numbers of the library's quantities: sums over bf, adf and haadf, the sum of squares over the dark
field, … Plane DIRECT holds what passes everything unscattered. ON_FILM_SHARE and ON_CRYSTAL_SHARE, after them, say
what film and crystals scatter diffusely. The last axis of the array is the plane, so that a probe lies together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from stemtomo_dl.simulate.library import (
    CUBES,
    GROUPS,
    IN_ADF,
    IN_BF,
    IN_HAADF,
    ON_CRYSTAL,
    ON_FILM,
    PEAK,
    QUANTITIES,
    SQUARES,
    TAKEN,
)

_STEEPEST = 4.0  # a face seen edge-on gives at most so many times the secondary electrons of a flat one

DIRECT = TAKEN
BY_FILM, BY_CRYSTAL = QUANTITIES, QUANTITIES + 1
PLANES = QUANTITIES + 2


class Part(NamedTuple):
    """One crystal of a particle, or something amorphous (a table of zeros), as `ImageSample` has it."""

    at: np.ndarray  # (2,) px (x, y)
    rocking: np.ndarray  # (4,)
    table: np.ndarray  # (orientation, thickness, quantity) of the library
    step_nm: float  # of the table's thicknesses
    mean_free_path: float  # nm
    diffuse: np.ndarray  # (3,) share of its diffuse scattering in bf, adf and haadf
    by: int  # the plane that notes what it scatters diffusely: BY_FILM or BY_CRYSTAL
    sectors: np.ndarray  # (2, sector) weights of `sectors.Sectors`


class Shifts(NamedTuple):
    """How far (px) probes lie right of their regular places: the sum of a row's and a column's."""

    row: np.ndarray  # (y,)
    column: np.ndarray  # (x,)
    least: float  # of the columns'
    most: float


def make_shifts(row: np.ndarray, column: np.ndarray) -> Shifts:
    """Shifts from those of rows (y,) and columns (x,)."""
    return Shifts(row, column, float(column.min()), float(column.max()))


def blur(planes: np.ndarray, sigma_px: tuple[float, float]) -> None:
    """Smooth planes, in place, by a Gaussian of rms widths along y and x; beyond its rim the field goes on as there."""
    flat = planes.reshape(len(planes), -1)
    for along, sigma in zip((_blur_y, _blur_x), sigma_px, strict=True):
        if sigma > 0:
            half = int(np.ceil(2.5 * sigma))
            weight = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
            along(flat, (weight / weight.sum()).astype("f4"), planes.shape[2])


# Rows are taken as long vectors (x · plane), so that sums run in vector registers.
@njit(cache=True, nogil=True, fastmath={"contract"})
def _blur_y(flat: np.ndarray, weight: np.ndarray, _: int) -> None:
    rows, size = len(weight), flat.shape[1]
    half = rows // 2
    ring = np.empty((rows, size), np.float32)  # the rows about the present one, as they were
    for k in range(rows):
        ring[k] = flat[min(max(k - half, 0), len(flat) - 1)]
    for y in range(len(flat)):
        out = flat[y]
        out[:] = 0
        for k in range(rows):
            w, there = weight[k], ring[(y + k) % rows]
            for n in range(size):
                out[n] += w * there[n]
        ring[y % rows] = flat[min(y + half + 1, len(flat) - 1)]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _blur_x(flat: np.ndarray, weight: np.ndarray, count: int) -> None:
    half, size = len(weight) // 2, flat.shape[1]
    wide = np.empty(size + 2 * half * count, np.float32)
    for y in range(len(flat)):
        out = flat[y]
        wide[half * count : half * count + size] = out
        for k in range(half):
            wide[k * count : (k + 1) * count] = out[:count]
            wide[half * count + size + k * count : half * count + size + (k + 1) * count] = out[size - count :]
        out[:] = 0
        for k in range(len(weight)):
            w, there = weight[k], wide[k * count : k * count + size]
            for n in range(size):
                out[n] += w * there[n]


@njit(cache=True, nogil=True)
def lay_film(film: np.ndarray, in_zones: np.ndarray) -> np.ndarray:
    """Planes (y, x, plane) f4 of the support alone.

    Parameters
    ----------
    film : (y, x) array
        Share of the electrons that it takes.
    in_zones : (3,) array
        Share of these that lands in bf, adf and haadf.
    """
    planes = np.zeros((film.shape[0], film.shape[1], PLANES), np.float32)
    for y in range(film.shape[0]):
        for x in range(film.shape[1]):
            planes[y, x, DIRECT] = 1 - film[y, x]
            planes[y, x, IN_BF] = film[y, x] * in_zones[0]
            planes[y, x, IN_ADF] = film[y, x] * in_zones[1]
            planes[y, x, IN_HAADF] = film[y, x] * in_zones[2]
            planes[y, x, BY_FILM] = film[y, x]
    return planes


@njit(cache=True, nogil=True)
def add_part(
    planes: np.ndarray, bragg: np.ndarray, thickness: np.ndarray, origin: np.ndarray, shifts: Shifts, part: Part
) -> tuple[float, float]:
    """Let a part of a particle take from the direct beam and give to the detectors.

    Parameters
    ----------
    planes : (y, x, plane) array
    bragg : (y, x, sector) array
        Takes in what its reflections send to every sector of the dark field.
    thickness : (row, column) array
        nm; its first pixel lies at ``origin`` (row, column), which may be left of the field.

    Returns
    -------
    signal : float
        The squared signal per electron of a probe.
    dark : float
        What its reflections send to the dark field, over all probes.
    """
    met = np.zeros(QUANTITIES, np.float32)
    signal = dark = 0.0
    for i in range(len(thickness)):
        y = origin[0] + i
        first, last = _within(origin[1], thickness.shape[1], shifts, y, planes.shape[1])
        for j in range(first, last):
            x = j + shifts.row[y] + shifts.column[j]
            t = _between(thickness[i], x - origin[1])
            if t <= 0:
                continue
            dx, dy = x - part.at[0], y - part.at[1]
            turn = part.rocking[0] + part.rocking[1] * dx + part.rocking[2] * dy + part.rocking[3] * (dx * dx + dy * dy)
            _look_up(part.table, turn, t / part.step_nm, met)
            share = 1 - np.exp(-t / part.mean_free_path)
            reflected = planes[y, j, DIRECT] * (1 - share) * (met[IN_ADF] + met[IN_HAADF])
            dark += reflected
            there = np.float32(min(max(turn / max(len(part.table) - 1, 1), 0.0), 1.0))
            for s in range(bragg.shape[2]):
                weight = part.sectors[0, s] + there * (part.sectors[1, s] - part.sectors[0, s])
                bragg[y, j, s] += np.float32(reflected) * weight
            signal += _scatter(planes[y, j], met, share, part.diffuse, part.by)
    return signal, dark


@njit(cache=True, nogil=True)
def add_glow(
    planes: np.ndarray,
    thickness: np.ndarray,
    origin: np.ndarray,
    shifts: Shifts,
    step_nm: float,
    glow: tuple[float, float],
) -> float:
    """Put a particle's secondary electrons in the place of what the dark fields see; its squared signal per electron.

    A face that leans by θ gives 1/cos θ times the electrons of a flat one (Seiler 1983, J. Appl. Phys. 54, R1); the
    body counts as symmetric about the film, so that a face rises by half of the thickness.

    Parameters
    ----------
    step_nm : float
        Distance of probes, nm.
    glow : (float, float)
        What a flat face gives, per electron, and how much stronger than by the law edges are.
    """
    signal = 0.0
    for i in range(len(thickness)):
        y = origin[0] + i
        above, below = thickness[max(i - 1, 0)], thickness[min(i + 1, len(thickness) - 1)]
        first, last = _within(origin[1], thickness.shape[1], shifts, y, planes.shape[1])
        for j in range(first, last):
            x = j + shifts.row[y] + shifts.column[j] - origin[1]
            if _between(thickness[i], x) <= 0:
                continue
            along = _between(thickness[i], x + 1) - _between(thickness[i], x - 1)
            slope = np.hypot(along, _between(below, x) - _between(above, x)) / (4 * step_nm)
            value = glow[0] * (1 + glow[1] * (min(np.sqrt(1 + slope * slope), _STEEPEST) - 1))
            for z in (IN_ADF, IN_HAADF):
                signal += (value - planes[y, j, z]) ** 2 / max(value, planes[y, j, z], 1e-4)
                planes[y, j, z] = value
    return signal


@njit(cache=True, nogil=True)
def moved(outline: np.ndarray, origin: np.ndarray, shifts: Shifts, columns: int) -> tuple[np.ndarray, int]:
    """An outline (row, column) as probes that are off their places see it, to half a pixel; and its first column."""
    low = _within(origin[1], outline.shape[1], shifts, origin[0], columns)[0]
    high = low
    for i in range(len(outline)):
        first, last = _within(origin[1], outline.shape[1], shifts, origin[0] + i, columns)
        low, high = min(low, first), max(high, last)
    out = np.zeros((len(outline), max(high - low, 0)), np.bool_)
    for i in range(len(outline)):
        for j in range(low, high):
            k = int(np.floor(j + shifts.row[origin[0] + i] + shifts.column[j] - origin[1] + 0.5))
            out[i, j - low] = 0 <= k < outline.shape[1] and outline[i, k]
    return out, low


@njit(cache=True, nogil=True)
def _within(x0: int, width: int, shifts: Shifts, y: int, columns: int) -> tuple[int, int]:
    """The probes of row y, first to last + 1, that may see a crop that begins at column x0."""
    first = int(np.floor(x0 - shifts.row[y] - shifts.most))
    last = int(np.ceil(x0 + width - shifts.row[y] - shifts.least))
    return min(max(first, 0), columns), max(min(last, columns), 0)


@njit(cache=True, nogil=True)
def _between(row: np.ndarray, at: float) -> float:
    """Linear interpolation; 0 beyond the ends."""
    j = int(np.floor(at))
    left = row[j] if 0 <= j < len(row) else 0.0
    right = row[j + 1] if -1 <= j < len(row) - 1 else 0.0
    return float(left + (at - j) * (right - left))


@njit(cache=True, nogil=True)
def _look_up(table: np.ndarray, turn: float, height: float, out: np.ndarray) -> None:
    """Quantities between the entries of a table (orientation, thickness, quantity); beyond its ends, the last."""
    turn = min(max(turn, 0.0), table.shape[0] - 1.0)
    height = min(height, table.shape[1] - 1.0)
    o, b = min(int(turn), max(table.shape[0] - 2, 0)), min(int(height), table.shape[1] - 2)
    far = min(o + 1, table.shape[0] - 1)
    u, v = turn - o, height - b
    w = np.float32((1 - u) * (1 - v)), np.float32((1 - u) * v), np.float32(u * (1 - v)), np.float32(u * v)
    for q in range(QUANTITIES):
        out[q] = (
            w[0] * table[o, b, q] + w[1] * table[o, b + 1, q] + w[2] * table[far, b, q] + w[3] * table[far, b + 1, q]
        )


@njit(cache=True, nogil=True)
def _scatter(plane: np.ndarray, met: np.ndarray, share: float, diffuse: np.ndarray, by: int) -> float:
    """Apply one part to one probe; the squared signal per electron that it makes there."""
    direct = plane[DIRECT]
    scattered = direct * share
    passed = direct - scattered
    adf, haadf = scattered * diffuse[1] + passed * met[IN_ADF], scattered * diffuse[2] + passed * met[IN_HAADF]
    plane[DIRECT] = passed * (1 - met[TAKEN])
    plane[IN_BF] += scattered * diffuse[0] + passed * met[IN_BF]
    plane[IN_ADF] += adf
    plane[IN_HAADF] += haadf
    plane[by] += scattered
    plane[SQUARES] += passed * passed * met[SQUARES]
    plane[CUBES] += passed * passed * passed * met[CUBES]
    plane[ON_FILM] += passed * met[ON_FILM]
    plane[ON_CRYSTAL] += passed * met[ON_CRYSTAL]
    for g in range(PEAK, PEAK + GROUPS):
        plane[g] = max(plane[g], passed * met[g])
    lost = direct - plane[DIRECT]
    # a floor under the expected counts: without support, one electron would be a signal beyond all bounds
    return float(
        lost * lost / max(direct, 1e-4)
        + adf * adf / max(plane[IN_ADF], 1e-4)
        + haadf * haadf / max(plane[IN_HAADF], 1e-4)
    )
