"""How every particle stands at every tilt: which have an outline of their own, which share one, which are lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.records import Masks
from stemtomo_dl.track.features import at_border
from stemtomo_dl.track.outline import Expected, Outline, agreement, meeting
from stemtomo_dl.track.solution import Solution

IN_VIEW = 0.5  # of an expected outline: with less on the scan, a particle is outside
_ITS_OWN = 0.6  # agreement of an unlinked outline with the expected one that makes it the particle's
_COVERED = 0.6  # of an expected outline, in one detection: the detection may show that particle too
_MET = 0.05  # of an outline: what it has in common with others below this is the segmenter's inaccuracy


@dataclass(frozen=True, eq=False)
class Standing:
    """What tracks, outlines and predictions say before anything is filled in.

    Attributes
    ----------
    label : (instance) int array
        The links, with detections that were not linked though they are what was expected.
    own : (particle, tilt) int array
        The instance that is a particle's own, −1: none.
    shared : (particle, tilt) int array
        The instance that shows a particle together with others as one outline, −1: none. Then ``own`` is −1.
    outside : (particle, tilt) bool array
        Without an outline, and less than half of the expected one lies on the scan.
    expected : Expected
    lost : dict
        The expected outline, cut to the scan, by particle and tilt, where a particle in view has no own outline.
    """

    label: np.ndarray
    own: np.ndarray
    shared: np.ndarray
    outside: np.ndarray
    expected: Expected
    lost: dict[tuple[int, int], Outline]


def stand(masks: Masks, label: np.ndarray, solution: Solution, recorded: np.ndarray) -> Standing:
    """Find the particles that an outline shows together, and those without one.

    A detection is merged where it covers particles that have no detection of their own, and their expected outlines
    together describe it better than that of the particle it was linked to alone.

    Parameters
    ----------
    masks : Masks
        As the segmenter found them.
    label : (instance) int array
        Particle from 0, −1 for none.
    solution : Solution
    recorded : (tilt) bool array
        Tilts at which something could have been seen.
    """
    own = np.full((len(solution.position_px), len(masks.alpha_deg)), -1)
    linked = np.flatnonzero(label >= 0)
    own[label[linked], masks.tilt[linked]] = linked
    doubtful = at_border(masks)
    first = Expected(masks, own, solution, doubtful)
    lost, outside = _lost(first, own, masks.shape, recorded)
    label = _taken_in(masks, label, lost)
    linked = np.flatnonzero(label >= 0)
    own[label[linked], masks.tilt[linked]] = linked
    lost = {(p, t): o for (p, t), o in lost.items() if own[p, t] < 0}
    covering = _covering(masks, lost)
    doubtful = doubtful.copy()
    doubtful[list(covering)] = True
    expected = Expected(masks, own, solution, doubtful)
    shared = np.full_like(own, -1)
    for instance, covered in covering.items():
        tilt = int(masks.tilt[instance])
        for p in _merged(masks, instance, int(label[instance]), covered, expected):
            shared[p, tilt] = instance
            own[p, tilt] = -1
    lost, outside = _lost(expected, own, masks.shape, recorded)
    return Standing(label, own, shared, outside, expected, lost)


def overlap_share(outlines: list[Outline], shape: tuple[int, int]) -> np.ndarray:
    """Share of each outline's pixels that lie in another one too, (n), of the outlines of one tilt."""
    count = np.zeros(shape, "i4")
    parts = [o.inside(shape) for o in outlines]
    windows = [(slice(p.row, p.row + p.crop.shape[0]), slice(p.column, p.column + p.crop.shape[1])) for p in parts]
    for part, window in zip(parts, windows, strict=True):
        count[window] += part.crop
    met = [((count[w] > 1) & p.crop).sum() / max(p.area, 1) for p, w in zip(parts, windows, strict=True)]
    return np.array(met, float)


def is_met(share: np.ndarray) -> np.ndarray:
    """Whether outlines with these shares in common with others count as overlapped, bool."""
    return share > _MET


def _lost(
    expected: Expected, own: np.ndarray, shape: tuple[int, int], recorded: np.ndarray
) -> tuple[dict[tuple[int, int], Outline], np.ndarray]:
    """Expected outlines of particles in view without an own one; and who is outside (particle, tilt)."""
    lost: dict[tuple[int, int], Outline] = {}
    near = np.array([expected.in_reach(p, shape) for p in range(len(own))], bool).reshape(own.shape)
    unseen = (own < 0) & recorded
    outside = unseen & ~near
    for p, t in zip(*np.nonzero(unseen & near), strict=True):
        outline = expected.outline(int(p), int(t))
        part = outline.inside(shape).tight()
        if part.area and part.area >= IN_VIEW * outline.area:
            lost[int(p), int(t)] = part
        else:
            outside[p, t] = True
    return lost, outside


def _taken_in(masks: Masks, label: np.ndarray, lost: dict[tuple[int, int], Outline]) -> np.ndarray:
    """Links with detections that nobody has and that are what was expected of a lost particle, the best first.

    Their centres may have been too far off for linking, which knows no outlines.
    """
    out = label.copy()
    free = {t: [i for i in masks.at(t).tolist() if label[i] < 0] for t in {t for _, t in lost}}
    near = {key: meeting(o, masks, np.array(free[key[1]], int)).tolist() for key, o in lost.items()}
    pairs = [(agreement(o, Outline.of(masks, i)), p, t, i) for (p, t), o in lost.items() for i in near[p, t]]
    settled: set[tuple[int, int]] = set()
    for agreed, p, t, i in sorted(pairs, reverse=True):
        if agreed >= _ITS_OWN and out[i] < 0 and (p, t) not in settled:
            out[i] = p
            settled.add((p, t))
    return out


def _covering(masks: Masks, lost: dict[tuple[int, int], Outline]) -> dict[int, list[int]]:
    """Detections that cover lost particles, and which."""
    out: dict[int, list[int]] = {}
    at = {t: masks.at(t) for t in {t for _, t in lost}}
    for (p, t), outline in lost.items():
        near = meeting(outline, masks, at[t])
        common = np.array([outline.cut(Outline.of(masks, int(i))).area for i in near])
        if len(common) and common.max() >= _COVERED * outline.area:
            out.setdefault(int(near[common.argmax()]), []).append(p)
    return out


def _merged(masks: Masks, instance: int, owner: int, covered: list[int], expected: Expected) -> list[int]:
    """The particles that a detection shows together; none where it is better described by its owner alone."""
    outline, tilt = Outline.of(masks, instance), int(masks.tilt[instance])
    members = [*covered, owner] if owner >= 0 else covered
    each = [expected.outline(p, tilt).inside(masks.shape) for p in members]
    alone = agreement(outline, each[-1]) if owner >= 0 else 0.0
    return members if len(members) > 1 and agreement(outline, _union(each, masks.shape)) > alone else []


def _union(outlines: list[Outline], shape: tuple[int, int]) -> Outline:
    """All outlines as one."""
    full = np.zeros(shape, bool)
    for o in outlines:
        full[o.row : o.row + o.crop.shape[0], o.column : o.column + o.crop.shape[1]] |= o.crop
    return Outline(full, 0, 0).tight()
