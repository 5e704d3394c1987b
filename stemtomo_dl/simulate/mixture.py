"""Puts together what the counts of one tilt are drawn from: film, particles in the order of the beam, detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stemtomo_dl.geometry import disk_radius_px, g_to_detector, rotate_in_plane, tilt_rotation, wavelength
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate import diffraction, diffuse
from stemtomo_dl.simulate.again import NOTHING, Again
from stemtomo_dl.simulate.body import Particle
from stemtomo_dl.simulate.counts import Mixture
from stemtomo_dl.simulate.crystal import Structure
from stemtomo_dl.simulate.damage import fading
from stemtomo_dl.simulate.detector import Sensor, make_sensor
from stemtomo_dl.simulate.diffraction import Beam, Excited
from stemtomo_dl.simulate.diffuse import Material
from stemtomo_dl.simulate.motion import Motion
from stemtomo_dl.simulate.scene import Microscope, Scene
from stemtomo_dl.simulate.streams import Stream, generator

Mapper = Callable[[Callable[[int], Any], Iterable[int]], Iterator[Any]]


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


def make_cast(
    scene: Scene, phases: list[Structure], particles: tuple[Particle, ...], motion: Motion, thickest: np.ndarray
) -> Cast:
    """What stays the same through the series."""
    m, wave = scene.instrument, wavelength(scene.instrument.voltage_kv)
    edge = max(m.detector) / 2 * m.pixel_inv_angstrom
    rings = diffraction.rings_needed(m.convergence_mrad, edge, float(thickest.max()))
    beam = diffraction.make_beam(m.voltage_kv, wave, m.convergence_mrad, rings, m.rotation_deg)
    scale = None if scene.intensities == "two-beam" else _kinematic_scale(m, motion, particles, beam, thickest)
    disk = disk_radius_px(m.convergence_mrad, wave, m.pixel_inv_angstrom)
    materials = (diffuse.amorphous(scene.film.element), *(diffuse.crystal(phase) for phase in phases))
    radii = [diffuse.quantiles(kind, m.voltage_kv, m.pixel_inv_angstrom, disk) for kind in materials]
    material = np.array([1 + phases.index(p.structure) for p in particles])
    return Cast(
        particles=particles,
        beam=beam,
        pixel_inv_angstrom=m.pixel_inv_angstrom,
        rotation_deg=m.rotation_deg,
        sequential=scene.overlap == "sequential",
        sensor=make_sensor(m.camera, m.detector, generator(scene.seed, Stream.CAMERA)),
        ellipse=m.ellipse.matrix(),
        radii=np.stack(radii),
        material=material,
        materials=materials,
        scale=scale,
    )


def _kinematic_scale(
    microscope: Microscope,
    motion: Motion,
    particles: tuple[Particle, ...],
    beam: diffraction.Beam,
    thickest: np.ndarray,
) -> np.ndarray:
    """One factor per particle, the same at all tilts, so that no more is scattered than is physical."""
    bound = np.zeros(thickest.shape)
    for tilt, rotation in enumerate(tilt_rotation(microscope.tilt_axis_deg, motion.alpha_deg)):
        for p, particle in enumerate(particles):
            excited = diffraction.excite(
                particle.structure, rotation @ particle.ub, beam, thickest[tilt, p], particle.mosaic_deg
            )
            bound[tilt, p] = diffraction.kinematic_bound(excited, thickest[tilt, p])
    return np.asarray(np.minimum(1, diffraction.MOST_KINEMATIC / np.maximum(bound.max(0), 1e-30)))


def make_mixture(cast: Cast, view: View, parallel: Mapper = map) -> Mixture:
    """What decides the fate of electrons at a tilt; ``parallel`` is a `map` that may use threads."""
    excited = list(parallel(lambda k: _excite(cast, view, k), range(len(view.particle))))
    ladders = [diffraction.ladder(e, t) for e, t in zip(excited, view.thickest, strict=True)]
    shapes = [diffraction.table_shape(e, steps) for e, (steps, _) in zip(excited, ladders, strict=True)]
    table = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    shares = np.empty(table[-1], np.float32)  # every table is filled in its place: all of them together are large

    def fill(k: int) -> None:
        out = shares[table[k] : table[k + 1]].reshape(shapes[k])
        if cast.scale is None:
            diffraction.two_beam_shares(excited[k], *ladders[k], out)
        else:
            diffraction.kinematic_shares(excited[k], *ladders[k], float(cast.scale[view.particle[k]]), out)

    list(parallel(fill, range(len(ladders))))
    radii, material, mean_free_path = _diffuse(cast, view)
    g = np.concatenate([e.g for e in excited] or [np.zeros((0, 3))])
    place = g_to_detector(g, cast.pixel_inv_angstrom, cast.rotation_deg, np.zeros(2)) @ cast.ellipse.T
    return Mixture(
        center=view.center_px,
        ellipse=cast.ellipse,
        disk_px=disk_radius_px(cast.beam.convergence_mrad, cast.beam.wavelength_a, cast.pixel_inv_angstrom),
        rings=cast.beam.rings,
        sequential=cast.sequential,
        radii=radii,
        material=material,
        mean_free_path=mean_free_path,
        steps=np.array([n for n, _ in ladders], np.int64),
        step_nm=np.array([step for _, step in ladders], float),
        first=np.cumsum([0, *(len(e.index) for e in excited)]).astype(np.int64),
        table=table[:-1].astype(np.int64),
        shares=shares,
        place=place + view.center_px,
        again=_again(cast, view, excited) if cast.sequential and len(excited) > 1 else NOTHING,
    )


def _again(cast: Cast, view: View, excited: list[Excited]) -> Again:
    """The reflections of every particle that beams from those above it may excite."""
    beam, deflection, found = cast.beam, 0.0, []
    for met, above in enumerate(excited):
        found.append(_excite(cast, view, met, deflection))
        deflection += float(np.hypot(*above.g[:, :2].T).max(initial=0))
    extinction = np.concatenate([e.extinction for e in found])
    scale = np.ones(len(found)) if cast.scale is None else cast.scale[view.particle]
    strength = np.repeat(scale, [len(e.index) for e in found]) * extinction**-2
    g = np.concatenate([e.g for e in found])
    return Again(
        wavenumber=1 / beam.wavelength_a,
        cone=beam.convergence_mrad * 1e-3 / beam.wavelength_a,
        to_wave=np.linalg.inv(cast.ellipse) * cast.pixel_inv_angstrom,
        first=np.cumsum([0, *(len(e.index) for e in found)]).astype(np.int64),
        g=np.column_stack([rotate_in_plane(g[:, :2], cast.rotation_deg), g[:, 2]]),
        strength=strength,
        coupling=strength if cast.scale is None else np.full(len(strength), diffraction.UNCOUPLED),
        mosaic=np.radians([cast.particles[p].mosaic_deg for p in view.particle]),
        shared=cast.scale is None,
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


def _excite(cast: Cast, view: View, met: int, deflection: float = 0.0) -> Excited:
    """The reflections of one particle that matter at a tilt, to beams deflected by up to so much (1/Å)."""
    particle = cast.particles[view.particle[met]]
    structure, damage = particle.structure, particle.damage
    left = None if damage is None else fading(damage, view.dose_e_per_A2, structure.g_length)
    ub = view.rotation @ particle.ub
    return diffraction.excite(structure, ub, cast.beam, view.thickest[met], particle.mosaic_deg, left, deflection)
