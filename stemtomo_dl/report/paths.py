"""Paths of the particles over the tilts: where they were seen, over where the stage's rotation puts them."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.geometry import field_centre, rotate_in_plane
from stemtomo_dl.records import SOURCES
from stemtomo_dl.report.chart import Chart, span
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.text import TRACK_COLOURS

_POINTS = 12_000  # of all curves and of all dots: more cannot be told apart and make the page heavy


def path_charts(facts: Facts) -> tuple[str, str]:
    """Distance across and along the tilt axis against the tilt angle, the field's drift taken out.

    Without drift a particle on a rigid stage moves on a sine across the axis and not at all along it, so
    departures are plain to see.
    """
    t = facts.tracks
    origin = field_centre(facts.masks.shape) + t.drift_px
    predicted = rotate_in_plane(facts.predicted_px - origin, -facts.axis_deg)
    seen = rotate_in_plane(np.stack([t.x_px, t.y_px], -1) - origin[t.tilt], -facts.axis_deg)
    across = _chart(facts, predicted[..., 1], seen[:, 1], "across the tilt axis (px)")
    return across, _chart(facts, predicted[..., 0], seen[:, 0], "along the tilt axis (px)")


def thinned(facts: Facts) -> bool:
    """Whether the charts leave out dots and corners of curves."""
    return max(len(facts.tracks.track), facts.tracks.states.size) > _POINTS


def _chart(facts: Facts, predicted: np.ndarray, seen: np.ndarray, axis: str) -> str:
    """Curves (particle, tilt) under dots (sighting)."""
    t = facts.tracks
    chart = Chart(
        (480, 440),
        facts.angles,
        span(np.append(predicted.ravel(), seen), 4.0),
        ("tilt angle α (°)", axis),
        f"Paths of the particles, {axis}: seen places over predicted curves",
        top=30,
    )
    chart.key([("grey", "predicted"), ("ink", "seen off its place")])
    order = np.argsort(facts.alpha_deg, kind="stable")
    order = order[np.isfinite(facts.alpha_deg[order])]
    order = order[_some(len(order), _POINTS // max(len(t.particle), 1))]
    for curve in predicted[:, order]:
        chart.curve(facts.alpha_deg[order], curve, "thin grey", dots=False)
    measured = np.flatnonzero((t.source != SOURCES.index("projected")) & ~facts.jumps)
    measured = measured[_some(len(measured), _POINTS)]
    alpha = t.alpha_deg[t.tilt]
    for i, colour in enumerate(TRACK_COLOURS):
        rows = measured[(t.track[measured] - 1) % len(TRACK_COLOURS) == i]
        chart.dots(alpha[rows], seen[rows], "fine", colour)
    off = np.flatnonzero(facts.jumps)
    off = off[_some(len(off), _POINTS)]
    chart.dots(alpha[off], seen[off], "ink")
    return chart.svg()


def _some(n: int, most: int) -> np.ndarray:
    """Up to ``most`` of n places, the first and the last among them."""
    return np.unique(np.linspace(0, max(n - 1, 0), min(n, max(most, 24))).round().astype(int))
