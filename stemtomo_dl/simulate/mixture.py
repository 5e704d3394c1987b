"""Puts together what the counts of one tilt are drawn from: film, particles in the order of the beam, detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stemtomo_dl.geometry import disk_radius_px, g_to_detector
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate import diffraction
from stemtomo_dl.simulate.counts import Mixture
from stemtomo_dl.simulate.diffraction import Beam, Excited
from stemtomo_dl.simulate.sample import Particle

Tables = tuple[Excited, np.ndarray]
Mapper = Callable[[Callable[[int], Tables], Iterable[int]], Iterator[Tables]]


@dataclass(frozen=True, eq=False)
class Cast(Record):
    """What stays the same through a series. ``scale`` is None where intensities are two-beam."""

    particles: tuple[Particle, ...]
    beam: Beam
    pixel_inv_angstrom: float
    rotation_deg: float
    radii: np.ndarray = array("f8", "material quantile", "px")  # diffuse scattering; material 0 is the film
    material: np.ndarray = array("i8", "particle")
    scale: np.ndarray | None = array("f8", "particle", "of kinematic intensities", optional=True)


@dataclass(frozen=True, eq=False)
class View(Record):
    """One tilt: what is in view, in the order in which the beam meets it."""

    film: float  # share of the electrons that the film takes
    rotation: np.ndarray = array("f8", "3 3")
    center_px: np.ndarray = array("f8", "2", "px (column, row)")
    particle: np.ndarray = array("i8", "met")
    thickest: np.ndarray = array("f8", "met", "nm")


def make_mixture(cast: Cast, view: View, parallel: Mapper = map) -> Mixture:
    """What decides the fate of electrons at a tilt; ``parallel`` is a `map` that may use threads."""
    ladders = [diffraction.ladder(t) for t in view.thickest]
    tables = list(parallel(lambda k: _tables(cast, view, k, *ladders[k]), range(len(ladders))))
    first = np.cumsum([0] + [len(excited.index) for excited, _ in tables])
    table = np.cumsum([0] + [shares.size for _, shares in tables])[:-1]
    met = [cast.particles[p] for p in view.particle]
    g = np.concatenate([excited.g for excited, _ in tables] or [np.zeros((0, 3))])
    pixel, wavelength = cast.pixel_inv_angstrom, cast.beam.wavelength_a
    return Mixture(
        center=view.center_px,
        disk_px=disk_radius_px(cast.beam.convergence_mrad, wavelength, pixel),
        rings=cast.beam.rings,
        film=view.film,
        radii=cast.radii,
        material=cast.material[view.particle],
        mean_free_path=np.array([p.mean_free_path_nm for p in met]),
        steps=np.array([n for n, _ in ladders], np.int64),
        step_nm=np.array([step for _, step in ladders], float),
        first=first.astype(np.int64),
        table=table.astype(np.int64),
        shares=np.concatenate([shares.ravel() for _, shares in tables] or [np.zeros(0, np.float32)]),
        place=g_to_detector(g, wavelength, pixel, cast.rotation_deg, view.center_px),
    )


def _tables(cast: Cast, view: View, met: int, steps: int, step_nm: float) -> Tables:
    """The excited reflections of one particle and their cumulative shares."""
    index = view.particle[met]
    particle = cast.particles[index]
    excited = diffraction.excite(particle.structure, view.rotation @ particle.ub, cast.beam, view.thickest[met])
    if cast.scale is None:
        return excited, diffraction.two_beam_shares(excited, steps, step_nm)
    return excited, diffraction.kinematic_shares(excited, steps, step_nm, float(cast.scale[index]))
