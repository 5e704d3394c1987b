"""Virtual images of one tilt in one streamed pass over its patterns."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock

import numpy as np

from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.errors import BadScan
from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.records import Instrument, Scan, Tile, VirtualImages
from stemtomo_dl.stream import each_tile, sample_blocks
from stemtomo_dl.virtual.beam import (
    beam_positions,
    cut_by_gap,
    descan_past_gaps,
    fit_descan,
    measured_disk_px,
    refine_centres,
    seed_centres,
    window_radius,
)
from stemtomo_dl.virtual.detectors import DETECTORS, DetectorMaps, Totals, normalised
from stemtomo_dl.virtual.dropped import dropped_frames, filled
from stemtomo_dl.virtual.hidden import is_hidden, symmetry_centre
from stemtomo_dl.virtual.sectors import SECTORS, probes_together

_CENTRE_ROUNDS = 4
_KEPT = 16  # windows of the maps
_COUNTS = ("bf", "adf", "haadf", "maximum")  # all zero: a frame without counts
_WIDER = 1.6  # how much wider than stated the beam's disk must be to be believed instead


def virtual_images(
    scan: Scan, instrument: Instrument, bad: np.ndarray, config: ImagesConfig, hidden: bool | None = None
) -> VirtualImages:
    """Bright field, annular dark fields and crystal-contrast images of one scan.

    The annuli follow the direct beam from probe to probe, so that descan does not shade the images.
    ``variance`` is the scatter of the counts in the dark field about the support's radial profile (Bragg disks
    raise it, an amorphous film does not), ``maximum`` the highest count there. ``sectors`` says where in the dark
    field counts are; in a large scan neighbouring probes share them. Behind a beam stop the direct beam is taken
    to be where the mean pattern has its centre of inversion, the same for all probes; the bright field then shows
    what the stop lets through. Frames that the camera has dropped (``dropped``) take their neighbours' mean.

    Parameters
    ----------
    scan : Scan
        Read once, tile by tile, plus a small sample for the start of the centring.
    instrument : Instrument
    bad : (qy, qx) bool array
        Pixels to leave out.
    config : ImagesConfig
    hidden : bool, optional
        Whether the direct beam is behind a stop (`hidden_in_series`); else this scan's patterns say it.

    Returns
    -------
    VirtualImages

    Raises
    ------
    BadScan
        If the scan cannot be read to its end, or has no direct beam.
    """
    lam = wavelength(instrument.voltage_kv)
    disk = disk_radius_px(instrument.convergence_mrad, lam, instrument.pixel_inv_angstrom)
    good = (~bad).astype("f4")
    blocks = list(sample_blocks(scan))
    mean = np.mean([pattern for _, _, pattern in blocks], 0)
    descan, scatter = seed_centres(blocks, ~bad, disk)
    if hidden is None:
        hidden = is_hidden(scatter, disk)
    if hidden:
        descan = np.zeros_like(descan)
        descan[:, 0] = symmetry_centre(mean, ~bad)
    else:
        disk, descan, cut = _measured(blocks, descan, ~bad, disk, (scan.shape[0], scan.shape[1]))
    seeds = beam_positions(descan, scan.shape[:2])
    if not np.any(seeds) or not np.isfinite(seeds).all():
        raise BadScan(f"{scan.name}: no direct beam stands out in its patterns; look at the scan")
    centre = np.median(seeds, (0, 1))
    margin = int(np.ceil(np.abs(seeds - centre).max())) + 3
    maps = DetectorMaps.around(centre, mean, ~bad, disk, margin, config)

    sums = _Sums(scan, maps, seeds, good, window_radius(disk), 0 if hidden else _CENTRE_ROUNDS)
    each_tile(scan, scan.tiles(int(config.block_mb * 2**20)), sums.take)
    final = descan if hidden or cut else fit_descan(_positions(scan.shape[:2]), sums.beam.reshape(-1, 2))
    gone = np.zeros(scan.shape[:2], bool)
    if not hidden:  # else a frame beside all particles may well be empty
        nothing = ~np.asarray(sums.images[[DETECTORS.index(n) for n in _COUNTS]].any(0))
        gone = dropped_frames(sums.counts, nothing)
    mean, peak = sums.patterns(int((~gone).sum()))
    images, sectors = sums.images, sums.sectors
    if gone.any():
        images, sectors = filled(images, gone), _known_sectors(sectors, gone, sums.together)
    return VirtualImages(DETECTORS, images, final, mean, peak, sectors, hidden, gone)


def _known_sectors(sectors: np.ndarray, gone: np.ndarray, together: int) -> np.ndarray:
    """Counts in sectors (y, x, sector) as if all frames that share one were there; of none, its neighbours'."""
    rows, columns = np.arange(0, gone.shape[0], together), np.arange(0, gone.shape[1], together)
    there = np.add.reduceat(np.add.reduceat((~gone).astype("f4"), rows, 0), columns, 1)
    whole = np.add.reduceat(np.add.reduceat(np.ones(gone.shape, "f4"), rows, 0), columns, 1)
    known = sectors * (whole / np.maximum(there, 1))[..., None]
    return np.moveaxis(filled(np.moveaxis(known, -1, 0), there == 0), 0, -1)


