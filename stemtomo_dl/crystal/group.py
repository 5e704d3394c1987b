"""Spots over neighbouring tilts -> reflections, each with the tilts at which it was seen.

A reflection passes through the Ewald sphere in a few frames. Its spots there lie, turned back into the sample frame,
within the in-plane error and the rocking width of each other, whatever the lattice is and even where the tilt axis is
off by degrees, since neighbouring frames are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Spots
from stemtomo_dl.records import Record, array

_NEAR_PX = 2.0  # in-plane, between spots of one reflection in neighbouring frames
_GAP = 2  # frames: a weak spot may be missed


@dataclass(frozen=True, eq=False)
class Seen(Record):
    """Reflections that spots were grouped into, and how strong each was over the tilts."""

    label: np.ndarray = array("i8", "spot")  # the reflection of every spot
    weight: np.ndarray = array("f8", "spot")  # of a spot in its reflection's mean: its share of the counts
    middle: np.ndarray = array("i8", "reflection")  # the strongest spot of each

    def vectors(self, spots: Spots, geometry: Geometry) -> np.ndarray:
        """Reciprocal vectors (reflection, 3) in the sample frame, 1/Å: means of the spots', weighted with counts."""
        q = geometry.sample(spots) * self.weight[:, None]
        return np.stack([np.bincount(self.label, q[:, k], len(self.middle)) for k in range(3)], 1)


def grouped(spots: Spots, geometry: Geometry) -> Seen:
    """Group the spots of neighbouring frames into reflections.

    Parameters
    ----------
    spots : Spots
        All within the Ewald sphere's rim.
    geometry : Geometry

    Returns
    -------
    Seen
        A reflection that passes twice, far apart in tilt, is two.
    """
    n = len(spots)
    q = geometry.sample(spots)
    radius = np.linalg.norm(q, axis=1).max(initial=0) * geometry.step * _GAP + _NEAR_PX * geometry.pixel
    pairs = cKDTree(q).query_pairs(radius, output_type="ndarray")
    i, j = pairs[:, 0], pairs[:, 1]
    apart = np.abs(spots.frame[i] - spots.frame[j])
    near = (apart > 0) & (apart <= _GAP)
    i, j = i[near], j[near]
    # where i's node would be seen in j's frame, were it on the sphere in its own
    there = np.einsum("nij,nj->ni", geometry.turns()[spots.frame[j]], q[i])
    off = np.linalg.norm((there - geometry.lab(spots)[j])[:, :2], axis=1)
    one = off < _NEAR_PX * geometry.pixel
    graph = sparse.csr_matrix((np.ones(one.sum()), (i[one], j[one])), shape=(n, n))
    label = sparse.csgraph.connected_components(graph, directed=False)[1].astype("i8")
    order = np.lexsort((-spots.intensity, label))
    middle = order[np.unique(label[order], return_index=True)[1]]
    counts = np.maximum(spots.intensity, 1e-12)
    return Seen(label, counts / np.bincount(label, counts)[label], middle.astype("i8"))
