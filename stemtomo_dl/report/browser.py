"""The series browser: its data, and the elements that the page's script brings to life."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemtomo_dl.report import outline
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.pictures import Pictures
from stemtomo_dl.report.text import TRACK_COLOURS, escape, json_for_script, number, percent, plural

_NAMES = {
    "bf": "bright field",
    "adf": "annular dark field",
    "haadf": "high-angle dark field",
    "variance": "variance of the dark field (crystal contrast)",
    "maximum": "maximum of the dark field",
}


def browser_section(facts: Facts, pictures: Pictures) -> str:
    """The browser's controls and its data."""
    plan = pictures.plan
    options = "".join(f'<option value="{escape(d)}">{escape(_NAMES.get(d, d))}</option>' for d in plan.detectors)
    tilts = [t for t in range(facts.n_tilts) if t % plan.step == 0]
    data = [_script("data-series", series_data(facts, pictures, tilts))]
    data += [_script(f"data-{d}", [shown.get(t, "") for t in tilts]) for d, shown in pictures.shown.items()]
    height, width = facts.masks.shape
    return f"""
<div id="viewer" class="viewer" tabindex="-1">
 <div class="controls top">
  <button type="button" id="play" aria-label="Play the series">Play</button>
  <input type="range" id="slider" min="0" max="{len(tilts) - 1}" value="0" step="1" aria-label="Tilt">
  <output id="where" for="slider"></output>
 </div>
 <div class="stage" id="stage" style="aspect-ratio:{width}/{height}; --shape:{width / height:.4f}">
  <img id="picture" alt="Virtual image of the scan at the chosen tilt">
  <svg id="overlay" viewBox="0 0 {width} {height}" role="img" aria-label="Outlines of the particles"></svg>
  <p id="absent" hidden></p>
 </div>
 <div class="panel">
  <label>Image <select id="detector">{options}</select></label>
  <label><input type="checkbox" id="outlines" checked> outlines</label>
  <label><input type="checkbox" id="numbers" checked> numbers</label>
  <label><input type="checkbox" id="strays"> outlines without a track</label>
  <dl id="told" aria-live="polite"></dl>
 </div>
 <noscript><p class="warn">The series browser needs JavaScript; the rest of the page works without it.</p></noscript>
</div>
<p class="note">Step through the tilts with the slider or the arrow keys. Every outline should stay on its particle and
keep its number and colour; a number that hops to a neighbour, or an outline that swallows two particles, spoils the
diffraction data of those particles at that tilt. Hover over an outline for its facts, click it for the particle.
Dashed grey outlines belong to no track. Brightness is comparable between tilts: each detector has one black and one
white point for the whole series (dark fields by square root). Tilts are numbered from 0, as in
tracks.csv.{_thinned(facts, pictures)}</p>
{"".join(data)}"""


def _thinned(facts: Facts, pictures: Pictures) -> str:
    """What was left out or made coarser to keep the page's size, in words."""
    plan, notes = pictures.plan, []
    if plan.step > 1:
        notes.append(f"only one tilt in {plan.step} is shown here")
    if max(facts.masks.shape) > plan.side:
        notes.append(f"pictures are reduced to {plan.side} pixels or less")
    if len(plan.detectors) < len(plan.limits):
        notes.append("detectors other than " + " and ".join(plan.detectors) + " are left out")
    if plan.quality is not None:
        notes.append("pictures are compressed with slight loss")
    return f" To keep this file small, {'; '.join(notes)}; images.h5 holds everything." if notes else ""


def series_data(facts: Facts, pictures: Pictures, tilts: list[int]) -> dict[str, Any]:
    """What the browser's script reads.

    Returns
    -------
    dict
        ``outlines``, by shown tilt, lists [track (0 without one), x, y, area, flag, loops]; flag 1 is cut by the
        scan's border, 2 off its predicted place; loops as `outline.spell` writes them.
    """
    angle = [None if not np.isfinite(a) else round(float(a), 3) for a in facts.alpha_deg]
    return {
        "shape": list(facts.masks.shape),
        "tilts": tilts,
        "alpha": [angle[t] for t in tilts],
        "names": [facts.names[t] for t in tilts],
        "colours": list(TRACK_COLOURS),
        "tracks": {
            str(k): [f"{plural(len(facts.sightings(k)), 'tilt')} ({percent(share)})", f"{number(float(r), 2)} px rms"]
            for (k, share), r in zip(facts.coverage.items(), facts.tracks.residual_px, strict=True)
        },
        "outlines": [_outlines(facts, t) for t in tilts],
    }


def _outlines(facts: Facts, tilt: int) -> list[list[Any]]:
    """Outlines of one tilt, large ones first so that small ones can be pointed at."""
    t, out = facts.tracks, []
    row_of = {int(t.instance[r]): int(r) for r in np.flatnonzero(t.tilt == tilt)}
    for i in facts.masks.at(tilt).tolist():
        y, x = facts.masks.origin[i]
        loops = [outline.spell(loop + (x, y)) for loop in outline.trace(facts.masks.crops[i])]
        area = int(facts.masks.crops[i].sum())
        row = row_of.get(i)
        if row is None:
            out.append([0, 0, 0, area, 0, loops])
            continue
        flag = 2 if facts.jumps[row] else int(facts.cut[i])
        place = [round(float(t.x_px[row]), 1), round(float(t.y_px[row]), 1)]
        out.append([int(t.track[row]), *place, area, flag, loops])
    return sorted(out, key=lambda o: (-o[3], o[0], o[1], o[2]))


def _script(name: str, value: Any) -> str:
    return f'<script type="application/json" id="{escape(name)}">{json_for_script(value)}</script>\n'
