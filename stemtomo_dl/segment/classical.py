"""The classical segmenter: denoise, threshold, split what touches. It separates; it cannot see through overlaps."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import label, regionprops
from skimage.morphology import local_maxima, reconstruction, remove_small_holes
from skimage.segmentation import watershed

from stemtomo_dl.config import SegmentConfig
from stemtomo_dl.records import Masks
from stemtomo_dl.segment.contrast import channels, particle_contrast

_SMOOTHING_PX = 0.7
_HOLE_PX = 16


def outline(images: dict[str, np.ndarray], config: SegmentConfig) -> Masks:
    """Outline the particles of one field.

    Parameters
    ----------
    images : dict
        (y, x) arrays by name, as `contrast.channels` takes them.
    config : SegmentConfig

    Returns
    -------
    Masks
        Outlines that do not overlap, all at tilt 0; ``score`` grows with the contrast in units of the noise (0.5 at
        ``min_contrast_sigma``) and is not calibrated.
    """
    seen = channels(images, _SMOOTHING_PX)
    contrast = particle_contrast(seen, _SMOOTHING_PX)
    foreground = _foreground(contrast, config)
    labels = split_touching(foreground, foreground & ~_valleys(contrast, config), config.neck)
    crops, origin, scores = [], [], []
    bright = particle_contrast(seen, 0.0) > 1
    for region in regionprops(labels, intensity_image=contrast):
        # In a dark field almost without counts, smoothing makes a disk of a single electron.
        filled = bright[region.slice][region.image].mean() > 0.5
        if filled and region.area >= np.pi / 4 * config.min_diameter_px**2:
            crops.append(np.asarray(region.image, bool))
            origin.append(region.bbox[:2])
            scores.append(region.intensity_mean / (region.intensity_mean + config.min_contrast_sigma))
    return Masks(
        shape=(contrast.shape[0], contrast.shape[1]),
        crops=tuple(crops),
        origin=np.array(origin, "i4").reshape(-1, 2),
        tilt=np.zeros(len(crops), "i4"),
        score=np.array(scores, "f4"),
        alpha_deg=np.zeros(1),
    )


def _foreground(contrast: np.ndarray, config: SegmentConfig) -> np.ndarray:
    """Where particles are: above the noise, and above a share of the particle's own brightness.

    The second limit keeps the blur of a bright particle out of its outline.
    """
    seen = label(contrast > config.min_contrast_sigma, connectivity=1)
    bright = ndimage.gaussian_filter(np.where(seen > 0, contrast, 0), 1.0)
    brightness = ndimage.maximum_filter(bright, size=2 * int(config.min_diameter_px) + 1)
    out = (seen > 0) & (contrast > config.edge_fraction * brightness)
    return remove_small_holes(ndimage.binary_opening(out, ndimage.generate_binary_structure(2, 1)), max_size=_HOLE_PX)


def _valleys(contrast: np.ndarray, config: SegmentConfig) -> np.ndarray:
    """Dark lines between bright sides: where two particles lie side by side without a neck."""
    width = 2 * int(np.ceil(config.min_diameter_px)) - 1
    filled = ndimage.grey_closing(contrast, size=(width, width))
    depth = filled - contrast
    return (depth > config.valley * filled) & (depth > 0.5 * config.min_contrast_sigma)


def split_touching(foreground: np.ndarray, core: np.ndarray, neck: float) -> np.ndarray:
    """Cut the foreground at its necks and valleys.

    Watershed of the distance to the outside of the core. The seeds are maxima that stand out in the logarithm of
    that distance, so that a neck counts by its width relative to the narrower of the lobes that it joins,
    whatever their size.

    Parameters
    ----------
    foreground : (y, x) bool array
        What the labels shall cover.
    core : (y, x) bool array
        The foreground without the valleys in it.
    neck : float
        Lobes are cut apart where their neck is less than this share of the narrower one's width.

    Returns
    -------
    (y, x) int array, 0 outside.
    """
    core = ndimage.binary_opening(core)
    depth = ndimage.distance_transform_edt(np.pad(core, 1))[1:-1, 1:-1]
    smooth = ndimage.gaussian_filter(depth, 0.7) * core
    height = np.log(smooth + 0.5)
    # Bumps that a neck wider than the limit joins become one plateau.
    lasting = local_maxima(reconstruction(height + np.log(neck), height))
    seeds = label(lasting & core)
    return watershed(-smooth, seeds, mask=foreground)
