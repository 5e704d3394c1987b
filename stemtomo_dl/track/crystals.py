"""Whether one outline shows one crystal or two, from the diffraction of its probes at all tilts together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stemtomo_dl.geometry import tilt_rotation

_WINDOW_DEG = 8.0  # tilts whose patterns are added up before they are compared
_FEWEST_WINDOWS = 4
_AZIMUTHS, _SLOPES = 12, (-1.0, -0.5, 0.0, 0.5, 1.0)  # directions across which an outline may be cut
_SHARES = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])  # of the outline, on the first side of a cut
_LEVEL = 0.3  # least slope on the scan of a direction that cuts there
_MARGIN = 0.06  # of the outline, on either side of a cut: what both crystals reach into
_MOST_ALIKE = 0.75  # correlation of what lies on both sides of a cut between crystals
_STEP = 3.0  # patterns change at least so many times more across the cut than on one of its sides
_SURE = 5.0  # standard deviations: of each quarter's Bragg power, and of a correlation from `_MOST_ALIKE`
_PARTS = 4  # two on each side of a cut
_ROUNDS = 4
_NEAR_DEG, _REACH_DEG = 3.0, 8.0  # how far, in tilt, the parts of an outline keep their places


@dataclass(frozen=True, eq=False)
class Sight:
    """The probes of a particle at one tilt.

    Attributes
    ----------
    alpha_deg : float
    xy : (probe, 2) array
        From the particle's predicted place, px.
    bragg : (probe, bin) array
        Bragg scattering in units of its counting noise.
    noise : (probe) array
        Sum over the bins of that noise's variance, about the number of bins.
    """

    alpha_deg: float
    xy: np.ndarray
    bragg: np.ndarray
    noise: np.ndarray


class Cut(NamedTuple):
    """A plane through a particle: its normal (3,) in the sample frame, and the share of the outline before it."""

    normal: np.ndarray
    share: float


def two_crystals(sights: list[Sight], tilt_axis_deg: float) -> Cut | None:
    """The plane between the two crystals that an outline shows, or None where it shows one, or does not tell.

    Patterns are added up over windows of tilts and the probes on both sides of a plane, projected. A plane is
    chosen that leaves the most power beside the best single pattern, on every other window; whether crystals
    meet there is decided on the rest, and both halves must agree. Four parts, two on each side, tell a boundary from a
    bend: across a boundary patterns change at once, in a bent crystal as much between any two neighbouring parts.
    One side must be alike in itself: the other may hold two crystals again.

    Parameters
    ----------
    sights : list of Sight
        By rising angle.
    tilt_axis_deg : float
        NaN where the stage's geometry is not known: then the plane stands upright at every tilt.
    """
    window = _windows(np.array([s.alpha_deg for s in sights]))
    if not len(window) or window[-1] + 1 < _FEWEST_WINDOWS:
        return None
    normals = _normals(upright=not np.isfinite(tilt_axis_deg))
    power = _power_beside(sights, window, normals, tilt_axis_deg)
    even = np.arange(power.shape[-1]) % 2 == 0
    for chosen in (even, ~even):
        cut = _best(power[..., chosen], normals)
        rest = [s for s, w in zip(sights, window, strict=True) if not chosen[w]]
        if not _meet(rest, cut, tilt_axis_deg):
            return None
    return _best(power, normals)


def amounts(sights: list[Sight], cut: Cut, tilt_axis_deg: float, width_px: float) -> list[np.ndarray]:
    """How much of each of two crystals every probe shows, (probe, 2) for each sight; about 1 where it is there.

    Alternating least squares for the two patterns of every tilt and the amounts ≥ 0 (non-negative matrix
    factorisation, Paatero and Tapper 1994, Environmetrics 5, 111, but for the patterns, which are differences and may
    be negative), started from the cut. Between rounds the amounts of near probes at near tilts are averaged, each tilt
    by how well its patterns tell the crystals apart: crystals keep their places.

    Parameters
    ----------
    sights : list of Sight
        By rising angle.
    cut : Cut
    tilt_axis_deg : float
    width_px : float
        Of the average, standard deviation.
    """
    found = [np.stack([side, ~side], 1).astype(float) for side in _sides(sights, cut, tilt_axis_deg)]
    for _ in range(_ROUNDS):
        fits = [fitted(s.bragg, f) for s, f in zip(sights, found, strict=True)]
        found = [spread(sights, fits, s.alpha_deg, s.xy, width_px) for s in sights]
    return found


def spread(
    sights: list[Sight],
    fits: list[tuple[np.ndarray, float]],
    alpha_deg: float,
    xy: np.ndarray,
    width_px: float,
) -> np.ndarray:
    """Amounts (place, 2) at places ``xy`` at a tilt, from those found at near probes of near tilts.

    Parameters
    ----------
    sights : list of Sight
    fits : list of ((probe, 2) array, float)
        Amounts of each sight, and their weight.
    alpha_deg : float
    xy : (place, 2) array
    width_px : float
    """
    total, norm = np.zeros((len(xy), 2)), np.zeros((len(xy), 1))
    for sight, (amount, weight) in zip(sights, fits, strict=True):
        away = abs(sight.alpha_deg - alpha_deg)
        if away > _REACH_DEG:
            continue
        distance2 = ((xy[:, None] - sight.xy[None]) ** 2).sum(-1)
        # far from all probes the nearest count
        nearest = distance2.min(1, keepdims=True)
        kernel = np.exp(-(distance2 - nearest) / (2 * width_px**2) - nearest / (8 * width_px**2))
        kernel *= (weight + 1e-12) * np.exp(-0.5 * (away / _NEAR_DEG) ** 2)
        total += kernel @ amount
        norm += kernel.sum(1, keepdims=True)
    return total / np.maximum(norm, 1e-30)


def _windows(alpha_deg: np.ndarray) -> np.ndarray:
    """Number of the window that each of the rising angles lies in."""
    out, first = np.zeros(len(alpha_deg), int), np.inf
    number = -1
    for i, angle in enumerate(alpha_deg):
        if number < 0 or angle - first >= _WINDOW_DEG:
            number, first = number + 1, angle
        out[i] = number
    return out


def _normals(*, upright: bool) -> np.ndarray:
    """Directions (n, 3) across which a particle may be cut; not unit vectors."""
    azimuth = np.arange(_AZIMUTHS) * np.pi / _AZIMUTHS
    slopes = (0.0,) if upright else _SLOPES
    return np.array([(np.cos(a), np.sin(a), z) for a in azimuth for z in slopes])


def _projected(normals: np.ndarray, alpha_deg: float, tilt_axis_deg: float) -> np.ndarray:
    """Directions (…, 2) on the scan of normals (…, 3) of the sample."""
    if not np.isfinite(tilt_axis_deg):
        return normals[..., :2]
    return np.asarray(normals @ tilt_rotation(tilt_axis_deg, alpha_deg)[:2].T)


def _sides(sights: list[Sight], cut: Cut, tilt_axis_deg: float) -> list[np.ndarray]:
    """Which probes (probe) bool of every sight lie before a cut."""
    return [_ranks(s.xy @ _projected(cut.normal, s.alpha_deg, tilt_axis_deg)) < cut.share for s in sights]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 to just below 1."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") / max(len(values), 1)


def _power_beside(sights: list[Sight], window: np.ndarray, normals: np.ndarray, tilt_axis_deg: float) -> np.ndarray:
    """Bragg power (normal, share, window) that one pattern leaves of the two on both sides of a cut.

    It is the smaller eigenvalue of their Gram matrix, counting noise taken from its diagonal.
    """
    bins = sights[0].bragg.shape[1]
    sums = np.zeros((len(normals), len(_SHARES), window[-1] + 1, 2, bins), "f4")
    noise = np.zeros(sums.shape[:-1])
    for s, w in zip(sights, window, strict=True):
        last = np.round(_SHARES * len(s.xy)).astype(int)
        every, all_noise = s.bragg.sum(0), s.noise.sum()
        for d, p in enumerate(_projected(normals, s.alpha_deg, tilt_axis_deg)):
            if np.hypot(*p) < _LEVEL:
                continue
            order = np.argsort(s.xy @ p, kind="stable")
            before = np.cumsum(np.vstack([np.zeros(bins), s.bragg[order]]), 0)[last]
            before_noise = np.concatenate([[0.0], np.cumsum(s.noise[order])])[last]
            sums[d, :, w, 0] += before
            sums[d, :, w, 1] += every - before
            noise[d, :, w, 0] += before_noise
            noise[d, :, w, 1] += all_noise - before_noise
    a, b = ((sums[..., i, :] ** 2).sum(-1) - noise[..., i] for i in (0, 1))
    c = (sums[..., 0, :] * sums[..., 1, :]).sum(-1)
    return np.asarray((a + b) / 2 - np.sqrt((a - b) ** 2 / 4 + c**2))


def _best(power: np.ndarray, normals: np.ndarray) -> Cut:
    d, f = np.unravel_index(power.sum(-1).argmax(), power.shape[:2])
    return Cut(normals[d], float(_SHARES[f]))


def _meet(sights: list[Sight], cut: Cut, tilt_axis_deg: float) -> bool:
    """Whether two crystals meet at a cut, by its four parts."""
    window = _windows(np.array([s.alpha_deg for s in sights]))
    first, last = cut.share - _MARGIN, cut.share + _MARGIN
    edges = np.array([0, first / 2, first, last, (1 + last) / 2, 1])
    bins = sights[0].bragg.shape[1]
    sums, noise = np.zeros((window[-1] + 1, _PARTS, bins)), np.zeros((window[-1] + 1, _PARTS))
    for s, w in zip(sights, window, strict=True):
        place = np.searchsorted(edges, _ranks(s.xy @ _projected(cut.normal, s.alpha_deg, tilt_axis_deg)), "right") - 1
        for part, at in enumerate((0, 1, 3, 4)):
            sums[w, part] += s.bragg[place == at].sum(0)
            noise[w, part] += s.noise[place == at].sum()
    gram = np.einsum("wib,wjb->ij", sums, sums)
    floor, degrees = noise.sum(0), len(noise) * bins
    power = np.diag(gram) - floor
    if (power < _SURE * floor * np.sqrt(2 / degrees)).any():
        return False
    alike = gram / np.sqrt(np.outer(power, power))
    error = np.sqrt((floor[1] / power[1] + floor[2] / power[2] + floor[1] * floor[2] / (power[1] * power[2])) / degrees)
    across, within = 1 - alike[1, 2], 1 - max(alike[0, 1], alike[2, 3])  # one side may be divided again
    return bool(alike[1, 2] + _SURE * error < _MOST_ALIKE and across > _STEP * within)


def fitted(bragg: np.ndarray, amount: np.ndarray) -> tuple[np.ndarray, float]:
    """Amounts (probe, 2) by the two patterns that go with those of before, and how well these tell them apart."""
    patterns = np.linalg.lstsq(amount, bragg, rcond=1e-6)[0]
    gram, seen = patterns @ patterns.T, bragg @ patterns.T
    size = np.maximum(np.diag(gram), 1e-12)
    apart = max(1 - gram[0, 1] ** 2 / (size[0] * size[1]), 1e-3)
    out = np.stack([seen[:, i] - gram[0, 1] / size[1 - i] * seen[:, 1 - i] for i in (0, 1)], 1) / (size * apart)
    single = np.maximum(seen / size, 0)
    for i in (0, 1):  # least squares with amounts >= 0: where one would be negative, the other stands alone
        negative = out[:, i] < 0
        out[negative, 1 - i], out[negative, i] = single[negative, 1 - i], 0
    scale = (out**2).sum(0) / np.maximum(out.sum(0), 1e-12)
    return out / np.maximum(scale, 1e-12), float(apart * size.min())
