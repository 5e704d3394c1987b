"""What a reader is told first: the verdict, and the points that deserve a look."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.text import degrees, number, percent, plural

_NAMED = 12  # particles named in one point


def verdict(facts: Facts) -> str:
    """The run in one or two sentences."""
    n, used = len(facts.tracks.particle), int(facts.good.sum())
    tilts = f"{used} of {plural(facts.n_tilts, 'tilt')}"
    known = facts.alpha_deg[facts.good & np.isfinite(facts.alpha_deg)]
    reach = f", {degrees(float(known.min()))} to {degrees(float(known.max()))}" if len(known) else ""
    if not n:
        return (
            f"No particle was followed over {tilts}{reach}. {plural(len(facts.masks), 'outline')} "
            f"{'was' if len(facts.masks) == 1 else 'were'} found; the series below shows whether particles are "
            "there to be found."
        )
    coverage = np.array(list(facts.coverage.values()))
    return (
        f"{plural(n, 'particle')} {'was' if n == 1 else 'were'} followed over {tilts}{reach}. The median particle "
        f"is seen at {percent(float(np.median(coverage)))} of the usable tilts; {int((coverage >= 0.8).sum())} of "
        f"{n} at 80 % of them or more."
    )


def points(facts: Facts, beam_px: np.ndarray) -> list[str]:
    """Points to look at, as HTML; empty if none."""
    tracks = facts.tracks
    each = [facts.sightings(int(k)) for k in tracks.particle]
    jumps, thin = [int(facts.jumps[r].sum()) for r in each], [c < 0.8 for c in facts.coverage.values()]
    cut = [float(facts.cut[tracks.instance[r]].mean()) > 0.2 for r in each]
    out = [
        _particles(facts, thin, "seen at under 80 % of the usable tilts"),
        _particles(
            facts,
            [j > 0 for j in jumps],
            "off the place that the stage's rotation predicts at one tilt or "
            "more: the outline may have been confused with a neighbour's",
        ),
        _particles(
            facts,
            cut,
            "cut by the scan's border at over a fifth of the tilts: positions and intensities "
            "there are those of a part of it",
        ),
        _strays(facts),
        _drift(facts),
        _beam(beam_px),
    ]
    return [p for p in out if p]


def _particles(facts: Facts, concerned: list[bool], text: str) -> str:
    """A point about some particles, with links to them; ``text`` follows "n particles are"."""
    which = facts.tracks.particle[np.array(concerned, bool)].tolist() if concerned else []
    if not which:
        return ""
    links = ", ".join(f'<a href="#p{k}">{k}</a>' for k in which[:_NAMED])
    more = f" and {len(which) - _NAMED} more" if len(which) > _NAMED else ""
    subject = f"{plural(len(which), 'particle')} {'is' if len(which) == 1 else 'are'}"
    return f"{subject} {text}: {links}{more}."


def _strays(facts: Facts) -> str:
    stray = len(facts.masks) - len(facts.tracks.track)
    if stray <= 0.1 * len(facts.masks):
        return ""
    return (
        f"{stray} of {len(facts.masks)} outlines belong to no particle: they are spurious, or particles were lost. "
        "Show them in the series."
    )


def _drift(facts: Facts) -> str:
    """The largest step of the field between neighbouring tilts, if it is large."""
    order = [int(t) for t in np.argsort(facts.alpha_deg, kind="stable") if facts.good[t]]
    if len(order) < 2:
        return ""
    step = np.hypot(*np.diff(facts.tracks.drift_px[order], axis=0).T)
    k = int(np.argmax(np.nan_to_num(step)))
    if not step[k] > max(5.0, 0.05 * max(facts.masks.shape)):
        return ""
    return (
        f"The field moves by {number(float(step[k]))} px between tilts {order[k]} and {order[k + 1]}; check in the "
        "series that the numbers stay with their particles there."
    )


def _beam(beam_px: np.ndarray) -> str:
    known = beam_px[np.isfinite(beam_px).all(1)]
    reach = float(np.ptp(known, axis=0).max()) if len(known) else 0.0
    if reach <= 8:
        return ""
    return (
        f"The direct beam wanders by {number(reach)} detector pixels over the series; patterns are centred for it, "
        "but the detector's edge cuts off other reflections at every tilt."
    )
