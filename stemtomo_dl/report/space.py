"""The particles in three dimensions: the data, and the elements that the page's script brings to life."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemtomo_dl.report.chart import CIVIDIS
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.text import colour, json_for_script
from stemtomo_dl.report.timeline import KINDS, kinds

_HELD = 200  # tilts at most, evenly spread, that the map can be turned to


def space_section(facts: Facts) -> str:
    """The map's controls and its data."""
    return f"""
<div id="space" class="space" hidden>
 <div class="controls">
  <label>Colour <select id="space-colour"></select></label>
  <span class="legend" id="space-classes"></span>
  <span class="keyline" id="space-key">
   <output id="space-low"></output><i id="space-scale"></i><output id="space-high"></output>
  </span>
  <button type="button" id="space-tilted">Tilted view</button>
  <button type="button" id="space-beam">Along the beam</button>
  <button type="button" id="space-axis">Along the tilt axis</button>
 </div>
 <div class="controls">
  <input type="range" id="space-tilt" min="0" max="0" value="0" step="1" aria-label="Tilt of the stage">
  <output id="space-where" for="space-tilt"></output>
  <label><input type="checkbox" id="space-drift" checked> with drift</label>
 </div>
 <svg id="space-view" viewBox="-300 -210 600 420" role="img" aria-label="Particles in three dimensions"></svg>
 <dl id="space-told" aria-live="polite"></dl>
</div>
<noscript><p class="warn">The map in three dimensions needs JavaScript; the two views below do not.</p></noscript>
<p class="note">Drag to turn the map, and let the slider turn the stage: along the beam this is what the microscope
saw at that tilt. Rings are particles that are hidden or out of view there. Dots are as large as the particles'
projected areas; the thin lines drop to the plane z = 0, where the frame is the field of view. Hover over a dot for its
position with its standard deviation, click it for the particle.</p>
<script type="application/json" id="data-space">{json_for_script(space_data(facts))}</script>
"""


def space_data(facts: Facts) -> dict[str, Any]:
    """What the map's script reads.

    Returns
    -------
    dict
        ``particles``, lists [track, [x, y, z], [their standard deviations], radius], all nm; ``values``, by name
        the unit and one number a particle to colour by; ``classes``, by name lists [name, colour] and one place in
        them a particle, −1 for none; ``alpha`` (deg, as refined) and ``drift`` (nm) of the tilts ``tilts``;
        ``states``, one letter a tilt for every particle, a for the first of ``kinds``. What is not known
        is null.
    """
    t, step = facts.tracks, facts.experiment.scan.step_nm
    usable = np.flatnonzero(facts.good & np.isfinite(facts.alpha_deg))
    usable = usable[np.argsort(facts.alpha_deg[usable], kind="stable")]
    held = usable[np.unique(np.linspace(0, len(usable) - 1, min(_HELD, len(usable))).round().astype(int))]
    area = [np.median(t.area_px[facts.sightings(int(k))]) for k in t.particle]
    height, width = facts.masks.shape
    values = {
        "coverage": ("%", 100 * np.array(list(facts.coverage.values()))),
        "height z": ("nm", t.position_nm[:, 2]),
        "misfit": ("px", t.residual_px),
        "own motion": ("px", t.own_motion_px),
    }
    return {
        "axis": round(facts.axis_deg, 3),
        "field": [width * step, height * step],
        "scale": list(CIVIDIS),
        "particles": [
            [int(k), _numbers(p), _numbers(e), round(float(np.sqrt(a / np.pi)) * step, 2)]
            for k, p, e, a in zip(t.particle, t.position_nm, t.position_error_nm, area, strict=True)
        ],
        "values": {k: [unit, _numbers(v)] for k, (unit, v) in values.items() if np.isfinite(v).any()},
        "classes": _classes(facts),
        "tilts": held.tolist(),
        "alpha": _numbers((facts.alpha_deg + t.alpha_offset_deg)[held]),
        "drift": [_numbers(d) for d in np.nan_to_num(t.drift_px[held]) * step],
        "kinds": [[name, meaning] for name, (_, meaning) in KINDS.items()],
        "states": ["".join(chr(97 + s) for s in row) for row in kinds(facts)[:, held].tolist()],
    }


def _classes(facts: Facts) -> dict[str, Any]:
    """The phases as classes, where there are any."""
    known = facts.crystals
    if not known.phases:
        return {}
    named = [[p.name, colour(i + 1)] for i, p in enumerate(known.phases)]
    of = [known.particles[int(k)].phase if int(k) in known.particles else -1 for k in facts.tracks.particle]
    return {"phase": [named, of]}


def _numbers(values: np.ndarray) -> list[float | None]:
    return [round(float(v), 2) if np.isfinite(v) else None for v in values]
