"""The potential of a solved structure: its surface in three dimensions, a slice through it, and its projection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from stemtomo_dl.report import raster
from stemtomo_dl.report.atoms import Atoms, colour_of, structure_view
from stemtomo_dl.report.chart import Chart
from stemtomo_dl.report.solid import cell_edges, rounded, solid
from stemtomo_dl.report.text import escape, fixed

_SIDE = 460
_IN_PLANE = 0.4  # Å: atoms nearer to the plane of a slice are marked
_SIGMAS = 3.0  # the potential's surface lies so many standard deviations above its mean
_POINTS = 4000  # of the surface at most
_POINT, _ATOM = 0.035, 0.16  # radii, Å


def potential_figures(path: Path, atoms: Atoms) -> str:
    """The potential's surface, a slice through the heaviest atom, and the projection, along the shortest axis.

    Parameters
    ----------
    path : Path
        The map of one cell, CCP4.
    atoms : Atoms
    """
    grid = gemmi.read_ccp4_map(str(path))
    grid.setup(0.0)
    density = np.asarray(grid.grid.array)
    view = solid(potential_view(density, atoms), "Surface of the potential in the unit cell, with the atoms")
    axis = int(np.argmin(atoms.cell.parameters[:3]))
    heavy = int(np.argmax([gemmi.Element(e).atomic_number for e in atoms.elements]))
    level = float(atoms.fract[heavy, axis] % 1)
    layers = np.moveaxis(density, axis, 2)
    plane = layers[:, :, round(level * layers.shape[2]) % layers.shape[2]]
    off = (atoms.full[:, axis] - level + 0.5) % 1 - 0.5
    height = abs(off) * atoms.cell.parameters[axis]
    name = "abc"[axis]
    cut = _map(atoms, axis, plane, height < _IN_PLANE, f"Slice of the potential across {name}")
    whole = _map(atoms, axis, layers.mean(2), np.ones(len(off), bool), f"Potential projected along {name}")
    return (
        f"<figure>{view}<figcaption>Where the potential is {_SIGMAS:.0f} standard deviations above its mean, as "
        "measured amplitudes and the model's phases have it. Drag to turn it.</figcaption></figure>"
        f"<figure>{cut}<figcaption>Potential at {name} = {fixed(level, 3)}, through {escape(atoms.labels[heavy])}; "
        f"rings, coloured by element, are atoms of the model within {_IN_PLANE} Å.</figcaption></figure>"
        f"<figure>{whole}<figcaption>Potential, mean along {name}, with all atoms of the model.</figcaption></figure>"
    )


def potential_view(density: np.ndarray, atoms: Atoms) -> dict[str, Any]:
    """Points of the potential's surface in one cell, with small atoms, for the page's script; see `solid.solid`."""
    points = surface(density, float(density.mean() + _SIGMAS * density.std()))
    some = points[np.unique(np.linspace(0, len(points) - 1, min(len(points), _POINTS)).round().astype(int))]
    view = structure_view(atoms)
    for group in view["groups"]:
        group["r"] = rounded(np.array([_ATOM]))
    cloud = {"name": "potential", "colour": "#56b4e9", "r": rounded(np.array([_POINT]))}
    cloud["xyz"] = rounded(some @ atoms.axes.T)
    lines = [["#8b949c", rounded(cell_edges(atoms.axes))]]
    return {**view, "bonds": [], "lines": lines, "groups": [*view["groups"], cloud]}


def surface(density: np.ndarray, level: float) -> np.ndarray:
    """Where the edges of a periodic grid cross a level.

    Parameters
    ----------
    density : (u, v, w) array
        One cell.
    level : float

    Returns
    -------
    (n, 3) array
        Fractional coordinates, from 0 to 1, linear between neighbours.
    """
    found = []
    for axis in range(3):
        after = np.roll(density, -1, axis)
        at = np.argwhere((density > level) != (after > level))
        here, there = density[tuple(at.T)], after[tuple(at.T)]
        place = at.astype(float)
        place[:, axis] += (level - here) / (there - here)
        found.append(place / density.shape)
    return np.concatenate(found)


def _map(atoms: Atoms, axis: int, values: np.ndarray, marked: np.ndarray, alt: str) -> str:
    """Potential (u, v) over one cell, dark where it is high; zero and below are white."""
    i, j = (k for k in range(3) if k != axis)
    u, v = atoms.axes[:, i], atoms.axes[:, j]
    along = u / np.linalg.norm(u)
    flat = np.array([[np.linalg.norm(u), 0.0], [v @ along, np.linalg.norm(v - (v @ along) * along)]])
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) @ flat
    size = float(np.ptp(corners, axis=0).max()) + 0.8
    low = (corners.min(0) + corners.max(0) - size) / 2
    chart = Chart(
        (_SIDE, _SIDE),
        (low[0], low[0] + size),
        (low[1], low[1] + size),
        (f"along {'abc'[i]} (Å)", "across it (Å)"),
        alt,
    )
    dark = 255 - raster.grey(values.T, (0.0, max(float(np.percentile(values, 99.8)), 1e-9)))
    origin = np.array([chart.px(0), chart.py(0)])
    ends = [np.array([chart.px(p[0]), chart.py(p[1])]) - origin for p in flat]
    origin = origin - 0.5 * (ends[0] / values.shape[0] + ends[1] / values.shape[1])  # points are the pixels' centres
    matrix = " ".join(f"{n:.3f}" for n in (*ends[0], *ends[1], *origin))
    chart.add(
        f'<image href="{raster.data_uri(dark, 80)}" width="1" height="1" preserveAspectRatio="none" '
        f'transform="matrix({matrix})"/>'
    )
    element = dict(zip(atoms.labels, atoms.elements, strict=True))
    for at, label in zip((atoms.full[marked] % 1)[:, [i, j]] @ flat, np.array(atoms.of)[marked].tolist(), strict=True):
        x, y = chart.px(at[0]), chart.py(at[1])
        place = f'class="atom" cx="{x:.1f}" cy="{y:.1f}" r="6" style="stroke:{colour_of(element[label])}"'
        chart.add(f"<circle {place}><title>{escape(label)}</title></circle>")
    return chart.svg()
