"""Charts of the whole run: coverage, particles per tilt, drift, beam, and the map of the particles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stemtomo_dl.report.chart import Chart, nice_ticks, shade, span, steps_along
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.text import degrees, number, plural

_ANGLE = "tilt angle α (°)"
_LABELLED = 150  # more numbers than this would cover each other


def angles(facts: Facts) -> tuple[float, float]:
    """Limits of every chart against the tilt angle."""
    return span(facts.alpha_deg, 4.0, 0.03)


def coverage_chart(facts: Facts) -> str:
    """Which particle is seen at which tilt, one row a particle."""
    tracks, n = facts.tracks, len(facts.tracks.particle)
    row = float(np.clip(900 / max(n, 1), 2.2, 15))
    chart = Chart(
        (960, n * row + 56),
        angles(facts),
        (n + 0.5, 0.5),
        (_ANGLE, "particle"),
        f"Coverage of {plural(n, 'particle')} over the tilts",
    )
    extent, gap = steps_along(facts.alpha_deg), min(1.5, row / 4)
    top, bottom = chart.box[1], chart.box[3]
    for a in facts.alpha_deg[~facts.good & np.isfinite(facts.alpha_deg)].tolist():
        lo, hi = (chart.px(v) for v in extent(a))
        chart.box_at("skipped", lo, top, hi, bottom)
    paths: dict[str, list[str]] = {"seen": [], "cut": [], "off": []}
    for place, k in enumerate(tracks.particle.tolist(), 1):
        y = chart.py(place) - row / 2 + gap / 2
        for kind, lo, hi in _stretches(facts, k, extent):
            left, right = chart.px(lo), chart.px(hi)
            paths[kind].append(f"M{left:.1f} {y:.1f}H{right:.1f}v{row - gap:.1f}H{left:.1f}z")
        told = f"Particle {k}: {plural(len(facts.sightings(k)), 'tilt')}"
        chart.add(
            f'<a href="#p{k}"><path class="hit" d="M{chart.box[0]:.0f} {y:.1f}H{chart.box[2]:.0f}v{row:.1f}'
            f'H{chart.box[0]:.0f}z"><title>{told}</title></path></a>'
        )
    chart.parts = [f'<path class="cover {k}" d="{"".join(p)}"/>' for k, p in paths.items()] + chart.parts
    every = 1 if row >= 11 else 10 if row >= 3 else 50
    # rows are ticked by their track number, which need not be its place
    ticks = [float(i + 1) for i, k in enumerate(tracks.particle.tolist()) if every == 1 or k % every == 0]
    return chart.svg(y_ticks=ticks, kind="rows")


def _stretches(
    facts: Facts, track: int, extent: Callable[[float], tuple[float, float]]
) -> list[tuple[str, float, float]]:
    """A particle's sightings as (kind, from, to) in degrees, neighbours of one kind joined."""
    out: list[tuple[str, float, float]] = []
    for r in facts.sightings(track).tolist():
        a = float(facts.tracks.alpha_deg[facts.tracks.tilt[r]])
        if not np.isfinite(a):
            continue
        lo, hi = extent(a)
        kind = "off" if facts.jumps[r] else "cut" if facts.cut[facts.tracks.instance[r]] else "seen"
        if out and out[-1][0] == kind and abs(out[-1][2] - lo) < 1e-6:
            lo = out.pop()[1]
        out.append((kind, lo, hi))
    return out


def count_chart(facts: Facts) -> str:
    """Particles seen and outlines found at every tilt."""
    outlines = np.bincount(facts.masks.tilt, minlength=facts.n_tilts).astype(float)
    linked = np.bincount(facts.tracks.tilt, minlength=facts.n_tilts).astype(float)
    outlines[~facts.good] = linked[~facts.good] = np.nan
    highest = float(np.nanmax(outlines, initial=1.0))
    chart = Chart(
        (960, 220),
        angles(facts),
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


def pair_chart(facts: Facts, values: np.ndarray, axis: str, alt: str, names: tuple[str, str]) -> str:
    """Two components, (tilt, 2), against the tilt angle."""
    order = np.argsort(facts.alpha_deg, kind="stable")
    chart = Chart((480, 280), angles(facts), span(values, 2.0), (_ANGLE, axis), alt, top=30)
    chart.key([("blue", names[0]), ("red", names[1])])
    for i, kind in enumerate(("blue", "red")):
        chart.curve(facts.alpha_deg[order], values[order, i], kind)
    return chart.svg()


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
    chart.add(_axis_arrow(chart, facts.experiment.stage.tilt_axis_deg, reach))
    _mark_particles(chart, facts, position[:, 0], position[:, 1])
    return chart.svg()


def height_limits(facts: Facts) -> tuple[float, float]:
    """Heights that the ends of the colour scale stand for."""
    return span(facts.tracks.position_nm[:, 2], 1.0, 0.0)


def _axis_arrow(chart: Chart, omega_deg: float, reach: float) -> str:
    """The tilt axis through the origin, an arrow at its positive end; from x toward y, which points down."""
    w = np.radians(omega_deg)
    end = 0.93 * reach * np.array([np.cos(w), np.sin(w)])
    x0, y0, x1, y1 = chart.px(-end[0]), chart.py(-end[1]), chart.px(end[0]), chart.py(end[1])
    turn = f"translate({x1:.1f} {y1:.1f}) rotate({omega_deg:.2f})"
    return (
        f'<path class="line axis" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>'
        f'<path class="head" transform="{turn}" d="M0 0l-11 -4v8z"/>'
        f'<text class="mid axisname" transform="translate({(x0 + 3 * x1) / 4:.1f} {(y0 + 3 * y1) / 4:.1f}) '
        f'rotate({omega_deg if np.cos(w) >= 0 else omega_deg + 180:.2f}) translate(0 -6)">tilt axis, '
        f"{degrees(omega_deg)}</text>"
    )


def height_chart(facts: Facts) -> str:
    """Height against the distance from the tilt axis, seen along the axis."""
    w = np.radians(facts.experiment.stage.tilt_axis_deg)
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
    fills = [(70 + 4 * i, shade(i / 49)) for i in range(50)]
    stops = "".join(f'<rect x="{x}" y="4" width="4.2" height="12" fill="{fill}"/>' for x, fill in fills)
    return (
        f'<svg class="key" viewBox="0 0 340 20" role="img" aria-label="Colour scale of the height z"><text '
        f'class="end" x="64" y="15">{number(lo)} nm</text>{stops}<text x="276" y="15">{number(hi)} nm</text></svg>'
    )
