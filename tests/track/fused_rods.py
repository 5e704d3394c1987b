"""Rods that are outlined as one though they may hold several crystals; fixtures of the division's tests."""

import numpy as np

from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.records import Masks, Tracks
from stemtomo_dl.track import Tracked

ALPHA = np.arange(-40.0, 41.0, 4.0)
AXIS, SHAPE, BINS, STEP_NM = 24.3, (30, 34), 64, 5.0


def patterns(seed):
    """A crystal's Bragg scattering at every tilt; reflections come and go from tilt to tilt."""
    rng = np.random.default_rng(seed)
    rows = rng.exponential(3.0, (len(ALPHA), BINS)) * (rng.random((len(ALPHA), BINS)) < 0.25)
    return rows - rows.mean(1, keepdims=True)


def scene(crystals, middle, seed=0, apart_nm=(0.0, 30.0, 0.0)):
    """A rod seen at all tilts in one outline: its halves lie at ± half of ``apart_nm`` about ``middle``.

    ``crystals`` (place along the rod from 0 to 1) gives the pattern (tilt, bin) that is there.
    """
    rng = np.random.default_rng(seed)
    half = np.array(apart_nm) / 2
    shift = tilt_rotation(AXIS, ALPHA)[:, :2] @ (half / STEP_NM)
    centre = tilt_rotation(AXIS, ALPHA)[:, :2] @ (np.array(middle) / STEP_NM) + field_centre(SHAPE)
    y, x = np.indices(SHAPE)
    full, looks = [], {}
    for t in range(len(ALPHA)):
        off = np.stack([x, y], -1) - centre[t]
        size = np.linalg.norm(shift[t])
        along = off @ shift[t] / size
        across = off @ np.array([-shift[t, 1], shift[t, 0]]) / size
        full.append((np.abs(along) < 2 * size) & (np.abs(across) < 4))
        place = np.clip((along / size / 2 + 1) / 2, 0, 1)
        thick = full[t] * (0.5 + np.exp(-(across**2) / 8))
        bragg = rng.normal(size=(*SHAPE, BINS)) + thick[..., None] * crystals(place, t)
        looks[t] = bragg.astype("f4"), np.full(SHAPE, BINS, "f4")
    masks = Masks.pack(np.array(full), np.arange(len(ALPHA)), np.ones(len(ALPHA)), ALPHA)
    return Tracked(tracks_of(masks, centre, middle), masks), lambda tilt, free: looks[tilt]


def tracks_of(masks, centre, middle):
    n, xy = len(ALPHA), centre
    return Tracks.plain(
        track=np.ones(n, "i4"),
        tilt=np.arange(n, dtype="i4"),
        instance=np.arange(n, dtype="i4"),
        x_px=xy[:, 0].copy(),
        y_px=xy[:, 1].copy(),
        area_px=np.array([c.sum() for c in masks.crops], float),
        alpha_deg=ALPHA,
        drift_px=np.zeros((n, 2)),
        particle=np.ones(1, "i4"),
        position_nm=np.array([middle], float),
        residual_px=np.zeros(1),
        tilt_axis_deg=AXIS,
        states=np.zeros((1, n), "i1"),
        predicted_px=xy[None].copy(),
    )


def two(seed=1, other=2):
    a, b = patterns(seed), patterns(other)
    return lambda place, t: np.where((place < 0.5)[..., None], a[t], b[t])
