"""Virtual images of one tilt in one streamed pass over its patterns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.records import Instrument, Scan, VirtualImages
from stemtomo_dl.stream import sample, stream
from stemtomo_dl.virtual.beam import coarse_centre, fit_descan, refine_centres, window_radius
from stemtomo_dl.virtual.detectors import DETECTORS, DetectorMaps, detect

_THREADS = 2
_SAMPLE_TILES, _SAMPLE_BYTES = 6, 4 << 20


def virtual_images(scan: Scan, instrument: Instrument, bad: np.ndarray, config: ImagesConfig) -> VirtualImages:
    """Bright field, annular dark fields and crystal-contrast images of one scan.

    The annuli follow the direct beam from probe to probe, so that descan does not shade the images.
    ``variance`` is the scatter of the counts in the dark field about the support's radial profile (Bragg disks
    raise it, an amorphous film does not), ``maximum`` the highest count there.

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
        If the scan cannot be read to its end.
    """
    lam = wavelength(instrument.voltage_kv)
    disk = disk_radius_px(instrument.convergence_mrad, lam, instrument.pixel_inv_angstrom)
    good = (~bad).astype("f4")
    start = sample(scan, _SAMPLE_TILES, _SAMPLE_BYTES).mean(0, dtype="f8")
    centre = coarse_centre(start, ~bad, disk)
    maps = DetectorMaps.around(centre, start, ~bad, disk, config)

    ny, nx, qy, qx = scan.shape
    images, beam = np.zeros((len(DETECTORS), ny, nx), "f4"), np.zeros((ny, nx, 2))
    total, peak = np.zeros((_THREADS, qy, qx)), np.zeros((_THREADS, qy, qx), "f4")
    with ThreadPoolExecutor(_THREADS) as pool:
        for tile, patterns in stream(scan, scan.tiles(int(config.block_mb * 2**20))):
            flat = patterns.reshape(-1, qy, qx)
            cuts = np.linspace(0, len(flat), _THREADS + 1).astype(int)
            centres = np.tile(centre, (len(flat), 1))
            out = np.zeros((len(flat), 6), "f4")

            def locate(t: int, flat=flat, cuts=cuts, centres=centres) -> None:  # type: ignore[no-untyped-def]
                part = slice(cuts[t], cuts[t + 1])
                refine_centres(flat[part], good, centres[part], window_radius(disk), 4)

            list(pool.map(locate, range(_THREADS)))
            offset = maps.offsets(_smooth(tile.shape, centres))

            def measure(t: int, flat=flat, cuts=cuts, offset=offset, out=out) -> None:  # type: ignore[no-untyped-def]
                part = slice(cuts[t], cuts[t + 1])
                detect(flat[part], offset[part], good, maps.stack, out[part], total[t], peak[t])

            list(pool.map(measure, range(_THREADS)))
            images[:, *tile.window] = maps.normalise(out, offset, good).reshape(-1, *tile.shape)
            beam[tile.window] = centres.reshape(*tile.shape, 2)
    descan = fit_descan(_positions((ny, nx)), beam.reshape(-1, 2))
    return VirtualImages(DETECTORS, images, descan, (total.sum(0) / (ny * nx)).astype("f4"), peak.max(0))


def _positions(shape: tuple[int, int]) -> np.ndarray:
    """Column and row of every probe position, (n, 2)."""
    y, x = np.indices(shape)
    return np.stack([x.ravel(), y.ravel()], 1)


def _smooth(shape: tuple[int, int], centres: np.ndarray) -> np.ndarray:
    """Beam centres within a tile as a smooth surface: one pattern's centroid is noisy at low dose."""
    coef = fit_descan(_positions(shape), centres)
    x, y = _positions(shape).T
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1) @ coef.T
