"""Lays bodies on the film: each falls, sticks to an agglomerate or to the needle, or stands where it is told.

Bodies come from the side of −z, from which the beam comes at α = 0, and rest on the face of the film that looks there.
None enters another or the support; only what stands where a scene says may be embedded in film or needle.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import field_centre
from stemtomo_dl.simulate.contact import arrival, overlap
from stemtomo_dl.simulate.film_map import FilmMap
from stemtomo_dl.simulate.population import Population
from stemtomo_dl.simulate.scene import Microscope, Scene
from stemtomo_dl.simulate.shape import GRID, Footprint, Solid, footprint
from stemtomo_dl.simulate.taken import Crowd, Gaps

_TRIES = 2000  # places tried for one particle before the field is called full
_TOUCH_NM = 1e-3  # what is in contact stays this far apart
_SLIDES = 8  # steps to where a body that slides along a wrinkled film meets another
_UP = np.array([0.0, 0.0, -1.0])


@dataclass
class Deposit:
    """The sample while it fills up."""

    scene: Scene
    film: FilmMap
    gaps: Gaps
    crowd: Crowd = field(default_factory=Crowd)
    clusters: dict[str, list[list[np.ndarray]]] = field(default_factory=dict)  # places in agglomerates by their name

    @classmethod
    def on(cls, scene: Scene, film: FilmMap) -> Deposit:
        """A film with nothing on it but the needle, where there is one."""
        kept = {p.min_gap_nm for p in scene.particles if p.min_gap_nm is not None}
        out = cls(scene, film, Gaps(kept, scene.instrument.scan, scene.instrument.step_nm))
        if film.needle is not None:
            out.crowd.add(*film.needle)
        return out

    @property
    def extent(self) -> np.ndarray:
        """Width and height (2,) in nm of the part of the field in which centres lie."""
        rows, columns = self.scene.instrument.scan
        return np.array([columns, rows]) * self.scene.instrument.step_nm * self.scene.field_fraction

    def settle(self, number: int, index: int, count: int, solid: Solid, rng: np.random.Generator) -> np.ndarray:
        """Find the place (3,) in nm of a body, the ``index``-th of ``count`` of a population, and take note of it.

        ``rng`` is the body's own: other bodies change its place only by being in its way, or in its agglomerate.

        Raises
        ------
        InputError
            If there is no room, or none where the scene puts it, or no needle for what sticks to it.
        """
        population = self.scene.particles[number]
        place: np.ndarray | None
        if population.positions_nm:
            place = self._told(number, index, solid)
        elif population.support == "needle":
            place = self._on_needle(number, solid, rng)
        elif population.cluster_size > 1:
            place = self._in_cluster(population, solid, rng)
        else:
            place = self._on_film(population, solid, rng)
        if place is None:
            raise InputError(
                f"key 'particles.{number}': no room for particle {index + 1} of {count}; "
                "ask for fewer or smaller ones, a smaller min_gap_nm or fewer holes"
            )
        self.gaps.keep(_outline(self.scene.instrument, solid, place))
        self.crowd.add(solid, place)
        return place

    def _told(self, number: int, index: int, solid: Solid) -> np.ndarray:
        """The place that the scene states; film and needle give way to it."""
        place = np.array(self.scene.particles[number].positions_nm[index], float)
        needle = None if self.film.needle is None else self.film.needle[0]
        bodies = [other for other in self.crowd.beside(solid, place) if other.solid is not needle]
        if overlap(solid, place, bodies):
            raise InputError(
                f"key 'particles.{number}.positions_nm.{index}': the particle would enter another one; "
                "move it or make it smaller"
            )
        return place

    def _on_film(self, population: Population, solid: Solid, rng: np.random.Generator) -> np.ndarray | None:
        """Where a body comes down at random, the gap away from outlines already there and not over a hole."""
        far, gap = solid.far_side(), population.min_gap_nm
        for xy in rng.uniform(-0.5, 0.5, (_TRIES, 2)) * self.extent:
            place = np.array([*xy, 0.0])
            if gap is not None and not self.gaps.free(gap, _outline(self.scene.instrument, solid, place)):
                continue
            if self.film.in_hole(*xy):
                continue
            rest, met = self._rest(far, xy), arrival(solid, place, _UP, self.crowd.beside(solid, place, _UP))
            place[2] = min(rest, -met - _TOUCH_NM)
            # outlines that a scan's pixels show apart may still overlap at their corners: a body falls on another
            if np.isfinite(place[2]) and (gap is None or place[2] == rest):
                return place
        return None

    def _in_cluster(self, population: Population, solid: Solid, rng: np.random.Generator) -> np.ndarray | None:
        """A place in contact with an agglomerate, or where a new one begins.

        One body in ``cluster_size`` begins a new one, so that this is their mean number.
        """
        clusters = self.clusters.setdefault(population.cluster, [])
        if clusters and rng.uniform() > 1 / population.cluster_size:
            cluster = clusters[rng.integers(len(clusters))]
            place = self._touching(solid, cluster, rng, floored=True)
        else:
            cluster = []
            clusters.append(cluster)
            place = self._on_film(population, solid, rng)
        if place is not None:
            cluster.append(place)
        return place

    def _on_needle(self, number: int, solid: Solid, rng: np.random.Generator) -> np.ndarray | None:
        """A place on the rim of the needle, or on what sticks to it already."""
        needle = self.scene.film.needle
        if needle is None:
            raise InputError(f"key 'particles.{number}.support': there is no needle; add film.needle")
        azimuth = np.radians(needle.azimuth_deg)
        way = rng.uniform(0, float(np.linalg.norm(self.extent)), 200)
        aims = np.array([*needle.tip_nm, 0.0]) - way[:, None] * [np.cos(azimuth), np.sin(azimuth), 0]
        visible = aims[(np.abs(aims[:, :2]) <= self.extent / 2).all(1)]
        if not len(visible):
            raise InputError("key 'film.needle.tip_nm': the needle does not reach into the field; move it")
        return self._touching(solid, list(visible), rng, floored=self.film.thickness > 0)

    def _touching(
        self, solid: Solid, aims: list[np.ndarray], rng: np.random.Generator, *, floored: bool
    ) -> np.ndarray | None:
        """A place in contact with what is met first on a random way toward one of the points (3,) aimed at.

        A way that would end in the film (where there is a floor) is taken along the film instead.
        """
        far = solid.far_side()
        for _ in range(_TRIES):
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            aim = aims[rng.integers(len(aims))]
            place: np.ndarray | None = self._arrive(solid, aim, direction)
            if place is not None and floored and place[2] > self._rest(far, place[:2]):
                place = self._slide(solid, far, aim, direction)
            if place is not None and (np.abs(place[:2]) <= self.extent / 2).all():
                return place
        return None

    def _slide(self, solid: Solid, far: np.ndarray, aim: np.ndarray, direction: np.ndarray) -> np.ndarray | None:
        """Where a body that slides along the film toward a point (3,) touches another; None where it meets none."""
        along = np.array([direction[0], direction[1], 0.0]) / np.hypot(direction[0], direction[1])
        place: np.ndarray | None = aim
        for _ in range(_SLIDES):
            if place is None:
                return None
            rest = self._rest(far, place[:2])
            if not np.isfinite(rest):
                return None
            at = np.array([place[0], place[1], rest])
            if abs(place[2] - rest) < _TOUCH_NM and not overlap(solid, at, self.crowd.beside(solid, at)):
                return at
            place = self._arrive(solid, np.array([aim[0], aim[1], rest]), along)
        return None

    def _arrive(self, solid: Solid, aim: np.ndarray, direction: np.ndarray) -> np.ndarray | None:
        """Where a body that comes along −direction toward a point first touches another."""
        met = arrival(solid, aim, direction, self.crowd.beside(solid, aim, direction))
        return aim + (met + _TOUCH_NM) * direction if np.isfinite(met) else None

    def _rest(self, far: np.ndarray, xy: np.ndarray) -> float:
        """The z at which a body at a place (2,) touches the film, inf where there is none under it.

        ``far`` are the points of its surface that look toward the film.
        """
        apart = float(np.ptp(far[:, :2], axis=0).max()) / GRID
        floor = self.film.floor(far[:, 0] + xy[0], far[:, 1] + xy[1], apart)
        return float((floor - far[:, 2]).min()) - _TOUCH_NM


def _outline(microscope: Microscope, solid: Solid, place: np.ndarray) -> Footprint:
    """What a body covers at α = 0 before any drift."""
    step, shape = microscope.step_nm, microscope.scan
    return footprint(solid, field_centre(shape) + place[:2] / step, step, shape)
