"""What lies under and beside the particles of a plain micrograph: films, supports, fibres, debris."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.simulate.micrograph_layout import Rounded
from stemtomo_dl.simulate.micrograph_settings import MicrographSettings
from stemtomo_dl.simulate.support import log_between, smooth_noise

Shape = tuple[int, int]
_SUPPORTS = ("lumpy", "lumpy", "lumpy", "lumpy", "fibrous", "plates")
_SPECK_PX = 3.0
_APART = 3.0  # lumps this much larger than the particles may be stronger than these


def draw_ground(
    s: MicrographSettings, typical: float, supported: bool, shape: Shape, rng: np.random.Generator
) -> np.ndarray:
    """Density (y, x) f4 of all that is no particle; 1 is the contrast of a typical particle.

    Parameters
    ----------
    typical : float
        Size of the particles, px.
    supported : bool
        Whether they are small particles on a lumpy support.
    """
    kind = str(rng.choice(s.grounds)) if not supported else str(rng.choice(_SUPPORTS))
    size = typical * np.exp(rng.uniform(np.log(_APART), np.log(20)))
    strong = log_between(s.lumps, rng) if size <= max(shape) else log_between(s.ground, rng)
    size = float(np.clip(size, 12, 0.8 * max(shape)))
    match kind:
        case "lumpy":
            out = strong * _unit(_lumps(size, shape, rng))
        case "fibrous":
            out = strong * _unit(_fibres(size, shape, rng))
        case "plates":
            out = strong * _unit(_plates(size, shape, rng))
        case "holey":
            out = log_between(s.lumps, rng) * _unit(_holes(shape, rng))
        case "streaked":
            out = 0.5 * log_between(s.ground, rng) * _streaks(shape, rng)
        case "granular":
            out = log_between(s.ground, rng) * 0.5 * smooth_noise(shape, log_between(s.grain_px, rng), rng)
        case _:
            out = np.zeros(shape)
    y, x = (np.linspace(-1, 1, n) for n in shape)
    slope = rng.uniform(*s.gradient, 2)
    out = out + slope[0] * y[:, None] + slope[1] * x + _grains(s, shape, rng)
    if rng.random() < s.debris_share:
        out = out + _debris(s, typical, shape, rng)
    return np.asarray(out).astype("f4")


def _unit(image: np.ndarray) -> np.ndarray:
    """Shifted and scaled to values from 0 to 1."""
    span = np.ptp(image)
    return np.asarray((image - image.min()) / (span if span > 0 else 1))


def _grains(s: MicrographSettings, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Band-limited noise, as amorphous films show it."""
    size = log_between(s.grain_px, rng)
    fine = smooth_noise(shape, size, rng)
    if rng.random() < 0.5:
        fine = fine - 0.7 * smooth_noise(shape, 2 * size, rng)
    return np.asarray(rng.uniform(*s.grain) * fine)


