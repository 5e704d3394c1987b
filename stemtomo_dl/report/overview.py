"""How far the run came: counts from outlines to structures, and why particles dropped out on the way."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from stemtomo_dl.crystal.joint import camera_line
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.merged import outcome
from stemtomo_dl.report.text import escape, fixed, number, plural

_NAMED = 12  # particles named with one reason


def overview(facts: Facts) -> str:
    """Counts of what was found, followed, indexed, merged and solved, and a line for each phase."""
    known = facts.crystals
    steps = [("outlines found", int(facts.found.sum())), ("particles followed", len(facts.tracks.particle))]
    if known.tried:
        steps += [
            ("particles indexed", len(known.indexed)),
            ("particles merged", sum(f.phase >= 0 for f in known.particles.values())),
            ("phases", len(known.phases)),
            ("structures solved", len(known.solved)),
        ]
    counts = "".join(f"<div><b>{n}</b><span>{name}</span></div>" for name, n in steps)
    phases = "".join(
        f'<li><a href="#phase{i + 1}">{escape(p.name)}</a>: {plural(len(p.figures["members"]), "particle")}; '
        f"{escape(outcome(p))}</li>"
        for i, p in enumerate(known.phases)
    )
    listed = f'<ul class="points">{phases}</ul>' if phases else ""
    return f'<div class="counts">{counts}</div>{listed}{_failures(facts)}'


def _failures(facts: Facts) -> str:
    """Reasons that particles are not in a phase, each with its particles."""
    reasons: dict[str, list[int]] = defaultdict(list)
    for track, found in facts.crystals.particles.items():
        if found.note:
            reasons[_kind(found.note)].append(track)
    for phase in facts.crystals.phases:
        for left in phase.figures.get("left_out") or []:
            reasons[f"left out of {phase.name}: {_kind(left['reason'])}"].append(left["track"])
    lines = []
    for reason, tracks in sorted(reasons.items(), key=lambda r: -len(r[1])):
        links = ", ".join(f'<a href="#p{k}">{k}</a>' for k in tracks[:_NAMED])
        more = f" and {len(tracks) - _NAMED} more" if len(tracks) > _NAMED else ""
        lines.append(f"<li>{plural(len(tracks), 'particle')}: {escape(reason)} ({links}{more})</li>")
    if not lines:
        return ""
    return f'<h2 class="small">Particles that dropped out</h2><ul class="points">{"".join(lines)}</ul>'


def _kind(note: str) -> str:
    """A reason without the numbers that differ from particle to particle."""
    return " ".join("few" if word.isdigit() else word for word in note.split())


def geometry_text(facts: Facts) -> list[tuple[str, str]]:
    """The geometry that all lattices share, as refined: names and values."""
    shared = facts.crystals.geometry
    if shared is None:
        return []
    g = shared.geometry
    long = float(np.hypot(*g.ellipse))
    along = float(np.degrees(np.arctan2(g.ellipse[1], g.ellipse[0])) / 2)
    lines = [
        (
            "Tilt axis by the lattices",
            f"{fixed(g.instrument.tilt_axis_deg, 2)}°, elevation {fixed(g.elevation_deg, 2)}°",
        ),
        ("Reciprocal pixel by the lattices", f"{number(g.pixel, 5)} 1/Å ({fixed(100 * (g.scale - 1), 2)} %)"),
        ("Elliptical distortion", f"{fixed(100 * long, 2)} % along {number(along, 0)}°"),
    ]
    if told := camera_line(g.scale, g.curvature_scale, g.curvature_esd):
        lines.append(("Camera length", told))
    if g.turn_rad is not None:
        rms = np.degrees(np.sqrt((g.turn_rad**2).sum(1).mean()))
        lines.append(("Orientation errors of the tilts", f"{fixed(float(rms), 3)}° rms"))
    return lines
