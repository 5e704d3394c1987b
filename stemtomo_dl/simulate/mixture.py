"""Puts together what the counts of one tilt are drawn from: film, particles in the order of the beam, detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from stemtomo_dl.geometry import disk_radius_px, g_to_detector
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate import diffraction, diffuse
from stemtomo_dl.simulate.body import Particle
from stemtomo_dl.simulate.counts import Mixture
from stemtomo_dl.simulate.damage import fading
from stemtomo_dl.simulate.detector import Sensor
from stemtomo_dl.simulate.diffraction import Beam, Excited
from stemtomo_dl.simulate.diffuse import Material

Tables = tuple[Excited, np.ndarray]
Mapper = Callable[[Callable[[int], Tables], Iterable[int]], Iterator[Tables]]


@dataclass(frozen=True, eq=False)
class Cast(Record):
    """What stays the same through a series. ``scale`` is None where intensities are two-beam."""

    particles: tuple[Particle, ...]
    beam: Beam
    pixel_inv_angstrom: float
    rotation_deg: float
    sequential: bool  # whether an electron may be scattered by several particles
    sensor: Sensor
    ellipse: np.ndarray = array("f8", "2 2")  # what the projector does to vectors (column, row)
    radii: np.ndarray = array("f8", "material quantile", "px")  # diffuse scattering; material 0 is the film
    material: np.ndarray = array("i8", "particle")
    materials: tuple[Material, ...] = ()  # fresh; 0 is the film
    scale: np.ndarray | None = array("f8", "particle", "of kinematic intensities", optional=True)


@dataclass(frozen=True, eq=False)
class View(Record):
    """One tilt: what is in view, in the order in which the beam meets it."""

    rotation: np.ndarray = array("f8", "3 3")
    center_px: np.ndarray = array("f8", "2", "px (column, row)")
    particle: np.ndarray = array("i8", "met")
    thickest: np.ndarray = array("f8", "met", "nm")
    dose_e_per_A2: float = 0.0  # that the sample has taken so far
    film_at: int = 0  # how many of what is met come before the film


def make_mixture(cast: Cast, view: View, parallel: Mapper = map) -> Mixture:
    """What decides the fate of electrons at a tilt; ``parallel`` is a `map` that may use threads."""
    ladders = [diffraction.ladder(t) for t in view.thickest]
    tables = list(parallel(lambda k: _tables(cast, view, k, *ladders[k]), range(len(ladders))))
    first = np.cumsum([0] + [len(excited.index) for excited, _ in tables])
    table = np.cumsum([0] + [shares.size for _, shares in tables])[:-1]
    radii, material, mean_free_path = _diffuse(cast, view)
    g = np.concatenate([excited.g for excited, _ in tables] or [np.zeros((0, 3))])
    pixel, wavelength = cast.pixel_inv_angstrom, cast.beam.wavelength_a
    place = g_to_detector(g, wavelength, pixel, cast.rotation_deg, np.zeros(2)) @ cast.ellipse.T
    return Mixture(
        center=view.center_px,
        ellipse=cast.ellipse,
        disk_px=disk_radius_px(cast.beam.convergence_mrad, wavelength, pixel),
        rings=cast.beam.rings,
        sequential=cast.sequential,
        radii=radii,
        material=material,
        mean_free_path=mean_free_path,
        steps=np.array([n for n, _ in ladders], np.int64),
        step_nm=np.array([step for _, step in ladders], float),
        first=first.astype(np.int64),
        table=table.astype(np.int64),
        shares=np.concatenate([shares.ravel() for _, shares in tables] or [np.zeros(0, np.float32)]),
        place=place + view.center_px,
    )


def _diffuse(cast: Cast, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantile tables, row 0 the film's; the row of each particle met; mean free paths (met,) in nm.

    What damage takes from the reflections is scattered diffusely: more, and further out, as the dose grows.
    """
    tables, rows, paths = dict(zip(cast.materials, cast.radii, strict=True)), [], []
    beam = cast.beam
    disk = disk_radius_px(beam.convergence_mrad, beam.wavelength_a, cast.pixel_inv_angstrom)
    for index in view.particle:
        particle = cast.particles[index]
        kind = cast.materials[cast.material[index]]
        if particle.damage is not None:
            kind = replace(kind, damage=particle.damage, dose_e_per_A2=view.dose_e_per_A2)
        if kind not in tables:
            tables[kind] = diffuse.quantiles(kind, beam.voltage_kv, cast.pixel_inv_angstrom, disk)
        rows.append(list(tables).index(kind))
        paths.append(diffuse.damaged_path(particle.mean_free_path_nm, kind, beam.voltage_kv))
    return np.stack(list(tables.values())), np.array(rows, np.int64), np.array(paths, float)


def _tables(cast: Cast, view: View, met: int, steps: int, step_nm: float) -> Tables:
    """The excited reflections of one particle and their cumulative shares."""
    index = view.particle[met]
    particle = cast.particles[index]
    structure, damage = particle.structure, particle.damage
    left = None if damage is None else fading(damage, view.dose_e_per_A2, structure.g_length)
    ub = view.rotation @ particle.ub
    excited = diffraction.excite(structure, ub, cast.beam, view.thickest[met], particle.mosaic_deg, left)
    if cast.scale is None:
        return excited, diffraction.two_beam_shares(excited, steps, step_nm)
    return excited, diffraction.kinematic_shares(excited, steps, step_nm, float(cast.scale[index]))
