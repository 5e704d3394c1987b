"""What a reader is told first: the verdict, and the points that deserve a look."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.records import SOURCES, STATES
from stemtomo_dl.report import doubts
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.text import degrees, escape, number, percent, plural, plus_minus

_NAMED = 12  # particles named in one point
_AXIS_DEG = 5.0  # stated axes are good to a few degrees
_UNSURE_DEG = 1.0  # an axis known less well than this shifts spots that lie far out by more than their width
_SHARE = 0.2  # of a particle's tilts; more than this deserves a look
_DOUBTED = 0.5  # a sighting whose diffraction is less probably the track's than this


def verdict(facts: Facts) -> str:
    """The run in one or two sentences."""
    n, used = len(facts.tracks.particle), int(facts.good.sum())
    tilts = f"{used} of {plural(facts.n_tilts, 'tilt')}"
    known = facts.alpha_deg[facts.good & np.isfinite(facts.alpha_deg)]
    reach = f", {degrees(float(known.min()))} to {degrees(float(known.max()))}" if len(known) else ""
    if not n:
        return (
            f"No particle was followed over {tilts}{reach}. {plural(int(facts.found.sum()), 'outline')} "
            f"{'was' if facts.found.sum() == 1 else 'were'} found; the series below shows whether particles are "
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
    cut = [float(facts.cut[tracks.instance[r]].mean()) > _SHARE for r in each]
    out = [
        *_stage(facts),
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
        *_sightings(facts, each),
        _particles(
            facts,
            facts.moving.tolist(),
            f"seen to move on the stage, by {number(float(np.nanmax(tracks.own_motion_px, initial=0)))} px at most: "
            "the lattice may turn as well",
        ),
        _strays(facts),
        _drift(facts),
        _hidden(facts),
        _beam(beam_px),
        *(_particles(facts, concerned, text) for concerned, text in doubts.of_particles(facts)),
        *doubts.of_run(facts),
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


def _sightings(facts: Facts, each: list[np.ndarray]) -> list[str]:
    """Points about particles whose tilts are doubtful for other reasons than their places; rows of each particle."""
    t = facts.tracks
    merged, projected = t.state == STATES.index("merged"), t.source == SOURCES.index("projected")
    doubted = np.where(np.isfinite(t.identity), t.identity < _DOUBTED, np.nan)  # NaN: the diffraction does not say

    def often(chosen: np.ndarray) -> list[bool]:
        shares = [chosen[r][np.isfinite(chosen[r])] for r in each]
        return [bool(len(s) and s.mean() > _SHARE) for s in shares]

    return [
        _particles(
            facts,
            often(doubted),
            "of doubtful identity at over a fifth of the tilts: the diffraction patterns do not go with those of the "
            "neighbouring tilts, so other particles may be mixed in",
        ),
        _particles(
            facts,
            often(merged.astype(float)),
            "seen only as one with another particle at over a fifth of the tilts: the patterns may hold spots of both",
        ),
        _particles(
            facts,
            often(projected.astype(float)),
            "not found at over a fifth of the tilts; the outlines there are computed",
        ),
    ]


def _stage(facts: Facts) -> list[str]:
    """Points about the geometry: not used, far from what was stated, or poorly known."""
    t, stated = facts.tracks, facts.experiment.stage.tilt_axis_deg
    if not t.rigid:
        why = f" {escape(t.note)}" if t.note else ""
        return [f"The geometry of the tilt could not be used; heights and misfits are not to be trusted.{why}"]
    out = []
    refined = plus_minus(t.tilt_axis_deg, t.tilt_axis_error_deg, 2, "°")
    off = (t.tilt_axis_deg - stated + 90) % 180 - 90
    if abs(off) > _AXIS_DEG:
        out.append(
            f"The tilt axis lies at {refined}, {degrees(abs(off))} from the stated {degrees(stated)}; correct "
            "tilt_axis_deg if a calibration agrees."
        )
    if t.tilt_axis_error_deg > _UNSURE_DEG:
        out.append(f"The tilt axis is known only to {refined}: too few particles, or too small a range of angles.")
    return out


def _strays(facts: Facts) -> str:
    stray, found = int(facts.stray.sum()), int(facts.found.sum())
    if stray <= 0.1 * found:
        return ""
    return (
        f"{stray} of {found} outlines belong to no particle: they are spurious, or particles were lost. "
        "Show them in the series."
    )


def _drift(facts: Facts) -> str:
    """The largest step of the field between neighbouring tilts, if it is a jump."""
    pairs, size = facts.steps
    if not (size > facts.jump_limit_px).any():
        return ""
    k = int(np.argmax(size))
    before, after = pairs[k].tolist()
    return (
        f"The field moves by {number(float(size[k]))} px between tilts {before} and {after}; check in the "
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


def _hidden(facts: Facts) -> str:
    n = int(facts.beam_hidden.sum())
    if not n:
        return ""
    return (
        f"The direct beam was hidden at {n} of {plural(int(facts.good.sum()), 'usable tilt')}, as behind a beam stop: "
        "it was taken to be where the mean pattern is symmetric by inversion, alike for all probes; bright-field "
        "images show what the stop lets through. The crosses under Calibration should sit in the patterns' middle."
    )
