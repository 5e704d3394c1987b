"""The calibration at a glance: maximum patterns with the beam, the detectors, resolution rings and bad pixels."""

from __future__ import annotations

import math

import numpy as np

from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.records import VirtualImages
from stemtomo_dl.report import raster
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.text import degrees, number
from stemtomo_dl.store import results
from stemtomo_dl.virtual import beam_positions
from stemtomo_dl.virtual.detectors import DetectorMaps

_RINGS_A = (2.0, 1.0, 0.8)
_SIDE = 512
_BAD = (213, 94, 0)


def calibration_section(facts: Facts) -> str:
    """Maximum patterns of the first and last tilt and the one nearest to zero."""
    figures = []
    for tilt in _tilts(facts):
        images = results.read_images(facts.folder / "images.h5", tilt, sectors=False)
        angle = degrees(float(facts.alpha_deg[tilt]))
        figures.append(f"<figure>{_pattern(facts, images, tilt)}<figcaption>tilt {tilt}, {angle}</figcaption></figure>")
    n_bad, share = int(facts.bad_pixels.sum()), number(100 * float(facts.bad_pixels.mean()), 2)
    bad = "No bad pixel was found or given."
    if n_bad:
        bad = f"Bad pixels ({n_bad}, {share} % of the detector) are shown in vermilion and left out everywhere."
    return f"""<div class="three">{"".join(figures)}</div>
<p class="note">The highest count that each detector pixel saw in the whole scan, white for none, on a scale that is
logarithmic for strong spots. The cross is the direct beam at the scan's centre as it was found; it should sit in the
middle of the beam. Solid circles are resolutions in Å by the stated calibration: rings or spots of a known spacing
should lie where they belong. Dashed circles bound the bright field (orange) and the annular and high-angle dark
fields (blue); no strong spot should straddle the inner ones. The green line is the tilt axis on the detector.
{bad} A hot pixel that is not marked would count as a spot in every pattern.</p>"""


def _tilts(facts: Facts) -> list[int]:
    """First, nearest to zero, last of the usable tilts by angle; each once."""
    good = np.flatnonzero(facts.good)
    angle = np.nan_to_num(facts.alpha_deg[good], nan=np.inf)
    known = good[np.argsort(angle, kind="stable")]
    zero = good[np.argmin(np.abs(angle))]
    return list(dict.fromkeys(int(t) for t in (known[0], zero, known[-1])))


def _pattern(facts: Facts, images: VirtualImages, tilt: int) -> str:
    """One maximum pattern with everything drawn over it, in detector pixels."""
    rows, columns = facts.masks.shape
    cx, cy = beam_positions(images.beam_px, (rows, columns))[rows // 2, columns // 2].tolist()
    pattern, bad = images.max_pattern, facts.bad_pixels
    i = facts.experiment.instrument
    disk = disk_radius_px(i.convergence_mrad, wavelength(i.voltage_kv), i.pixel_inv_angstrom)
    y, x = np.indices(pattern.shape)
    values = pattern[~bad & (np.hypot(x - cx, y - cy) > 2 * disk + 2)]
    scale = float(np.percentile(values, 99.95)) if len(values) else 1.0
    shades = raster.ink(raster.reduce_max(np.where(bad, 0, pattern), _SIDE), max(scale, 1e-6), max(scale, 1e-6) / 15)
    picture = raster.data_uri(raster.tint(shades, raster.reduce_max(bad, _SIDE), _BAD), 80)
    k, (height, width) = raster.block(pattern, _SIDE), shades.shape
    drawn = [f'<image href="{picture}" width="{k * width}" height="{k * height}" preserveAspectRatio="none"/>']
    drawn += [_circle(cx, cy, r, kind) for kind, r in _detectors(facts, images, (cx, cy), disk)]
    drawn += [_ring(facts, cx, cy, d) for d in _RINGS_A] + [_marks(facts, cx, cy)]
    return (
        f'<svg class="pattern" viewBox="0 0 {pattern.shape[1]} {pattern.shape[0]}" role="img" '
        f'aria-label="Maximum pattern of tilt {tilt}">{"".join(filter(None, drawn))}</svg>'
    )


def _detectors(
    facts: Facts, images: VirtualImages, centre: tuple[float, float], disk_px: float
) -> list[tuple[str, float]]:
    """Radii of the virtual detectors as the images stage lays them about this beam."""
    good = ~facts.bad_pixels
    maps = DetectorMaps.around(np.array(centre), images.mean_pattern, good, disk_px, 0, facts.experiment.images)
    y, x = np.indices(maps.stack.shape[1:]) - maps.margin
    r = np.hypot(x - maps.anchor[0], y - maps.anchor[1])
    bf, adf, haadf = (r[m > 0] for m in maps.stack[:3])
    edges = [("bf", bf.max(initial=0)), ("df", adf.min(initial=np.inf))]
    edges += [("df", adf.max(initial=0)), ("df", haadf.max(initial=0))]
    return [(kind, float(v)) for kind, v in edges if np.isfinite(v) and v > 0]


def _circle(cx: float, cy: float, r: float, kind: str) -> str:
    # pixel centres have integer coordinates, the drawing's origin is the first pixel's corner
    return f'<circle class="{kind}" cx="{cx + 0.5:.2f}" cy="{cy + 0.5:.2f}" r="{r:.2f}"/>'


def _ring(facts: Facts, cx: float, cy: float, d: float) -> str:
    """A resolution ring with its label; nothing where the detector does not reach."""
    i = facts.experiment.instrument
    lam = wavelength(i.voltage_kv)
    if lam / (2 * d) >= math.sin(math.pi / 4):
        return ""
    r = math.tan(2 * math.asin(lam / (2 * d))) / lam / i.pixel_inv_angstrom
    rows, columns = facts.bad_pixels.shape
    if r > math.hypot(max(cx, columns - cx), max(cy, rows - cy)):
        return ""
    size, at = columns / 26, r * math.sqrt(0.5)
    label = (
        f'<text class="mid ringname" font-size="{size:.1f}" stroke-width="{size / 4:.1f}" x="{cx + 0.5 + at:.1f}" '
        f'y="{cy + 0.5 - at + size / 3:.1f}">{number(d)} Å</text>'
    )
    return _circle(cx, cy, r, "ring") + label


def _marks(facts: Facts, cx: float, cy: float) -> str:
    """The beam's cross and the tilt axis as it lies on the detector."""
    w = math.radians(facts.axis_deg + facts.experiment.detector.rotation_deg)
    half, arm = 0.46 * min(facts.bad_pixels.shape), 0.03 * min(facts.bad_pixels.shape)
    x, y, dx, dy = cx + 0.5, cy + 0.5, half * math.cos(w), half * math.sin(w)
    a, b, c, d = (f"{x + f * dx:.1f} {y + f * dy:.1f}" for f in (-1, -0.2, 0.2, 1))  # clear of the beam
    return (
        f'<path class="axis" d="M{a}L{b}M{c}L{d}"/>'
        f'<path class="cross" d="M{x - arm:.1f} {y:.1f}h{2 * arm:.1f}M{x:.1f} {y - arm:.1f}v{2 * arm:.1f}"/>'
    )
