"""Rocking curves of strong reflections with their model, and the misfit by tilt."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.crystal.nouns import FrameIntensities, Reflections
from stemtomo_dl.report.chart import Chart, nice_ticks, span
from stemtomo_dl.report.crystals import Detail
from stemtomo_dl.report.predictions import misfit_by_frame
from stemtomo_dl.report.text import degrees, number

_CURVES = 5
_STRONG = 120  # passages looked at
_WIDE = 4.0  # widths to either side


def rocking_charts(reflections: Reflections, ub: np.ndarray) -> list[str]:
    """Strong passages on one scale, then of them those that were seen in most frames, each by itself.

    None without intensities frame by frame. The curve is a Gaussian of the width that the series has at |g|, its height
    scaled to all passages at once: the share of its wings is not kept on disk.
    """
    frames = reflections.frames
    if frames is None or reflections.frame is None or not len(reflections.hkl):
        return []
    strongest = np.argsort(-reflections.intensity, kind="stable")[:_STRONG].tolist()
    passages = {row: _passage(reflections, frames, row) for row in strongest}
    passages = {row: rows for row, rows in passages.items() if len(rows) > 1}  # one measurement is its own peak
    if not passages:
        return []
    length = np.linalg.norm(reflections.hkl @ ub.T, axis=1)
    width = np.hypot(frames.rocking_width, np.radians(frames.mosaicity_deg) * length)
    peak = reflections.intensity / (width * np.sqrt(2 * np.pi))
    x = np.concatenate([frames.s[rows] / width[row] for row, rows in passages.items()])
    y = np.concatenate([frames.intensity[rows] / peak[row] for row, rows in passages.items()])
    model = np.exp(-(x**2) / 2)
    height = float(model @ y / max(model @ model, 1e-12))
    several = sorted(passages, key=lambda row: -len(passages[row]))[:_CURVES]  # the stronger first among equals
    each = [_curve(reflections, frames, row, passages[row], float(width[row]), height * peak[row]) for row in several]
    return [_pooled(x, y, height, len(passages)), *each]


def _passage(reflections: Reflections, frames: FrameIntensities, row: int) -> np.ndarray:
    """Measurements of one passage, by the excitation error: those of the index nearest to it in frames."""
    assert reflections.frame is not None
    same = np.flatnonzero((frames.hkl == reflections.hkl[row]).all(1))
    passages = np.flatnonzero((reflections.hkl == reflections.hkl[row]).all(1))
    nearest = np.abs(frames.frame[same][:, None] - reflections.frame[passages]).argmin(1)
    rows = same[passages[nearest] == row]
    return np.asarray(rows[np.argsort(frames.s[rows], kind="stable")])


def _pooled(x: np.ndarray, y: np.ndarray, height: float, n: int) -> str:
    """Measurements of all strong passages, (n,) in widths and in their own peaks, over the model."""
    at = np.linspace(-_WIDE, _WIDE, 81)
    top = max(1.15 * height, float(np.percentile(y, 98, method="lower")) if len(y) else 0.0, 1e-6)
    chart = Chart(
        (310, 190),
        (-_WIDE, _WIDE),
        (-0.1 * top, 1.05 * top),
        ("excitation error s over its width", "share of the peak"),
        "Rocking curves of the strong reflections together",
        top=24,
    )
    chart.add(f'<text x="{chart.box[0]:.0f}" y="15">{n} strong ones together</text>')
    chart.curve(at, height * np.exp(-(at**2) / 2), "grey", dots=False)
    seen = (np.abs(x) < _WIDE) & (y < 1.05 * top) & (y > -0.1 * top)
    chart.dots(x[seen], y[seen], "fine blue")
    return chart.svg(x_ticks=[-4.0, -2.0, 0.0, 2.0, 4.0])


def _curve(
    reflections: Reflections, frames: FrameIntensities, row: int, rows: np.ndarray, width: float, height: float
) -> str:
    """One passage's intensities against the excitation error, over the model of a width and height."""
    s, intensity, sigma = frames.s[rows], frames.intensity[rows], frames.sigma[rows]
    reach = float(max(np.abs(s).max() * 1.05, _WIDE * width))
    at = np.linspace(-reach, reach, 81)
    model = height * np.exp(-((at / width) ** 2) / 2)
    limits = span(np.concatenate([intensity + sigma, intensity - sigma, model, [0.0]]), 1e-6)
    index = " ".join(number(v, 0) for v in reflections.hkl[row])
    chart = Chart(
        (310, 190),
        (-1000 * reach, 1000 * reach),
        limits,
        ("excitation error s (10⁻³ 1/Å)", "counts a probe"),
        f"Rocking curve of the reflection {index}",
        top=24,
    )
    chart.add(f'<text x="{chart.box[0]:.0f}" y="15">{index} at {degrees(float(reflections.alpha_deg[row]))}</text>')
    chart.curve(1000 * at, model, "grey", dots=False)
    for x, y, e in zip((1000 * s).tolist(), intensity.tolist(), sigma.tolist(), strict=True):
        chart.add(f'<path class="line blue" d="M{chart.px(x):.1f} {chart.py(y - e):.1f}V{chart.py(y + e):.1f}"/>')
    chart.dots(1000 * s, intensity, "blue")
    return chart.svg(x_ticks=nice_ticks(-1000 * reach, 1000 * reach, 5))


def misfit_chart(detail: Detail) -> str:
    """Rms distance of the spots from their nodes at every tilt."""
    alpha, rms = detail.geometry.alpha_deg, 1000 * misfit_by_frame(detail)
    order = np.argsort(alpha, kind="stable")
    top = span(np.append(rms, 0.0), 1.0)[1]
    chart = Chart(
        (480, 190),
        span(alpha, 4.0, 0.03),
        (0.0, top),
        ("tilt angle α (°)", "misfit (10⁻³ 1/Å)"),
        "Misfit of the spots to the lattice against the tilt angle",
    )
    chart.curve(alpha[order], rms[order], "blue", dots=len(alpha) <= 150)
    return chart.svg()


def indexed_chart(detail: Detail) -> str:
    """Spots found and spots on the lattice at every tilt."""
    alpha = detail.geometry.alpha_deg
    order, n = np.argsort(alpha, kind="stable"), len(alpha)
    every = np.bincount(detail.spots.frame, minlength=n).astype(float)
    fits = np.bincount(detail.spots.frame[detail.fits], minlength=n).astype(float)
    chart = Chart(
        (480, 190),
        span(alpha, 4.0, 0.03),
        (0.0, 1.08 * max(float(every.max(initial=0)), 1.0)),
        ("tilt angle α (°)", "spots"),
        "Spots found and spots on the lattice against the tilt angle",
        top=30,
    )
    chart.key([("grey", "found"), ("blue", "on the lattice")])
    chart.curve(alpha[order], every[order], "grey", dots=False)
    chart.curve(alpha[order], fits[order], "blue", dots=False)
    return chart.svg()
