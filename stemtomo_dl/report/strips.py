"""One strip a particle: its surroundings and diffraction patterns over the tilts, its curves and its numbers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.records import SOURCES, DiffractionSeries, Tracks
from stemtomo_dl.report import outline, raster
from stemtomo_dl.report.chart import Chart, span
from stemtomo_dl.report.crystals import attempt
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.pictures import Crop, Pictures, box_corner
from stemtomo_dl.report.text import colour, degrees, fixed, number, percent, plural, plus_minus
from stemtomo_dl.store import results

BUDGET = 4_500_000  # bytes of all patterns and surroundings
_MANY = 60  # more particles than this share the budget with smaller and fewer frames
LARGE, LARGE_QUALITY, _QUALITY = 256, 40, 75  # longest side of a pattern that spots are drawn over
_FRAMES, _SIDE, _SIDE_OF_MANY = 8, 128, 96
_BYTES_A_FRAME = 3_500  # of a small frame: a pattern and its surroundings


def choose_frames(facts: Facts) -> dict[int, list[int]]:
    """Tilts, evenly spread over its sightings, at which each particle is shown."""
    n = len(facts.tracks.particle)
    most = _FRAMES if n <= _MANY else int(np.clip(BUDGET / (n * _BYTES_A_FRAME), 3, _FRAMES))
    chosen = {}
    for k in facts.tracks.particle.tolist():
        tilts = facts.tracks.tilt[facts.sightings(k)]
        at = np.unique(np.linspace(0, len(tilts) - 1, min(most, len(tilts))).round().astype(int))
        chosen[k] = [int(t) for t in tilts[at]]
    return chosen


def box_side(facts: Facts, track: int) -> int:
    """Side of a square (px) that holds a particle's outline at any tilt with some room about it."""
    shapes = [facts.masks.crops[i].shape for i in facts.tracks.instance[facts.sightings(track)].tolist()]
    return int(min(max(12, 1.5 * max(map(max, shapes), default=1) + 4), max(facts.masks.shape)))


@dataclass(frozen=True)
class Strip:
    """What is shown of one series.h5; ``pictures`` and ``large`` ones are data URIs by tilt."""

    alpha_deg: np.ndarray
    n_probes: np.ndarray
    signal: np.ndarray | None  # Bragg signal, where the series has it
    pictures: dict[int, str]
    large: dict[int, str]
    dose: float | None  # summed over the frames, e/Å²


def read_strip(
    facts: Facts, track: int, chosen: list[int], enlarged: Collection[int], damaged: list[str]
) -> Strip | None:
    """Reduce one series.h5 to what is shown of it.

    None where the particle has none, or where it cannot be read, with the reason added to ``damaged``. Patterns at
    the tilts ``enlarged`` are kept larger as well; of the others none is read, as a series may have gigabytes.
    """
    path = facts.folder / results.series_name(track)
    if not path.exists():
        return None
    read = attempt(
        damaged, lambda: (results.read_frame_facts(path), results.read_frames_of(path, {*chosen, *enlarged}))
    )
    if read is None:
        return None
    known, series = read
    bragg = series.measured & ~_beam_region(series)
    side = _SIDE if len(facts.tracks.particle) <= _MANY else _SIDE_OF_MANY
    dose = None if known.dose_e_per_A2 is None else float(known.dose_e_per_A2.sum())
    small, large = (
        _patterns(series, bragg, chosen, (side, _QUALITY)),
        _patterns(series, bragg, enlarged, (LARGE, LARGE_QUALITY)),
    )
    return Strip(known.alpha_deg, known.n_probes, known.bragg_signal, small, large, dose)


def _beam_region(series: DiffractionSeries) -> np.ndarray:
    """(qy, qx) bool: too near the direct beam to be called Bragg scattering."""
    i = series.instrument
    disk = disk_radius_px(i.convergence_mrad, wavelength(i.voltage_kv), i.pixel_inv_angstrom)
    y, x = np.indices(series.patterns.shape[1:])
    return np.asarray(np.hypot(x - series.center_px[0], y - series.center_px[1]) <= 2 * disk + 2)


def _patterns(
    series: DiffractionSeries, bragg: np.ndarray, chosen: Collection[int], form: tuple[int, int]
) -> dict[int, str]:
    """Patterns at the chosen tilts on one scale, set outside the direct beam so that it does not drown the spots.

    ``form`` is the longest side in pixels and the quality of the encoding.
    """
    side, quality = form
    frames = [int(f) for f in np.flatnonzero(np.isin(series.tilt, list(chosen)))]
    values = np.concatenate([series.patterns[f][bragg[f]] for f in frames] or [np.zeros(0)])
    if not len(values):
        return {}
    noise = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    scale = max(float(np.percentile(values, 99.95)), 1e-6)
    soft = float(np.clip(2.5 * noise, 0.01 * scale, 0.2 * scale))
    out = {}
    for f in frames:
        shades = raster.ink(raster.reduce_max(series.patterns[f], side), scale, soft)
        blind = raster.reduce_max(1.0 - series.measured[f], side) > 0.5
        image = raster.tint(shades, blind, (205, 224, 241)) if blind.any() else shades
        out[int(series.tilt[f])] = raster.data_uri(image, quality)
    return out


