"""Virtual images of one tilt in one streamed pass over its patterns."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.errors import BadScan
from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.records import Instrument, Scan, Tile, VirtualImages
from stemtomo_dl.stream import THREADS, sample_blocks, stream
from stemtomo_dl.surfaces import robust_fit
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
from stemtomo_dl.virtual.detectors import DETECTORS, DetectorMaps, detect, normalised
from stemtomo_dl.virtual.sectors import SECTORS, probes_together

_CENTRE_ROUNDS = 4
_KEPT = 16  # windows of the maps
_WIDER = 1.6  # how much wider than stated the beam's disk must be to be believed instead


def virtual_images(scan: Scan, instrument: Instrument, bad: np.ndarray, config: ImagesConfig) -> VirtualImages:
    """Bright field, annular dark fields and crystal-contrast images of one scan.

    The annuli follow the direct beam from probe to probe, so that descan does not shade the images.
    ``variance`` is the scatter of the counts in the dark field about the support's radial profile (Bragg disks
    raise it, an amorphous film does not), ``maximum`` the highest count there. ``sectors`` says where in the dark
    field counts are; in a large scan neighbouring probes share them.

    Parameters
    ----------
    scan : Scan
        Read once, tile by tile, plus a small sample for the start of the centring.
    instrument : Instrument
    bad : (qy, qx) bool array
        Pixels to leave out.
    config : ImagesConfig

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
    descan = seed_centres(blocks, ~bad, disk)
    measured = measured_disk_px(blocks, descan, ~bad)
    if measured > max(
        _WIDER * disk, disk + 1
    ):  # a convergence stated too small would put the disk's rim into the dark field
        disk = measured
        descan = seed_centres(blocks, ~bad, disk)
    seeds = beam_positions(descan, scan.shape[:2])
    middle = np.median(seeds, (0, 1))
    cut = cut_by_gap(~bad, middle, disk)
    if cut:
        descan = descan_past_gaps(blocks, ~bad, middle, disk)
        seeds = beam_positions(descan, scan.shape[:2])
    if not np.any(seeds):
        raise BadScan(f"{scan.name}: no direct beam stands out in its patterns; look at the scan")
    centre = np.median(seeds, (0, 1))
    margin = int(np.ceil(np.abs(seeds - centre).max())) + 3
    mean = np.mean([pattern for _, _, pattern in blocks], 0)
    maps = DetectorMaps.around(centre, mean, ~bad, disk, margin, config)

    with ThreadPoolExecutor(THREADS) as pool:
        sums = _Sums(scan.shape, maps, seeds, good, window_radius(disk), pool)
        for tile, patterns in stream(scan, scan.tiles(int(config.block_mb * 2**20))):
            sums.take(tile, patterns)
    final = descan if cut else fit_descan(_positions(scan.shape[:2]), sums.beam.reshape(-1, 2))
    mean = sums.total.sum(0) / (scan.shape[0] * scan.shape[1])
    return VirtualImages(DETECTORS, sums.images, final, mean.astype("f4"), sums.peak.max(0), sums.sectors)


class _Sums:
    """What a pass over the tiles of a scan collects; patterns of a tile are shared out between threads."""

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        maps: DetectorMaps,
        seeds: np.ndarray,
        good: np.ndarray,
        window: float,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.maps, self.seeds, self.good, self.window, self.pool = maps, seeds, good, window, pool
        self.images, self.beam = np.zeros((len(DETECTORS), *shape[:2]), "f4"), np.zeros((*shape[:2], 2))
        self.total = np.zeros((THREADS, *shape[2:]))
        self.peak = np.zeros((THREADS, *shape[2:]), "f4")
        self.together = probes_together((shape[0], shape[1]))
        self.window_at = lru_cache(_KEPT)(lambda oy, ox: maps.window(np.array([oy, ox]), good))
        offset = maps.offsets(seeds.reshape(-1, 2))
        self.area_px = np.where(maps.sectors.enough(offset, good > 0), maps.sectors.area_px, 0)
        self.sectors = np.zeros((-(-shape[0] // self.together), -(-shape[1] // self.together), SECTORS), "f4")

    def take(self, tile: Tile, patterns: np.ndarray) -> None:
        """Take in a tile's patterns (y, x, qy, qx)."""
        flat = patterns.reshape(-1, *patterns.shape[2:])
        centres = self.seeds[tile.window].reshape(-1, 2).copy()
        out, spread = np.zeros((len(flat), 6), "f4"), np.zeros((len(flat), SECTORS), "f4")

        def locate(_: int, part: slice) -> None:
            refine_centres(flat[part], self.good, centres[part], self.window, _CENTRE_ROUNDS)

        self._share(len(flat), locate)
        offset = self.maps.offsets(self._smooth(tile, centres))

        starts, which = np.unique(offset, axis=0, return_inverse=True)
        which = which.ravel()
        windows = [self.window_at(*start) for start in starts.tolist()]
        pixels, good = flat.reshape(len(flat), -1), self.good.ravel()

        def measure(thread: int, part: slice) -> None:
            total, peak = self.total[thread].ravel(), self.peak[thread].ravel()
            for k, window in enumerate(windows):
                chosen = part.start + np.flatnonzero(which[part] == k)
                detect(pixels, chosen, good, *window[:3], out, spread, total, peak)

        self._share(len(flat), measure)
        norm = np.array([window.norm for window in windows])[which]
        self.images[:, *tile.window] = normalised(out, norm).reshape(-1, *tile.shape)
        # as if all of a sector's pixels were there and good
        factor = self.area_px / np.maximum([window.there for window in windows], 1)
        y, x = (_positions(tile.shape)[:, ::-1] + (tile.y0, tile.x0)).T // self.together
        np.add.at(self.sectors, (y, x), (spread * factor[which]).astype("f4"))
        self.beam[tile.window] = centres.reshape(*tile.shape, 2)

    def _share(self, n: int, work: Callable[[int, slice], None]) -> None:
        """Let every thread work on its own part of n patterns."""
        cuts = [n * t // THREADS for t in range(THREADS + 1)]
        list(self.pool.map(work, range(THREADS), map(slice, cuts[:-1], cuts[1:])))

    def _smooth(self, tile: Tile, centres: np.ndarray) -> np.ndarray:
        """Beam centres within a tile as a smooth change of the seeds: a pattern's own centroid is noisy at low dose."""
        seeds = self.seeds[tile.window].reshape(-1, 2)
        change = robust_fit(np.ones((len(seeds), 1)), centres - seeds)
        return np.asarray(seeds + change[:, 0])


def _positions(shape: tuple[int, int]) -> np.ndarray:
    """Column and row of every probe position, (n, 2)."""
    y, x = np.indices(shape)
    return np.stack([x.ravel(), y.ravel()], 1)
