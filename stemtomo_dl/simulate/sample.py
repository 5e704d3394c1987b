"""Makes the particles of a scene: how many, their bodies, and their places on the film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import field_centre
from stemtomo_dl.simulate.body import Body, Particle, make_body
from stemtomo_dl.simulate.crystal import Structure
from stemtomo_dl.simulate.deposit import Deposit
from stemtomo_dl.simulate.distortion import Probes, regular_probes, seen_footprint
from stemtomo_dl.simulate.film_map import FilmMap
from stemtomo_dl.simulate.scene import MOST_THICKNESSES, Microscope, Scene
from stemtomo_dl.simulate.streams import Stream, generator

_RAREST = 0.01  # least number of bodies expected in the field: fewer are redrawn for ever


def make_particles(scene: Scene, structures: Mapping[str, Structure], film: FilmMap) -> tuple[Particle, ...]:
    """All particles of a scene, in the order in which it names them; those of one body follow each other.

    Every body has random numbers of its own: one more leaves the others as they are, and where they are unless it is
    in their way or several populations share its agglomerate.

    Parameters
    ----------
    structures : mapping
        Every phase by the name that the scene gives its CIF.

    Raises
    ------
    InputError
        If the faces of a habit do not close, hardly any particle or too many are expected, or the field has no room
        for one.
    """
    deposit = Deposit.on(scene, film)
    counts = _counts(scene, deposit.extent)
    bodies = _bodies(scene, structures, counts)
    rng = {key: generator(scene.seed, Stream.PLACES, *key) for key in bodies}

    def turn(key: tuple[int, int]) -> tuple[int, float]:
        """The others make room for those whose places are told; agglomerates grow last.

        Populations take turns at these: else one phase would be the kernel and the next the rind of all of them.
        """
        population = scene.particles[key[0]]
        if population.cluster_size > 1:
            return 2, (key[1] + rng[key].uniform()) / counts[key[0]]
        return (0 if population.positions_nm else 1), 0

    order = sorted(bodies, key=turn)
    places = {key: deposit.settle(*key, counts[key[0]], bodies[key].hull, rng[key]) for key in order}
    return tuple(p.moved(places[key]) for key, body in bodies.items() for p in body.parts)


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


def _bodies(scene: Scene, structures: Mapping[str, Structure], counts: Sequence[int]) -> dict[tuple[int, int], Body]:
    """All bodies by the numbers of their population and of themselves in it."""
    out, particles, probes = {}, 0, int(np.prod(scene.instrument.scan))
    for number, population in enumerate(scene.particles):
        for index in range(counts[number]):
            rng = generator(scene.seed, Stream.BODIES, number, index)
            body = make_body(population, structures, rng, f"particles.{number}")
            _check_size(scene.instrument, body, number)
            particles += len(body.parts)
            if particles * probes > MOST_THICKNESSES:
                raise InputError(
                    f"key 'particles.{number}': with twins and shells more than {MOST_THICKNESSES // probes} particles "
                    f"in {' × '.join(map(str, scene.instrument.scan))} probes cannot be played; lower count or "
                    "per_um2, or make instrument.scan smaller"
                )
            out[number, index] = body
    return out


def _counts(scene: Scene, extent: np.ndarray) -> list[int]:
    """How many bodies of every population; never none at all, a scene shows something."""
    area_um2 = float(extent.prod()) * 1e-6
    means = [p.count or (p.per_um2 or 0) * area_um2 for p in scene.particles]
    if sum(means) < _RAREST:
        raise InputError(f"key 'particles': only about {sum(means):.1g} in the field; raise per_um2 or use count")
    rng = [generator(scene.seed, Stream.NUMBERS, number) for number in range(len(means))]
    while True:
        counts = [
            int(own.poisson(mean)) if p.count_law == "poisson" else max(1, round(mean))
            for p, mean, own in zip(scene.particles, means, rng, strict=True)
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
