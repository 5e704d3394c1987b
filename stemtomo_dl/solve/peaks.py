"""Maps of the potential, and their peaks."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from stemtomo_dl.solve.model import Symmetry


def potential(symmetry: Symmetry, hkl: np.ndarray, factors: np.ndarray, spacing: float) -> np.ndarray:
    """Map (a, b, c) of Σ F exp(−2πi h·x) over the whole cell from unique reflections.

    Parameters
    ----------
    symmetry : Symmetry
    hkl : (reflection, 3) int
        Unique reflections of the group.
    factors : (reflection,) c16
    spacing : float
        Å, largest between points.
    """
    lengths = np.array(symmetry.cell.parameters[:3])
    shape = tuple(fft.next_fast_len(int(np.ceil(n))) for n in lengths / spacing)
    grid = np.zeros(shape, complex)
    for rotation, shift in zip(symmetry.rotations, symmetry.shifts, strict=True):
        image = hkl @ rotation
        value = factors * np.exp(-2j * np.pi * (hkl @ shift))
        grid[tuple((image % shape).T)] = value
        grid[tuple((-image % shape).T)] = value.conj()
    return np.asarray(fft.fftn(grid).real / symmetry.cell.volume)


def find_peaks(
    symmetry: Symmetry, density: np.ndarray, most: int, apart: float, near: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Highest peaks of a map, one of each set of symmetry images, on special positions where they are near one.

    Parameters
    ----------
    symmetry : Symmetry
    density : (a, b, c) f8
    most : int
    apart : float
        Å; of peaks that are closer the higher one counts, and none is as close to the sites ``near`` (n, 3).

    Returns
    -------
    sites : (peak, 3) f8
        Cell edges, by a parabola through the neighbours along each edge.
    heights : (peak,) f8
    """
    top = np.argwhere((density == ndimage.maximum_filter(density, 3, mode="wrap")) & (density > 0))
    top = top[np.argsort(-density[tuple(top.T)])]
    sites: list[np.ndarray] = []
    heights: list[float] = []
    known = [] if near is None else list(near)
    for at in top[: 40 * most * max(1, len(symmetry.rotations))]:
        here = density[tuple(at)]
        place = at.astype(float)
        for axis in range(3):
            step = np.eye(3, dtype=int)[axis]
            low = density[tuple((at - step) % density.shape)]
            high = density[tuple((at + step) % density.shape)]
            curve = low - 2 * here + high
            place[axis] += 0.5 * (low - high) / curve if curve < 0 else 0
        site = symmetry.snap(place / density.shape)
        if all(symmetry.apart(site, other) > apart for other in [*known, *sites]):
            sites.append(site)
            heights.append(float(here))
            if len(sites) == most:
                break
    return np.array(sites).reshape(-1, 3), np.array(heights)
