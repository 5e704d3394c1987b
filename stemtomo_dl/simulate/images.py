"""Virtual images drawn without making patterns, with the amodal outlines of all particles.

Thicknesses are looked up in the tables of `simulate.library`; what every detector is expected to count adds up
particle by particle in the order of the beam. Counts are then drawn with the statistics that patterns would have:
bright and dark fields are independent Poisson numbers, since Poisson electrons are shared out among them, and what
``variance`` and ``maximum`` make of a pattern is drawn for the electrons that its dark field received.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.records import Masks, Record, array
from stemtomo_dl.simulate.library import Responses
from stemtomo_dl.simulate.noise import Detectors, draw_counts
from stemtomo_dl.simulate.planes import add_particle, blur, lay_film
from stemtomo_dl.simulate.shape import Footprint, Solid, footprint

DETECTORS = ("bf", "adf", "haadf", "variance", "maximum")


@dataclass(frozen=True, eq=False)
class ImageSample(Record):
    """All that decides what virtual images show; particles in the order in which the beam meets them.

    A particle's orientation at a place (x, y) px from its middle is entry r₀ + r₁x + r₂y + r₃(x² + y²) of the row
    of orientations that its crystal has in ``responses``: lattice planes may be bent.
    """

    responses: Responses
    electrons: float  # per pattern
    step_nm: float
    solids: tuple[Solid, ...]  # in the lab frame
    probe_samples: int  # probe positions averaged per step and direction
    blur_px: tuple[float, float]  # of probe and drift within a scan, rms along y and x
    at_px: np.ndarray = array("f8", "particle 2", "px (x, y)")
    crystal: np.ndarray = array("i8", "particle")
    rocking: np.ndarray = array("f8", "particle 4", "r₀, r₁ and r₂ per px, r₃ per px²")
    mean_free_path_nm: np.ndarray = array("f8", "particle", "nm")
    film: np.ndarray = array("f4", "y x", "share of the electrons that the support takes")
    row_shift_px: np.ndarray = array("f8", "y", "px by which a scan row is taken too far right")
    row_dose: np.ndarray = array("f8", "y", "of the mean dose")
    shading: np.ndarray = array("f8", "3 5", "loss of bf, adf, haadf: x, y, x², xy, y² of the field, from −1 to 1")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.film.shape[0], self.film.shape[1]


@dataclass(frozen=True, eq=False)
class TrainingImage(Record):
    """Virtual images with the outlines that a segmenter shall find; a particle that covers no pixel has none.

    ``signal`` is the contrast of a particle in bf, adf and haadf together over its counting noise, both summed
    over its outline: below about 5 nobody could see it.
    """

    detectors: tuple[str, ...]
    masks: Masks
    images: np.ndarray = array("f4", "detector y x", "counts per pixel (variance: counts² per pixel)")
    particle: np.ndarray = array("i8", "instance")  # of the sample, which each mask shows
    visibility: np.ndarray = array("f8", "instance", "share of the outline that no other overlaps")
    signal: np.ndarray = array("f8", "instance", "standard deviations")

    def __getitem__(self, detector: str) -> np.ndarray:
        return self.images[self.detectors.index(detector)]


def draw_images(sample: ImageSample, rng: np.random.Generator) -> TrainingImage:
    """Draw the virtual images of a sample.

    Parameters
    ----------
    rng : Generator
        For the counts; the same one gives the same images.
    """
    places = zip(sample.solids, sample.at_px, strict=True)
    seen = [footprint(solid, at, sample.step_nm, sample.shape, sample.probe_samples) for solid, at in places]
    planes, signal, bragg = expected_planes(sample, seen)
    images = np.empty((len(DETECTORS), *sample.shape), np.float32)
    detectors = _detectors(sample.responses)
    draw_counts(rng, sample.electrons, planes, detectors, bragg, sample.row_dose, sample.shading, images)
    shown = np.flatnonzero([f.outline.any() for f in seen])
    masks = _masks(sample.shape, [seen[p] for p in shown])
    return TrainingImage(DETECTORS, masks, images, shown, _visibility(masks), np.sqrt(signal[shown]))


def expected_planes(sample: ImageSample, seen: list[Footprint]) -> tuple[np.ndarray, np.ndarray, float]:
    """What is expected at every probe.

    Returns
    -------
    planes : (y, x, plane) f4 array
        As `simulate.planes` numbers them.
    signal : (particle,) array
        Squared.
    bragg : float
        Σ over the dark field of the squared radial profile of all reflections, averaged over probes.
    """
    responses = sample.responses
    planes = lay_film(sample.film, responses.film)
    signal, profile = np.zeros(len(seen)), np.zeros(len(responses.ring_px))
    for p, part in enumerate(seen):
        c = sample.crystal[p]
        squared, dark = add_particle(
            planes,
            part.thickness,
            np.array([part.y0, part.x0]),
            sample.at_px[p],
            sample.row_shift_px,
            sample.rocking[p],
            responses.table[c],
            responses.step_nm[c],
            sample.mean_free_path_nm[p],
            responses.diffuse[c],
        )
        signal[p] = squared * sample.electrons
        profile += dark / sample.film.size * responses.profile[c]
    bragg = float((profile**2 / np.maximum(responses.ring_px, 1)).sum())
    blur(planes, sample.blur_px)
    return planes, signal, bragg


def _detectors(r: Responses) -> Detectors:
    crystal = r.diffuse.mean(0) if len(r.diffuse) else r.film
    return Detectors(r.direct, r.area_px, r.film, crystal, r.squares, r.cubes, r.levels, r.hottest)


def _masks(shape: tuple[int, int], seen: list[Footprint]) -> Masks:
    """Outlines as a record, all at tilt 0."""
    return Masks(
        shape=shape,
        crops=tuple(f.outline for f in seen),
        origin=np.array([(f.y0, f.x0) for f in seen], "i4").reshape(-1, 2),
        tilt=np.zeros(len(seen), "i4"),
        score=np.ones(len(seen), "f4"),
        alpha_deg=np.zeros(1),
    )


def _visibility(masks: Masks) -> np.ndarray:
    """Share of every outline (instance,) that belongs to no other."""
    depth = np.zeros(masks.shape, np.int32)
    for i, crop in enumerate(masks.crops):
        depth[masks.window(i)] += crop
    return np.array([(depth[masks.window(i)][crop] == 1).mean() for i, crop in enumerate(masks.crops)], float)
