"""Small line charts as SVG text: the page needs no drawing library, and the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stemtomo_dl.report.text import escape, number


def nice_ticks(lo: float, hi: float, about: int) -> list[float]:
    """Round values within [lo, hi], about so many."""
    raw = (hi - lo) / max(about, 1)
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * 0.999)
    return [float(v) * step for v in range(int(np.ceil(lo / step - 1e-9)), int(np.floor(hi / step + 1e-9)) + 1)]


def span(values: np.ndarray, least: float, pad: float = 0.06) -> tuple[float, float]:
    """Limits about the finite values with a margin, never narrower than ``least``."""
    finite = values[np.isfinite(values)]
    lo, hi = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    grow = max(0.0, least - (hi - lo)) / 2 + pad * max(hi - lo, least)
    return lo - grow, hi + grow


class Chart:
    """One set of axes; draw on it, then take its `svg`.

    Parameters
    ----------
    size : (width, height)
        In units of the drawing; text is about 12 high, so a width of 480 suits half a page.
    x, y : (from, to)
        What the left and right, the lower and upper edge stand for.
    labels : (x, y)
        Axis titles.
    alt : str
        What the chart shows, for those who cannot see it.
    left, top : float
        Room for tick labels and for anything above the axes.
    """

    def __init__(
        self,
        size: tuple[float, float],
        x: tuple[float, float],
        y: tuple[float, float],
        labels: tuple[str, str],
        alt: str,
        *,
        left: float = 54,
        top: float = 10,
    ) -> None:
        self.size, self.x, self.y, self.labels, self.alt = size, x, y, labels, alt
        self.box = (left, top, size[0] - 12, size[1] - 42)  # left, top, right, bottom
        self.parts: list[str] = []

    def px(self, x: float) -> float:
        """Where x is drawn."""
        return self.box[0] + (x - self.x[0]) / (self.x[1] - self.x[0]) * (self.box[2] - self.box[0])

    def py(self, y: float) -> float:
        """Where y is drawn."""
        return self.box[3] - (y - self.y[0]) / (self.y[1] - self.y[0]) * (self.box[3] - self.box[1])

    def add(self, part: str) -> None:
        """Any SVG element."""
        self.parts.append(part)

    def box_at(self, kind: str, left: float, top: float, right: float, bottom: float) -> None:
        """A rectangle, in the drawing's units."""
        size = f'width="{right - left:.1f}" height="{bottom - top:.1f}"'
        self.add(f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" {size}/>')

    def curve(self, x: np.ndarray, y: np.ndarray, kind: str, *, dots: bool = True) -> None:
        """Points joined by a line in the order given, broken where a value is missing."""
        path, pen = [], False
        for a, b in zip(x.tolist(), y.tolist(), strict=True):
            if not np.isfinite(a + b):
                pen = False
                continue
            path.append(f"{'L' if pen else 'M'}{self.px(a):.1f} {self.py(b):.1f}")
            pen = True
        self.add(f'<path class="line {kind}" d="{"".join(path)}"/>')
        if dots:
            self.dots(x, y, kind)

    def dots(self, x: np.ndarray, y: np.ndarray, kind: str, colour: str | None = None) -> None:
        """Points by themselves, in the colour of their kind unless one is given."""
        there = np.isfinite(x + y)
        # with round caps a line of no length is a dot
        marks = (
            f"M{self.px(a):.1f} {self.py(b):.1f}h0" for a, b in zip(x[there].tolist(), y[there].tolist(), strict=True)
        )
        stroke = f' stroke="{colour}"' if colour else ""
        self.add(f'<path class="dots {kind}"{stroke} d="{"".join(marks)}"/>')

    def key(self, entries: list[tuple[str, str]]) -> None:
        """Legend above the axes: (kind, text)."""
        at = self.box[0]
        for kind, text in entries:
            self.add(f'<path class="line {kind}" d="M{at:.0f} {self.box[1] - 11:.0f}h18"/>')
            self.add(f'<text x="{at + 23:.0f}" y="{self.box[1] - 7:.0f}">{escape(text)}</text>')
            at += 36 + 6.6 * len(text)

    def _axes(self, x_ticks: list[float] | None, y_ticks: list[float] | dict[float, str] | None) -> str:
        left, top, right, bottom = self.box
        out = []
        for v in nice_ticks(min(self.x), max(self.x), int((right - left) / 62)) if x_ticks is None else x_ticks:
            at = self.px(v)
            out.append(f'<path class="grid" d="M{at:.1f} {top:.0f}V{bottom:.0f}"/>')
            out.append(f'<text class="mid" x="{at:.1f}" y="{bottom + 15:.0f}">{number(v, 2)}</text>')
        for v in nice_ticks(min(self.y), max(self.y), int((bottom - top) / 26)) if y_ticks is None else y_ticks:
            at = self.py(v)
            out.append(f'<path class="grid" d="M{left:.0f} {at:.1f}H{right:.0f}"/>')
            name = y_ticks[v] if isinstance(y_ticks, dict) else number(v, 3)
            out.append(f'<text class="end" x="{left - 6:.0f}" y="{at + 4:.1f}">{name}</text>')
        middle = (top + bottom) / 2
        below = f"translate({(left + right) / 2:.0f} {bottom + 34:.0f})"
        for title, place in zip(self.labels, (below, f"translate(13 {middle:.0f}) rotate(-90)"), strict=True):
            out.append(f'<text class="mid" transform="{place}">{escape(title)}</text>')
        return "".join(out)

    def svg(
        self,
        x_ticks: list[float] | None = None,
        y_ticks: list[float] | dict[float, str] | None = None,
        kind: str = "",
    ) -> str:
        """The whole drawing; ticks are chosen unless given, and those of y may be given names."""
        left, top, right, bottom = self.box
        return (
            f'<svg class="chart {kind}" viewBox="0 0 {self.size[0]:.0f} {self.size[1]:.0f}" role="img" '
            f'aria-label="{escape(self.alt)}">{self._axes(x_ticks, y_ticks)}{"".join(self.parts)}'
            f'<rect class="frame" x="{left:.0f}" y="{top:.0f}" width="{right - left:.0f}" '
            f'height="{bottom - top:.0f}"/></svg>'
        )


# cividis at even steps: rises evenly in lightness and reads the same with any colour vision
CIVIDIS = (
    (0, 32, 77),
    (0, 51, 111),
    (57, 72, 107),
    (87, 93, 109),
    (112, 113, 115),
    (138, 134, 120),
    (166, 157, 117),
    (196, 181, 108),
    (228, 207, 91),
    (255, 234, 70),
)


def shade(value: float) -> str:
    """Colour of a value between 0 and 1 on the scale for heights."""
    at = float(np.clip(value, 0, 1)) * (len(CIVIDIS) - 1)
    rgb = [np.interp(at, np.arange(len(CIVIDIS)), [c[i] for c in CIVIDIS]) for i in range(3)]
    return "#" + "".join(f"{round(float(v)):02x}" for v in rgb)


def steps_along(alpha: np.ndarray) -> Callable[[float], tuple[float, float]]:
    """How much of the angle axis each tilt stands for: half way to its neighbours, but no further than a usual step."""
    known = np.unique(alpha[np.isfinite(alpha)])
    usual = float(np.median(np.diff(known))) if len(known) > 1 else 1.0

    def extent(a: float) -> tuple[float, float]:
        i = int(np.searchsorted(known, a))
        before = (a - known[i - 1]) / 2 if i > 0 else usual / 2
        after = (known[i + 1] - a) / 2 if i + 1 < len(known) else usual / 2
        return a - min(before, 0.75 * usual), a + min(after, 0.75 * usual)

    return extent
