"""Linking tilt to tilt by nearness: sure pieces of tracks, or whole tracks where there is no geometry to use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.track.assign import assign
from stemtomo_dl.track.likeness import Likeness
from stemtomo_dl.track.series import Series


@dataclass(frozen=True)
class Rules:
    """How far linking by nearness may go.

    Attributes
    ----------
    noise_px : float
        Standard deviation of a sighting along each axis.
    wander_px : float
        What a particle may move against the field per tilt.
    gap : int
        Tilts that a particle may miss.
    margin : float
        By how much a link's cost (a negative log likelihood) must beat every other choice of either end.
    """

    noise_px: float
    wander_px: float
    gap: int
    margin: float


LIMIT = 8.0  # dearest link: four standard deviations of position alone


def link_nearest(
    series: Series, free: np.ndarray, stretch: np.ndarray, steps: np.ndarray, rules: Rules, likeness: Likeness
) -> np.ndarray:
    """Link sightings to the nearest of the tilts before, optimally per tilt.

    Parameters
    ----------
    series : Series
    free : (n) bool array
        Sightings to link.
    stretch, steps : (rank, 2, 2), (rank, 2) arrays
        The field's motion from each rank to the next.
    rules : Rules
    likeness : Likeness

    Returns
    -------
    (n) int array
        Number of the piece that each sighting belongs to, -1 where it is not free.
    """
    label, count = np.full(len(series.xy), -1), 0
    tail, age, place = np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2))
    for rank, group in enumerate(series.groups):
        here = group[free[group]]
        place, age = place @ stretch[rank].T + steps[rank], age + 1
        alive = age <= rules.gap + 1
        tail, age, place = tail[alive], age[alive], place[alive]
        rows, columns = _sure_links(series, tail, age, place, here, rules, likeness)
        label[here[columns]] = label[tail[rows]]
        fresh = here[label[here] < 0]
        label[fresh] = np.arange(count, count + len(fresh))
        count += len(fresh)
        keep = np.ones(len(tail), bool)
        keep[rows] = False
        tail, age = np.r_[tail[keep], here], np.r_[age[keep], np.zeros(len(here), int)]
        place = np.concatenate([place[keep], series.xy[here]])
    return label


def _sure_links(
    series: Series,
    tail: np.ndarray,
    age: np.ndarray,
    place: np.ndarray,
    here: np.ndarray,
    rules: Rules,
    likeness: Likeness,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``tail`` and ``here`` to link: the optimal assignment, less the links that have a close rival."""
    if not len(tail) or not len(here):
        return np.empty(0, int), np.empty(0, int)
    variance = 2 * rules.noise_px**2 + rules.wander_px**2 * age**2
    x, y = (series.xy[here, k] - place[:, None, k] for k in (0, 1))
    squared = (x * x + y * y) / variance[:, None]
    i, j = np.nonzero(squared < 2 * LIMIT)
    cost = squared[i, j] / 2 + np.log(variance / variance.min())[i] + likeness.cost(series, tail[i], here[j])
    chosen = assign(i, j, cost, LIMIT)
    other = np.delete(np.arange(len(cost)), chosen)
    rival_row, rival_column = np.full(len(tail), np.inf), np.full(len(here), np.inf)
    np.minimum.at(rival_row, i[other], cost[other])
    np.minimum.at(rival_column, j[other], cost[other])
    rows, columns = i[chosen], j[chosen]
    sure = cost[chosen] + rules.margin <= np.minimum(rival_row[rows], rival_column[columns])
    return rows[sure], columns[sure]