def strip_section(
    facts: Facts, pictures: Pictures, track: int, chosen: list[int], strip: Strip | None, lattice: str, *, opened: bool
) -> str:
    """One particle's part of the page; ``lattice`` is what is told of its lattice."""
    rows = facts.sightings(track)
    t = facts.tracks
    alpha = t.alpha_deg[t.tilt[rows]]
    at = int(np.flatnonzero(t.particle == track)[0])
    reach = f"{degrees(float(alpha[0]))} to {degrees(float(alpha[-1]))}"
    head = (
        f"seen at {plural(len(rows), 'tilt')} ({percent(facts.coverage[track])}), {reach}, "
        f"misfit {fixed(float(t.residual_px[at]), 2)} px"
    )
    side = box_side(facts, track)
    frames = [_frame(facts, track, tilt, pictures.crops[track, tilt], strip, side) for tilt in chosen]
    if strip is None:
        why = "This particle has no series.h5 that can be read, so its diffraction patterns cannot be shown."
        body = f'<p class="warn">{why}</p>'
        charts = ""
    else:
        body = ""
        curves = [_curve(facts, strip.alpha_deg, strip.n_probes.astype(float), "probes")]
        if strip.signal is not None:
            curves.append(_curve(facts, strip.alpha_deg, strip.signal.astype(float), "Bragg counts a probe"))
        charts = f'<div class="two">{"".join(curves)}</div>'
    return f"""<details class="particle" id="p{track}"{" open" if opened else ""}>
<summary><i style="background:{colour(track)}"></i><b>Particle {track}</b> {head}</summary>
<div class="frames">{"".join(frames)}</div>{body}{charts}{_numbers(facts, at, rows, strip)}{lattice}</details>
"""


def _frame(facts: Facts, track: int, tilt: int, crop: Crop, strip: Strip | None, side: int) -> str:
    """Surroundings with the outline, and the pattern below them."""
    t = facts.tracks
    row = int(np.flatnonzero((t.track == track) & (t.tilt == tilt))[0])
    instance = int(t.instance[row])
    y, x = facts.masks.origin[instance].tolist()
    left, top = box_corner(float(t.x_px[row]), float(t.y_px[row]), side)
    height, width = (n * crop.block for n in crop.pixels.shape)
    path = outline.svg_path(outline.trace(facts.masks.crops[instance]), x - left, y - top)
    angle = degrees(float(t.alpha_deg[tilt]))
    pattern = strip.pictures.get(tilt) if strip else None
    below = f'<img src="{pattern}" alt="Diffraction pattern at {angle}" loading="lazy">' if pattern else ""
    return (
        f'<figure><a href="#tilt={tilt}&amp;track={track}"><svg viewBox="0 0 {side} {side}" role="img" '
        f'aria-label="Particle {track} at {angle}"><image href="{raster.data_uri(crop.pixels)}" '
        f'x="{crop.x - left}" y="{crop.y - top}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
        f'<path class="halo" d="{path}"/><path class="edge" stroke="{colour(track)}" d="{path}"/></svg></a>{below}'
        f"<figcaption>{angle}</figcaption></figure>"
    )


def _curve(facts: Facts, alpha: np.ndarray, values: np.ndarray, axis: str) -> str:
    lo, hi = span(np.append(values, 0.0), 1.0)
    chart = Chart(
        (480, 180),
        facts.angles,
        (min(lo, 0.0) if values.min(initial=0) < 0 else 0.0, hi),
        ("tilt angle α (°)", axis),
        f"{axis} against the tilt angle",
    )
    chart.curve(alpha, values, "blue", dots=len(alpha) <= 150)
    return chart.svg()


def _numbers(facts: Facts, at: int, rows: np.ndarray, strip: Strip | None) -> str:
    """The particle's figures as a table of two columns."""
    t = facts.tracks
    error = t.position_error_nm[at].tolist()
    position = ", ".join(plus_minus(v, e) for v, e in zip(t.position_nm[at].tolist(), error, strict=True))
    jumps, cut = int(facts.jumps[rows].sum()), int(facts.cut[t.instance[rows]].sum())
    area = float(np.median(t.area_px[rows])) * facts.experiment.scan.step_nm**2
    across = number(2 * float(np.sqrt(area / np.pi)))
    lines = [
        ("Position x, y, z", f"{position} nm"),
        ("Median projected area", f"{number(area, 0)} nm² (a disk {across} nm across)"),
        ("Off its predicted place", plural(jumps, "tilt")),
        ("Cut by the scan's border", plural(cut, "tilt")),
        ("Alone or met by others", f"{degrees(float(t.usable_deg[at, 0]))} to {degrees(float(t.usable_deg[at, 1]))}"),
        ("Outlines met or shared", percent(share) if np.isfinite(share := t.overlap_share[at]) else "–"),
        ("Outlines", _sources(t, rows)),
    ]
    if strip:
        few = int((strip.n_probes < 10).sum())
        middle = number(float(np.median(strip.n_probes)), 0)
        lines.append(("Probes a pattern", f"median {middle}; under 10 at {plural(few, 'tilt')}"))
        if strip.dose is not None:
            lines.append(("Dose over these tilts", f"{number(strip.dose)} e/Å²"))
    return "<dl>" + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in lines) + "</dl>"


def _sources(t: Tracks, rows: np.ndarray) -> str:
    """How many outlines come from where."""
    n = np.bincount(t.source[rows], minlength=len(SOURCES)).tolist()
    return ", ".join(f"{c} {name}" for c, name in zip(n, SOURCES, strict=True) if c)
