"""The one HTML file: header, sections in the order of the method, everything inlined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from importlib import resources

import numpy as np

from stemtomo_dl.report import figures
from stemtomo_dl.report.browser import browser_section
from stemtomo_dl.report.calibration import calibration_section
from stemtomo_dl.report.checks import points, verdict
from stemtomo_dl.report.crystals import attempt, read_detail
from stemtomo_dl.report.facts import JUMP_PX, JUMP_RADII, JUMP_SIGMAS, Facts
from stemtomo_dl.report.lattices import DETAILED, detailed, lattice_part, lattice_table
from stemtomo_dl.report.merged import phase_section
from stemtomo_dl.report.overview import geometry_text, overview
from stemtomo_dl.report.paths import path_charts, thinned
from stemtomo_dl.report.pictures import Pictures, make_plan, take_pictures
from stemtomo_dl.report.predictions import telling_tilts
from stemtomo_dl.report.space import space_section
from stemtomo_dl.report.stage import axis_text, stage_section
from stemtomo_dl.report.strips import box_side, choose_frames, read_strip, strip_section
from stemtomo_dl.report.text import degrees, escape, number
from stemtomo_dl.report.timeline import misfit_chart, misfit_limit, state_legend, timeline_chart


def build_report(facts: Facts) -> str:
    """The run for a person, as one HTML file that needs nothing beside it.

    Parameters
    ----------
    facts : Facts
        Images and patterns are read from its folder as they are drawn; a particle without series.h5 is shown
        without its patterns.

    Returns
    -------
    str
        The page. The same run gives the same page, byte for byte.

    Raises
    ------
    InputError
        If a file of the run is missing or cannot be read.
    """
    sections, beam = [], np.full((facts.n_tilts, 2), np.nan)
    damaged, strips = list(facts.crystals.damaged), []
    if facts.good.any():
        frames = choose_frames(facts)
        pictures = take_pictures(facts, make_plan(facts), frames, {k: box_side(facts, k) for k in frames})
        beam = pictures.beam_px
        strips = _strips(facts, pictures, frames, damaged)
        sections.append(("series", "The series", browser_section(facts, pictures)))
    if len(facts.tracks.particle):
        sections.append(("coverage", "Every particle at every tilt", _coverage(facts)))
        sections.append(("paths", "Paths of the particles", _paths(facts)))
    sections.append(("drift", "The stage: tilt axis, angles and drift", stage_section(facts, beam)))
    if len(facts.tracks.particle):
        sections.append(("map", "Where the particles lie", _map(facts)))
    if facts.crystals.tried:
        phases = "".join(phase_section(facts, i, damaged) for i in range(len(facts.crystals.phases)))
        sections.append(("phases", "Phases and structures", phases or "<p>No particles were merged to a phase.</p>"))
        sections.append(("lattices", "Lattices of the particles", _lattices(facts)))
    if facts.good.any():
        sections.append(("calibration", "Calibration", calibration_section(facts)))
        sections.append(("particles", "Particles", _particles(strips)))
    sections.append(("settings", "Settings", _settings(facts)))
    return _page(facts, beam, sections, damaged)


def _strips(facts: Facts, pictures: Pictures, frames: dict[int, list[int]], damaged: list[str]) -> list[str]:
    """Every particle's part, one after the other so that only one series is in memory."""
    shown, out = set(detailed(facts.crystals)), list[str]()
    for k, tilts in frames.items():
        detail = read_detail(facts.folder, facts.crystals, k, damaged) if k in shown else None
        why = telling_tilts(detail) if detail else {}
        strip = read_strip(facts, k, tilts, why, damaged)
        patterns = {t: (text, strip.large[t]) for t, text in why.items() if strip and t in strip.large}
        lattice = attempt(damaged, partial(lattice_part, facts, k, detail, patterns)) or ""
        out.append(strip_section(facts, pictures, k, tilts, strip, lattice, opened=not out))
    return out


