"""Charts of the whole run: particles per tilt, and the map of the particles."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.report.chart import Chart, nice_ticks, shade, span
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.text import degrees, number

_ANGLE = "tilt angle α (°)"
_NAMES = (0.5, 0.7, 0.3, -0.7, -0.5, -0.3)  # where the tilt axis may be named, of its half length
_LABELLED = 150  # more numbers than this would cover each other


def count_chart(facts: Facts) -> str:
    """Particles seen and outlines found at every tilt."""
    outlines = np.bincount(facts.masks.tilt[facts.found], minlength=facts.n_tilts).astype(float)
    linked = np.bincount(facts.tracks.tilt, minlength=facts.n_tilts).astype(float)
    outlines[~facts.good] = linked[~facts.good] = np.nan
    highest = float(np.nanmax([outlines, linked], initial=1.0))  # particles may share an outline
    chart = Chart(
        (960, 220),
        facts.angles,
        (0, 1.08 * highest),
        (_ANGLE, "number"),
        "Outlines found and particles followed at each tilt",
        top=30,
    )
    chart.key([("grey", "outlines found"), ("blue", "particles followed")])
    order = np.argsort(facts.alpha_deg, kind="stable")
    chart.curve(facts.alpha_deg[order], outlines[order], "grey")
    chart.curve(facts.alpha_deg[order], linked[order], "blue")
    whole = [v for v in nice_ticks(0, highest, 5) if v == int(v)]
    return chart.svg(y_ticks=whole)


def map_chart(facts: Facts) -> str:
    """Where the particles lie in the sample at α = 0, their heights as colours, and the tilt axis."""
    position = facts.tracks.position_nm
    step, (rows, columns) = facts.experiment.scan.step_nm, facts.masks.shape
    half = np.array([columns, rows]) * step / 2
    reach = float(max(half.max(), np.abs(position[:, :2]).max(initial=0.0)) * 1.06)
    chart = Chart(
        (480, 480),
        (-reach, reach),
        (reach, -reach),
        ("x (nm)", "y (nm), down"),
        "Map of the particles in the sample, with the tilt axis",
        top=24,
    )
    chart.box_at("field", chart.px(-half[0]), chart.py(-half[1]), chart.px(half[0]), chart.py(half[1]))
    chart.add(_axis_arrow(chart, facts.axis_deg, reach, position))
    _mark_particles(chart, facts, position[:, 0], position[:, 1])
    return chart.svg()


def height_limits(facts: Facts) -> tuple[float, float]:
    """Heights that the ends of the colour scale stand for."""
    return span(facts.tracks.position_nm[:, 2], 1.0, 0.0)


def _axis_arrow(chart: Chart, omega_deg: float, reach: float, position: np.ndarray) -> str:
    """The tilt axis through the origin, an arrow at its positive end; named where it is clearest of particles."""
    w = np.radians(omega_deg)
    end = 0.93 * reach * np.array([np.cos(w), np.sin(w)])
    x0, y0, x1, y1 = chart.px(-end[0]), chart.py(-end[1]), chart.px(end[0]), chart.py(end[1])
    turn = f"translate({x1:.1f} {y1:.1f}) rotate({omega_deg:.2f})"
    places = np.array(_NAMES)[:, None] * end
    away = np.linalg.norm(places[:, None] - position[:, :2], axis=-1).min(1, initial=np.inf)
    x, y = places[int(np.argmax(away))].tolist()
    return (
        f'<path class="line axis" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>'
        f'<path class="head" transform="{turn}" d="M0 0l-11 -4v8z"/>'
        f'<text class="mid axisname" transform="translate({chart.px(x):.1f} {chart.py(y):.1f}) '
        f'rotate({omega_deg if np.cos(w) >= 0 else omega_deg + 180:.2f}) translate(0 -6)">tilt axis, '
        f"{degrees(omega_deg)}</text>"
    )


def height_chart(facts: Facts) -> str:
    """Height against the distance from the tilt axis, seen along the axis."""
    w = np.radians(facts.axis_deg)
    position = facts.tracks.position_nm
    off = position[:, 1] * np.cos(w) - position[:, 0] * np.sin(w)
    chart = Chart(
        (480, 480),
        span(off, 10.0),
        span(position[:, 2], 10.0),
        ("distance from the tilt axis (nm)", "height z (nm), away from the gun"),
        "Heights of the particles against their distance from the tilt axis",
        top=24,
    )
    _mark_particles(chart, facts, off, position[:, 2])
    return chart.svg()


def _mark_particles(chart: Chart, facts: Facts, x: np.ndarray, y: np.ndarray) -> None:
    """One dot a particle, coloured by its height, with its number where there is room, leading to its strip."""
    lo, hi = height_limits(facts)
    position = facts.tracks.position_nm
    for k, a, b, p in zip(facts.tracks.particle.tolist(), x.tolist(), y.tolist(), position.tolist(), strict=True):
        at, down, fill = chart.px(a), chart.py(b), shade((p[2] - lo) / (hi - lo))
        label = f'<text x="{at + 7:.1f}" y="{down + 4:.1f}">{k}</text>' if len(x) <= _LABELLED else ""
        place = ", ".join(f"{name} {number(v)}" for name, v in zip("xyz", p, strict=True))
        chart.add(
            f'<a href="#p{k}"><circle cx="{at:.1f}" cy="{down:.1f}" r="5" fill="{fill}"><title>Particle {k}: '
            f"{place} nm</title></circle>{label}</a>"
        )


def height_key(facts: Facts) -> str:
    """The colour scale of the map."""
    lo, hi = height_limits(facts)
    return scale_key(f"{number(lo)} nm", f"{number(hi)} nm", "Colour scale of the height z")


def scale_key(low: str, high: str, alt: str) -> str:
    """A colour scale between two labels."""
    fills = [(70 + 4 * i, shade(i / 49)) for i in range(50)]
    stops = "".join(f'<rect x="{x}" y="4" width="4.2" height="12" fill="{fill}"/>' for x, fill in fills)
    return (
        f'<svg class="key" viewBox="0 0 340 20" role="img" aria-label="{alt}"><text class="end" x="64" y="15">{low}'
        f'</text>{stops}<text x="276" y="15">{high}</text></svg>'
    )
