"""Counts: electrons drawn one by one, or expected patterns drawn pixel by pixel. Both are exactly Poisson.

An electron picks its place in the illumination disk, then meets the film and the particles in the order of the
beam, and each may take it: diffusely, or into a reflection. Whatever takes it first decides where it lands.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from stemtomo_dl.simulate.cone import cell_of

EVENT_NS = 150.0  # what an electron costs, measured
PIXEL_NS = 35.0  # what a pixel costs where expected patterns are rendered, measured
DIRECT_POINTS, BRAGG_POINTS = 200.0, 30.0  # per px², that fill a rendered disk: to 0.4 and 1 % of its height
FULL = 65535
DIRECT, DIFFUSE, BRAGG = 0, 1, 2


class Mixture(NamedTuple):
    """What decides the fate of electrons at one tilt; particles in the order in which the beam meets them.

    Reflections of all particles lie one after another: those of particle p at ``first[p] … first[p+1] − 1``.
    Cumulative shares of particle p for thickness step b and cell c start at
    ``table[p] + (b·cells + c)·(first[p+1] − first[p])``.
    """

    center: np.ndarray  # (2,) px (column, row)
    disk_px: float
    rings: int  # of cells in the illumination cone
    film: float  # share that the film takes
    radii: np.ndarray  # (material, quantile) px, of diffuse scattering; material 0 is the film
    material: np.ndarray  # (particle,)
    mean_free_path: np.ndarray  # (particle,) nm
    steps: np.ndarray  # (particle,) of the ladder of thicknesses
    step_nm: np.ndarray  # (particle,)
    first: np.ndarray  # (particle + 1,)
    table: np.ndarray  # (particle,)
    shares: np.ndarray  # f4, all tables
    place: np.ndarray  # (reflection, 2) px (column, row) of the disks' centres


class Stack(NamedTuple):
    """What one probe meets, in the order of the beam; only the first entries are in use."""

    particle: np.ndarray
    diffuse: np.ndarray  # share that is scattered diffusely
    below: np.ndarray  # step of the ladder below its thickness
    above: np.ndarray  # weight of the next step


def dense_is_cheaper(electrons: float, detector: tuple[int, int]) -> bool:
    """Whether rendering a pattern costs less than drawing its electrons."""
    return electrons * EVENT_NS > detector[0] * detector[1] * PIXEL_NS


@njit(cache=True, nogil=True)
def draw_electrons(
    rng: np.random.Generator, electrons: float, mix: Mixture, thickness: np.ndarray, out: np.ndarray
) -> None:
    """Fill one scan row of patterns by drawing every electron.

    Parameters
    ----------
    rng : Generator
        The row's own, so that the counts are the same whoever draws the row.
    electrons : float
        Mean number per pattern.
    thickness : (particle, x) array
        nm.
    out : (x, qy, qx) uint16 array
        Zeros; receives the counts.
    """
    stack = _room(len(thickness))
    rows, columns = out.shape[1:]
    for x in range(thickness.shape[1]):
        met = _meet(thickness[:, x], mix, stack)
        for _ in range(rng.poisson(electrons)):
            rho, turn, u = np.sqrt(rng.random()), rng.random(), rng.random()
            kind, radius, reflection = _fate(u, mix, stack, met, cell_of(rho, turn, mix.rings))
            if kind != DIFFUSE:
                radius = rho * mix.disk_px
            column, row = mix.center[0], mix.center[1]
            if kind == BRAGG:
                column, row = mix.place[reflection, 0], mix.place[reflection, 1]
            i = int(np.floor(row + radius * np.sin(2 * np.pi * turn) + 0.5))
            j = int(np.floor(column + radius * np.cos(2 * np.pi * turn) + 0.5))
            if 0 <= i < rows and 0 <= j < columns and out[x, i, j] < FULL:
                out[x, i, j] += 1


@njit(cache=True, nogil=True)
def draw_patterns(
    rng: np.random.Generator,
    electrons: float,
    mix: Mixture,
    thickness: np.ndarray,
    templates: np.ndarray,
    direct: np.ndarray,
    bragg: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill one scan row of patterns by rendering what is expected and drawing every pixel; as `draw_electrons`.

    Parameters
    ----------
    templates : (material, qy, qx) array
        Where diffusely scattered electrons land.
    direct, bragg : (cell, point, 2) arrays
        Places that fill every cell of the direct beam's disk and of any other, px (column, row) from its centre.
    """
    stack = _room(len(thickness))
    for x in range(thickness.shape[1]):
        met = _meet(thickness[:, x], mix, stack)
        mean = expected(electrons, mix, stack, met, templates, direct, bragg)
        for i in range(mean.shape[0]):
            for j in range(mean.shape[1]):
                out[x, i, j] = min(rng.poisson(mean[i, j]), FULL)


