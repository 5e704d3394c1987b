"""Things that turn in three dimensions on the page: their data and the elements that the script brings to life."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from stemtomo_dl.report.text import escape, json_for_script

_THOUSAND = 1000  # coordinates are whole thousandths: three digits are enough to draw


def rounded(values: np.ndarray) -> list[int]:
    """Coordinates or radii in thousandths of their unit, flat."""
    return [int(v) for v in np.rint(np.asarray(values) * _THOUSAND).astype(int).ravel()]


def cell_edges(axes: np.ndarray) -> np.ndarray:
    """Ends (12, 2, 3) of the edges of a cell whose axes are the columns of a (3, 3) array."""
    corners = np.array(list(product((0, 1), repeat=3)))
    edges = [(a, b) for a in corners for b in corners if (b - a).sum() == 1 and ((b - a) >= 0).all()]
    return np.array([[axes @ a, axes @ b] for a, b in edges])


def solid(data: dict[str, Any], alt: str) -> str:
    """A view that turns by hand.

    Parameters
    ----------
    data : dict
        ``unit``; ``axes``, lists [name, [x, y, z]], along which buttons look; ``groups`` of balls: name, colour,
        ``xyz`` flat and ``r``, one a ball or one for all; ``lines``, lists [colour, ends flat]; ``bonds``, lists
        [colour, ends flat], thick. All as `rounded` leaves them.
    alt : str
        What it shows, for those who cannot see it.
    """
    legend = "".join(
        f'<span><i style="background:{g["colour"]}"></i>{escape(g["name"])}</span>' for g in data["groups"]
    )
    looks = "".join(
        f'<button type="button" data-look="{i}">Along {escape(name)}</button>'
        for i, (name, _) in enumerate(data["axes"])
    )
    return (
        f'<div class="solid"><div class="controls">{looks}</div><canvas role="img" aria-label="{escape(alt)}"></canvas>'
        f'<p class="legend">{legend}</p><script type="application/json">{json_for_script(data)}</script></div>'
    )
