"""Rocking curves of strong reflections with their model, and the misfit by tilt."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.crystal.nouns import FrameIntensities, Reflections
from stemtomo_dl.report.chart import Chart, span
from stemtomo_dl.report.crystals import Detail
from stemtomo_dl.report.predictions import misfit_by_frame
from stemtomo_dl.report.text import degrees, number

_CURVES = 6
_LEAST = 3  # frames of a passage


def rocking_charts(reflections: Reflections, ub: np.ndarray) -> list[str]:
    """The strongest passages that were seen in several frames; none without intensities frame by frame."""
    frames = reflections.frames
    if frames is None or reflections.frame is None:
        return []
    out = []
    for row in np.argsort(-reflections.intensity, kind="stable")[: 4 * _CURVES].tolist():
        rows = _passage(reflections, frames, row)
        if len(rows) >= _LEAST:
            out.append(_curve(reflections, frames, row, rows, float(np.linalg.norm(ub @ reflections.hkl[row]))))
        if len(out) == _CURVES:
            break
    return out


def _passage(reflections: Reflections, frames: FrameIntensities, row: int) -> np.ndarray:
    """Measurements of one passage, by the excitation error: those of the index on its side of the tilt range."""
    same = np.flatnonzero((frames.hkl == reflections.hkl[row]).all(1))
    passages = np.flatnonzero((reflections.hkl == reflections.hkl[row]).all(1))
    assert reflections.frame is not None
    nearest = np.abs(frames.frame[same][:, None] - reflections.frame[passages]).argmin(1)
    rows = same[passages[nearest] == row]
    return np.asarray(rows[np.argsort(frames.s[rows], kind="stable")])


def _curve(reflections: Reflections, frames: FrameIntensities, row: int, rows: np.ndarray, length: float) -> str:
    """Intensities against the excitation error, over a Gaussian of the passage's area and the series' width."""
    s, intensity, sigma = frames.s[rows], frames.intensity[rows], frames.sigma[rows]
    width = float(np.hypot(frames.rocking_width, np.radians(frames.mosaicity_deg) * length))
    reach = 1000 * float(max(np.abs(s).max(), 2.5 * width))
    at = np.linspace(-reach / 1000, reach / 1000, 61)
    model = reflections.intensity[row] * np.exp(-((at / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
    limits = span(np.concatenate([intensity + sigma, intensity - sigma, model, [0.0]]), 1e-6)
    index = " ".join(number(v, 0) for v in reflections.hkl[row])
    chart = Chart(
        (310, 190),
        (-reach, reach),
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
    return chart.svg()


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