@njit(cache=True, nogil=True)
def expected(
    electrons: float,
    mix: Mixture,
    stack: Stack,
    met: int,
    templates: np.ndarray,
    direct: np.ndarray,
    bragg: np.ndarray,
) -> np.ndarray:
    """Mean pattern (qy, qx) behind what a probe meets."""
    cells = len(direct)
    image = electrons * mix.film * templates[0]
    diffuse = np.zeros(met)
    for c in range(cells):
        left = electrons * (1 - mix.film) / cells
        for k in range(met):
            p = stack.particle[k]
            diffuse[k] += left * stack.diffuse[k]
            left *= 1 - stack.diffuse[k]
            count, taken = mix.first[p + 1] - mix.first[p], 0.0
            lower = mix.table[p] + (stack.below[k] * cells + c) * count
            upper = lower + cells * count
            for r in range(count):
                total = (1 - stack.above[k]) * mix.shares[lower + r] + stack.above[k] * mix.shares[upper + r]
                _splat(image, mix.place[mix.first[p] + r], bragg[c], mix.disk_px, cells, left * (total - taken))
                taken = total
            left *= 1 - taken
        _splat(image, mix.center, direct[c], mix.disk_px, cells, left)
    for k in range(met):
        image += diffuse[k] * templates[mix.material[stack.particle[k]]]
    return image


@njit(cache=True, nogil=True)
def _room(particles: int) -> Stack:
    whole, real = np.zeros((2, particles), np.int64), np.zeros((2, particles))
    return Stack(whole[0], real[0], whole[1], real[1])


@njit(cache=True, nogil=True)
def _meet(thickness: np.ndarray, mix: Mixture, stack: Stack) -> int:
    """List what a probe meets; how many."""
    met = 0
    for p in range(len(thickness)):
        if thickness[p] <= 0:
            continue
        exact = thickness[p] / mix.step_nm[p]
        stack.particle[met] = p
        stack.diffuse[met] = 1 - np.exp(-thickness[p] / mix.mean_free_path[p])
        stack.below[met] = min(int(exact), mix.steps[p] - 1)
        stack.above[met] = exact - stack.below[met]
        met += 1
    return met


@njit(cache=True, nogil=True)
def _fate(u: float, mix: Mixture, stack: Stack, met: int, cell: int) -> tuple[int, float, int]:
    """What takes an electron: DIRECT, DIFFUSE with its radius in px, or BRAGG with its reflection.

    One uniform number decides everything: each choice uses it up to its share and stretches what is left.
    """
    if u < mix.film:
        return DIFFUSE, _quantile(u / mix.film, mix.radii[0]), 0
    u = (u - mix.film) / (1 - mix.film)
    cells = 3 * mix.rings * mix.rings
    for k in range(met):
        p = stack.particle[k]
        if u < stack.diffuse[k]:
            return DIFFUSE, _quantile(u / stack.diffuse[k], mix.radii[mix.material[p]]), 0
        u = (u - stack.diffuse[k]) / (1 - stack.diffuse[k])
        below, count = stack.below[k], mix.first[p + 1] - mix.first[p]
        if u < stack.above[k]:
            below, u = below + 1, u / stack.above[k]
        else:
            u = (u - stack.above[k]) / (1 - stack.above[k])
        if count > 0:
            start = mix.table[p] + (below * cells + cell) * count
            total = mix.shares[start + count - 1]
            if u < total:
                found = np.searchsorted(mix.shares[start : start + count], np.float32(u), side="right")
                return BRAGG, 0.0, mix.first[p] + min(found, count - 1)
            u = (u - total) / (1 - total)
    return DIRECT, 0.0, 0


@njit(cache=True, nogil=True)
def _quantile(u: float, table: np.ndarray) -> float:
    at = u * (len(table) - 1)
    i = min(int(at), len(table) - 2)
    return float(table[i] + (at - i) * (table[i + 1] - table[i]))


@njit(cache=True, nogil=True)
def _splat(
    image: np.ndarray, center: np.ndarray, points: np.ndarray, disk_px: float, cells: int, amount: float
) -> None:
    """Add an amount, evenly over a cell of a disk; every point is a square of the area that it stands for."""
    if amount < 1e-7:
        return
    side = np.sqrt(np.pi * disk_px * disk_px / (cells * len(points)))
    for n in range(len(points)):
        x, y = center[0] + points[n, 0] + 0.5, center[1] + points[n, 1] + 0.5
        j, i = int(np.floor(x + side / 2)), int(np.floor(y + side / 2))
        # the share of the square that lies beyond the pixel border it may straddle
        right, down = min(1.0, (x + side / 2 - j) / side), min(1.0, (y + side / 2 - i) / side)
        for a in range(2):
            for b in range(2):
                weight = (down if a == 0 else 1 - down) * (right if b == 0 else 1 - right)
                if weight > 0 and 0 <= i - a < image.shape[0] and 0 <= j - b < image.shape[1]:
                    image[i - a, j - b] += amount / len(points) * weight
