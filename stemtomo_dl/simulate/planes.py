"""What virtual detectors expect at every probe, per electron: the support first, then particle by particle.

Planes have the numbers of the library's quantities: sums over bf, adf and haadf, the sum of squares over the dark
field, … Plane DIRECT holds what passes everything unscattered. ON_FILM_SHARE and ON_CRYSTAL_SHARE, after them, say
what film and crystals scatter diffusely. The last axis of the array is the plane, so that a probe lies together.
"""

from __future__ import annotations

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

DIRECT = TAKEN
BY_FILM, BY_CRYSTAL = QUANTITIES, QUANTITIES + 1
PLANES = QUANTITIES + 2


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
def add_particle(
    planes: np.ndarray,
    thickness: np.ndarray,
    origin: np.ndarray,
    at: np.ndarray,
    row_shift: np.ndarray,
    rocking: np.ndarray,
    table: np.ndarray,
    step_nm: float,
    mean_free_path: float,
    diffuse: np.ndarray,
) -> tuple[float, float]:
    """Let a particle take from the direct beam and give to the detectors.

    Parameters
    ----------
    planes : (y, x, plane) array
    thickness : (row, column) array
        nm; its first pixel lies at ``origin`` (row, column).
    at, rocking
        As `ImageSample` has them, of one particle.
    row_shift : (y,) array
        px by which a scan row is taken too far right.
    table : (orientation, thickness, quantity) array
        Of the library, in steps of ``step_nm``.
    mean_free_path : float
        nm.
    diffuse : (3,) array
        Share of diffuse scattering in bf, adf and haadf.

    Returns
    -------
    signal : float
        The squared signal per electron of a probe.
    dark : float
        What its reflections send to the dark field, over all probes.
    """
    height, width = thickness.shape
    met = np.zeros(QUANTITIES, np.float32)
    signal = dark = 0.0
    for i in range(height):
        y, shift = origin[0] + i, row_shift[origin[0] + i]
        first = max(int(np.floor(-shift)), -origin[1])
        last = min(int(np.ceil(width - shift)), planes.shape[1] - origin[1])
        for j in range(first, last):
            t = _between(thickness[i], j + shift)
            if t <= 0:
                continue
            dx, dy = origin[1] + j + shift - at[0], y - at[1]
            turn = rocking[0] + rocking[1] * dx + rocking[2] * dy + rocking[3] * (dx * dx + dy * dy)
            _look_up(table, turn, t / step_nm, met)
            share = 1 - np.exp(-t / mean_free_path)
            dark += planes[y, origin[1] + j, DIRECT] * (1 - share) * (met[IN_ADF] + met[IN_HAADF])
            signal += _scatter(planes[y, origin[1] + j], met, share, diffuse)
    return signal, dark


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
def _scatter(plane: np.ndarray, met: np.ndarray, share: float, diffuse: np.ndarray) -> float:
    """Apply one particle to one probe; the squared signal per electron that it makes there."""
    direct = plane[DIRECT]
    scattered = direct * share
    passed = direct - scattered
    adf, haadf = scattered * diffuse[1] + passed * met[IN_ADF], scattered * diffuse[2] + passed * met[IN_HAADF]
    plane[DIRECT] = passed * (1 - met[TAKEN])
    plane[IN_BF] += scattered * diffuse[0] + passed * met[IN_BF]
    plane[IN_ADF] += adf
    plane[IN_HAADF] += haadf
    plane[BY_CRYSTAL] += scattered
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
