"""Random supports for training images: maps of thickness, quick to draw. Scenes that tilt have `simulate.film`."""

from __future__ import annotations

import numpy as np
from numba import njit

from stemtomo_dl.simulate.training import FilmSettings

_SPLINE_RMS = 151 / 315  # of the sum of cubic B-splines in two directions with random coefficients

Grid = tuple[np.ndarray, np.ndarray]  # columns (1, x) and rows (y, 1) of a field, px


def log_between(limits: tuple[float, float], rng: np.random.Generator) -> float:
    """A number whose logarithm is evenly spread between limits."""
    return float(np.exp(rng.uniform(*np.log(limits))))


def random_support(s: FilmSettings, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Share (y, x) f4 of the electrons that a random support takes."""
    grid = np.arange(shape[1])[None].astype(float), np.arange(shape[0])[:, None].astype(float)
    thickness = np.zeros(shape)
    if rng.random() >= s.none_share:
        thickness = _film(s, shape, grid, rng)
    if rng.random() < s.grains_share:
        thickness += _grains(s, shape, grid, rng)
    if rng.random() < s.dirt_share:
        for _ in range(rng.integers(s.dirt[0], s.dirt[1] + 1)):
            r2 = _ellipse(shape, grid, log_between(s.dirt_px, rng), rng)
            thickness += log_between(s.dirt_nm, rng) * np.maximum(1 - r2, 0) ** 2
    if rng.random() < s.holes_share:
        for _ in range(rng.integers(s.holes[0], s.holes[1] + 1)):
            radius = log_between(s.hole_px, rng)
            r2 = _ellipse(shape, grid, radius, rng, squash=0.05)
            thickness *= np.clip((np.sqrt(r2) - 1) * radius + 0.5, 0, 1)
    if rng.random() < s.needle_share:
        thickness += _needle(s, shape, grid, rng)
    return np.asarray(1 - np.exp(-thickness / log_between(s.mean_free_path_nm, rng))).astype("f4")


def _film(s: FilmSettings, shape: tuple[int, int], grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """A film with a gradient, lumps and wrinkles, nm."""
    slope = rng.uniform(*s.gradient, 2)
    relative = 1 + slope[0] * (2 * grid[0] / shape[1] - 1) + slope[1] * (2 * grid[1] / shape[0] - 1)
    if rng.random() < s.lumps_share:
        size, share = log_between(s.lumps_px, rng), rng.uniform(0.3, 1)
        lumps = smooth_noise(shape, size, rng) * share + smooth_noise(shape, size / 3, rng) * (1 - share)
        relative = relative + rng.uniform(*s.lumps) * lumps
    if rng.random() < s.wrinkles_share:
        for _ in range(rng.integers(s.wrinkles[0], s.wrinkles[1] + 1)):
            relative = relative * (1 + _ridge(s, shape, grid, rng))
    return np.asarray(log_between(s.thickness_nm, rng) * np.maximum(relative, 0))


def _ridge(s: FilmSettings, shape: tuple[int, int], grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """A line that winds through the field, relative height."""
    phi, place = rng.uniform(0, np.pi), rng.uniform(size=2) * shape
    x, y = grid[0] - place[1], grid[1] - place[0]
    along, across = np.cos(phi) * x + np.sin(phi) * y, np.cos(phi) * y - np.sin(phi) * x
    length = max(shape)
    bend = rng.normal() * 0.08 * length * np.sin(along / length * rng.uniform(2, 8) + rng.uniform(0, 6))
    return np.asarray(
        log_between(s.wrinkle, rng) * np.exp(-(((across - bend) / log_between(s.wrinkle_px, rng)) ** 2) / 2)
    )


def _grains(s: FilmSettings, shape: tuple[int, int], grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Bulky rounded grains that stick together, with rough faces, nm."""
    out = np.zeros(shape)
    size, middle = log_between(s.grain_px, rng), rng.uniform(size=2) * shape
    height, roughness = log_between(s.grain_nm, rng), rng.uniform(0, 0.3)
    for _ in range(rng.integers(s.grains[0], s.grains[1] + 1)):
        radius = size * np.exp(0.35 * rng.normal())
        out += height * np.sqrt(np.maximum(1 - _ellipse(shape, grid, radius, rng, middle), 0))
        middle = np.clip(middle + 1.4 * radius * rng.normal(size=2), 0, shape)
    return np.maximum(out * (1 + roughness * smooth_noise(shape, size / 2, rng)), 0)


def _needle(s: FilmSettings, shape: tuple[int, int], grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """The edge of a thick body that reaches in from outside, nm."""
    phi = rng.uniform(0, 2 * np.pi)
    inward = np.array([np.cos(phi), np.sin(phi)])
    depth = rng.uniform(0.05, 0.4) * min(shape)
    rim = np.array([shape[1], shape[0]]) / 2 - inward * (min(shape) / 2 - depth)
    beyond = -(inward[0] * (grid[0] - rim[0]) + inward[1] * (grid[1] - rim[1]))
    beyond = beyond + rng.uniform(0, 6) * smooth_noise(shape, rng.uniform(10, 60), rng)
    return np.asarray(log_between(s.needle_nm_per_px, rng) * np.maximum(beyond, 0))


def _ellipse(
    shape: tuple[int, int],
    grid: Grid,
    radius: float,
    rng: np.random.Generator,
    middle: np.ndarray | None = None,
    squash: float = 0.25,
) -> np.ndarray:
    """Squared distance (y, x) from a place (row, column), random without one, over the radius of an ellipse."""
    row, column = rng.uniform(-0.1, 1.1, 2) * shape if middle is None else middle
    phi, aspect = rng.uniform(0, np.pi), np.exp(squash * rng.normal())
    x, y = grid[0] - column, grid[1] - row
    u, v = np.cos(phi) * x + np.sin(phi) * y, np.cos(phi) * y - np.sin(phi) * x
    return np.asarray((u * aspect) ** 2 + (v / aspect) ** 2) / radius**2


def smooth_noise(shape: tuple[int, int], size_px: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise (y, x) of about unit variance whose features have a size: cubic splines over a coarse grid."""
    spacing = max(size_px / 2, 1.0)
    rows, columns = (int(n / spacing) + 5 for n in shape)
    return np.asarray(_splines(rng.normal(size=(rows, columns)), shape, spacing, rng.uniform(size=2)))


@njit(cache=True, nogil=True)
def _splines(knots: np.ndarray, shape: tuple[int, int], spacing: float, start: np.ndarray) -> np.ndarray:
    """Uniform cubic B-splines of a grid of knots at the pixels of a field, columns first, then rows."""
    rows = knots.shape[0]
    wide, out = np.zeros((rows, shape[1])), np.zeros((shape[0], shape[1]))
    first, weights = np.empty(shape[1], np.int64), np.empty((shape[1], 4))
    for x in range(shape[1]):
        first[x], weights[x] = _four(x / spacing + start[1])
    for i in range(rows):  # along the rows of memory: down the columns it takes ten times as long
        for x in range(shape[1]):
            j, w = first[x], weights[x]
            wide[i, x] = w[0] * knots[i, j] + w[1] * knots[i, j + 1] + w[2] * knots[i, j + 2] + w[3] * knots[i, j + 3]
    for y in range(shape[0]):
        i, w = _four(y / spacing + start[0])
        a, b, c, d = wide[i], wide[i + 1], wide[i + 2], wide[i + 3]
        for x in range(shape[1]):
            out[y, x] = w[0] * a[x] + w[1] * b[x] + w[2] * c[x] + w[3] * d[x]
    return out / _SPLINE_RMS


@njit(cache=True, nogil=True)
def _four(at: float) -> tuple[int, np.ndarray]:
    """The first knot that counts at a place, and the weights of it and the next three."""
    i = int(at)
    u = at - i
    weights = np.array([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, 1 + 3 * u + 3 * u**2 - 3 * u**3, u**3])
    return i, weights / 6
