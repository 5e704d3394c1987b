"""Outlines where the segmenter gave none of a particle's own: asked for, projected, or cut from a shared one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from stemtomo_dl.records import SOURCES, Masks
from stemtomo_dl.track.outline import Outline, agreement, near
from stemtomo_dl.track.overlap import Standing

Prompt = Callable[[int, np.ndarray], Masks]
"""Asks the segmenter for the particles in boxes (n, 4) x0, y0, x1, y1 at a tilt: n outlines in that order."""

_LEAST_SCORE = 0.5  # of an outline that was asked for
_LEAST_AGREEMENT = 0.6  # with the expected one, intersection over union
_ANOTHERS = 0.5  # an asked-for outline that agrees so well with one that is there shows that particle again
_BEHIND = 0.85  # of an expected outline, in others: the particle cannot be seen, nor be told from them
_RUN_DEG, _RUN_TILTS = 6.0, 2  # the longest run of tilts over which outlines are projected
_ROOM_PX = 2  # how far a particle may reach beyond the shared outline that it is cut from


class Filled(NamedTuple):
    """An outline that the segmenter did not find by itself."""

    particle: int
    tilt: int
    outline: Outline
    source: int  # place in SOURCES
    detected: int  # the shared instance it was cut from, −1: none
    score: float


def fill(masks: Masks, standing: Standing, prompt: Prompt | None = None) -> list[Filled]:
    """Outlines for particles in view that have none of their own.

    A particle that is shown with others as one outline gets its expected outline within that one. A particle that
    was missed is asked for where the segmenter can be asked, and taken where the answer agrees with what was
    expected. Failing that, its outline is projected, if sightings on both sides are near: outlines are never
    projected beyond a track's ends. A particle that lies behind others stays hidden.

    Parameters
    ----------
    masks : Masks
        As the segmenter found them.
    standing : Standing
    prompt : callable, optional

    Returns
    -------
    list of Filled
        By tilt, then particle.
    """
    out = []
    by_tilt: dict[int, dict[int, Outline]] = {}
    for (p, t), o in standing.lost.items():
        by_tilt.setdefault(t, {})[p] = o
    for tilt, lost in sorted(by_tilt.items()):
        cut = [
            _cut(masks, p, tilt, o, int(standing.shared[p, tilt]))
            for p, o in lost.items()
            if standing.shared[p, tilt] >= 0
        ]
        there = [Outline.of(masks, int(i)) for i in standing.own[:, tilt] if i >= 0] + [f.outline for f in cut]
        boxes = np.array([o.box for o in there]).reshape(-1, 4)
        missed = {
            p: o for p, o in lost.items() if standing.shared[p, tilt] < 0 and not _is_behind(o, near(o, there, boxes))
        }
        asked = _asked(tilt, missed, there, prompt) if prompt and missed else []
        told = {f.particle for f in asked}
        kept = [(p, o) for p, o in missed.items() if p not in told and _is_bridged(standing, p, tilt)]
        score = [float(masks.score[standing.own[p, standing.expected.nearest(p, tilt)]]) for p, _ in kept]
        projected = [
            Filled(p, tilt, o, SOURCES.index("projected"), -1, s) for (p, o), s in zip(kept, score, strict=True)
        ]
        out += sorted([*cut, *asked, *projected], key=lambda f: f.particle)
    return out


def append(masks: Masks, filled: list[Filled]) -> Masks:
    """The masks with the filled outlines after them; ``source`` tells which is which."""
    crops = (*masks.crops, *(f.outline.crop for f in filled))
    origin = np.array([(f.outline.row, f.outline.column) for f in filled], "i4").reshape(-1, 2)
    tilt, source = np.array([f.tilt for f in filled], "i4"), np.array([f.source for f in filled], "i1")
    before = np.zeros(len(masks), "i1") if masks.source is None else masks.source
    return Masks(
        masks.shape,
        crops,
        np.concatenate([masks.origin, origin]),
        np.concatenate([masks.tilt, tilt]),
        np.concatenate([masks.score, np.array([f.score for f in filled], "f4")]),
        masks.alpha_deg,
        np.concatenate([before, source]),
    )


def _cut(masks: Masks, particle: int, tilt: int, expected: Outline, instance: int) -> Filled:
    """A particle's part of an outline that shows several, a little room left for what the prediction is off."""
    part = expected.cut(Outline.of(masks, instance).grown(_ROOM_PX)).tight()
    return Filled(particle, tilt, part, SOURCES.index("projected"), instance, float(masks.score[instance]))


def _is_behind(outline: Outline, others: list[Outline]) -> bool:
    """Whether others' outlines leave next to nothing of one to be seen."""
    seen = outline.crop.copy()
    for other in others:
        common = outline.cut(other)
        rows, columns = common.row - outline.row, common.column - outline.column
        seen[rows : rows + common.crop.shape[0], columns : columns + common.crop.shape[1]] &= ~common.crop
    return bool(seen.sum() <= (1 - _BEHIND) * outline.area)


def _asked(tilt: int, missed: dict[int, Outline], there: list[Outline], prompt: Prompt) -> list[Filled]:
    """What the segmenter draws at the expected places, where it agrees and shows no particle a second time."""
    edges = np.array([o.box for o in missed.values()])
    answers = prompt(tilt, edges - 0.5)  # a segmenter's pixel centres are at whole numbers
    out = []
    for n, (particle, expected) in enumerate(missed.items()):
        answer, score = Outline.of(answers, n), float(answers.score[n])
        again = any(agreement(answer, o) > _ANOTHERS for o in there)
        if score >= _LEAST_SCORE and agreement(answer, expected) >= _LEAST_AGREEMENT and not again:
            out.append(Filled(particle, tilt, answer, SOURCES.index("prompted"), -1, score))
            there.append(answer)
    return out


def _is_bridged(standing: Standing, particle: int, tilt: int) -> bool:
    """Whether the particle was seen on both sides, in angle, of a short run of tilts."""
    order = standing.expected.order
    seen = np.flatnonzero((standing.own[particle] >= 0) | (standing.shared[particle] >= 0))
    before, after = seen[order[seen] < order[tilt]], seen[order[seen] > order[tilt]]
    if not len(before) or not len(after):
        return False
    low, high = order[before].max(), order[after].min()
    run = np.count_nonzero((order > low) & (order < high))
    return bool(run <= _RUN_TILTS or high - low <= _RUN_DEG)
