"""All particles of one tilt and their support, apart: each pattern as a fixed linear combination of probes.

Every probe i of a scan is a sum of what is in its beam, d_i = Σ_k a_ik P_k + F_i, the particles' patterns P_k
weighted by how thick particle k is there (a_ik, 1 on average over its outline) and the support F, level or a plane
in the neighbourhood of a particle. Weighted least squares gives P = (Aᵀ W A)⁻¹ Aᵀ W d = C d, and since A and W are
known before a pattern is read, C is too: one pass over the scan adds c_ki d_i. Aitken (1935), Proc. R. Soc. Edinb.
55, 42.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.config import ExtractConfig
from stemtomo_dl.extract.support import free_probes, support_of
from stemtomo_dl.extract.thickness import profile
from stemtomo_dl.records import Masks, VirtualImages

_DOUBT = 0.5  # variance of thickness under overlap that is not known, over what spots as strong as noise would have
_BRIGHT = 10.0  # Bragg power over noise power of one probe, where there are no images to tell
_MOST_INFLATION = 10.0  # of a pattern's variance by its neighbours' presence in the fit
_PLANE_COST = 1.1  # of the variance, for a support that may slope


@dataclass(frozen=True)
class Combination:
    """What the pattern of one particle is made of.

    ``own`` are probes of its outline, in rising order, ``alone`` (bool) those of them that meet no other particle,
    ``rest`` those of the support and of neighbours; their coefficients go with them. ``separated`` is False where
    neighbours cannot be told from it, and are left in.
    """

    own: np.ndarray
    own_coefficient: np.ndarray
    rest: np.ndarray
    rest_coefficient: np.ndarray
    alone: np.ndarray
    support: np.ndarray
    separated: bool


_NONE, _NO_WEIGHT = np.zeros(0, int), np.zeros(0)
_NOTHING = Combination(_NONE, _NO_WEIGHT, _NONE, _NO_WEIGHT, np.zeros(0, bool), _NONE, False)


def combine(
    masks: Masks, instances: np.ndarray, obstacles: np.ndarray, images: VirtualImages | None, config: ExtractConfig
) -> list[Combination]:
    """How the pattern of each particle at one tilt is combined from the scan's probes.

    Parameters
    ----------
    masks : Masks
    instances : (particle) int array
        Mask of each particle that a pattern is wanted of.
    obstacles : (n) int array
        All masks of this tilt that show a particle each, also those without a track.
    images : VirtualImages or None
        Of this tilt. The dark field tells how thickness goes from an outline inward, the variance how strong Bragg
        spots are against noise; None: particles are flat, and spots strong. Dropped frames enter no pattern.
    config : ExtractConfig

    Returns
    -------
    list of Combination
        One for each particle, without a probe where all of an outline's frames are dropped.
    """
    everyone = np.union1d(obstacles, instances).astype(int)
    field = _Field(masks, everyone, images, config)
    return [field.combination(int(i)) for i in instances]


class _Field:
    """The outlines of one tilt, and what is thick, free and shared."""

    def __init__(self, masks: Masks, everyone: np.ndarray, images: VirtualImages | None, config: ExtractConfig) -> None:
        self.masks, self.config = masks, config
        meets = np.zeros(masks.shape, "i4")
        gone = np.zeros(masks.shape, bool) if images is None or images.dropped is None else images.dropped
        self.probes = {int(i): np.flatnonzero(masks.full(i) & ~gone) for i in everyone}
        for i in everyone:
            meets[masks.window(i)] += masks.crops[i]
        self.free = free_probes(meets, config) & ~gone
        self.meets = meets.ravel()
        self.thickness = {int(i): self._thickness(i, (meets == 1) & ~gone, gone, images) for i in everyone}
        self.neighbours = self._neighbours(everyone)
        self.brightness = self._brightness(images)

    def _brightness(self, images: VirtualImages | None) -> float:
        """Power of the Bragg spots of a typical particle in one probe over that of the noise."""
        alone = (self.meets == 1).reshape(self.masks.shape)
        if images is None or not self.free.any() or not alone.any():
            return _BRIGHT
        noise = float(np.mean(images["variance"][self.free]))
        return float(np.mean(images["variance"][alone])) / noise - 1 if noise > 0 else _BRIGHT

    def _thickness(
        self, instance: int, alone: np.ndarray, gone: np.ndarray, images: VirtualImages | None
    ) -> np.ndarray:
        """Relative thickness at an outline's probes, 1 on average over all of it, those that are gone included."""
        crop, window = self.masks.crops[instance], self.masks.window(instance)
        thick = profile(crop, alone[window], self._light(instance, images))
        return np.asarray(thick[~gone[window][crop]])

    def _light(self, instance: int, images: VirtualImages | None) -> np.ndarray | None:
        """What a particle adds to the dark field within its window."""
        if images is None or not self.free.any():
            return None
        window, margin = self.masks.window(instance), self.config.ring_px[1]
        around = tuple(slice(max(0, s.start - margin), s.stop + margin) for s in window)
        place = around if self.free[around].any() else (slice(None), slice(None))
        level = np.median(images["adf"][place][self.free[place]])
        return np.asarray(images["adf"][window] - level)

    def _neighbours(self, everyone: np.ndarray) -> dict[int, set[int]]:
        """Who overlaps with whom."""
        meeting: dict[int, set[int]] = {int(i): set() for i in everyone}
        at: dict[int, list[int]] = {}
        for i in meeting:
            for p in self.probes[i][self.meets[self.probes[i]] > 1].tolist():
                at.setdefault(p, []).append(i)
        for here in at.values():
            for i in here:
                meeting[i].update(here)
        return {i: met - {i} for i, met in meeting.items()}

    def combination(self, instance: int) -> Combination:
        """The combination of one particle: with its neighbours in the fit if they can be told apart."""
        if not len(self.probes[instance]):
            return _NOTHING
        support = support_of(self.masks, instance, self.free, self.config)
        near = self.neighbours[instance]
        beyond = set().union(*(self.neighbours[i] for i in near)) - near - {instance}
        rows = np.unique(np.concatenate([self.probes[i] for i in (instance, *near)]))
        coefficient = self._fit(rows, [instance, *sorted(near), *sorted(beyond)], support)
        separated = coefficient is not None
        if not separated:
            rows = self._least_shared(instance)
            coefficient = self._fit(rows, [instance], support)
        everywhere = np.concatenate([rows, support])
        assert coefficient is not None  # one particle and a support that it does not meet are always told apart
        used = np.abs(coefficient) > 1e-6 * np.abs(coefficient).max()
        own = used & np.isin(everywhere, self.probes[instance])
        rest = used & ~own
        mine = everywhere[own]
        return Combination(
            mine, coefficient[own], everywhere[rest], coefficient[rest], self.meets[mine] == 1, support, separated
        )

    def _least_shared(self, instance: int) -> np.ndarray:
        """The probes of an outline that meet the fewest others, as many as a pattern needs."""
        mine = self.probes[instance]
        wanted = max(self.config.min_probes, 0.2 * len(mine))
        for most in range(1, int(self.meets[mine].max(initial=1)) + 1):
            chosen = mine[self.meets[mine] <= most]
            if len(chosen) >= wanted:
                return chosen
        return mine

    def _fit(self, rows: np.ndarray, columns: list[int], support: np.ndarray) -> np.ndarray | None:
        """Coefficients of the first column's pattern over rows and support; None where it is not well posed."""
        design = np.zeros((len(rows) + len(support), len(columns)))
        for k, i in enumerate(columns):
            place = np.searchsorted(rows, self.probes[i])
            inside = (place < len(rows)) & (rows[np.minimum(place, len(rows) - 1)] == self.probes[i])
            design[place[inside], k] = self.thickness[i][inside]
        weight = np.concatenate([1 / np.maximum(design[: len(rows)].sum(1), 0.1), np.ones(len(support))])
        weight[: len(rows)][self.meets[rows] > 1] /= 1 + _DOUBT * max(self.brightness, 0.0)
        films = [self._film(rows, support, terms) for terms in ((1, 3) if len(support) else (0,))]
        found = [_estimator(np.hstack([film, design]), weight, film.shape[1]) for film in films]
        known = [c for c in found if c is not None]
        if not known:
            return None
        noise = [float(np.sum(c**2)) for c in known]
        return known[-1] if noise[-1] <= _PLANE_COST * noise[0] else known[0]

    def _film(self, rows: np.ndarray, support: np.ndarray, terms: int) -> np.ndarray:
        """The support's share of the design: nothing, one level, or a plane about the support's middle."""
        y, x = np.divmod(np.concatenate([rows, support]), self.masks.shape[1])
        scale = max(self.masks.shape)
        return np.stack([np.ones(len(y)), (x - x.mean()) / scale, (y - y.mean()) / scale], 1)[:, :terms]


