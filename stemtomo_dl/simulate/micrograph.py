"""Plain grey micrographs of particles, of any contrast, with the amodal outlines of all particles.

Virtual images of 4D-STEM scans (`simulate.images`) follow the physics of one instrument. People also outline particles
in single images of any microscope, often cut from papers; what is drawn here is to be broad rather than exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from stemtomo_dl.records import Masks, Record, array
from stemtomo_dl.simulate.micrograph_ground import draw_ground
from stemtomo_dl.simulate.micrograph_layout import Silhouette, draw_layout, random_warp, silhouettes
from stemtomo_dl.simulate.micrograph_recording import Recorded, expose, publish
from stemtomo_dl.simulate.micrograph_settings import Inside, MicrographSettings, Style
from stemtomo_dl.simulate.micrograph_styles import Shown, show
from stemtomo_dl.simulate.shape import Solid

_PATCH_PX = 4.0  # over which fine structure of the ground is alike


@dataclass(frozen=True, eq=False)
class Micrograph(Record):
    """A plain image with the outlines that a segmenter shall find; a particle that covers no pixel has none.

    Outlines end at the rim of the image and at its legend. ``signal`` is the contrast of a particle with the ground
    over noise and fine structure of the ground, both summed over its outline: below about 5 nobody could see it. It is
    infinite where there is neither.
    """

    kind: Style
    masks: Masks
    image: np.ndarray = array("f4", "y x", "grey levels, 0 to 255")
    visibility: np.ndarray = array("f8", "instance", "share of the outline that nothing hides and no other overlaps")
    signal: np.ndarray = array("f8", "instance", "standard deviations")


def draw_micrograph(
    settings: MicrographSettings,
    bodies: tuple[Solid, ...],
    rng: np.random.Generator,
    shape: tuple[int, int] | None = None,
) -> Micrograph:
    """Draw a field of particles and how a microscope shows it.

    Parameters
    ----------
    bodies : tuple of Solid
        What particles with faces are drawn from, as `simulate.stock.random_bodies` makes them.
    rng : Generator
        The same one gives the same micrograph.
    shape : (int, int), optional
        Rows and columns; those of the settings without it.
    """
    s, (rows, columns) = settings, shape or settings.shape
    style: Style = s.styles[rng.integers(len(s.styles))]
    inside: Inside = s.insides[rng.integers(len(s.insides))]
    supported = style in ("bright_field", "dark_field") and bool(rng.random() < s.supported_share)
    layout = draw_layout(s, bodies, supported, (rows, columns), rng)
    shell = rng.uniform(*s.shell) if inside in ("shell", "core") else None
    warp = random_warp(s, layout.typical_px, (rows, columns), rng)
    seen = [p for p in silhouettes(layout, shell, warp, (rows, columns)) if p.outline.any()]
    ground = draw_ground(s, layout.typical_px, supported, (rows, columns), rng)
    shown = show(s, style, inside, seen, ground, rng)
    contrast = _contrasts(shown, seen)
    typical = float(np.median(contrast)) if seen else float(shown.image.std()) + 1e-3
    exposed, noise = expose(s, shown.image, typical, layout.typical_px, rng)
    recorded = publish(s, exposed, style != "secondary", rng)
    return _outlined(style, seen, contrast, np.hypot(noise, _PATCH_PX * _clutter(shown.bare, seen)), recorded)


def _clutter(bare: np.ndarray, seen: list[Silhouette]) -> np.ndarray:
    """Rms (particle,) of what is fine in the bare ground around every particle: it hides them as noise does."""
    size = float(np.median([p.size_px for p in seen])) if seen else 1.0
    fine = bare - gaussian_filter(bare, float(np.clip(size / 3, 1, 5)), truncate=2.5)
    return np.array([fine[p.window].std() for p in seen])


def _contrasts(shown: Shown, seen: list[Silhouette]) -> np.ndarray:
    """Rms difference (particle,) from the bare ground within every outline."""
    squares = (shown.image - shown.bare) ** 2
    return np.array([np.sqrt(squares[p.window][p.outline].mean()) for p in seen])


def _outlined(
    style: Style, seen: list[Silhouette], contrast: np.ndarray, noise: np.ndarray, recorded: Recorded
) -> Micrograph:
    """A recorded picture with the outlines that lie in it."""
    outlines = [p.outline[: max(recorded.legend - p.y0, 0)] for p in seen]
    kept = [i for i, outline in enumerate(outlines) if outline.any()]
    masks = Masks(
        shape=recorded.image.shape,
        crops=tuple(outlines[i] for i in kept),
        origin=np.array([(seen[i].y0, seen[i].x0) for i in kept], "i4").reshape(-1, 2),
        tilt=np.zeros(len(kept), "i4"),
        score=np.ones(len(kept), "f4"),
        alpha_deg=np.zeros(1),
    )
    area = np.array([crop.sum() for crop in masks.crops], float)
    with np.errstate(divide="ignore"):
        signal = contrast[kept] * np.sqrt(area) / noise[kept]
    visibility = _visibility(masks, style == "secondary", recorded.covered)
    return Micrograph(style, masks, recorded.image, visibility, signal)


def _visibility(masks: Masks, opaque: bool, covered: np.ndarray) -> np.ndarray:
    """Share (instance,) of every outline that is bare: of what lies in front, and without opacity of any other."""
    out = np.zeros(len(masks))
    depth = covered.astype("i4")
    if not opaque:
        for i, crop in enumerate(masks.crops):
            depth[masks.window(i)] += crop
    for i in reversed(range(len(masks))):
        crop = masks.crops[i]
        seen = depth[masks.window(i)][crop]
        out[i] = (seen == (0 if opaque else 1)).mean()
        if opaque:
            depth[masks.window(i)] += crop
    return out
