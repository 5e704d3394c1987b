"""Bodies of the particles of a plain micrograph, where they lie, and what the beam meets of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from scipy.spatial.transform import Rotation

from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate.micrograph_settings import MicrographSettings
from stemtomo_dl.simulate.randomise import stretched
from stemtomo_dl.simulate.shape import Solid
from stemtomo_dl.simulate.support import log_between, smooth_noise

_CANDIDATES = 6  # places that are tried for a particle: it takes the emptiest
_TOGETHER = (2, 40)  # particles in a cluster or chain


@dataclass(frozen=True)
class Rounded:
    """A rod with round ends or a rounded block that lies flat: |u|ⁿ + |v|ⁿ + |w|ⁿ ≤ 1 in units of its half axes.

    The middle of a rod is ``straight`` px of constant section along u.
    """

    half: tuple[float, float, float]  # px
    straight: float
    power: float
    angle: float  # of u from x toward y

    def reach(self) -> np.ndarray:
        """How far it extends from its middle, [[x, y] toward −, [x, y] toward +], px."""
        return np.full((2, 2), np.hypot(self.half[0] + self.straight / 2, self.half[1]))

    def thickness(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Length of the chords along the beam at x (column) and y (row), px: (row, column)."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        along = np.maximum(np.abs(c * x[None] + s * y[:, None]) - self.straight / 2, 0)
        u, v = along / self.half[0], np.abs(c * y[:, None] - s * x[None]) / self.half[1]
        if self.power == 2:
            return np.asarray(2 * self.half[2] * np.sqrt(np.maximum(1 - u * u - v * v, 0)))
        return np.asarray(2 * self.half[2] * np.maximum(1 - u**self.power - v**self.power, 0) ** (1 / self.power))

    def shrunk(self, factor: float) -> Rounded:
        """The core that is left below a shell of even thickness."""
        wall = (1 - factor) * min(self.half[:2])
        return replace(self, half=(self.half[0] - wall, self.half[1] - wall, factor * self.half[2]))


@dataclass(frozen=True, eq=False)
class Layout(Record):
    """Particles from the back to the front."""

    typical_px: float
    bodies: tuple[Rounded | Solid, ...]  # in px
    at_px: np.ndarray = array("f8", "particle 2", "px (x, y)")
    size_px: np.ndarray = array("f8", "particle", "px")


@dataclass(frozen=True, eq=False)
class Silhouette(Record):
    """What one particle covers; its crop starts at row ``y0``, column ``x0``."""

    y0: int
    x0: int
    size_px: float
    thickness: np.ndarray = array("f4", "y x", "of its size")
    core: np.ndarray = array("f4", "y x", "of its size: the part of the thickness that lies in its core")

    @property
    def outline(self) -> np.ndarray:
        """Pixels (y, x) that it covers."""
        return np.asarray(self.thickness > 0)

    @property
    def window(self) -> tuple[slice, slice]:
        """Where the crop lies in the image."""
        height, width = self.thickness.shape
        return slice(self.y0, self.y0 + height), slice(self.x0, self.x0 + width)


def draw_layout(
    s: MicrographSettings, bodies: tuple[Solid, ...], small: bool, shape: tuple[int, int], rng: np.random.Generator
) -> Layout:
    """Draw particles; ``small`` ones lie on a support."""
    layout = str(rng.choice(s.layouts)) if not small else "scattered"
    if layout == "single":
        typical = rng.uniform(*s.single_fill) * min(shape)
        sizes, at = np.array([typical]), (0.5 + 0.15 * rng.normal(size=(1, 2))) * shape[::-1]
    else:
        typical = log_between(s.supported_px if small else s.size_px, rng)
        sizes = _sizes(s, typical, layout, shape, rng)
        match layout:
            case "monolayer":
                at = _lattice(sizes, typical, shape, rng)
            case "scattered":
                at = _scattered(s, sizes, shape, rng)
            case _:
                at = _gathered(s, sizes, layout, shape, rng)
    if rng.random() < s.empty_share:
        at = at[:0]
    sizes = sizes[: len(at)]
    return Layout(typical, _bodies(s, bodies, sizes, layout == "monolayer", rng), at, sizes)


def _sizes(
    s: MicrographSettings, typical: float, layout: str, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Diameters (particle,) in px: as many as there is room for."""
    low, high = s.count
    # few are as likely as many, but layers and piles are made of many
    share = rng.random() if layout in ("scattered", "clusters", "chains") else 1.0
    count = int(np.exp(np.log(low + 1) + share * np.log((high + 1) / (low + 1))) - 1 + rng.random())
    spread = rng.uniform(*s.spread) * (0.2 if layout == "monolayer" else 1)
    sizes = np.clip(typical * np.exp(spread * rng.normal(size=count)), *s.extreme_px)
    covered = np.cumsum(np.pi / 4 * sizes**2) / (shape[0] * shape[1])
    room = s.coverage[1] if layout in ("monolayer", "pile") else log_between(s.coverage, rng)
    return np.asarray(sizes[: max(int((covered <= room).sum()), min(count, max(low, 1)))])


