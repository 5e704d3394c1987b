"""A scene played: the truth at once, the counts of any tilt when they are asked for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import disk_radius_px, field_centre, tilt_rotation, wavelength
from stemtomo_dl.records import Masks, Truth
from stemtomo_dl.simulate import cone, counts, diffraction, diffuse
from stemtomo_dl.simulate.crystal import Structure, read_structure
from stemtomo_dl.simulate.mixture import Cast, View, make_mixture
from stemtomo_dl.simulate.motion import Motion, make_motion
from stemtomo_dl.simulate.sample import Particle, make_particles
from stemtomo_dl.simulate.scene import Microscope, Scene
from stemtomo_dl.simulate.shape import Footprint, footprint

_PARTICLES, _MOTION, _COUNTS = 1, 2, 3  # streams of random numbers: adding a particle does not change the drift
_AHEAD = 4  # rows per thread that are drawn before the first is taken


@dataclass(frozen=True, eq=False)
class Series:
    """A synthetic tilt series. Counts depend on scene and tilt alone, not on threads or on what was drawn before."""

    scene: Scene
    motion: Motion
    cast: Cast
    truth: Truth

    def __len__(self) -> int:
        return len(self.motion.alpha_deg)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.scan(tilt) for tilt in range(len(self)))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (y, x, qy, qx) of every scan."""
        return *self.scene.instrument.scan, *self.scene.instrument.detector

    @property
    def stated_deg(self) -> np.ndarray:
        """Tilt angles (tilt,) as the goniometer states them."""
        return self.motion.stated_deg

    @property
    def elements(self) -> list[str]:
        """Chemical elements of all crystals."""
        return sorted({e for p in self.cast.particles for e in p.structure.elements})

    def scan(self, tilt: int, threads: int | None = None) -> np.ndarray:
        """All patterns of a tilt, (y, x, qy, qx) uint16."""
        out = np.empty(self.shape, np.uint16)
        for y, row in enumerate(self.rows(tilt, threads)):
            out[y] = row
        return out

    def rows(self, tilt: int, threads: int | None = None, dense: bool | None = None) -> Iterator[np.ndarray]:
        """The scan rows of a tilt one after another, each (x, qy, qx) uint16.

        Parameters
        ----------
        threads : int or None
            None: one per processor.
        dense : bool or None
            Whether to draw pixels of expected patterns rather than electrons. Both are exact but give
            different counts for one seed; None takes the faster.
        """
        threads = threads or os.cpu_count() or 1
        with ThreadPoolExecutor(threads) as pool:
            draw = self._row_drawer(tilt, dense, pool)
            pending: deque[Future[np.ndarray]] = deque()
            for y in range(self.shape[0]):
                pending.append(pool.submit(draw, y))
                if len(pending) > _AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _row_drawer(self, tilt: int, dense: bool | None, pool: ThreadPoolExecutor) -> Callable[[int], np.ndarray]:
        """The function that draws row y of a tilt."""
        microscope, shape = self.scene.instrument, self.shape
        electrons = microscope.electrons_per_pattern
        view, thickness = self._view(tilt)
        mixture = make_mixture(self.cast, view, pool.map)
        if dense is None:
            dense = counts.dense_is_cheaper(electrons, microscope.detector)
        if dense:
            direct = cone.points(mixture.rings, mixture.disk_px, counts.DIRECT_POINTS)
            bragg = cone.points(mixture.rings, mixture.disk_px, counts.BRAGG_POINTS)
            templates = np.stack([diffuse.template(r, view.center_px, shape[2:]) for r in self.cast.radii])

        def draw(y: int) -> np.ndarray:
            rng = _generator(self.scene.seed, _COUNTS, tilt, y)
            out = np.zeros(shape[1:], np.uint16)
            row = np.ascontiguousarray(thickness[:, y])
            if dense:
                counts.draw_patterns(rng, electrons, mixture, row, templates, direct, bragg, out)
            else:
                counts.draw_electrons(rng, electrons, mixture, row, out)
            return out

        return draw

    def _view(self, tilt: int) -> tuple[View, np.ndarray]:
        """What is in view at a tilt, and the thickness (met, y, x) in nm of all that is met."""
        microscope, film = self.scene.instrument, self.scene.film
        seen = _footprints(microscope, self.motion, self.cast.particles, tilt)
        rotation = tilt_rotation(microscope.tilt_axis_deg, self.motion.alpha_deg[tilt])
        height = [(rotation @ p.position_nm)[2] for p in self.cast.particles]
        met = [p for p in np.argsort(height, kind="stable") if (seen[p].thickness > 0).any()]
        thickness = np.zeros((len(met), *microscope.scan))
        for k, p in enumerate(met):
            height_px, width_px = seen[p].thickness.shape
            thickness[k, seen[p].y0 : seen[p].y0 + height_px, seen[p].x0 : seen[p].x0 + width_px] = seen[p].thickness
        path = film.thickness_nm / np.cos(np.radians(self.motion.alpha_deg[tilt]))
        share = float(1 - np.exp(-path / film.mean_free_path_nm))
        center = self.motion.centers_px[tilt]
        return View(share, rotation, center, np.array(met, np.int64), thickness.max((1, 2), initial=0)), thickness


