"""Reciprocal space drawn: layers and projections of spots or intensities over the nodes, and the view that turns."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemtomo_dl.crystal.predict import present
from stemtomo_dl.report.chart import Chart
from stemtomo_dl.report.crystals import Detail
from stemtomo_dl.report.solid import cell_edges, rounded

NAMES = ("h", "k", "l")
_SIDE = 340
_PERIOD = 6  # of every centring
_CLOSE_PX = 2.5  # nodes nearer than this are not drawn
_DOTS = 400  # spots a drawing: the strongest tell the lattice, more make the page heavy
_MEASURED = 600  # intensities of a particle's layer
_SHOWN = 700  # spots of the view that turns
_MERGED = 2500  # merged intensities of it, equivalents counted
_SIZES = (0.08, 0.2, 0.45)  # of the largest amplitude: where a dot becomes the next larger


def layer_name(axis: int) -> str:
    """The layer across an axis, as hk0."""
    return "".join("0" if i == axis else n for i, n in enumerate(NAMES))


def layer_chart(
    ub: np.ndarray, lattice: str, axis: int, parts: list[tuple[str, np.ndarray, np.ndarray]], *, all_layers: bool
) -> str:
    """Points of reciprocal space over the nodes of the plane that two of the axes span.

    Parameters
    ----------
    ub : (3, 3) array
        Columns a*, b*, c*, 1/Å.
    lattice : str
        Pearson's letters.
    axis : int
        0, 1, 2: the axis along which everything is projected.
    parts : list of (kind, indices (n, 3), amplitude (n,))
        Points to draw, larger with the amplitude; indices need not be whole.
    all_layers : bool
        Whether nodes of all layers are drawn, or those of the layer through the origin.
    """
    i, j = (k for k in range(3) if k != axis)
    flat = _flat(ub, i, j)
    shown = [(kind, real[:, [i, j]] @ flat, amplitude) for kind, real, amplitude in parts]
    reach = 1.04 * max([0.2, *(float(np.linalg.norm(xy, axis=1).max(initial=0)) for _, xy, _ in shown)])
    what = f"Projection along {'abc'[axis]}*" if all_layers else f"The layer {layer_name(axis)}"
    titles = (f"along {'abc'[i]}* (1/Å)", "across it (1/Å)")
    chart = Chart((_SIDE, _SIDE), (-reach, reach), (-reach, reach), titles, what)
    chart.add(_nodes(chart, flat, reach, _allowed(lattice, axis, i, j, all_layers)))
    for n, name in ((0, "abc"[i]), (1, "abc"[j])):
        x, y = 0.9 * reach * flat[n] / np.linalg.norm(flat[n])
        chart.add(
            f'<path class="line axis" d="M{chart.px(0):.1f} {chart.py(0):.1f}L{chart.px(x):.1f} {chart.py(y):.1f}"/>'
        )
        chart.add(f'<text class="axisname" x="{chart.px(x) + 4:.1f}" y="{chart.py(y) - 4:.1f}">{name}*</text>')
    for kind, xy, amplitude in shown:
        size = np.searchsorted(np.array(_SIZES) * max(float(amplitude.max(initial=0)), 1e-300), amplitude)
        for s in range(len(_SIZES) + 1):
            if (size == s).any():
                chart.dots(xy[size == s, 0], xy[size == s, 1], f"{kind} size{s}")
    return chart.svg(kind="section")


def _flat(ub: np.ndarray, i: int, j: int) -> np.ndarray:
    """Axes i and j as rows (2, 2) of a drawing whose x runs along the first."""
    u, v = ub[:, i], ub[:, j]
    along = u / np.linalg.norm(u)
    return np.array([[np.linalg.norm(u), 0.0], [v @ along, np.linalg.norm(v - (v @ along) * along)]])


def _allowed(lattice: str, axis: int, i: int, j: int, all_layers: bool) -> np.ndarray:
    """(6, 6) bool: which nodes the centring allows, by the remainders of two indices."""
    grid = np.stack(np.meshgrid(*[np.arange(_PERIOD)] * 3, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[present(grid, lattice) & (all_layers | (grid[:, axis] == 0))]
    out = np.zeros((_PERIOD, _PERIOD), bool)
    out[grid[:, i], grid[:, j]] = True
    return out


def _nodes(chart: Chart, flat: np.ndarray, reach: float, allowed: np.ndarray) -> str:
    """Rows of nodes as dotted lines: a row costs as much as two of its nodes."""
    scale = chart.px(1) - chart.px(0)
    if min(flat[0, 0], flat[1, 1]) * scale < _CLOSE_PX:
        return ""
    path: dict[float, list[str]] = {}
    most = int(reach / flat[1, 1])
    for k in range(-most, most + 1):
        rest = np.flatnonzero(allowed[:, k % _PERIOD])
        half = np.sqrt(max(reach**2 - (k * flat[1, 1]) ** 2, 0.0))
        if not len(rest):
            continue
        step = _PERIOD // len(rest)
        first, last = (-half - k * flat[1, 0]) / flat[0, 0], (half - k * flat[1, 0]) / flat[0, 0]
        start = int(np.ceil((first - rest[0]) / step)) * step + int(rest[0])
        if start > last:
            continue
        x, y = np.array([start, k]) @ flat
        length = (int((last - start) // step) * step * flat[0, 0]) * scale
        path.setdefault(step * flat[0, 0] * scale, []).append(
            f"M{chart.px(x):.1f} {chart.py(y):.1f}h{length + 0.01:.2f}"
        )
    return "".join(
        f'<path class="nodes" stroke-dasharray="0 {gap:.4f}" d="{"".join(rows)}"/>' for gap, rows in path.items()
    )


def particle_layers(detail: Detail, *, all_layers: bool) -> list[str]:
    """Drawings of one particle along its three axes: the layers through the origin, or all of them.

    In blue its own intensities, Friedel mates being one, in the layer once they were integrated, else its indexed
    spots; in vermilion spots that are off the lattice.
    """
    crystal, out = detail.crystals[0], []
    amplitude = np.sqrt(np.maximum(detail.spots.intensity, 0))
    measured = None if all_layers else _measured(detail)
    for axis in (2, 1, 0):
        inside = all_layers | (np.where(detail.fits, np.abs(detail.hkl[:, axis]), np.abs(detail.real[:, axis])) < 0.15)
        on, off = (_strongest(w, amplitude, _DOTS) for w in (detail.fits & inside, ~detail.fits & inside))
        blue = (detail.real[on], amplitude[on]) if measured is None else _of_layer(*measured, axis, _MEASURED)
        parts = [("red", detail.real[off], amplitude[off]), ("blue", *blue)]
        out.append(layer_chart(crystal.ub, crystal.lattice, axis, parts, all_layers=all_layers))
    return out


def _measured(detail: Detail) -> tuple[np.ndarray, np.ndarray] | None:
    """Indices (n, 3), Friedel mates among them, and mean intensities (n,); None where nothing was integrated."""
    r = detail.reflections
    good = None if r is None else np.isfinite(r.intensity) & (r.sigma > 0) & r.hkl.any(1)
    if r is None or good is None or not good.any():
        return None
    hkl, weight = np.concatenate([r.hkl[good], -r.hkl[good]]), np.tile(r.sigma[good] ** -2.0, 2)
    unique, which = np.unique(hkl, axis=0, return_inverse=True)
    total = np.bincount(which.ravel(), weight * np.tile(r.intensity[good], 2))
    return unique, total / np.bincount(which.ravel(), weight)


def _of_layer(hkl: np.ndarray, intensity: np.ndarray, axis: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and amplitudes of reflections (n, 3) whose index along an axis is 0, up to ``most``: the strongest.

    Intensities below 0 are amplitudes of 0.
    """
    inside = hkl[:, axis] == 0
    at, amplitude = hkl[inside].astype(float), np.sqrt(np.maximum(intensity[inside], 0))
    keep = _strongest(np.ones(len(at), bool), amplitude, most)
    return at[keep], amplitude[keep]