def _fractal(size: float, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    fall = rng.uniform(0.2, 0.5)
    return np.sum([fall**n * smooth_noise(shape, size / 2**n, rng) for n in range(3)], axis=0)


def _lumps(size: float, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Clouds, ridges, or overlapping round grains, with or without bare places between them."""
    base = _fractal(size, shape, rng)
    match rng.integers(4):
        case 0:
            out = np.exp(rng.uniform(0.4, 1) * base)
        case 1:  # ends in a steep edge
            out = np.maximum(base + rng.uniform(-0.5, 1), 0) ** rng.uniform(0.7, 1.5)
        case 2:  # folds
            out = np.sqrt(base**2 + rng.uniform(0.1, 0.4) ** 2)
        case _:
            out = _heap(size, int(rng.integers(8, 40)), shape, rng) * (1 + rng.uniform(0, 0.3) * base)
    return np.asarray(out)


def _fibres(size: float, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Long rods across the field, or tubes where only the walls are dense."""
    width, count = float(np.clip(size * rng.uniform(0.1, 0.5), 3, 60)), int(rng.integers(2, 14))
    out = np.zeros(shape)
    y, x = np.arange(shape[0], dtype=float), np.arange(shape[1], dtype=float)
    main, spread = rng.uniform(0, np.pi), rng.uniform(0.1, 1.5)
    tube = rng.uniform(0.5, 0.9) if rng.random() < 0.3 else 0.0
    for _ in range(count):
        phi, place = main + spread * rng.normal(), rng.uniform(size=2) * shape
        along = np.cos(phi) * (x - place[1]) + np.sin(phi) * (y - place[0])[:, None]
        across = np.cos(phi) * (y - place[0])[:, None] - np.sin(phi) * (x - place[1])
        bend = rng.normal() * 1e-3 * along**2
        u2 = ((across - bend) / (width / 2 * np.exp(0.3 * rng.normal()))) ** 2
        out += np.sqrt(np.maximum(1 - u2, 0)) - tube * np.sqrt(np.maximum(1 - u2 / 0.6, 0))
    return out


def _plates(size: float, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Overlapping sheets with straight edges and wrinkles."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    out = np.zeros(shape)
    for _ in range(rng.integers(1, 7)):
        row, column = rng.uniform(size=2) * shape
        sheet = np.ones(shape, bool)
        for phi in rng.uniform(0, 2 * np.pi, rng.integers(3, 6)):
            sheet &= np.cos(phi) * (x - column) + np.sin(phi) * (y - row) < size * rng.uniform(0.8, 2)
        out += rng.uniform(0.3, 1) * sheet
    wrinkles = np.abs(smooth_noise(shape, max(size, 20), rng))
    return np.asarray(out * (1 + rng.uniform(0, 0.8) * np.exp(-((wrinkles / 0.05) ** 2))))


def _holes(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """A film with round holes on a square lattice, or one of them, with a rim."""
    radius = rng.uniform(0.15, 0.6) * min(shape)
    pitch, phi, place = radius * rng.uniform(2.2, 4), rng.uniform(0, np.pi), rng.uniform(size=2) * shape
    y, x = np.arange(shape[0])[:, None] - place[0], np.arange(shape[1]) - place[1]
    u, v = np.cos(phi) * x + np.sin(phi) * y, np.cos(phi) * y - np.sin(phi) * x
    u, v = ((w + pitch / 2) % pitch - pitch / 2 for w in (u, v))
    beyond = np.hypot(u, v) - radius + rng.uniform(0, 0.05) * radius * smooth_noise(shape, radius, rng)
    rim = rng.uniform(0, 1) * np.exp(-((beyond / rng.uniform(1.5, 6)) ** 2))
    return np.asarray(np.clip(beyond / rng.uniform(1, 3) + 0.5, 0, 1) + rim)


def _streaks(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Lines along rows or columns that come and go: curtains, scratches, charging."""
    lines = smooth_noise((max(shape), 1), rng.uniform(2, 20), rng)
    come = np.clip(smooth_noise(shape, rng.uniform(40, 200), rng) + 0.5, 0, 2)
    return np.asarray(come * (lines[: shape[0]] if rng.random() < 0.7 else lines[: shape[1]].T))


def _heap(size: float, count: int, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Thickness of rounded bodies that lie on and beside each other, in units of their size."""
    out = np.zeros(shape)
    middle = rng.uniform(size=2) * shape
    for _ in range(count):
        wide = size * np.exp(0.35 * rng.normal())
        half = wide / 2 * np.exp(0.25 * rng.normal(size=2))
        body = Rounded((half[0], half[1], half[1]), 0.0, rng.choice([2.0, 2.0, 3.0]), rng.uniform(0, np.pi))
        reach = int(np.ceil(body.reach()[0, 0]))
        first = np.clip(np.round(middle).astype(int) - reach, 0, shape)
        last = np.clip(np.round(middle).astype(int) + reach + 1, first, shape)
        y, x = (np.arange(a, b, dtype=float) - c for a, b, c in zip(first, last, middle, strict=True))
        out[first[0] : last[0], first[1] : last[1]] += body.thickness(x, y) / size
        middle = np.clip(middle + 0.7 * wide * rng.normal(size=2), 0, shape)
    return out


def _debris(s: MicrographSettings, typical: float, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Specks much smaller than the particles, and faint stains without a sharp rim: nobody would outline them."""
    out = np.zeros(shape)
    for _ in range(rng.integers(s.debris[0], s.debris[1] + 1)):
        if rng.random() < 0.6 and typical > 4 * _SPECK_PX:
            out += rng.uniform(0.1, 0.6) * _heap(rng.uniform(0.5, 1) * _SPECK_PX, int(rng.integers(1, 4)), shape, rng)
        else:
            size = rng.uniform(1, 2) * max(typical, 8)
            out += rng.uniform(0.05, 0.2) * _heap(size, int(rng.integers(1, 5)), shape, rng) ** 3
    return out
