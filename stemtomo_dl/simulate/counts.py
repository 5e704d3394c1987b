"""Counts, electron by electron: exactly Poisson, whatever the camera makes of them afterwards.

An electron picks its place in the illumination disk, then meets the film and the particles in the order of the
beam, and each may take it: diffusely, or into a reflection. Whatever takes it first decides where it lands;
where scattering is sequential, what a reflection took goes on to the next particle. On the detector the place is
bent by the projector's ellipse, moved by descan and spread by the camera.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from stemtomo_dl.simulate.again import NOTHING, Again, scatter_again
from stemtomo_dl.simulate.cone import cell_at
from stemtomo_dl.simulate.detector import Sensor, read_out


class Mixture(NamedTuple):
    """What decides the fate of electrons at one tilt; particles in the order in which the beam meets them.

    Reflections of all particles lie one after another: those of particle p at ``first[p] … first[p+1] − 1``.
    Cumulative shares of particle p for thickness step b and cell c start at
    ``table[p] + (b·cells + c)·(first[p+1] − first[p])``.
    """

    center: np.ndarray  # (2,) px (column, row)
    ellipse: np.ndarray  # (2, 2) what the projector does to vectors (column, row)
    disk_px: float
    rings: int  # of cells in the illumination cone
    sequential: bool  # whether an electron that a reflection took may be scattered again by the next particle
    radii: np.ndarray  # (material, quantile) px, of diffuse scattering; material 0 is the film
    material: np.ndarray  # (particle,)
    mean_free_path: np.ndarray  # (particle,) nm
    steps: np.ndarray  # (particle,) of the ladder of thicknesses
    step_nm: np.ndarray  # (particle,)
    first: np.ndarray  # (particle + 1,)
    table: np.ndarray  # (particle,)
    shares: np.ndarray  # f4, all tables
    place: np.ndarray  # (reflection, 2) px (column, row) of the disks' centres, the ellipse included
    again: Again = NOTHING  # reflections of beams that a particle above has deflected


class Row(NamedTuple):
    """What the probes of one scan row meet, and where the beam is."""

    thickness: np.ndarray  # (particle, x) nm
    film: np.ndarray  # (x,) share that the film takes
    shift: np.ndarray  # (x, 2) px (column, row), of everything on the detector: descan


class Stack(NamedTuple):
    """What one probe meets, in the order of the beam; only the first entries are in use."""

    particle: np.ndarray
    diffuse: np.ndarray  # share that is scattered diffusely
    below: np.ndarray  # step of the ladder below its thickness
    above: np.ndarray  # weight of the next step


@njit(cache=True, nogil=True)
def draw_electrons(
    rng: np.random.Generator, electrons: float, mix: Mixture, row: Row, sensor: Sensor, out: np.ndarray
) -> None:
    """Fill one scan row of patterns by drawing every electron.

    Parameters
    ----------
    rng : Generator
        The row's own, so that the counts are the same whoever draws the row.
    electrons : float
        Mean number per pattern.
    out : (x, qy, qx) array of whole numbers
        Receives the counts.
    """
    stack = room(len(row.thickness))
    pattern = np.zeros(out.shape[1:], np.uint32)
    for x in range(len(out)):
        pattern[:] = 0
        met = meet(row.thickness[:, x], mix, stack)
        scatter(rng, electrons, mix, stack, met, row.film[x], row.shift[x], sensor, pattern)
        read_out(rng, pattern, sensor, out[x])


@njit(cache=True, nogil=True)
def scatter(
    rng: np.random.Generator,
    electrons: float,
    mix: Mixture,
    stack: Stack,
    met: int,
    film: float,
    shift: np.ndarray,
    sensor: Sensor,
    pattern: np.ndarray,
) -> None:
    """Add the electrons of one probe to a pattern (qy, qx)."""
    rows, columns = pattern.shape
    spread = sensor.core > 0 or sensor.tail_share > 0
    e00, e01, e10, e11 = mix.ellipse[0, 0], mix.ellipse[0, 1], mix.ellipse[1, 0], mix.ellipse[1, 1]
    for _ in range(rng.poisson(electrons)):
        px, py, rho2 = 1.0, 1.0, 2.0
        while rho2 >= 1:  # a place in the unit disk: cheaper than a radius and an angle
            px, py = 2 * rng.random() - 1, 2 * rng.random() - 1
            rho2 = px * px + py * py
        u, radius, column, row = rng.random(), -1.0, mix.center[0], mix.center[1]
        if u < film:
            radius = _quantile(u / film, mix.radii[0])
        elif met > 0:
            radius, column, row = _fate(rng, (u - film) / (1 - film), px, py, mix, stack, met)
            while radius >= 0:
                # What has come through upper crystals is not even over the cone; diffuse scattering forgets that.
                px, py = 2 * rng.random() - 1, 2 * rng.random() - 1
                rho2 = px * px + py * py
                if 0 < rho2 < 1:
                    break
        stretch = mix.disk_px if radius < 0 else radius / np.sqrt(rho2)
        dx, dy = stretch * px, stretch * py
        column += e00 * dx + e01 * dy + shift[0]
        row += e10 * dx + e11 * dy + shift[1]
        if spread:
            sigma = sensor.tail if rng.random() < sensor.tail_share else sensor.core
            column += sigma * rng.standard_normal()
            row += sigma * rng.standard_normal()
        i, j = int(np.floor(row + 0.5)), int(np.floor(column + 0.5))
        if 0 <= i < rows and 0 <= j < columns:
            i, j = sensor.row_at[i], sensor.column_at[j]
            if i >= 0 and j >= 0:
                pattern[i, j] += 1


@njit(cache=True, nogil=True)
def room(particles: int) -> Stack:
    """An empty stack for so many particles."""
    whole, real = np.zeros((2, particles), np.int64), np.zeros((2, particles))
    return Stack(whole[0], real[0], whole[1], real[1])


@njit(cache=True, nogil=True)
def meet(thickness: np.ndarray, mix: Mixture, stack: Stack) -> int:
    """List what a probe meets, given the thickness (particle,) of each in nm; how many."""
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
def _fate(
    rng: np.random.Generator, u: float, px: float, py: float, mix: Mixture, stack: Stack, met: int
) -> tuple[float, float, float]:
    """What particles do to an electron: its radius in px if diffuse, else −1, about a place (column, row).

    One uniform number u decides everything: each choice uses it up to its share and stretches what is left.
    """
    column, row, deflected = mix.center[0], mix.center[1], False
    cell, cells = cell_at(px, py, mix.rings), 3 * mix.rings * mix.rings
    for k in range(met):
        p = stack.particle[k]
        if u < stack.diffuse[k]:
            return _quantile(u / stack.diffuse[k], mix.radii[mix.material[p]]), column, row
        u = (u - stack.diffuse[k]) / (1 - stack.diffuse[k])
        if deflected:
            x, y, back = column - mix.center[0], row - mix.center[1], mix.again.to_wave
            kx, ky = back[0, 0] * x + back[0, 1] * y, back[1, 0] * x + back[1, 1] * y
            kx, ky = kx + mix.again.cone * px, ky + mix.again.cone * py
            thickness = (stack.below[k] + stack.above[k]) * mix.step_nm[p]
            reflection, u = scatter_again(rng, u, kx, ky, thickness, p, mix.again)
            if reflection >= 0:
                dx, dy = _on_detector(mix.again.g[reflection], back)
                column, row, u = column + dx, row + dy, rng.random()
            continue
        below, count = stack.below[k], mix.first[p + 1] - mix.first[p]
        if u < stack.above[k]:
            below, u = below + 1, u / stack.above[k]
        else:
            u = (u - stack.above[k]) / (1 - stack.above[k])
        if count == 0:
            continue
        start = mix.table[p] + (below * cells + cell) * count
        total = mix.shares[start + count - 1]
        if u >= total:
            u = (u - total) / (1 - total)
            continue
        reflection = mix.first[p] + _find(mix.shares, start, count, u)
        column += mix.place[reflection, 0] - mix.center[0]
        row += mix.place[reflection, 1] - mix.center[1]
        if not mix.sequential:
            return -1.0, column, row
        deflected = True
        u = rng.random()  # a fresh one: a weak reflection's share leaves too few digits of the old
    return -1.0, column, row


@njit(cache=True, nogil=True)
def _on_detector(g: np.ndarray, to_wave: np.ndarray) -> tuple[float, float]:
    """What moves the beam on the detector, px (column, row), if its transverse wave vector gains g's."""
    area = to_wave[0, 0] * to_wave[1, 1] - to_wave[0, 1] * to_wave[1, 0]
    return (to_wave[1, 1] * g[0] - to_wave[0, 1] * g[1]) / area, (to_wave[0, 0] * g[1] - to_wave[1, 0] * g[0]) / area


@njit(cache=True, nogil=True)
def _find(shares: np.ndarray, start: int, count: int, u: float) -> int:
    """The first of ``count`` cumulative shares from ``start`` on that is above u; the last one is."""
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) >> 1
        if u < shares[start + middle]:
            high = middle
        else:
            low = middle + 1
    return low


@njit(cache=True, nogil=True)
def _quantile(u: float, table: np.ndarray) -> float:
    at = u * (len(table) - 1)
    i = min(int(at), len(table) - 2)
    return float(table[i] + (at - i) * (table[i + 1] - table[i]))
