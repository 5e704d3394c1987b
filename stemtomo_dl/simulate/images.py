"""Virtual images drawn without making patterns, with the amodal outlines of all particles.

Thicknesses are looked up in the tables of `simulate.library`; what every detector is expected to count adds up
particle by particle in the order of the beam. Counts are then drawn with the statistics that patterns would have:
bright and dark fields are independent Poisson numbers, since Poisson electrons are shared out among them, and what
``variance`` and ``maximum`` make of a pattern is drawn for the electrons that its dark field received.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from stemtomo_dl.records import Masks, Record, array
from stemtomo_dl.simulate.library import IN_ADF, IN_HAADF, QUANTITIES, Responses
from stemtomo_dl.simulate.noise import Detectors, draw_counts
from stemtomo_dl.simulate.planes import (
    BY_CRYSTAL,
    BY_FILM,
    Part,
    add_glow,
    add_part,
    blur,
    lay_film,
    make_shifts,
    moved,
)
from stemtomo_dl.simulate.readout import Readout, read_out
from stemtomo_dl.simulate.sectors import Sectors, draw_sectors, no_sectors, random_sectors
from stemtomo_dl.simulate.shape import Footprint, Solid, footprint

DETECTORS = ("bf", "adf", "haadf", "variance", "maximum")


AMORPHOUS = -1  # stands for a crystal where there is none
_NO_CRYSTAL = np.zeros((1, 2, QUANTITIES), np.float32)  # a table without reflections


class Glow(NamedTuple):
    """Secondary electrons in the place of what dark fields see, as a scanning electron microscope has them."""

    film: float  # that the bare support gives, per electron
    particle: float  # that a flat face gives
    edge: float  # how much stronger than by the law of the cosine edges are


@dataclass(frozen=True, eq=False)
class ImageSample(Record):
    """All that decides what virtual images show; parts in the order in which the beam meets them.

    A particle is one part, or several: twin individuals, a core and its shell. A part's orientation at a place
    (x, y) px from its middle is entry r₀ + r₁x + r₂y + r₃(x² + y²) of the row of orientations that its crystal has in
    ``responses``: lattice planes may be bent.
    """

    responses: Responses
    electrons: float  # per pattern
    step_nm: float
    solids: tuple[Solid, ...]  # of the parts, in the lab frame
    probe_samples: int  # probe positions averaged per step and direction
    blur_px: tuple[float, float]  # of probe and drift within a scan, rms along y and x
    readout: Readout
    glow: Glow | None
    particle: np.ndarray = array("i8", "part")  # that it belongs to, in rising order
    at_px: np.ndarray = array("f8", "part 2", "px (x, y)")
    crystal: np.ndarray = array("i8", "part")  # of the library, or AMORPHOUS
    rocking: np.ndarray = array("f8", "part 4", "r₀, r₁ and r₂ per px, r₃ per px²")
    mean_free_path_nm: np.ndarray = array("f8", "part", "nm")
    film: np.ndarray = array("f4", "y x", "share of the electrons that the support takes")
    row_shift_px: np.ndarray = array("f8", "y", "px by which a scan row is taken too far right")
    column_shift_px: np.ndarray = array("f8", "x", "px by which the probes of a column are")
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
    sectors: np.ndarray | None = array("f4", "y x sector", "counts", optional=True)  # of the dark field

    def __getitem__(self, detector: str) -> np.ndarray:
        return self.images[self.detectors.index(detector)]


def draw_images(sample: ImageSample, rng: np.random.Generator, *, sectors: bool = False) -> TrainingImage:
    """Draw the virtual images of a sample.

    Parameters
    ----------
    rng : Generator
        For the counts; the same one gives the same images.
    sectors : bool
        Whether to draw also where on the dark field electrons land. Secondary electrons (`Glow`) land nowhere.
    """
    seen = _footprints(sample)
    shared = None
    if sectors and sample.glow is None:
        shared = random_sectors(len(sample.solids), sample.shape, rng)
    planes, signal, bragg = expected_planes(sample, seen, shared)
    images, spread = draw_detectors(sample, planes, bragg, rng, shared)
    outlines = _outlines(sample, seen)
    shown = np.flatnonzero([crop.any() for crop, *_ in outlines])
    masks = _masks(sample.shape, [outlines[p] for p in shown])
    return TrainingImage(DETECTORS, masks, images, shown, _visibility(masks), np.sqrt(signal[shown]), spread)


def draw_detectors(
    sample: ImageSample, planes: np.ndarray, bragg: float, rng: np.random.Generator, sectors: Sectors | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Images (detector, y, x) f4 of what `expected_planes` returns, counting noise and camera included.

    With ``sectors``, also the counts (y, x, sector) f4 in them.
    """
    images = np.empty((len(DETECTORS), *sample.shape), np.float32)
    detectors, area = _detectors(sample.responses), sample.responses.area_px
    draw_counts(rng, sample.electrons, planes, detectors, bragg, sample.row_dose, sample.shading, images)
    electrons = _dark_counts(images, area)
    read_out(images, sample.readout, area, rng)
    if sectors is None:
        return images, None
    dark = planes[..., IN_ADF] + planes[..., IN_HAADF]
    pixels = float(area[1] + area[2])
    counts = _dark_counts(images, area)
    return images, draw_sectors(rng, electrons, counts, dark, sectors, sample.readout, pixels)


def _dark_counts(images: np.ndarray, area_px: np.ndarray) -> np.ndarray:
    """Counts (y, x) of the whole dark field."""
    return np.asarray(images[1] * area_px[1] + images[2] * area_px[2])