def simulate(scene: Scene, cifs: Mapping[str, str]) -> Series:
    """Play a scene.

    Parameters
    ----------
    scene : Scene
    cifs : mapping
        Text of every CIF by the name that the scene gives it, as `load_scene` returns them.

    Raises
    ------
    InputError
        If a CIF cannot be understood, two of them share a name, a habit does not close or the field is full.
    """
    structures = _structures(scene, cifs)
    particles = make_particles(scene, structures, _generator(scene.seed, _PARTICLES))
    motion = make_motion(scene, _generator(scene.seed, _MOTION))
    seen = [_footprints(scene.instrument, motion, particles, tilt) for tilt in range(len(motion.alpha_deg))]
    thickest = np.array([[f.thickness.max(initial=0) for f in row] for row in seen])
    cast = _cast(scene, list(structures.values()), particles, motion, thickest)
    return Series(scene, motion, cast, _truth(scene.instrument, motion, particles, seen))


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=key)))


def _structures(scene: Scene, cifs: Mapping[str, str]) -> dict[str, Structure]:
    """Every phase, by the name that the scene gives its CIF."""
    microscope = scene.instrument
    reach = (np.array(microscope.detector[::-1]) - 1) / 2 + np.abs(microscope.beam_offset_px)
    d_min = scene.d_min or 1 / (np.hypot(*reach) * microscope.pixel_inv_angstrom)
    structures = {p.cif: read_structure(Path(p.cif).stem, cifs[p.cif], float(d_min)) for p in scene.particles}
    names = [s.name for s in structures.values()]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"key 'particles.cif': two CIFs are called {name}; rename one")
    return structures


def _footprints(microscope: Microscope, motion: Motion, particles: tuple[Particle, ...], tilt: int) -> list[Footprint]:
    """What every particle covers of the scan at a tilt."""
    rotation = tilt_rotation(microscope.tilt_axis_deg, motion.alpha_deg[tilt])
    origin = field_centre(microscope.scan) + motion.drift_px[tilt]
    at = [origin + (rotation @ p.position_nm)[:2] / microscope.step_nm for p in particles]
    return [
        footprint(p.solid.turned(rotation), xy, microscope.step_nm, microscope.scan, microscope.probe_samples)
        for p, xy in zip(particles, at, strict=True)
    ]


def _cast(
    scene: Scene, phases: list[Structure], particles: tuple[Particle, ...], motion: Motion, thickest: np.ndarray
) -> Cast:
    """What stays the same through the series."""
    m, wave = scene.instrument, wavelength(scene.instrument.voltage_kv)
    edge = max(m.detector) / 2 * m.pixel_inv_angstrom
    rings = diffraction.rings_needed(m.convergence_mrad, edge, float(thickest.max()))
    beam = diffraction.make_beam(m.voltage_kv, wave, m.convergence_mrad, rings, m.rotation_deg)
    scale = None if scene.intensities == "two-beam" else _kinematic_scale(m, motion, particles, beam, thickest)
    disk = disk_radius_px(m.convergence_mrad, wave, m.pixel_inv_angstrom)
    materials = [((scene.film.element,), True), *((phase.elements, False) for phase in phases)]
    radii = [
        diffuse.quantiles(elements, amorphous, m.voltage_kv, wave, m.pixel_inv_angstrom, disk)
        for elements, amorphous in materials
    ]
    material = np.array([1 + phases.index(p.structure) for p in particles])
    return Cast(particles, beam, m.pixel_inv_angstrom, m.rotation_deg, np.stack(radii), material, scale)


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
            excited = diffraction.excite(particle.structure, rotation @ particle.ub, beam, thickest[tilt, p])
            bound[tilt, p] = diffraction.kinematic_bound(excited, thickest[tilt, p])
    return np.asarray(np.minimum(1, diffraction.MOST_KINEMATIC / np.maximum(bound.max(0), 1e-30)))


def _truth(
    microscope: Microscope, motion: Motion, particles: tuple[Particle, ...], seen: list[list[Footprint]]
) -> Truth:
    """The known answer; a particle out of view at a tilt has no mask there."""
    in_view = [(t, p) for t, row in enumerate(seen) for p, f in enumerate(row) if f.outline.any()]
    tilt, particle = (np.array(v, "i4") for v in np.reshape(in_view, (-1, 2)).T)
    masks = Masks(
        shape=microscope.scan,
        crops=tuple(seen[t][p].outline for t, p in in_view),
        origin=np.array([(seen[t][p].y0, seen[t][p].x0) for t, p in in_view], "i4").reshape(-1, 2),
        tilt=tilt,
        score=np.ones(len(in_view), "f4"),
        alpha_deg=motion.alpha_deg,
    )
    return Truth(
        masks=masks,
        particle=particle,
        ub=np.stack([p.ub for p in particles]),
        positions_nm=np.stack([p.position_nm for p in particles]),
        alpha_deg=motion.alpha_deg,
        drift_px=motion.drift_px,
        centers_px=motion.centers_px,
        phase=tuple(p.structure.name for p in particles),
        reflections={p.structure.name: (p.structure.hkl, p.structure.intensity) for p in particles},
    )
