"""How far the whole field moved between two tilts, and how far its particles scatter about that."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from stemtomo_dl.track.series import Series

_WIDTH_PX, _BIN_PX = 1.5, 1.0  # how far pairs of the same shift scatter; bins in which they are counted
_VOTERS = 3  # tilts whose particles vote: false outlines of several tilts agree on nothing
_ANNULUS_PX = (12.0, 18.0)  # where pairs are of two particles
_ALIKE = 0.35  # spread of log area between sightings of one particle
_NEAR_PX = 3.0  # a sighting so near to where one was before supports the shift
_LOST = 0.3  # of a tilt's sightings: with fewer in support, the field may have jumped out of reach


def vote_shift(
    predicted: np.ndarray, found: np.ndarray, log_area: np.ndarray, found_log_area: np.ndarray, reach_px: float
) -> np.ndarray:
    """The displacement that most pairs of predicted and found particles agree on.

    A vote among all pairs needs no links, so births, losses and crossings do not sway it; pairs of unlike size
    count little, and small shifts win a draw.

    Parameters
    ----------
    predicted, found : (n, 2), (m, 2) arrays
        Positions (x, y), px.
    log_area, found_log_area : (n), (m) arrays
        Logarithms of the outline areas.
    reach_px : float
        Largest shift considered along x and y.

    Returns
    -------
    (2,) array, px; zero where nothing can be said.
    """
    near = cKDTree(predicted).sparse_distance_matrix(cKDTree(found), reach_px, p=np.inf, output_type="ndarray")
    if not len(near):
        return np.zeros(2)
    shift = found[near["j"]] - predicted[near["i"]]
    unlike = (found_log_area[near["j"]] - log_area[near["i"]]) / _ALIKE
    weight = np.exp(-0.5 * unlike**2 - np.hypot(*shift.T) / (2 * reach_px)) + 1e-6
    margin = reach_px + 3 * _WIDTH_PX
    bins = int(np.ceil(2 * margin / _BIN_PX))
    cell = ((shift + margin) / _BIN_PX).astype(int)
    votes = np.bincount(cell[:, 0] * bins + cell[:, 1], weight, bins * bins).reshape(bins, bins)
    votes = gaussian_filter(votes, _WIDTH_PX / _BIN_PX, mode="constant")
    best = (np.array(np.unravel_index(votes.argmax(), votes.shape)) + 0.5) * _BIN_PX - margin
    for _ in range(5):  # mean shift to the mode's centre
        pull = weight * np.exp(-0.5 * ((shift - best) ** 2).sum(1) / _WIDTH_PX**2)
        best = (pull[:, None] * shift).sum(0) / max(pull.sum(), 1e-300)
    return best


def _any_shift(
    predicted: np.ndarray,
    found: np.ndarray,
    log_area: np.ndarray,
    found_log_area: np.ndarray,
    reach_px: float,
    shape: tuple[int, int],
) -> np.ndarray:
    """`vote_shift`, and that within a whole field where it is supported far better, and better than by chance."""
    near = vote_shift(predicted, found, log_area, found_log_area, reach_px)
    support = _supporters(predicted + near, found)
    chance = len(found) * min(1.0, len(predicted) / _VOTERS * np.pi * _NEAR_PX**2 / np.prod(shape))
    if support >= max(_LOST * len(found), 2 * chance):
        return near
    far = vote_shift(predicted, found, log_area, found_log_area, float(max(shape)))
    least = max(1.5 * support, chance + 5 * np.sqrt(chance) + 3)  # the best of very many places
    return far if _supporters(predicted + far, found) > least else near


def _supporters(predicted: np.ndarray, found: np.ndarray) -> int:
    """How many of the sightings are where one is predicted."""
    return int(np.isfinite(cKDTree(predicted).query(found, distance_upper_bound=_NEAR_PX)[0]).sum())


def stretches(series: Series, tilt_axis_deg: float | None) -> np.ndarray:
    """How the field's foreshortening maps positions of one rank to the next, (rank, 2, 2); entry 0 is unused.

    A flat sample shrinks across the tilt axis by cos α. Identity where the axis is not known.
    """
    out = np.tile(np.eye(2), (len(series.alpha), 1, 1))
    if tilt_axis_deg is not None and len(series.alpha) > 1:
        across = np.array([-np.sin(np.radians(tilt_axis_deg)), np.cos(np.radians(tilt_axis_deg))])
        cosine = np.maximum(np.cos(series.alpha), 0.05)
        out[1:] += (cosine[1:] / cosine[:-1] - 1)[:, None, None] * np.outer(across, across)
    return out


def measure_steps(series: Series, stretch: np.ndarray, reach_px: float) -> tuple[np.ndarray, float]:
    """The field's motion from each rank to the next beyond its foreshortening, and the noise of a sighting.

    Parameters
    ----------
    series : Series
    stretch : (rank, 2, 2) array
    reach_px : float
        Largest motion along x and y that is considered first; where it leaves most sightings unexplained, the
        field may have jumped, or the scan been started elsewhere, and shifts by up to a field are.

    Returns
    -------
    steps : (rank, 2) array
        px; entry 0 is zero.
    noise : float
        Standard deviation along each axis, px, from the distances of pairs.
    """
    steps, between, within = np.zeros((len(series.groups), 2)), [np.zeros(0)], [np.zeros(0)]
    places: list[np.ndarray] = []  # of the last tilts with outlines, carried along with the field
    areas: list[np.ndarray] = []
    for rank, here in enumerate(series.groups):
        places = [p @ stretch[rank].T for p in places]
        if not len(here):
            continue
        found, log_area = series.xy[here], series.looks[here, 0]
        if places:
            before, log_before = np.concatenate(places), np.concatenate(areas)
            steps[rank] = _any_shift(before, found, log_before, log_area, reach_px, series.shape)
            places = [p + steps[rank] for p in places]
            between.append(_near_distances(places[-1], found))
        within.append(_near_distances(found, found))
        places, areas = [*places, found][-_VOTERS:], [*areas, log_area][-_VOTERS:]
    return steps, _pair_noise(np.concatenate(between), np.concatenate(within))


def _near_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances of all pairs that are near enough to count."""
    return cKDTree(a).sparse_distance_matrix(cKDTree(b), _ANNULUS_PX[1], output_type="ndarray")["v"]


def _pair_noise(between: np.ndarray, within: np.ndarray) -> float:
    """Noise of a sighting along each axis, px, from the distances of near pairs of two tilts, and of one.

    What two tilts have beyond the pairs of strangers are sightings of one particle, whose distances are Rayleigh
    distributed with the noise of both ends. How strangers lie, in clusters or apart, shows within a tilt; how many
    there are, in an annulus where all pairs are strangers.
    """
    inner = _ANNULUS_PX[0]
    between, within = np.sort(between), np.sort(within[within > 0])
    many = len(between) - int(np.searchsorted(between, inner))
    alike = len(within) - int(np.searchsorted(within, inner))
    radius = np.arange(0.1, inner, 0.1)
    own = np.searchsorted(between, radius) - np.searchsorted(within, radius) * many / max(alike, 1)
    if own.max(initial=0) <= 0:
        return 1.0
    return float(radius[np.argmax(own >= own.max() / 2)]) / 1.1774 / np.sqrt(2)
