"""Where the reflections of a series' other lattices lie: twins', neighbours'. What they lie upon is not one crystal's.

Of another lattice only reflections count that show: those of which, or of whose equivalents, a spot was found that is
not this crystal's. Where nodes of both lattices coincide, as on the rows that twins share, the spot is both's. Lattices
of few spots are passed over: what they would take away outweighs what they mend. So are those most of whose nodes are
the crystal's own, grains turned by a fraction of a degree or tails of rocking curves, which nothing parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stemtomo_dl.crystal.equivalents import equivalents
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.predict import predict, predicted_indices
from stemtomo_dl.crystal.refine import indices
from stemtomo_dl.records import DiffractionSeries

_LEAST_SHARE = 0.6  # of the spots that are the crystal's alone: so many must another lattice have alone
_MOST_SAME = 0.5  # of its spots' nodes that may be the crystal's


class Places(NamedTuple):
    """Places on the detector: frames (n,) and px (n, 2), column and row."""

    frame: np.ndarray
    px: np.ndarray

    @classmethod
    def none(cls) -> Places:
        """No place."""
        return cls(np.zeros(0, int), np.zeros((0, 2)))

    def at(self, frame: int) -> np.ndarray:
        """Px (m, 2) of those of a frame."""
        return self.px[self.frame == frame]


def places_of_others(
    series: DiffractionSeries,
    spots: Spots,
    geometry: Geometry,
    crystal: Crystal,
    others: Sequence[Crystal],
    width: float,
) -> Places:
    """Where reflections of other lattices are excited.

    Parameters
    ----------
    series : DiffractionSeries
    spots : Spots
        Of the series.
    geometry : Geometry
        Without any crystal's own axis and centre.
    crystal : Crystal
        The one that is to be measured.
    others : sequence of Crystal
    width : float
        Excitation error up to which a reflection is seen, 1/Å.
    """
    ours, mine = indices(spots, geometry, crystal)
    found = [Places.none()]
    for other in others:
        hkl, fits = indices(spots, geometry, other)
        same = np.linalg.norm(hkl @ other.ub.T - ours @ crystal.ub.T, axis=1) < spots.radius_px * geometry.pixel
        few = (fits & ~mine).sum() < _LEAST_SHARE * (mine & ~(fits & same)).sum()
        if few or same[fits].mean() > _MOST_SAME:
            continue
        shown, own = hkl[fits & (~mine | same)], geometry.of(other)
        every = predicted_indices(series, own, other)
        group = equivalents(np.concatenate([shown, every]), other.lattice)
        every = every[np.isin(group[len(shown) :], group[: len(shown)])]
        at = predict(every, np.full(len(every), width), spots, own, other)
        found.append(Places(at.frame, at.px))
    return Places(*(np.concatenate(c) for c in zip(*found, strict=True)))
