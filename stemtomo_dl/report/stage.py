"""What the tracks tell of the stage: its axis, its angles, the drift of the field, and the noise."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.geometry import rotate_in_plane
from stemtomo_dl.report.chart import Chart, span
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.text import degrees, escape, number, plural, plus_minus

_ANGLE = "tilt angle α (°)"
_LABELLED = 12  # jumps; more labels would cover each other


def stage_section(facts: Facts, beam_px: np.ndarray) -> str:
    """Drift of the field and the beam, errors of the angle where they were fitted, and the stage in numbers."""
    offset = ""
    if facts.angles_fitted:
        offset = (
            f"<figure>{_offset_chart(facts)}<figcaption>Tilt angle as refined, less as stated.</figcaption></figure>"
        )
    field, spot = _drift_chart(facts), _beam_chart(facts, beam_px)
    return f"""{_table(facts)}
<div class="two">
<figure>{field}<figcaption>Shift of the field of view, in scan pixels.</figcaption></figure>
<figure>{spot}<figcaption>Direct beam on the detector, at the scan's centre.</figcaption></figure>
{offset}</div>
<p class="note">The shift is what moves all particles together beyond the stage's rotation. Scatter is re-centring
between scans and does no harm; a jump, marked by its length, is safe if the outlines keep their numbers across it. A
shift across the axis that changes like a sine of the angle is the stage's own: it turns about a line beside the field.
The beam should move smoothly or stay. A lone outlier means that the beam was not found at that tilt, and its patterns
are not centred.</p>"""


def axis_text(facts: Facts) -> str:
    """The tilt axis as stated and as refined."""
    t, stated = facts.tracks, facts.experiment.stage.tilt_axis_deg
    if not (t.rigid and np.isfinite(t.tilt_axis_error_deg)):
        return f"{degrees(stated)} as stated, not refined"
    return f"{degrees(stated)} stated, {plus_minus(t.tilt_axis_deg, t.tilt_axis_error_deg, 2, '°')} refined"


def _table(facts: Facts) -> str:
    """The stage in numbers, and why not where its geometry could not be used."""
    t, step_nm = facts.tracks, facts.experiment.scan.step_nm
    lines = [("Tilt axis, from x toward y", axis_text(facts))]
    if np.isfinite(t.noise_px):
        noise = f"{number(t.noise_px, 2)} px ({number(t.noise_px * step_nm, 2)} nm) a coordinate"
        lines.append(("Noise of the outlines' centres", noise))
    if len(facts.steps[0]):
        k = int(np.argmax(facts.steps[1]))
        before, after = facts.steps[0][k].tolist()
        largest = f"{number(float(facts.steps[1][k]))} px, between tilts {before} and {after}"
        lines.append(("Largest jump of the field", largest))
    lines.append(("Errors of the tilt angle", _angle_errors(facts)))
    if np.isfinite(t.gauge_error_nm).any():
        shared = ", ".join(number(v) for v in t.gauge_error_nm.tolist())
        lines.append(("Error that all positions share, x, y, z", f"{shared} nm"))
    if np.isfinite(t.own_motion_px).any():
        lines.append(("Particles that move by themselves", _own_motion(facts)))
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in lines)
    note = f'<p class="warn">{escape(t.note)}</p>' if t.note else ""
    return f'{note}<dl class="stagefacts">{rows}</dl>'


def _angle_errors(facts: Facts) -> str:
    if not facts.angles_fitted:
        return "none seen"
    offset = facts.tracks.alpha_offset_deg
    rms, most = float(np.sqrt(np.nanmean(offset**2))), float(np.nanmax(np.abs(offset)))
    return f"{number(rms, 2)}° rms, {number(most, 2)}° at most"


def _own_motion(facts: Facts) -> str:
    n = int(facts.moving.sum())
    most = f"at most {number(float(np.nanmax(facts.tracks.own_motion_px)), 1)} px"
    return f"{plural(n, 'particle')}; {most}" if n else f"none; {most}"


def _drift_chart(facts: Facts) -> str:
    """Drift along and across the axis, jumps marked with their lengths."""
    drift = rotate_in_plane(np.where(facts.good[:, None], facts.tracks.drift_px, np.nan), -facts.axis_deg)
    names = ("along the tilt axis", "across it")
    chart = _pair(facts, drift, "drift (px)", "Drift of the field against the tilt angle", names)
    pairs, size = facts.steps
    for (before, after), px in zip(pairs.tolist(), size.tolist(), strict=True):
        if px <= facts.jump_limit_px:
            continue
        at = chart.px(float(facts.alpha_deg[[before, after]].mean()))
        chart.add(f'<path class="lost" d="M{at:.1f} {chart.box[1]:.0f}V{chart.box[3]:.0f}"/>')
        if (size > facts.jump_limit_px).sum() <= _LABELLED:
            place = f"translate({at - 3:.1f} {chart.box[1] + 4:.0f}) rotate(-90)"
            chart.add(f'<text class="end jump" transform="{place}">{number(px, 0)} px</text>')
    return chart.svg()


def _beam_chart(facts: Facts, beam_px: np.ndarray) -> str:
    alt = "Direct beam on the detector against the tilt angle"
    return _pair(facts, beam_px, "direct beam (detector px)", alt, ("column", "row")).svg()


def _pair(facts: Facts, values: np.ndarray, axis: str, alt: str, names: tuple[str, str]) -> Chart:
    """Two components, (tilt, 2), against the tilt angle."""
    order = np.argsort(facts.alpha_deg, kind="stable")
    chart = Chart((480, 280), facts.angles, span(values, 2.0), (_ANGLE, axis), alt, top=30)
    chart.key([("blue", names[0]), ("red", names[1])])
    for i, kind in enumerate(("blue", "red")):
        chart.curve(facts.alpha_deg[order], values[order, i], kind)
    return chart


def _offset_chart(facts: Facts) -> str:
    order, offset = np.argsort(facts.alpha_deg, kind="stable"), facts.tracks.alpha_offset_deg
    limits, title = span(offset, 0.2), (_ANGLE, "error of the angle (°)")
    chart = Chart((480, 280), facts.angles, limits, title, "Errors of the tilt angle against the tilt angle")
    chart.curve(facts.alpha_deg[order], offset[order], "blue")
    return chart.svg()
