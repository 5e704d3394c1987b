"""Which lattices the crystals of one series have, so that particles of few spots can be tried with them."""

from __future__ import annotations

from collections.abc import Sequence

from stemtomo_dl.crystal.nouns import Crystal
from stemtomo_dl.crystal.settings import changes

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