def _page(facts: Facts, beam: np.ndarray, sections: list[tuple[str, str, str]], damaged: list[str]) -> str:
    title = escape(facts.experiment.title or "Untitled series")
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{heading}</h2>\n{text}\n</section>\n' for name, heading, text in sections)
    scripts = "\n".join(f"<script>{_static(f'{name}.js')}</script>" for name in ("report", "turning", "space", "solid"))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} – stemtomo</title>
<link rel="icon" href="data:,">
<style>{_static("report.css")}</style></head>
<body><main>
<header><p class="kind">4D-STEM tilt series</p><h1>{title}</h1>
<p class="verdict">{escape(verdict(facts))}</p>
{overview(facts)}{_skipped(facts)}{_listed("Notes on the input:", facts.notes)}
{_listed("Files that could not be read are left out:", damaged)}{_points(facts, beam)}{_facts(facts)}
</header>
<nav>{links}</nav>
{body}
<footer>stemtomo_dl {escape(facts.version)}. Lengths in the sample are in its frame at α = 0: x to the right, y down,
z along the beam away from the gun, the origin at the centre of the field of view.</footer>
</main>
{scripts}
</body></html>
"""


def _static(name: str) -> str:
    return (resources.files("stemtomo_dl.report") / "static" / name).read_text(encoding="utf-8")


def _skipped(facts: Facts) -> str:
    """Tilts that are left out, and why."""
    if facts.good.all():
        return ""
    lost = [f"{t} ({degrees(float(facts.alpha_deg[t]))})" for t in np.flatnonzero(~facts.good).tolist()]
    why = "".join(f"<li>{escape(line)}</li>" for line in facts.skipped)
    noun = "tilt" if len(lost) == 1 else "tilts"
    return f'<div class="warn"><p>Left out: {noun} {", ".join(lost)}.</p><ul>{why}</ul></div>'


def _listed(head: str, lines: Sequence[str]) -> str:
    """Lines under a heading that stands out; nothing without lines."""
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="warn"><p>{head}</p><ul>{listed}</ul></div>' if lines else ""


def _points(facts: Facts, beam: np.ndarray) -> str:
    if not len(facts.tracks.particle):
        return ""
    found = points(facts, beam)
    if not found:
        return '<p class="fine">None of the automatic checks found a fault.</p>'
    return f'<h2 class="small">Points to look at</h2><ul class="points">{"".join(f"<li>{p}</li>" for p in found)}</ul>'


def _facts(facts: Facts) -> str:
    """Beam, detector and stage as the user states them."""
    i, e = facts.experiment.instrument, facts.experiment
    rows, columns = facts.masks.shape
    qy, qx = facts.bad_pixels.shape
    lines = [
        ("Beam", f"{number(i.voltage_kv)} kV, {number(i.convergence_mrad, 2)} mrad"),
        ("Scan", f"{columns} × {rows} probes, {number(i.step_nm, 2)} nm apart"),
        ("Detector", f"{qx} × {qy} px, {number(i.pixel_inv_angstrom, 5)} 1/Å a pixel"),
        ("Scan to detector", f"rotated by {degrees(i.rotation_deg)}"),
        ("Tilt axis, from x toward y", axis_text(facts)),
    ]
    if (each := i.dose_e_per_A2) is not None:
        lines.append(("Dose", f"{number(each, 3)} e/Å² a scan, {number(each * int(facts.good.sum()), 1)} e/Å² in all"))
    lines += geometry_text(facts)
    if e.sample.elements or e.sample.phases:
        lines.append(("Sample", ", ".join([*e.sample.elements, *e.sample.phases])))
    rows_html = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in lines)
    return f'<dl class="facts">{rows_html}</dl>'


def _coverage(facts: Facts) -> str:
    return f"""<div class="wide">{timeline_chart(facts)}</div>
{state_legend()}
<p class="note">One row a particle, the best covered on top; its number links to its patterns. Gaps, white where nothing
was found and dark where the particle is hidden by others, are tilts at which reflections pass the Ewald sphere unseen.
Gaps at high tilt are usual where particles shadow each other; a gap at one angle in many rows points to a bad scan. A
computed outline is put where its particle should be, from its neighbours in tilt. Vermilion marks an outline whose
centre lies over {number(JUMP_PX)} px, {number(JUMP_RADII)} of the particle's radius and {number(JUMP_SIGMAS)} times the
noise from where the stage puts it. A few such tilts are poor outlines; if vermilion begins and stays, two particles may
have been exchanged.</p>
<div class="wide">{figures.count_chart(facts)}</div>
<p class="note">The two curves should lie close to each other. Outlines far above particles are spurious finds, or
particles that could not be followed; particles above outlines share one, or have computed ones; a dip in both is a poor
scan.</p>"""


def _paths(facts: Facts) -> str:
    across, along = path_charts(facts)
    fewer = (
        " To keep this file small, only some of the dots and corners of the curves are drawn." if thinned(facts) else ""
    )
    most = number(misfit_limit(facts), 2)
    return f"""<div class="two"><figure>{across}<figcaption>Across the tilt axis.</figcaption></figure>
