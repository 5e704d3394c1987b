"""Which probes show the bare support, and which of them go with a particle."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from stemtomo_dl.config import ExtractConfig
from stemtomo_dl.records import Masks

_LEAST_SUPPORT = 0.1  # of a particle's own probes


def free_probes(outlines: np.ndarray, config: ExtractConfig) -> np.ndarray:
    """Probes (y, x) bool that are clear of all outlines, given how many outlines (y, x) each probe meets."""
    clearance = ndimage.distance_transform_edt(np.pad(outlines == 0, 1, constant_values=True))[1:-1, 1:-1]
    return np.asarray(clearance >= config.ring_px[0])


def support_of(masks: Masks, instance: int, free: np.ndarray, config: ExtractConfig) -> np.ndarray:
    """Particle-free probes about an outline, at least as many as it has probes where the scan offers them.

    None where the scan offers hardly any: the noise of a few probes is worse than a background that is left in.

    They are looked for in growing windows about the outline, since a distance map of the whole scan for every
    particle would cost more than reading its patterns.

    Parameters
    ----------
    masks : Masks
    instance : int
    free : (y, x) bool array
        As `free_probes` gives it.
    config : ExtractConfig

    Returns
    -------
    (n) int array
        Flat numbers of the probes.
    """
    wanted = int(masks.crops[instance].sum())
    index = np.arange(free.size).reshape(free.shape)
    rows, columns = masks.window(instance)
    margin = config.ring_px[1] + 1
    while True:
        window = _grown(rows, margin, free.shape[0]), _grown(columns, margin, free.shape[1])
        distance = ndimage.distance_transform_edt(~masks.full(instance)[window])
        # beyond the margin the window's corners are nearer to the outline than what it leaves out
        candidate = free[window] & (distance >= config.ring_px[0]) & (distance <= margin)
        whole = distance.shape == free.shape
        if whole:
            candidate |= free[window] & (distance > margin)
        near = int((candidate & (distance <= config.ring_px[1])).sum())
        if whole or candidate.sum() >= max(near, wanted):
            if candidate.sum() < max(config.min_probes, _LEAST_SUPPORT * wanted):
                return np.zeros(0, int)
            order = np.argsort(distance[candidate], kind="stable")
            return np.asarray(index[window][candidate][order[: max(near, wanted)]])
        margin *= 2


def _grown(part: slice, margin: int, size: int) -> slice:
    return slice(max(0, part.start - margin), min(size, part.stop + margin))