def _footprints(sample: ImageSample) -> list[Footprint]:
    """What every part covers of a regular scan, as wide as shifted probes may look beyond its sides."""
    pad = int(np.ceil(np.abs(sample.row_shift_px).max() + np.abs(sample.column_shift_px).max()))
    shape = sample.shape[0], sample.shape[1] + 2 * pad
    out = []
    for solid, at in zip(sample.solids, sample.at_px, strict=True):
        seen = footprint(solid, at + [pad, 0], sample.step_nm, shape, sample.probe_samples)
        out.append(replace(seen, x0=seen.x0 - pad))
    return out


def expected_planes(
    sample: ImageSample, seen: Sequence[Footprint], sectors: Sectors | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """What is expected at every probe.

    Parameters
    ----------
    seen : sequence of Footprint
        Of every part; its first column may lie left of the field.
    sectors : Sectors, optional
        Whose ``bragg`` is filled.

    Returns
    -------
    planes : (y, x, plane) f4 array
        As `simulate.planes` numbers them.
    signal : (particle,) array
        Squared.
    bragg : float
        Σ over the dark field of the squared radial profile of all reflections, averaged over probes.
    """
    responses, shifts = sample.responses, make_shifts(sample.row_shift_px, sample.column_shift_px)
    planes = lay_film(sample.film, responses.film)
    signal = np.zeros(sample.particle.max(initial=-1) + 1)
    profile = np.zeros(len(responses.ring_px))
    origins = [np.array([f.y0, f.x0]) for f in seen]
    weights, landed = sectors or no_sectors(len(seen), sample.shape)
    for p, (f, origin) in enumerate(zip(seen, origins, strict=True)):
        squared, dark = add_part(planes, landed, f.thickness, origin, shifts, _part(sample, p, weights[p]))
        signal[sample.particle[p]] += squared * sample.electrons
        if sample.crystal[p] != AMORPHOUS:
            profile += dark / sample.film.size * responses.profile[sample.crystal[p]]
    if sample.glow is not None:
        planes[..., IN_ADF] = planes[..., IN_HAADF] = sample.glow.film * (1 + sample.film)
        for p, (f, origin) in enumerate(zip(seen, origins, strict=True)):
            squared = add_glow(planes, f.thickness, origin, shifts, sample.step_nm, tuple(sample.glow[1:]))
            signal[sample.particle[p]] += squared * sample.electrons
    bragg = float((profile**2 / np.maximum(responses.ring_px, 1)).sum())
    blur(planes, sample.blur_px)
    if sectors is not None:
        blur(sectors.bragg, sample.blur_px)
    return planes, signal, bragg


def _part(sample: ImageSample, p: int, sectors: np.ndarray) -> Part:
    """One part for the kernels."""
    r, c = sample.responses, sample.crystal[p]
    path, rocking = float(sample.mean_free_path_nm[p]), sample.rocking[p]
    if c == AMORPHOUS:
        return Part(sample.at_px[p], rocking, _NO_CRYSTAL, 1.0, path, r.film, BY_FILM, sectors)
    return Part(sample.at_px[p], rocking, r.table[c], float(r.step_nm[c]), path, r.diffuse[c], BY_CRYSTAL, sectors)


Outline = tuple[np.ndarray, int, int]  # crop (row, column) bool, its first row and column


def _outlines(sample: ImageSample, seen: Sequence[Footprint]) -> list[Outline]:
    """Amodal outline of every particle: what all its parts together cover."""
    shifted = sample.row_shift_px.any() or sample.column_shift_px.any()
    shifts = make_shifts(sample.row_shift_px, sample.column_shift_px)
    crops: list[list[Outline]] = [[] for _ in range(sample.particle.max(initial=-1) + 1)]
    for f, particle in zip(seen, sample.particle, strict=True):
        crop, x0 = f.outline, f.x0
        if shifted:
            crop, x0 = moved(crop, np.array([f.y0, f.x0]), shifts, sample.shape[1])
        crops[particle].append((crop, f.y0, x0))
    return [_united(parts) for parts in crops]


def _united(parts: list[Outline]) -> Outline:
    """Crops laid over each other."""
    if len(parts) == 1:
        return parts[0]
    y0, x0 = min(y for _, y, _ in parts), min(x for *_, x in parts)
    y1, x1 = max(y + len(c) for c, y, _ in parts), max(x + c.shape[1] for c, _, x in parts)
    out = np.zeros((y1 - y0, x1 - x0), bool)
    for crop, y, x in parts:
        out[y - y0 : y - y0 + crop.shape[0], x - x0 : x - x0 + crop.shape[1]] |= crop
    return out, y0, x0


def _detectors(r: Responses) -> Detectors:
    crystal = r.diffuse.mean(0) if len(r.diffuse) else r.film
    return Detectors(r.direct, r.area_px, r.film, crystal, r.squares, r.cubes, r.levels, r.hottest)


def _masks(shape: tuple[int, int], outlines: list[Outline]) -> Masks:
    """Outlines as a record, all at tilt 0."""
    return Masks(
        shape=shape,
        crops=tuple(crop for crop, *_ in outlines),
        origin=np.array([origin for _, *origin in outlines], "i4").reshape(-1, 2),
        tilt=np.zeros(len(outlines), "i4"),
        score=np.ones(len(outlines), "f4"),
        alpha_deg=np.zeros(1),
    )


def _visibility(masks: Masks) -> np.ndarray:
    """Share of every outline (instance,) that belongs to no other."""
    depth = np.zeros(masks.shape, np.int32)
    for i, crop in enumerate(masks.crops):
        depth[masks.window(i)] += crop
    return np.array([(depth[masks.window(i)][crop] == 1).mean() for i, crop in enumerate(masks.crops)], float)
