"""Makes the particles of a scene: how many, their bodies, and their places on the film."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import field_centre
from stemtomo_dl.simulate.body import Body, Particle, make_body
from stemtomo_dl.simulate.crystal import Structure
from stemtomo_dl.simulate.deposit import Deposit
from stemtomo_dl.simulate.distortion import Probes, regular_probes, seen_footprint
from stemtomo_dl.simulate.film_map import FilmMap
from stemtomo_dl.simulate.scene import Microscope, Scene

_RAREST = 0.01  # least number of bodies expected in the field: fewer are redrawn for ever


def make_particles(
    scene: Scene, structures: Mapping[str, Structure], rng: np.random.Generator, film: FilmMap
) -> tuple[Particle, ...]:
    """All particles of a scene, in the order in which it names them; those of one body follow each other.

    Parameters
    ----------
    structures : mapping
        Every phase by the name that the scene gives its CIF.

    Raises
    ------
    InputError
        If the faces of a habit do not close, hardly any particle is expected, or the field has no room for one.
    """
    deposit = Deposit.on(scene, film, rng)
    counts = _counts(scene, deposit.extent, rng)
    told: list[tuple[int, int, Body]] = []
    free: list[tuple[int, int, Body]] = []
    grown: list[tuple[int, int, Body]] = []
    for number, population in enumerate(scene.particles):
        for index in range(counts[number]):
            body = make_body(population, structures, rng, f"particles.{number}")
            _check_size(scene.instrument, body, number)
            into = told if population.positions_nm else grown if population.cluster_size > 1 else free
            into.append((number, index, body))
    # The others make room for those whose places are told. Agglomerates grow in random order: else one phase would be
    # the kernel and the next the rind of all of them.
    order = told + free + [grown[i] for i in rng.permutation(len(grown))]
    found = {(n, i): (body, deposit.settle(n, i, counts[n], body.hull)) for n, i, body in order}
    return tuple(p.moved(place) for _, (body, place) in sorted(found.items(), key=lambda e: e[0]) for p in body.parts)


def coat_path(
    particles: tuple[Particle, ...],
    rotation: np.ndarray,
    drift_px: np.ndarray,
    microscope: Microscope,
    mean_free_path_nm: float,
    probes: Probes | None = None,
) -> np.ndarray:
    """Length of the beam's way through amorphous shells at a tilt, in nm of a film of that mean free path, (y, x)."""
    probes = probes or regular_probes(microscope.scan)
    out, origin = np.zeros(microscope.scan), field_centre(microscope.scan) + drift_px
    for p in particles:
        if p.coat is not None:
            at = origin + (rotation @ p.position_nm)[:2] / microscope.step_nm
            seen = seen_footprint(p.coat.turned(rotation), at, microscope.step_nm, probes, microscope.probe_samples)
            height, width = seen.thickness.shape
            scale = mean_free_path_nm / p.coat_mean_free_path_nm
            out[seen.y0 : seen.y0 + height, seen.x0 : seen.x0 + width] += seen.thickness * scale
    return out


def _counts(scene: Scene, extent: np.ndarray, rng: np.random.Generator) -> list[int]:
    """How many bodies of every population; never none at all, a scene shows something."""
    area_um2 = float(extent.prod()) * 1e-6
    means = [p.count or (p.per_um2 or 0) * area_um2 for p in scene.particles]
    if sum(means) < _RAREST:
        raise InputError(f"key 'particles': only about {sum(means):.1g} in the field; raise per_um2 or use count")
    while True:
        counts = [
            int(rng.poisson(mean)) if p.count_law == "poisson" else max(1, round(mean))
            for p, mean in zip(scene.particles, means, strict=True)
        ]
        if any(counts):
            return counts


def _check_size(microscope: Microscope, body: Body, number: int) -> None:
    widest = max(microscope.scan) * microscope.step_nm
    if body.hull.bound() > widest:
        raise InputError(
            f"key 'particles.{number}.size_nm': a particle reaches {body.hull.bound():.4g} nm from its centre, more "
            f"than the whole field of {widest:.4g} nm; make it smaller or set size_limits_nm"
        )
