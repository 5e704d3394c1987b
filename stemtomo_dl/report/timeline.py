"""How every particle stands at every tilt, and how far it is from where it should be: one row a particle."""

from __future__ import annotations

import math

import numpy as np

from stemtomo_dl.records import SOURCES, STATES
from stemtomo_dl.report import raster
from stemtomo_dl.report.chart import Chart, shade, steps_along
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.text import number, plural

# Colour and meaning of each kind; colours after Okabe and Ito, told apart with any colour vision.
KINDS = {
    "gap": ("#ffffff", "not found"),
    "clean": ("#0072b2", "seen alone"),
    "overlapped": ("#7cc4ee", "seen, meets another's outline"),
    "merged": ("#cc79a7", "seen only as one with another"),
    "off": ("#d55e00", "off its predicted place"),
    "prompted": ("#009e73", "found when asked for"),
    "split": ("#7b3294", "outline divided by diffraction"),
    "projected": ("#f0c800", "outline computed"),
    "hidden": ("#3c4348", "in view, hidden"),
    "outside": ("#c3c9cf", "out of view"),
}
_CODE = {name: i for i, name in enumerate(KINDS)}
_COLUMNS = 1776  # of a map's picture: two for every unit of the drawing
_SIGMAS = 4  # the misfit at the bright end of its scale, in standard deviations of the noise


def kinds(facts: Facts) -> np.ndarray:
    """How each particle stands at each tilt.

    Returns
    -------
    (particle, tilt) i1 array
        Places in `KINDS`. The state says first what is hidden, outside or merged; then the source of an outline
        that was not simply found; then a misfit; then whether another outline is met.
    """
    t = facts.tracks
    out = np.full(t.states.shape, _CODE["gap"], "i1")
    for name in ("hidden", "outside"):
        out[t.states == STATES.index(name)] = _CODE[name]
    order = (
        (t.state == STATES.index("merged"), "merged"),
        (t.source == SOURCES.index("projected"), "projected"),
        (t.source == SOURCES.index("split"), "split"),
        (t.source == SOURCES.index("prompted"), "prompted"),
        (facts.jumps, "off"),
        (t.state == STATES.index("overlapped"), "overlapped"),
    )
    kind = np.select([chosen for chosen, _ in order], [_CODE[name] for _, name in order], _CODE["clean"])
    out[facts.place, t.tilt] = kind
    out[:, ~facts.good] = _CODE["gap"]
    return out


def timeline_chart(facts: Facts) -> str:
    """How every particle stands at every tilt, the best covered first."""
    palette = np.array([_rgb(colour) for colour, _ in KINDS.values()], "u1")
    return _rows(facts, palette[kinds(facts)], "States of {} over the tilts")


def misfit_chart(facts: Facts) -> str:
    """How far every sighting is from its particle's predicted place, in the rows of `timeline_chart`."""
    t, most = facts.tracks, misfit_limit(facts)
    pixels = np.full((*t.states.shape, 3), 255, "u1")
    measured = t.source != SOURCES.index("projected")  # a computed outline lies on its prediction
    scale = np.array([_rgb(shade(i / 255)) for i in range(256)], "u1")
    at = np.clip(np.nan_to_num(facts.misfit_px[measured]) / most, 0, 1)
    pixels[facts.place[measured], t.tilt[measured]] = scale[(255 * at).round().astype(int)]
    return _rows(facts, pixels, "Misfits of {} over the tilts")


def misfit_limit(facts: Facts) -> float:
    """Misfit (px) that the bright end of the scale stands for."""
    noise = facts.tracks.noise_px
    typical = noise if np.isfinite(noise) else float(np.median(facts.misfit_px)) if len(facts.misfit_px) else 0.0
    return max(_SIGMAS * typical, 0.5)


def state_legend() -> str:
    """The kinds and their colours, in words."""
    swatches = "".join(
        f'<span><i style="background:{colour}"></i>{meaning}</span>' for colour, meaning in KINDS.values()
    )
    return f'<p class="legend">{swatches}<span><i class="skipped"></i>tilt left out</span></p>'


def _rows(facts: Facts, pixels: np.ndarray, alt: str) -> str:
    """Colours (particle, tilt, 3) against the tilt angle, the best covered particle on top, each row a link."""
    n = len(facts.tracks.particle)
    row = float(np.clip(900 / max(n, 1), 2.2, 15))
    chart = Chart(
        (960, n * row + 56),
        facts.angles,
        (n + 0.5, 0.5),
        ("tilt angle α (°)", "particle"),
        alt.format(plural(n, "particle")),
    )
    order, tilt = _best_first(facts), _tilt_of_column(chart, facts)
    image = np.where((tilt >= 0)[:, None], pixels[order][:, tilt], 255).astype("u1")
    if row >= 8:  # a white line between rows that have room for it
        image = np.repeat(image, 8, axis=0)
        image[7::8] = 255
    left, top, right, bottom = chart.box
    chart.add(
        f'<image class="rows" href="{raster.data_uri(image)}" x="{left:.0f}" y="{top:.0f}" '
        f'width="{right - left:.0f}" height="{bottom - top:.2f}" preserveAspectRatio="none"/>'
    )
    for a in facts.alpha_deg[~facts.good & np.isfinite(facts.alpha_deg)].tolist():
        chart.add(f'<path class="lost" d="M{chart.px(a):.1f} {top:.0f}V{bottom:.1f}"/>')
    for place, i in enumerate(order.tolist()):
        chart.add(_link(facts, i, f"M{left:.0f} {top + place * row:.1f}H{right:.0f}v{row:.1f}H{left:.0f}z"))
    every = math.ceil(11 / row)
    names = {float(p + 1): str(facts.tracks.particle[i]) for p, i in enumerate(order.tolist()) if p % every == 0}
    return chart.svg(y_ticks=names, kind="rows")


def _best_first(facts: Facts) -> np.ndarray:
    """Places of the particles, those seen at most tilts first."""
    return np.argsort([-share for share in facts.coverage.values()], kind="stable")


def _tilt_of_column(chart: Chart, facts: Facts) -> np.ndarray:
    """The tilt that each column of a map's picture shows, −1 for none."""
    out, extent = np.full(_COLUMNS, -1), steps_along(facts.alpha_deg)
    left, scale = chart.box[0], _COLUMNS / (chart.box[2] - chart.box[0])
    for tilt in np.flatnonzero(np.isfinite(facts.alpha_deg)).tolist():
        lo, hi = (round((chart.px(a) - left) * scale) for a in extent(float(facts.alpha_deg[tilt])))
        out[max(lo, 0) : max(hi, lo + 1)] = tilt
    return out


def _link(facts: Facts, i: int, outline: str) -> str:
    """A row that can be pointed at and leads to the particle's strip."""
    t, k = facts.tracks, int(facts.tracks.particle[i])
    n = np.bincount(t.states[i][t.states[i] >= 0], minlength=len(STATES))
    states = ", ".join(f"{c} {name}" for c, name in zip(n.tolist(), STATES, strict=True) if c)
    misfit = f"misfit {number(float(t.residual_px[i]), 2)} px"
    told = "; ".join(filter(None, (plural(len(facts.sightings(k)), "outline"), states, misfit)))
    return f'<a href="#p{k}"><path class="hit" d="{outline}"><title>Particle {k}: {told}</title></path></a>'


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