def _estimator(design: np.ndarray, weight: np.ndarray, films: int) -> np.ndarray | None:
    """Row of (Aᵀ W A)⁻¹ Aᵀ W for the first particle; None where the others leave too little of it.

    Parameters
    ----------
    design : (probe, column) array
        A: the support's ``films`` columns, then the particles'.
    weight : (probe) array
        The diagonal of W.
    """
    weighted = design * weight[:, None]
    normal = design.T @ weighted
    size = np.sqrt(np.maximum(np.diag(normal), 1e-30))
    normal /= np.outer(size, size)
    others = np.delete(np.arange(len(normal)), films)
    share, left = _explained(normal, films, others)
    _, without = _explained(normal, films, np.arange(films))
    if left * _MOST_INFLATION < without or left < 1e-9:
        return None
    row = np.zeros(len(normal))
    row[films], row[others] = 1, -share
    return np.asarray(weighted @ (row / size) / (left * size[films]))


def _explained(normal: np.ndarray, column: int, others: np.ndarray) -> tuple[np.ndarray, float]:
    """How a column is best put together from others, and the share of it that they leave.

    That share is 1/(N_kk (N⁻¹)_kk), the reciprocal of its variance inflation; ``normal`` has a unit diagonal.
    """
    share = np.linalg.pinv(normal[np.ix_(others, others)], rcond=1e-9, hermitian=True) @ normal[others, column]
    return share, float(1 - normal[column, others] @ share)