def _strongest(which: np.ndarray, amplitude: np.ndarray, most: int) -> np.ndarray:
    """Places of up to ``most`` that are True, the strongest."""
    at = np.flatnonzero(which)
    return np.sort(at[np.argsort(-amplitude[at], kind="stable")[:most]])


def thinned(detail: Detail) -> bool:
    """Whether drawings leave out spots or intensities."""
    measured = _measured(detail)
    many = 0 if measured is None else int((measured[0] == 0).sum(0).max())
    return bool(detail.fits.sum() > _DOTS or (~detail.fits).sum() > _DOTS or many > _MEASURED)


def lattice_view(detail: Detail) -> dict[str, Any]:
    """The spots in three dimensions with the reciprocal cell, for the page's script; see `solid.solid`."""
    ub, amplitude = detail.crystals[0].ub, np.sqrt(np.maximum(detail.spots.intensity, 0))
    points, groups = detail.real @ ub.T, []
    for name, colour, which in (("on the lattice", "#0072b2", detail.fits), ("off it", "#d55e00", ~detail.fits)):
        rows = _strongest(which, amplitude, _SHOWN)
        groups.append(_balls(name, colour, points[rows], amplitude[rows] / _largest(amplitude)))
    return _view(ub, groups, float(np.linalg.norm(points, axis=1).max(initial=0)))


