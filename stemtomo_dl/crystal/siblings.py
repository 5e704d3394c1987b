"""What the crystals of one series share, so that particles of few or of misleading spots can be tried with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stemtomo_dl.crystal.nouns import Crystal
from stemtomo_dl.crystal.settings import changes

_SEVERAL = 4  # crystals that tell where the beam is
_FAR_PX, _FAR = 1.5, 5.0  # from there, and in units of how crystals scatter: the beam of none
_SURE = 0.6  # share of a particle's spots on its lattice, from which it counts


def attested(crystals: Sequence[Crystal], most: int = 3) -> list[Crystal]:
    """A crystal of each lattice that crystals have.

    Parameters
    ----------
    crystals : sequence of Crystal
        One of each particle.
    most : int
        How many to give.

    Returns
    -------
    list of Crystal
        Each the one of its lattice with most spots; that of the lattice that most crystals have first.
    """
    groups: list[list[Crystal]] = []
    for crystal in sorted(crystals, key=lambda c: -c.n_indexed):
        if crystal.indexed_fraction < _SURE:
            continue
        group = next((g for g in groups if changes(g[0].cell, g[0].lattice, crystal.cell, crystal.lattice)), None)
        if group is None:
            groups.append([crystal])
        else:
            group.append(crystal)
    return [g[0] for g in sorted(groups, key=lambda g: -len(g))[:most]]


def astray(crystals: Mapping[int, Crystal]) -> tuple[np.ndarray, list[int]]:
    """Where the beam is by most crystals, and those that have it elsewhere.

    Where all of a particle's spots lie on one coset of a sublattice, a centre that is half a node off makes a smaller
    cell of it, which fits as well; but one beam made all series.

    Parameters
    ----------
    crystals : mapping
        By track.

    Returns
    -------
    (2,) array
        Shift of the centres, px: the median.
    list of int
        Tracks; none where there are few crystals.
    """
    if len(crystals) < _SEVERAL:
        return np.zeros(2), []
    shifts = np.array([c.center_shift_px for c in crystals.values()])
    middle = np.median(shifts, axis=0)
    off = np.linalg.norm(shifts - middle, axis=1)
    far = max(_FAR_PX, _FAR * float(np.median(off)))
    return middle, [k for k, d in zip(crystals, off, strict=True) if d > far]