<figure>{along}<figcaption>Along the tilt axis.</figcaption></figure></div>
<p class="note">Where every particle was seen (dots, in the colours of the series) over where the tracker expects it
(grey), the field's drift taken out. On a rigid stage a particle moves on a sine across the axis and stays where it is
along it: a curve that slopes on the right is a particle that moves by itself, or a wrong axis if many do. Computed
outlines are left out.{fewer}</p>
<div class="wide">{misfit_chart(facts)}</div>
<p class="keyline">Misfit {figures.scale_key("0", f"{most} px", "Colour scale of the misfit")}</p>
<p class="note">How far each sighting is from its expected place, in the rows of the timeline above; white is not seen.
Bright rows are particles that do not fit a rigid stage, bright columns are tilts with a wrong angle, a distorted scan
or poor outlines.</p>"""


def _map(facts: Facts) -> str:
    return f"""{space_section(facts)}
<div class="two"><figure>{figures.map_chart(facts)}
<figcaption>Seen along the beam at α = 0; the frame is the field of view.</figcaption></figure>
<figure>{figures.height_chart(facts)}<figcaption>Seen along the tilt axis.</figcaption></figure></div>
<p class="keyline">Height z {figures.height_key(facts)}</p>
<p class="note">The tilt axis is drawn as it was refined, if it was, from x toward y (down); particles near it hardly
move as the stage tilts. On a flat support the heights on the right follow one line, whose slope is the support's own
inclination. A particle far off that line lies on others, or its outlines belong to more than one particle. The common
height is hard to tell from drift, so only differences count; standard deviations are those of the differences.</p>"""


def _lattices(facts: Facts) -> str:
    known = facts.crystals
    fewer = ""
    if len(known.indexed) > DETAILED:
        fewer = f" The {DETAILED} particles with most spots are shown in detail below; the others by their figures."
    return f"""{lattice_table(facts)}
<p class="note">The misfit is the rms distance of the spots on the lattice from their nodes, in the detector's plane; a
few thousandths of 1/Å are usual. Completeness counts what one particle measured of all reflections to its own
resolution.{fewer}</p>"""


def _particles(strips: list[str]) -> str:
    if not strips:
        return "<p>No particle was followed, so there is nothing to show.</p>"
    return f"""<p class="note">Above: the particle with its outline; below: its diffraction pattern at that tilt, dark
on white, logarithmic for strong spots, on one scale for the particle. The support's pattern is subtracted; the direct
beam's middle is white, for the particle weakens it. Pale blue was not measured. The spots of one crystal form one
lattice that turns slowly; two lattices, or a lattice that changes at once, mean two particles. The number of probes
should change as smoothly as the outline does; the Bragg signal, what stands out of the rings, swings as reflections
pass the Ewald sphere. Click a picture for that tilt in the series.</p>
<p><button type="button" id="all">Open all</button></p>
{"".join(strips)}"""


def _settings(facts: Facts) -> str:
    """Every setting that the run used, as run.json has it."""
    used = facts.experiment.model_dump(mode="json")
    text = json.dumps(used, indent=1, ensure_ascii=False)
    return f"<details><summary>All settings of this run, defaults included</summary><pre>{escape(text)}</pre></details>"
