"""In which order the beam meets particles and film.

Where an electron is scattered once only, the film may come first: what it takes from the direct beam it would take
from the reflections too. Where scattering is sequential the place of the film counts: behind a crystal it scatters
about the crystal's reflections.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stemtomo_dl.simulate.counts import Mixture
from stemtomo_dl.simulate.film_map import FilmMap

_OPAQUE = 1 - 1e-12  # share that the film may take at most
_FAR = 1e12  # nm, a step of thickness that no film comes near: it has no table to climb


def order_met(positions_nm: Sequence[np.ndarray], film: FilmMap, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Particles in the order in which the beam meets them: first those before the film, each side by its depth.

    Parameters
    ----------
    positions_nm : sequence of (3,) arrays
        Centroids in the sample frame.
    rotation : (3, 3) array
        R(a, α) of the stage.

    Returns
    -------
    order : (particle,) array of indices
    before : (particle,) array of bool
        Whether each lies before the film, in the scene's order.
    """
    places = np.reshape(positions_nm, (-1, 3))
    before = np.array([film.follows(p, rotation) for p in places], bool)
    # Parts of one body have one centroid: rounded, so that they are met in one order at all tilts.
    depth = np.round(places @ rotation[2], 6)
    return np.lexsort((depth, ~before)), before


def film_between(
    mixture: Mixture, thickness: np.ndarray, film: np.ndarray, at: int
) -> tuple[Mixture, np.ndarray, np.ndarray]:
    """The film as one of the things that are met, after ``at`` particles, rather than before all of them.

    Parameters
    ----------
    thickness : (met, y, x) array
        nm.
    film : (y, x) array
        Share of the electrons that it takes.

    Returns
    -------
    Mixture, thickness (met + 1, y, x) and the share (y, x), now none, that the film takes before all.
    """
    paths = -np.log1p(-np.minimum(film, _OPAQUE))  # its thickness in mean free paths
    met, again = len(mixture.material), mixture.again
    if not len(again.mosaic):  # made for no particle, as nothing but the film follows the only one
        again = again._replace(first=np.zeros(met + 1, np.int64), mosaic=np.zeros(met))
    among = mixture._replace(
        material=np.insert(mixture.material, at, 0),
        mean_free_path=np.insert(mixture.mean_free_path, at, 1.0),
        steps=np.insert(mixture.steps, at, 1),
        step_nm=np.insert(mixture.step_nm, at, _FAR),
        first=np.insert(mixture.first, at, mixture.first[at]),  # no reflections
        table=np.insert(mixture.table, at, 0),
        again=again._replace(
            first=np.insert(again.first, at, again.first[at]), mosaic=np.insert(again.mosaic, at, 0.0)
        ),
    )
    return among, np.insert(thickness, at, paths, axis=0), np.zeros_like(film)