def _largest(amplitude: np.ndarray) -> float:
    return max(float(amplitude.max(initial=0)), 1e-300)


def _balls(name: str, colour: str, points: np.ndarray, share: np.ndarray) -> dict[str, Any]:
    """Points (n, 3), 1/Å, as balls that grow with their share of the largest amplitude."""
    return {"name": name, "colour": colour, "xyz": rounded(points), "r": rounded(0.009 + 0.026 * share)}


def _view(ub: np.ndarray, groups: list[dict[str, Any]], reach: float) -> dict[str, Any]:
    """Groups of balls with the reciprocal cell and axes that reach more than half as far, 1/Å."""
    times = np.maximum(0.6 * reach // np.linalg.norm(ub, axis=0), 1).astype(int)
    beam = {"name": "beam", "colour": "#1d2125", "xyz": [0, 0, 0], "r": rounded(np.array([0.02]))}
    return {
        "unit": "1/Å",
        "axes": [[f"{n}*", rounded(ub[:, i] * times[i])] for i, n in enumerate("abc")],
        "lines": [["#8b949c", rounded(cell_edges(ub))]],
        "groups": [*groups, beam],
    }


def merged_layers(ub: np.ndarray, lattice: str, hkl: np.ndarray, intensity: np.ndarray) -> list[str]:
    """Layers hk0, h0l and 0kl of intensities of reflections (n, 3) and all their equivalents."""
    out = []
    for axis in (2, 1, 0):
        parts = [("blue", *_of_layer(hkl, intensity, axis, 4 * _DOTS))]
        out.append(layer_chart(ub, lattice, axis, parts, all_layers=False))
    return out


def merged_view(ub: np.ndarray, hkl: np.ndarray, intensity: np.ndarray) -> dict[str, Any]:
    """The strongest of the same intensities in three dimensions, for the page's script; see `solid.solid`."""
    amplitude = np.sqrt(np.maximum(intensity, 0))
    rows = _strongest(np.asarray(hkl.any(1)), amplitude, _MERGED)
    reach = float(np.linalg.norm(hkl @ ub.T, axis=1).max(initial=0))
    name = "merged" if len(rows) == len(hkl) else "merged, the strongest"
    return _view(ub, [_balls(name, "#0072b2", hkl[rows] @ ub.T, amplitude[rows] / _largest(amplitude))], reach)
