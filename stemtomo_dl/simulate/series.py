"""A scene played: the truth at once, the counts of any tilt when they are asked for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import disk_radius_px, tilt_rotation, wavelength
from stemtomo_dl.records import Masks, Truth, VirtualImages
from stemtomo_dl.simulate import counts, expected, render
from stemtomo_dl.simulate.body import Particle
from stemtomo_dl.simulate.crystal import Structure, read_structure
from stemtomo_dl.simulate.distortion import beam_shifts
from stemtomo_dl.simulate.film import film_path, free_path, make_film, seen_part
from stemtomo_dl.simulate.film_map import FilmMap
from stemtomo_dl.simulate.layers import film_between, order_met
from stemtomo_dl.simulate.mixture import Cast, View, make_cast, make_mixture
from stemtomo_dl.simulate.motion import Motion, accumulated_dose, make_motion
from stemtomo_dl.simulate.sample import coat_path, make_particles
from stemtomo_dl.simulate.scene import Scene
from stemtomo_dl.simulate.streams import Stream, generator
from stemtomo_dl.simulate.survey import footprints, probes_of, survey

_AHEAD = 4  # rows per thread that are drawn before the first is taken
_AHEAD_BYTES = 2**28  # of all of them, beyond one per thread
_MOST_ROW_BYTES = 2**30  # of one row of patterns
_MOST_DRAWN = 1e6  # electrons per pattern that are drawn one by one


@dataclass(frozen=True, eq=False)
class Series:
    """A synthetic tilt series. Counts depend on scene and tilt alone, not on threads or on other scans."""

    scene: Scene
    motion: Motion
    cast: Cast
    film: FilmMap
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

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the counts, as the camera stores them."""
        return np.dtype(self.scene.instrument.camera.full()["dtype"])

    @property
    def listed_pixels(self) -> np.ndarray:
        """Pixels (qy, qx) bool that the instrument knows to be bad."""
        return self.cast.sensor.listed

    @property
    def blind_pixels(self) -> np.ndarray:
        """Pixels (qy, qx) of the camera that tell nothing: gaps, dead and hot ones."""
        return expected.blind_pixels(self.cast.sensor)

    @property
    def hidden_share(self) -> float:
        """Share of the direct beam's disk that falls on pixels known to be bad, at the tilt where it is greatest."""
        m = self.scene.instrument
        radius = disk_radius_px(m.convergence_mrad, wavelength(m.voltage_kv), m.pixel_inv_angstrom)
        rows, columns = np.indices(m.detector)
        shares = [0.0]
        for column, row in self.motion.centers_px:
            disk = np.hypot(columns - column, rows - row) <= max(radius, 0.71)
            shares.append(float(self.listed_pixels[disk].mean()) if disk.any() else 1.0)
        return max(shares)

    def check_images(self) -> None:
        """Raise InputError if a virtual detector has no pixel that counts at some tilt."""
        for center in self.motion.centers_px:
            expected.optics_at(self.scene, self.cast, center)

    def images(self, tilt: int) -> VirtualImages:
        """Virtual images of a tilt with their noise, without its patterns; see `simulate.expected`."""
        rng = generator(self.scene.seed, Stream.IMAGES, int(self.motion.turn[tilt]))
        return expected.expected_images(self.scene, self.cast, *self._view(tilt), self._film(tilt), rng)

    def scan(self, tilt: int, threads: int | None = None) -> np.ndarray:
        """All patterns of a tilt, (y, x, qy, qx), in the camera's dtype."""
        out = np.empty(self.shape, self.dtype)
        for y, row in enumerate(self.rows(tilt, threads)):
            out[y] = row
        return out

    def rows(self, tilt: int, threads: int | None = None, dense: bool | None = None) -> Iterator[np.ndarray]:
        """The scan rows of a tilt one after another, each (x, qy, qx) in the camera's dtype.

        Parameters
        ----------
        threads : int or None
            None: one per processor.
        dense : bool or None
            Whether to draw pixels of expected patterns rather than electrons. Both are exact but give
            different counts for one seed; None takes the faster.
        """
        threads = threads or os.cpu_count() or 1
        ahead = threads * max(1, min(_AHEAD, _AHEAD_BYTES // (threads * _row_bytes(self.scene))))
        with ThreadPoolExecutor(threads) as pool:
            draw = self._row_drawer(tilt, dense, pool)
            pending: deque[Future[np.ndarray]] = deque()
            for y in range(self.shape[0]):
                pending.append(pool.submit(draw, y))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _row_drawer(self, tilt: int, dense: bool | None, pool: ThreadPoolExecutor) -> Callable[[int], np.ndarray]:
        """The function that draws row y of a tilt."""
        microscope, shape, sensor = self.scene.instrument, self.shape, self.cast.sensor
        electrons = microscope.electrons
        turn = int(self.motion.turn[tilt])
        view, thickness = self._view(tilt)
        mixture, film = make_mixture(self.cast, view, pool.map), self._film(tilt)
        if self.cast.sequential and view.film_at > 0:
            mixture, thickness, film = film_between(mixture, thickness, film, view.film_at)
        shifts = beam_shifts(microscope.descan, microscope.scan)
        if dense is None:
            dense = render.dense_is_cheaper(electrons, microscope.detector, sensor)
        canvas = render.make_canvas(mixture, sensor, microscope.detector, shifts) if dense else None

        def draw(y: int) -> np.ndarray:
            rng = generator(self.scene.seed, Stream.COUNTS, turn, y)
            out = np.empty(shape[1:], self.dtype)
            row = counts.Row(np.ascontiguousarray(thickness[:, y]), film[y], shifts[y])
            if canvas is not None:
                render.draw_patterns(rng, electrons, mixture, row, sensor, canvas, out)
            else:
                counts.draw_electrons(rng, electrons, mixture, row, sensor, out)
            return out

        return draw

    def _view(self, tilt: int) -> tuple[View, np.ndarray]:
        """What is in view at a tilt, and the thickness (met, y, x) in nm of all that is met."""
        microscope, motion = self.scene.instrument, self.motion
        seen = footprints(self.scene, motion, self.cast.particles, tilt)
        rotation = tilt_rotation(microscope.tilt_axis_deg, motion.alpha_deg[tilt])
        order, before_film = order_met([p.position_nm for p in self.cast.particles], self.film, rotation)
        met = [p for p in order if (seen[p].thickness > 0).any()]
        thickness = np.zeros((len(met), *microscope.scan))
        for k, p in enumerate(met):
            height_px, width_px = seen[p].thickness.shape
            thickness[k, seen[p].y0 : seen[p].y0 + height_px, seen[p].x0 : seen[p].x0 + width_px] = seen[p].thickness
        dose = float(accumulated_dose(self.scene, len(self))[tilt])
        thickest, film_at = thickness.max((1, 2), initial=0), int(before_film[met].sum())
        return View(rotation, motion.centers_px[tilt], np.array(met, np.int64), thickest, dose, film_at), thickness

    def _film(self, tilt: int) -> np.ndarray:
        """Share of the electrons that the support and amorphous coats take at a tilt, (y, x)."""
        scene, m, drift = self.scene, self.scene.instrument, self.motion.drift_px[tilt]
        rotation = tilt_rotation(m.tilt_axis_deg, self.motion.alpha_deg[tilt])
        mean_free_path = free_path(scene.film, m.voltage_kv)
        probes = probes_of(scene, self.motion, tilt)
        path = film_path(scene.film, self.film, rotation, drift, m, probes)
        path += coat_path(self.cast.particles, rotation, drift, m, mean_free_path, probes)
        return 1 - np.exp(-path / mean_free_path)


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
        If a CIF cannot be understood, two of them share a name, a resolution limit leaves no reflections or too
        many, a habit does not close, the field is full, the film is seen edge-on or nothing is in view.
    """
    _check_effort(scene)
    structures, m = _structures(scene, cifs), scene.instrument
    motion = make_motion(scene)
    part = seen_part(scene.film, m, motion.alpha_deg, motion.drift_px[:, None] + motion.row_px)
    film = make_film(scene.film, part, scene.seed)
    particles = make_particles(scene, structures, film)
    masks, particle, thickest = survey(scene, motion, particles)
    if not len(masks):
        raise InputError(
            "key 'particles': no particle is in view at any tilt; check positions_nm and sizes against "
            "instrument.scan and step_nm, and how far drift moves the field"
        )
    cast = make_cast(scene, list(structures.values()), particles, motion, thickest)
    return Series(scene, motion, cast, film, _truth(motion, particles, masks, particle))


def _row_bytes(scene: Scene) -> int:
    m = scene.instrument
    return int(np.prod([m.scan[1], *m.detector]) * np.dtype(m.camera.full()["dtype"]).itemsize)


def _check_effort(scene: Scene) -> None:
    """Refuse what would exhaust memory or patience."""
    if _row_bytes(scene) > _MOST_ROW_BYTES:
        raise InputError(
            f"keys 'instrument.scan' and 'instrument.detector': one row of patterns takes "
            f"{_row_bytes(scene) / 2**30:.3g} GiB, more than {_MOST_ROW_BYTES / 2**30:g}; make one of them smaller"
        )
    if scene.overlap == "sequential" and scene.instrument.electrons > _MOST_DRAWN:
        raise InputError(
            f"key 'overlap': sequential scattering draws electrons one by one, {scene.instrument.electrons:.2g} per "
            f"pattern are more than {_MOST_DRAWN:.0e}; choose 'sum' or a lower dose"
        )


def _structures(scene: Scene, cifs: Mapping[str, str]) -> dict[str, Structure]:
    """Every phase, by the name that the scene gives its CIF."""
    microscope = scene.instrument
    reach = (np.array(microscope.detector[::-1]) - 1) / 2 + np.abs(microscope.beam_offset_px)
    squeezed = np.linalg.svd(microscope.ellipse.matrix(), compute_uv=False).min()
    d_min = scene.d_min or 1 / (np.hypot(*reach) / squeezed * microscope.pixel_inv_angstrom)
    limit = "key 'd_min'" if scene.d_min else "keys 'instrument.detector' and 'instrument.pixel_inv_angstrom'"
    structures = {name: read_structure(Path(name).stem, cifs[name], float(d_min), limit) for name in scene.cifs}
    names = [s.name for s in structures.values()]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"key 'particles.cif': two CIFs are called {name}; rename one")
    return structures


def _truth(motion: Motion, particles: tuple[Particle, ...], masks: Masks, particle: np.ndarray) -> Truth:
    """The known answer."""
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
