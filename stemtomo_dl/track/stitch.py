"""Joining pieces of tracks that are one particle: their points in 3-D agree and their tilts do not collide."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr

from stemtomo_dl.track.evidence import Evidence
from stemtomo_dl.track.predict import misplaced
from stemtomo_dl.track.rigid import Fit
from stemtomo_dl.track.series import Series

_FARTHEST = 20.0  # squared Mahalanobis distance of points that may be one
_EVIDENCE = 1.0  # log odds that a pair must have
_SURE, _DOUBTED = 5.0, -2.0  # the same by mean places, of particles that move by themselves: joined, and looked at
_MOST_PAIRS = 4_000_000  # looked at in a round


class _Points:
    """Where pieces of tracks lie in the axis frame: precision and weighted sum of (U, Z) and of V."""

    def __init__(self, series: Series, index: np.ndarray, fitted: Fit) -> None:
        model = fitted.model
        uv = (np.where(index[..., None] >= 0, series.xy[index], 0)) @ model.frame - fitted.shift
        basis = np.stack([np.cos(model.alpha), -np.sin(model.alpha)], 1)
        weight = fitted.precision
        self.model, self.seen = model, index >= 0
        self.u_precision = (weight @ (basis[:, :, None] * basis[:, None]).reshape(-1, 4)).reshape(-1, 2, 2)
        self.u_sum, self.v_sum = (weight * uv[..., 0]) @ basis, (weight * uv[..., 1]).sum(1)
        self.v_precision, self.time_sum = weight.sum(1), weight @ model.time
        self.partial_sum = (weight * np.where(index >= 0, series.partial[index], 0)).sum(1)
        self.narrow_sum = (weight * np.where(index >= 0, series.narrow[index], 0)).sum(1)
        self.label = np.arange(len(index))
        self.evidence: Evidence | None = None

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        """Make one of each pair (a, b); every piece is in one pair at most."""
        for name in ("u_precision", "u_sum", "v_sum", "v_precision", "time_sum", "partial_sum", "narrow_sum", "seen"):
            values = getattr(self, name)
            values[a] = values[a] | values[b] if name == "seen" else values[a] + values[b]
            setattr(self, name, np.delete(values, b, 0))
        if self.evidence:
            self.evidence.join(a, b)
        new = np.arange(len(self.seen) + len(b))
        new[b] = a
        left = np.delete(np.arange(len(new)), b)
        self.label = np.searchsorted(left, new)[self.label]

    def where(self) -> tuple[np.ndarray, ...]:
        """(U, Z), its covariance, V, its variance, mean time, ``Series.partial`` and ``narrow`` of every piece."""
        model = self.model
        covariance = np.linalg.inv(self.u_precision + np.diag(1 / model.spread_px**2))
        place = np.einsum("kij,kj->ki", covariance, self.u_sum)
        # own motion within a piece is mistaken for height and place
        span = self.seen.sum(1)
        more = 1 + model.creep * span**2 / (10 * model.noise_px**2)
        precision = np.maximum(self.v_precision, 1e-12)
        return (
            place,
            covariance * more[:, None, None],
            self.v_sum / precision,
            more / precision,
            self.time_sum / precision,
            self.partial_sum / precision,
            self.narrow_sum / precision,
        )


def stitch(series: Series, index: np.ndarray, fitted: Fit) -> np.ndarray:
    """Which pieces are one particle, (track) int, numbered from 0.

    In rounds, each joining the pairs that are each other's best. A pair's log odds compare the density of its
    difference, given both covariances, with that of strangers spread over the field.

    Parameters
    ----------
    series : Series
    index : (track, rank) int array
    fitted : Fit
        Of these pieces.
    """
    points, model = _Points(series, index, fitted), fitted.model
    strangers = np.log((model.spread_px[1] * 3) * np.prod(series.shape)) - np.log(max(len(index), 1))
    _join_all(points, strangers, _SURE if model.creep else _EVIDENCE)
    if model.creep:  # mean places say too little of particles that move by themselves
        points.evidence = Evidence(series, index, fitted, points.label)
        _join_all(points, strangers, _EVIDENCE)
    return points.label


def _join_all(points: _Points, strangers: float, least: float) -> None:
    """Join pairs that are each other's best and have such odds, in rounds, until there is none."""
    for _ in range(40):
        a, b, odds = _pairs(points, strangers, least)
        best = np.full(len(points.seen), -np.inf)
        np.maximum.at(best, a, odds)
        np.maximum.at(best, b, odds)
        mutual = (odds == best[a]) & (odds == best[b])
        a, b = a[mutual], b[mutual]
        # equal odds could name a piece twice
        _, first = np.unique(np.stack([a, b], 1).ravel(), return_index=True)
        once = np.bincount(first // 2, minlength=len(a)) == 2
        if not once.any():
            return
        points.join(a[once], b[once])


def _pairs(points: _Points, strangers: float, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs that may be one particle, and their log odds."""
    model = points.model
    place, covariance, v, v_variance, time, partial, narrow = points.where()
    floor = (0.5 * model.noise_px) ** 2
    usual = 2 * np.median(v_variance) + np.median(partial) + floor + model.creep * len(model.time) / 4
    width = np.sqrt(_FARTHEST * usual)
    order = np.argsort(v)
    last = np.searchsorted(v[order], v[order] + width, side="right")
    many = np.minimum(last - np.arange(len(order)) - 1, max(1, _MOST_PAIRS // max(len(order), 1)))
    left = np.repeat(np.arange(len(order)), many)
    a, b = order[left], order[left + 1 + np.arange(len(left)) - np.repeat(np.cumsum(many) - many, many)]
    own = model.creep * np.abs(time[a] - time[b]) + floor
    difference = np.column_stack([place[a] - place[b], v[a] - v[b]])
    sigma_u, sigma_v = covariance[a] + covariance[b], v_variance[a] + v_variance[b]
    whole = _mahalanobis(difference, sigma_u, sigma_v, own)
    parts = _mahalanobis(difference, sigma_u, sigma_v, own + (partial[a] + partial[b]) / 2)
    variance = (np.trace(sigma_u, axis1=1, axis2=2) + sigma_v) / 3 + own
    odds = strangers - misplaced(*whole, *parts) - _room(difference, variance, narrow[a] + narrow[b])
    near = (parts[0] < _FARTHEST) & (odds > (_DOUBTED if points.evidence else least))
    near &= _take_turns(points.seen, a, b, near)
    if points.evidence:
        good = np.flatnonzero(near)
        density = points.evidence.density(a[good], b[good])
        odds[good] = strangers - misplaced(np.zeros(len(good)), -density, parts[0][good], parts[1][good])
        odds[good] -= _room(difference[good], variance[good], (narrow[a] + narrow[b])[good])
    good = np.flatnonzero(near & (odds > least))
    return a[good], b[good], odds[good]


def _take_turns(seen: np.ndarray, a: np.ndarray, b: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Whether pairs are hardly ever seen at the same tilt, (pair) bool; False for those that are not asked for."""
    bits, count, out = np.packbits(seen, axis=1), seen.sum(1), np.zeros(len(a), bool)
    a, b = a[which], b[which]
    shared = np.bitwise_count(bits[a] & bits[b]).sum(1)
    out[which] = shared <= np.minimum(2, 0.05 * np.minimum(count[a], count[b]))
    return out


def _room(difference: np.ndarray, variance: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Logarithm of the chance that two particles are as near as that: their middles cannot be within half a width."""
    return np.asarray(log_ndtr((np.sqrt((difference**2).sum(1)) - width) / np.sqrt(variance)))


def _mahalanobis(
    difference: np.ndarray, sigma_u: np.ndarray, sigma_v: np.ndarray, more: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances of (U, Z, V), and the logarithms of the volumes that normalise their densities.

    ``more`` is added to the variances of all three.
    """
    (du, dz, dv), s = difference.T, sigma_v + more
    p, q, r = sigma_u[:, 0, 0] + more, sigma_u[:, 1, 1] + more, sigma_u[:, 0, 1]
    determinant = p * q - r * r
    squared = (q * du * du - 2 * r * du * dz + p * dz * dz) / determinant + dv**2 / s
    return squared, 0.5 * np.log((2 * np.pi) ** 3 * determinant * s)
