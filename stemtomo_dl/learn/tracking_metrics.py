"""How well tracks keep to particles: HOTA, identity scores, switches, purity.

HOTA is that of Luiten et al. (IJCV 129, 548, 2021), IDF1 that of Ristani et al. (ECCV workshops 2016), switches and
fragmentations those of Bernardin and Stiefelhagen (CLEAR MOT, 2008). They take what a tilt shows as similarities
between true and found sightings: of outlines the intersection over union, of points their nearness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from stemtomo_dl.learn.overlap import depth, iou_matrix
from stemtomo_dl.records import Masks, Tracks, Truth

SIMILARITIES = np.arange(1, 20) * 0.05  # at which HOTA is taken
_SAME = 0.5  # similarity from which a sighting shows a particle, for all scores but HOTA
_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Encounter:
    """What one tilt shows: true particles (n) and tracks (m), as numbers from 0, and their similarity (n, m)."""

    particle: np.ndarray
    track: np.ndarray
    similarity: np.ndarray


def point_encounters(
    true_tilt: np.ndarray,
    particle: np.ndarray,
    true_xy: np.ndarray,
    tilt: np.ndarray,
    track: np.ndarray,
    xy: np.ndarray,
    reach_px: float,
) -> list[Encounter]:
    """Encounters of a centroid series.

    Parameters
    ----------
    true_tilt, particle : (n) int arrays
        Of true sightings; a negative particle is none.
    true_xy : (n, 2) array
        Where they are, px.
    tilt, track : (m) int arrays
        Of detections; a negative track is none.
    xy : (m, 2) array
        Where they are, px.
    reach_px : float
        Similarity falls from 1 at the same place to 0 at this distance.
    """
    real, linked = np.flatnonzero(particle >= 0), np.flatnonzero(track >= 0)
    who, which = _numbered(particle[real]), _numbered(track[linked])
    out = []
    for t in np.union1d(true_tilt[real], tilt[linked]):
        i, j = true_tilt[real] == t, tilt[linked] == t
        distance = np.hypot(*(true_xy[real[i], None] - xy[linked[j]]).transpose(2, 0, 1))
        out.append(Encounter(who[i], which[j], np.maximum(0.0, 1 - distance / reach_px)))
    return out


def mask_encounters(
    masks: Masks, instance: np.ndarray, track: np.ndarray, truth: Truth, good: np.ndarray
) -> list[Encounter]:
    """Encounters of outlines.

    Parameters
    ----------
    masks : Masks
    instance, track : (sighting) int arrays
        Which outline is which track's.
    truth : Truth
    good : (tilt) bool array
        Tilts that count.
    """
    who, which, tilt = _numbered(truth.particle), _numbered(track), masks.tilt[instance]
    out = []
    for t in np.flatnonzero(good):
        i, j = truth.masks.at(int(t)), np.flatnonzero(tilt == t)
        out.append(Encounter(who[i], which[j], iou_matrix(truth.masks, i, masks, instance[j])))
    return out


def tracking_scores(encounters: list[Encounter]) -> dict[str, Any]:
    """Scores of tracks.

    Returns
    -------
    dict
        ``hota``, ``deta``, ``assa``: means over the similarities .05, .10, … .95, and ``hota_at``, ``deta_at``,
        ``assa_at`` at each; ``idf1``, ``idp``, ``idr``; ``switches``: how often a particle goes on under another
        track, ``fragmentations``: how often it is lost and found again; ``purity``: the share of all tracks'
        sightings that show their track's commonest particle, and ``mean_purity``, the mean of that over tracks.
        Scores are 0 where nothing is true or nothing was found.
    """
    seen = np.bincount(_joined([e.particle for e in encounters])).astype(float)
    length = np.bincount(_joined([e.track for e in encounters])).astype(float)
    links = np.zeros((len(seen), len(length)))
    for e in encounters:
        i, j = np.nonzero(e.similarity >= _SAME)
        links[e.particle[i], e.track[j]] += 1
    rows, columns = linear_sum_assignment(-links)
    right, true, found = (float(v.sum()) for v in (links[rows, columns], seen, length))
    main = links.max(0, initial=0)
    switches, fragmentations = _continuity(encounters, len(seen))
    return {
        **_hota(encounters, seen, length),
        "idf1": 2 * right / max(true + found, 1),
        "idp": right / max(found, 1),
        "idr": right / max(true, 1),
        "switches": switches,
        "fragmentations": fragmentations,
        "purity": float(main.sum()) / max(found, 1),
        "mean_purity": float((main / length).mean()) if len(length) else 0.0,
    }


def pattern_purity(masks: Masks, tracks: Tracks, truth: Truth, good: np.ndarray) -> dict[str, Any]:
    """Whose patterns the tracks' series are made of, judged by where their probes lie.

    Probes are the pixels of a track's outlines, without those that other outlines of the tilt cover where that leaves
    any. Probes on the bare support count for nobody: they add no other crystal's reflections. A track's particle is
    the one that covers most of its probes.

    Returns
    -------
    dict
        ``purity``: the share of all tracks' probes that their track's particle covers, ``least_purity``: that of the
        worst track, ``mixed``: the share that another particle covers as well.
    """
    own, shared = (np.zeros((len(tracks.particle), len(truth.ub))) for _ in range(2))
    probes = np.zeros(len(tracks.particle))
    for t in np.flatnonzero(good).tolist():
        true = _cover(truth, t)
        outlines, particles = depth(masks, masks.at(t)), true.sum(0)
        for s in np.flatnonzero(tracks.tilt == t):
            i, k = int(tracks.instance[s]), int(np.searchsorted(tracks.particle, tracks.track[s]))
            window, crop = masks.window(i), masks.crops[i]
            free = crop & (outlines[window] == 1)
            used = free if free.any() else crop
            here, crowd = true[(slice(None), *window)][:, used], particles[window][used]
            own[k] += here.sum(1)
            shared[k] += (here & (crowd > 1)).sum(1)
            probes[k] += np.count_nonzero(crowd)
    on = np.flatnonzero(probes)
    if not len(on):
        return {"purity": None, "least_purity": None, "mixed": None}
    best = own.argmax(1)[on]
    return {
        "purity": float(own[on, best].sum() / probes.sum()),
        "least_purity": float((own[on, best] / probes[on]).min()),
        "mixed": float(shared[on, best].sum() / probes.sum()),
    }


def _cover(truth: Truth, tilt: int) -> np.ndarray:
    """Which pixels each particle covers at a tilt, (particle, y, x) bool."""
    out = np.zeros((len(truth.ub), *truth.masks.shape), bool)
    for i in truth.masks.at(tilt):
        out[truth.particle[i]][truth.masks.window(int(i))] |= truth.masks.crops[i]
    return out


def _hota(encounters: list[Encounter], seen: np.ndarray, length: np.ndarray) -> dict[str, Any]:
    """HOTA over the similarities; ``seen`` (particle) and ``length`` (track) count sightings.

    Within a tilt, sightings are matched by similarity times how well particle and track agree over the whole series;
    a match counts from each similarity that it reaches.
    """
    agreement = np.zeros((len(seen), len(length)))
    for e in encounters:
        rivals = e.similarity.sum(0) + e.similarity.sum(1)[:, None] - e.similarity
        share = np.divide(e.similarity, rivals, out=np.zeros_like(e.similarity), where=rivals > _EPS)
        agreement[np.ix_(e.particle, e.track)] += share
    agreement /= seen[:, None] + length - agreement
    particle, track, similarity = [], [], []
    for e in encounters:
        rows, columns = linear_sum_assignment(-agreement[np.ix_(e.particle, e.track)] * e.similarity)
        particle.append(e.particle[rows])
        track.append(e.track[columns])
        similarity.append(e.similarity[rows, columns])
    pair = _joined(particle) * max(len(length), 1) + _joined(track)
    reached = np.concatenate([*similarity, np.zeros(0)])[:, None] >= SIMILARITIES - _EPS
    pairs, index = np.unique(pair, return_inverse=True)
    either = seen[pairs // max(len(length), 1)] + length[pairs % max(len(length), 1)]
    deta, assa = np.zeros((2, len(SIMILARITIES)))
    for a in range(len(SIMILARITIES)):
        count = np.bincount(index[reached[:, a]], minlength=len(pairs)).astype(float)
        matched = count.sum()
        deta[a] = matched / max(seen.sum() + length.sum() - matched, 1)
        assa[a] = (count * count / (either - count)).sum() / max(matched, 1)
    at = {"hota": np.sqrt(deta * assa), "deta": deta, "assa": assa}
    return {k: float(v.mean()) for k, v in at.items()} | {f"{k}_at": v for k, v in at.items()}


def _continuity(encounters: list[Encounter], particles: int) -> tuple[int, int]:
    """Switches and fragmentations.

    A particle keeps the track of the tilt before while their similarity allows it; what is left is matched by
    similarity. Tilts where nothing is true or nothing was found are passed over.
    """
    last, before = np.full(particles, -1), np.full(particles, -1)  # ever, and at the tilt before
    pieces = np.zeros(particles, int)
    switches = 0
    for e in encounters:
        if 0 in e.similarity.shape:
            continue
        # a kept track outweighs any sum of similarities
        gain = e.similarity + (len(e.particle) + 1) * (e.track == before[e.particle][:, None])
        gain[e.similarity < _SAME - _EPS] = 0
        rows, columns = linear_sum_assignment(-gain)
        met = gain[rows, columns] > 0
        who, which = e.particle[rows[met]], e.track[columns[met]]
        switches += int(((last[who] >= 0) & (last[who] != which)).sum())
        pieces[who] += before[who] < 0
        before[:] = -1
        last[who] = before[who] = which
    return switches, int(np.maximum(pieces - 1, 0).sum())


def _numbered(names: np.ndarray) -> np.ndarray:
    """Names by their rank from 0, so that those in use have no gaps."""
    return np.asarray(np.unique(names, return_inverse=True)[1])


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([*parts, np.zeros(0, int)]).astype(int)
