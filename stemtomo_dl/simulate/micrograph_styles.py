"""How a plain micrograph shows its particles before anything is recorded: by transmission or by their surface."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from stemtomo_dl.simulate.micrograph_layout import Silhouette
from stemtomo_dl.simulate.micrograph_settings import Inside, MicrographSettings, Style
from stemtomo_dl.simulate.support import log_between, smooth_noise

_DEEPEST = 3.5  # optical depth of the densest place of a bright field: all beyond is black
_SHADE = 10.0  # px: widest shade beside a particle, rms
_STEEP = 2.5  # slope of a surface at which its brightness no longer grows


class Shown(NamedTuple):
    """An image before it is recorded, and what it would be without particles, both (y, x)."""

    image: np.ndarray
    bare: np.ndarray


def show(
    s: MicrographSettings,
    style: Style,
    inside: Inside,
    seen: list[Silhouette],
    ground: np.ndarray,
    rng: np.random.Generator,
) -> Shown:
    """Show particles on a ground.

    Parameters
    ----------
    seen : list
        From the back to the front.
    ground : (y, x) array
        Its density; 1 is the contrast of a typical particle.
    """
    if style == "secondary":
        return _surfaces(s, inside, seen, ground, rng)
    density = ground + _projected(s, style, inside, seen, ground.shape, rng)
    if style == "bright_field":
        least = density.min()
        depth = min(log_between(s.depth, rng), _DEEPEST / max(float(np.ptp(density)), 1e-6))
        shown = Shown(np.exp(-depth * (density - least)), np.exp(-depth * (ground - least)))
        if rng.random() < s.phase_share:
            strength, width = log_between(s.fringes, rng), rng.uniform(0.7, 2.5)
            shown = Shown(*(_fringed(image, strength, width) for image in shown))
        return shown
    sign = -1 if style == "silhouette" and rng.random() < 0.5 else 1
    least = min((sign * density).min(), (sign * ground).min())
    return Shown(sign * density - least, sign * ground - least)


def _weights(s: MicrographSettings, count: int, rng: np.random.Generator) -> np.ndarray:
    """Contrast (particle,) of single particles over the typical one."""
    out = np.exp(rng.uniform(*s.contrast_spread) * rng.normal(size=count))
    if rng.random() < s.diffracting_share:
        out = out * rng.uniform(0.35, 1.8, count)
    return np.asarray(out)


def _projected(
    s: MicrographSettings,
    style: Style,
    inside: Inside,
    seen: list[Silhouette],
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> np.ndarray:
    """Density (y, x) that the particles add; a typical one has about 1 in its middle."""
    out = np.zeros(shape, "f4")
    weights, power = _weights(s, len(seen), rng), rng.uniform(*s.fullness)
    core = 0.0 if inside == "shell" else log_between(s.core, rng)
    opaque = style == "silhouette" and rng.random() < 0.5
    strength, period = rng.uniform(*s.texture), log_between(s.fringe_px, rng)
    size = float(np.median([p.size_px for p in seen])) if seen else 1.0
    grain = _texture(inside, size, shape, rng)
    scaled = bool(rng.random() < 0.5)  # larger particles are thicker
    for weight, part in zip(weights, seen, strict=True):
        if style == "silhouette":
            level = weight * part.outline
        else:
            thickness = part.thickness + (core - 1) * part.core if inside in ("shell", "core") else part.thickness
            level = weight * np.maximum(thickness, 0) ** power * part.outline
            level *= np.clip(part.size_px / size, 0.5, 2) ** power if scaled else 1.0
            if inside == "fringes":
                level *= 1 + strength * _planes(part, period, rng)
        window = part.window
        level = level if grain is None else level * np.maximum(1 + strength * grain[window], 0)
        out[window] = np.where(part.outline, level, out[window]) if opaque else out[window] + level
    return out


def _texture(inside: Inside, size: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray | None:
    """Modulation (y, x) of unit rms within particles of a size in px; None where there is none."""
    if inside == "mottled":
        return smooth_noise(shape, max(rng.uniform(0.06, 0.5) * size, 3), rng)
    if inside == "rough":
        parts = [smooth_noise(shape, max(size * f, 3), rng) for f in (0.3, 0.12, 0.05)]
        return np.asarray(np.sum(parts, axis=0) / np.sqrt(3))
    return None


def _planes(part: Silhouette, period: float, rng: np.random.Generator) -> np.ndarray:
    """Lattice fringes or bend contours across one particle."""
    phi, phase = rng.uniform(0, 2 * np.pi, 2)
    y, x = np.ogrid[: part.outline.shape[0], : part.outline.shape[1]]
    return np.asarray(np.cos(2 * np.pi * (np.cos(phi) * x + np.sin(phi) * y) / period + phase))


def _fringed(image: np.ndarray, strength: float, width: float) -> np.ndarray:
    """An image out of focus: edges get a bright and a dark fringe, as the Laplacian of the phase gives them."""
    return np.asarray(np.maximum(image + strength * (image - gaussian_filter(image, width, truncate=3)), 0))


def _surfaces(
    s: MicrographSettings, inside: Inside, seen: list[Silhouette], ground: np.ndarray, rng: np.random.Generator
) -> Shown:
    """Secondary electrons: brightness by slope, bright edges, what is in front hides what is behind."""
    shape = ground.shape
    size = float(np.median([p.size_px for p in seen])) if seen else 40.0
    relief = rng.uniform(0, 0.15) * size * ground
    height, level = relief.copy(), rng.uniform(0.2, 0.9) + 0.15 * ground
    covered, behind = np.zeros(shape, bool), 0.0
    weights, brightness = _weights(s, len(seen), rng), rng.uniform(0.7, 1.6)
    step = rng.uniform(0, 0.3) * size  # by which the next one lies higher
    for weight, part in zip(weights, seen, strict=True):
        outline, window = part.outline, part.window
        height[window][outline] = (behind + part.size_px * (0.5 + 0.5 * part.thickness))[outline]
        level[window][outline] = brightness * weight**0.5
        covered[window] |= outline
        behind += step / max(len(seen), 1)
    grain = _texture(inside, size, shape, rng)
    if grain is not None:
        height += covered * rng.uniform(0.01, 0.06) * size * grain
        level = level * np.maximum(1 + covered * 0.5 * rng.uniform(*s.texture) * grain, 0)
    image = level * _lit(height, rng)
    wide = gaussian_filter(covered.astype("f4"), min(rng.uniform(0.1, 0.5) * size, _SHADE), truncate=2.5)
    shade = rng.uniform(0, 0.7) * wide  # electrons from the ground beside particles do not get away
    image = image * np.where(covered, 1, 1 - shade)
    rest = image[~covered]
    return Shown(image, np.where(covered, rest.mean() if rest.size else 0.0, image))


def _lit(height: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness (y, x) of a surface whose height is in px: yield rises as 1/cos of the slope (Seiler 1983)."""
    smooth = gaussian_filter(height, rng.uniform(0.6, 1.5), truncate=3)
    y, x = np.gradient(smooth)
    squared = x * x + y * y
    phi, side = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    toward = side * (np.float32(np.cos(phi)) * x + np.float32(np.sin(phi)) * y) / np.sqrt(np.maximum(squared, 1))
    steepness = (np.sqrt(1 + np.minimum(squared, _STEEP**2)) - 1) / (np.sqrt(1 + _STEEP**2) - 1)
    edge = rng.uniform(0.1, 1.2) * steepness ** rng.uniform(0.6, 1.5)
    return np.asarray(np.maximum(0.7 + toward + edge, 0.05, dtype="f4"))
