"""Masks -> tracks."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.config import TrackConfig
from stemtomo_dl.records import Instrument, Masks, Tracks
from stemtomo_dl.track.features import features
from stemtomo_dl.track.link import link

__all__ = ["track"]


def track(masks: Masks, instrument: Instrument, config: TrackConfig) -> Tracks:
    """Link outlines into particles.

    Parameters
    ----------
    masks : Masks
        Outlines of all tilts.
    instrument : Instrument
        Its tilt axis and scan step are used.
    config : TrackConfig

    Returns
    -------
    Tracks
        Numbered from 1 by the number of tilts seen, most first.
    """
    seen = features(masks)
    label, found = link(seen, masks.tilt, masks.alpha_deg, masks.shape, instrument.tilt_axis_deg, config)
    instance = np.flatnonzero(label >= 0)
    instance = instance[np.lexsort((masks.tilt[instance], label[instance]))]
    mine, xy = label[instance], seen.xy[instance]
    expected = found.predict(np.arange(len(masks.alpha_deg)))[mine, masks.tilt[instance]]
    squared = np.bincount(mine, ((xy - expected) ** 2).sum(1), len(found.position_px))
    count = np.bincount(mine, minlength=len(found.position_px))
    return Tracks(
        track=(mine + 1).astype("i4"),
        tilt=masks.tilt[instance],
        instance=instance.astype("i4"),
        x_px=xy[:, 0],
        y_px=xy[:, 1],
        area_px=seen.area[instance],
        alpha_deg=masks.alpha_deg,
        drift_px=found.drift_px,
        particle=np.arange(1, len(count) + 1, dtype="i4"),
        position_nm=found.position_px * instrument.step_nm,
        residual_px=np.sqrt(squared / np.maximum(count, 1)),
    )