def _measured(
    blocks: list[tuple[float, float, np.ndarray]],
    descan: np.ndarray,
    good: np.ndarray,
    disk: float,
    shape: tuple[int, int],
) -> tuple[float, np.ndarray, bool]:
    """Radius and descan of a beam that is seen, and whether gaps cut it."""
    measured = measured_disk_px(blocks, descan, good)
    if measured > max(
        _WIDER * disk, disk + 1
    ):  # a convergence stated too small would put the disk's rim into the dark field
        disk = measured
        descan, _ = seed_centres(blocks, good, disk)
    middle = np.median(beam_positions(descan, shape), (0, 1))
    cut = cut_by_gap(good, middle, disk)
    return disk, descan_past_gaps(blocks, good, middle, disk) if cut else descan, cut


class _Sums:
    """What a pass over the tiles of a scan collects; each thread takes tiles of its own."""

    def __init__(
        self, scan: Scan, maps: DetectorMaps, seeds: np.ndarray, good: np.ndarray, window: float, rounds: int
    ) -> None:
        shape = scan.shape
        self.maps, self.seeds, self.good, self.dtype = maps, seeds, good, scan.dtype
        self.window, self.rounds = window, rounds  # of the beam's centroids
        self.images, self.beam = np.zeros((len(DETECTORS), *shape[:2]), "f4"), np.zeros((*shape[:2], 2))
        self.counts = np.zeros(shape[:2])
        self.totals: dict[int, Totals] = {}  # by thread
        self.together = probes_together((shape[0], shape[1]))
        self.window_at = lru_cache(_KEPT)(lambda oy, ox: maps.window(np.array([oy, ox]), good))
        offset = maps.offsets(seeds.reshape(-1, 2))
        self.area_px = np.where(maps.sectors.enough(offset, good > 0), maps.sectors.area_px, 0)
        self.sectors = np.zeros((-(-shape[0] // self.together), -(-shape[1] // self.together), SECTORS), "f4")
        self.alone = Lock()  # tiles that share a reduced pattern

    def take(self, thread: int, tile: Tile, patterns: np.ndarray) -> None:
        """Take in a tile's patterns (y, x, qy, qx)."""
        pixels = patterns.reshape(-1, self.good.size)
        if thread not in self.totals:
            self.totals[thread] = Totals(pixels.shape[1], self.dtype)
        centres = self.seeds[tile.window].reshape(-1, 2).copy()
        refine_centres(patterns.reshape(-1, *self.good.shape), self.good, centres, self.window, self.rounds)
        offset = self.maps.offsets(self._smooth(tile, centres))
        images, spread = np.empty((len(DETECTORS), len(pixels)), "f4"), np.empty((len(pixels), SECTORS), "f4")
        counts = np.empty(len(pixels))
        for start in {*map(tuple, offset.tolist())}:
            chosen = np.flatnonzero((offset == start).all(1))
            window = self.window_at(*start)
            sums, sectors = self.totals[thread].take(pixels, chosen, window)
            images[:, chosen] = normalised(sums, window.norm)
            counts[chosen] = sums[:, :3].sum(1)
            # as if all of a sector's pixels were there and good
            spread[chosen] = sectors * (self.area_px / np.maximum(window.there, 1))
        self.images[:, *tile.window] = images.reshape(-1, *tile.shape)
        self.counts[tile.window] = counts.reshape(tile.shape)
        self.beam[tile.window] = centres.reshape(*tile.shape, 2)
        y, x = (_positions(tile.shape)[:, ::-1] + (tile.y0, tile.x0)).T // self.together
        with self.alone:
            np.add.at(self.sectors, (y, x), spread)

    def patterns(self, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean over so many frames that count and maximum pattern of the scan, f4; zero where pixels are bad."""
        every = [self.totals[thread] for thread in sorted(self.totals)]
        mean = np.sum([t.sum for t in every], 0) / frames
        peak = np.max([t.peak for t in every], 0)
        good = self.good.ravel()
        return (mean * good).reshape(self.good.shape).astype("f4"), (peak * good).reshape(self.good.shape).astype("f4")

    def _smooth(self, tile: Tile, centres: np.ndarray) -> np.ndarray:
        """Beam centres within a tile as a shift of the seeds: a pattern's own centroid is noisy at low dose."""
        seeds = self.seeds[tile.window].reshape(-1, 2)
        found = np.isfinite(centres).all(1)
        return np.asarray(seeds + np.median((centres - seeds)[found], 0)) if found.any() else seeds


def _positions(shape: tuple[int, int]) -> np.ndarray:
    """Column and row of every probe position, (n, 2)."""
    y, x = np.indices(shape)
    return np.stack([x.ravel(), y.ravel()], 1)
