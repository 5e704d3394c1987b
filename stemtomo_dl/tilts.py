"""What the stages `images`, `segment` and `extract` do for one tilt, on whatever process: arrays by name."""

from __future__ import annotations

import socket
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from stemtomo_dl.config import ExtractConfig, ImagesConfig, SegmentConfig
from stemtomo_dl.errors import InputError
from stemtomo_dl.extract import combine, extract_tilt
from stemtomo_dl.records import Instrument, Masks, Scan, Tracks
from stemtomo_dl.segment import Segmenter, open_segmenter, weights_of
from stemtomo_dl.segment.components import with_components
from stemtomo_dl.store import results
from stemtomo_dl.store.linked import outlines_at
from stemtomo_dl.virtual import beam_positions, virtual_images


def image(
    scan: Scan, instrument: Instrument, bad: np.ndarray, config: ImagesConfig, hidden: bool
) -> dict[str, np.ndarray]:
    """Virtual images of a scan; see `virtual_images`."""
    v = virtual_images(scan, instrument, bad, config, hidden)
    return {
        "detectors": np.array(v.detectors),
        "images": v.images,
        "beam_px": v.beam_px,
        "mean_pattern": v.mean_pattern,
        "max_pattern": v.max_pattern,
        "sectors": _packed(np.asarray(v.sectors)),
        "beam_hidden": np.array(v.beam_hidden),
        "dropped": np.asarray(v.dropped),
    }


def _packed(sectors: np.ndarray) -> np.ndarray:
    """Counts in half the space where they are whole and small."""
    short = np.clip(sectors, 0, 2**16 - 1).astype("u2")
    return short if np.array_equal(short, sectors) else sectors


def outline(
    images: Path, tilt: int, config: SegmentConfig, weights: Path | None, sha256: str | None
) -> dict[str, np.ndarray]:
    """Outlines of the particles at a tilt, packed in bits along x.

    Parameters
    ----------
    images : Path
        An images.h5.
    tilt : int
    config : SegmentConfig
    weights : Path or None
        Where the weights lie that the settings give by their file.
    sha256 : str or None
        Of the weights, whether by file or by name; None for the classical segmenter.

    Raises
    ------
    InputError
        If the images or the weights cannot be read, or these are others.
    """
    config = config if weights is None else config.model_copy(update={"weights": str(weights)})
    found = _segmenter(config, sha256).predict(with_components(results.read_images(images, tilt)))
    full = np.array([found.full(i) for i in range(len(found))], bool).reshape(-1, *found.shape)
    return {"bits": np.packbits(full, axis=-1), "shape": np.array(found.shape), "score": found.score}


@lru_cache(maxsize=1)
def _segmenter(config: SegmentConfig, sha256: str | None) -> Segmenter:
    """The segmenter of all tilts of a stage: to open it takes longer than a tilt."""
    found = weights_of(config)
    if found and found[1] != sha256:
        raise InputError(f"{found[0]}: on {socket.gethostname()} these are other weights; bring the right ones there")
    return open_segmenter(config)


class Outlined(NamedTuple):
    """The particles of one tilt."""

    track: np.ndarray  # (particle) int
    masks: Masks  # of this tilt alone
    instance: np.ndarray  # (particle) int: each particle's mask
    everyone: np.ndarray  # (n) int: masks that show one particle each, also those without a track

    @classmethod
    def of(cls, masks: Masks, tracks: Tracks, tilt: int) -> Self:
        """Those of a tilt, from the masks and tracks of all tilts."""
        here = np.flatnonzero(tracks.tilt == tilt)
        alone = outlines_at(masks, tracks, tilt)
        rows = np.union1d(tracks.instance[here], alone).astype(int)
        instance = np.searchsorted(rows, tracks.instance[here])
        return cls(tracks.track[here], masks.some(rows), instance, np.searchsorted(rows, alone))


def separate(
    scan: Scan,
    images: Path,
    tilt: int,
    particles: Outlined,
    bad: np.ndarray,
    center_px: np.ndarray,
    instrument: Instrument,
    config: ExtractConfig,
) -> dict[str, np.ndarray]:
    """Patterns of a tilt's particles; see `extract_tilt`.

    Parameters
    ----------
    scan : Scan
    images : Path
        An images.h5.
    tilt : int
    particles : Outlined
    bad : (qy, qx) bool array
    center_px : (2,) array
        Where the beam shall be (column, row).
    instrument : Instrument
    config : ExtractConfig

    Raises
    ------
    BadScan
        If the scan cannot be read.
    InputError
        If the images cannot be read.
    """
    seen, masks = results.read_images(images, tilt), particles.masks
    combined = combine(masks, particles.instance, particles.everyone, seen, config)
    left = [k for k, c in enumerate(combined) if len(c.own)]  # not where all its frames are dropped
    wanted, track = [combined[k] for k in left], particles.track[left]
    at = beam_positions(seen.beam_px, masks.shape)
    found = extract_tilt(scan, track, wanted, at, bad, center_px, instrument, config)
    return {k: np.asarray(v) for k, v in vars(found).items()}