def _scattered(
    s: MicrographSettings, sizes: np.ndarray, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Places (particle, 2), more or less apart; some reach beyond the field."""
    tries = 1 if rng.random() < 0.5 else _CANDIDATES
    out = np.empty((len(sizes), 2))
    for n in range(len(sizes)):
        choice = rng.uniform(-0.03, 1.03, (tries, 2)) * shape[::-1]
        gaps = np.linalg.norm(choice[:, None] - out[None, :n], axis=2) - (sizes[n] + sizes[:n]) / 2
        out[n] = choice[gaps.min(1, initial=np.inf).argmax()]
    return out


def _gathered(
    s: MicrographSettings, sizes: np.ndarray, layout: str, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Places (particle, 2) of particles that touch: in clusters, in chains, or in one pile."""
    out, radii = np.empty((len(sizes), 2)), sizes / 2
    closeness, chain = 1 - rng.uniform(*s.overlap), layout == "chains"
    first, left, heading = 0, 0, 0.0
    for n in range(len(sizes)):
        if left == 0:
            out[n], first, heading = rng.uniform(0.05, 0.95, 2) * shape[::-1], n, rng.uniform(0, 2 * np.pi)
            left = len(sizes) if layout == "pile" else int(rng.integers(_TOGETHER[0], _TOGETHER[1] + 1))
        else:
            beside = np.full(_CANDIDATES, n - 1) if chain else rng.integers(first, n, _CANDIDATES)
            angle = heading + 0.5 * rng.normal(size=_CANDIDATES) if chain else rng.uniform(0, 2 * np.pi, _CANDIDATES)
            away = closeness * (radii[n] + radii[beside])
            tries = out[beside] + away[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
            near = np.linalg.norm(tries[:, None] - out[None, first:n], axis=2) - closeness * (radii[n] + radii[first:n])
            best = near.min(1).argmax()
            out[n], heading = tries[best], angle[best]
        left -= 1
    return out


def _lattice(sizes: np.ndarray, typical: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Places (particle, 2) on a triangular or square lattice about a point, with gaps and strain."""
    # a lattice of n by n around the middle of a patch is cut to the nearest places
    n = int(np.ceil(2 * np.sqrt(len(sizes)))) + 2
    row, column = (v.ravel() - n // 2 for v in np.mgrid[:n, :n].astype(float))
    shift, rise = (0.5, np.sqrt(0.75)) if rng.random() < 0.7 else (0.0, 1.0)
    base = np.column_stack([column + shift * (row % 2), rise * row])
    base = base[np.argsort((base**2).sum(1))][: int(len(sizes) * rng.uniform(1, 1.2))]
    base = base[np.sort(rng.permutation(len(base))[: len(sizes)])]
    phi, pitch = rng.uniform(0, np.pi), typical * rng.uniform(0.97, 1.25)
    turn = np.array([[np.cos(phi), np.sin(phi)], [-np.sin(phi), np.cos(phi)]])
    middle = rng.uniform(0.25, 0.75, 2) * shape[::-1]
    return np.asarray(pitch * (base @ turn + rng.uniform(0, 0.06) * rng.normal(size=base.shape)) + middle)


def _bodies(
    s: MicrographSettings, stock: tuple[Solid, ...], sizes: np.ndarray, ordered: bool, rng: np.random.Generator
) -> tuple[Rounded | Solid, ...]:
    """Bodies of one or two kinds, in px."""
    kinds = [_Kind.draw(s, len(stock) - 1, ordered, rng) for _ in range(1 if ordered else rng.integers(1, 3))]
    angle, lying = rng.uniform(0, np.pi), rng.random() < 0.6
    out: list[Rounded | Solid] = []
    for size in sizes:
        kind = kinds[rng.integers(len(kinds))]
        turn = angle + 0.05 * rng.normal() if ordered else rng.uniform(0, 2 * np.pi)
        length = kind.length * np.exp(0.1 * rng.normal()) if kind.length > 1 else 1.0
        if kind.stock is None:
            width = size / np.sqrt(length)
            half = width / 2 * np.array([1, kind.aspect, kind.flat])
            out.append(Rounded((half[0], half[1], half[2]), width * (length - 1), kind.power, turn))
            continue
        axes = np.array([length, kind.aspect, kind.flat])
        body = stretched(stock[kind.stock], size * axes / np.cbrt(axes.prod()))
        attitude = Rotation.from_euler("z", turn) if lying or ordered else Rotation.from_quat(rng.normal(size=4))
        out.append(body.turned(attitude.as_matrix()))
    return tuple(out)


@dataclass(frozen=True)
class _Kind:
    """What the particles of a kind have in common."""

    stock: int | None  # which body of the stock; None is a rounded one
    length: float
    aspect: float
    flat: float
    power: float

    @classmethod
    def draw(cls, s: MicrographSettings, stock: int, ordered: bool, rng: np.random.Generator) -> _Kind:
        length = log_between(s.elongation, rng) if rng.random() < s.long_share and not ordered else 1.0
        power = 2.0 if rng.random() < 0.6 else log_between(s.blockiness, rng)
        round_ = stock < 1 or rng.random() < s.round_share
        aspect = float(np.exp(0.12 * rng.normal())) if rng.random() < 0.4 else 1.0
        return cls(None if round_ else int(rng.integers(stock)), length, aspect, log_between(s.flattening, rng), power)


def silhouettes(
    layout: Layout, shell: float | None, warp: tuple[np.ndarray, np.ndarray] | None, shape: tuple[int, int]
) -> list[Silhouette]:
    """What is seen of every particle.

    Parameters
    ----------
    shell : float or None
        Thickness of a shell over the radius; with None, particles have no core.
    warp : two (y, x) arrays or None
        Shift of everything along y and x, px.
    """
    out = []
    for body, at, size in zip(layout.bodies, layout.at_px, layout.size_px, strict=True):
        pad = 0 if warp is None else int(np.ceil(max(np.abs(warp[0]).max(), np.abs(warp[1]).max()))) + 1
        reach = body.reach()
        field = np.array([shape[1], shape[0]])
        first = np.clip(np.floor(at - reach[0]).astype(int) - pad, 0, field)
        last = np.clip(np.ceil(at + reach[1]).astype(int) + 1 + pad, first, field)
        x, y = (np.arange(a, b, dtype=float) - c for a, b, c in zip(first, last, at, strict=True))
        inner = None if shell is None else _core(body, 1 - shell)
        window = slice(first[1], last[1]), slice(first[0], last[0])
        thickness = _warped(body.thickness(x, y) / size, warp, window)
        core = np.zeros_like(thickness) if inner is None else _warped(inner.thickness(x, y) / size, warp, window)
        out.append(Silhouette(int(first[1]), int(first[0]), float(size), thickness, np.minimum(core, thickness)))
    return out


def _core(body: Rounded | Solid, factor: float) -> Rounded | Solid:
    return body.shrunk(factor) if isinstance(body, Rounded) else stretched(body, np.full(3, factor))


def random_warp(
    s: MicrographSettings, typical: float, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Shifts (y, x) along y and x that bend bodies and fray their outlines; None where they stay convex."""
    if rng.random() >= s.warped_share:
        return None
    coarse, fine = rng.uniform(*s.warp) * typical, rng.uniform(*s.fray) * typical
    size, grain = rng.uniform(0.6, 2) * typical, max(rng.uniform(0.08, 0.3) * typical, 3)
    y, x = (coarse * smooth_noise(shape, size, rng) + fine * smooth_noise(shape, grain, rng) for _ in range(2))
    return y, x


def _warped(image: np.ndarray, warp: tuple[np.ndarray, np.ndarray] | None, window: tuple[slice, slice]) -> np.ndarray:
    """A crop, shifted as its window of the field is. Beyond the field its rim goes on."""
    if warp is None or not image.size:
        return image.astype("f4")
    return np.asarray(_shifted(image, warp[0][window], warp[1][window]))


@njit(cache=True, nogil=True)
def _shifted(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear values f4 of an image at its pixels plus shifts; 0 where most of the four around are 0."""
    out = np.zeros(image.shape, np.float32)
    height, width = image.shape
    for i in range(height):
        for j in range(width):
            y, x = min(max(i + rows[i, j], 0), height - 1), min(max(j + columns[i, j], 0), width - 1)
            y0, x0 = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
            u, v = y - y0, x - x0
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            a, b, c, d = image[y0, x0], image[y0, x1], image[y1, x0], image[y1, x1]
            wa, wb, wc, wd = (1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v
            if wa * (a > 0) + wb * (b > 0) + wc * (c > 0) + wd * (d > 0) > 0.5:
                out[i, j] = wa * a + wb * b + wc * c + wd * d
    return out
