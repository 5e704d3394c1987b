"""Spots and predicted reflections over patterns at a few telling tilts."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from stemtomo_dl.crystal.nouns import Crystal
from stemtomo_dl.crystal.predict import predict, present
from stemtomo_dl.report.crystals import Detail
from stemtomo_dl.report.text import degrees, number

_LEAST = 5  # spots on the lattice that a tilt is judged by
_WIDTHS = 3.0  # of the rocking curve: a reflection further from the sphere is at most seen weakly
_UNKNOWN_WIDTH = 0.0015  # 1/Å, where nothing was integrated
_SEEN = 80  # per cent of the spots lie within the excitation error to which predictions reach
_HIGHEST = 2  # index of a zone axis
_MOST = 150  # predictions drawn, those nearest to the sphere
_OTHERS = ("#cc79a7", "#e69f00")  # of further lattices


def telling_tilts(detail: Detail) -> dict[int, str]:
    """Tilts to be shown, each with the reason: nearest to a zone axis, most spots, worst misfit."""
    fits = np.bincount(detail.spots.frame[detail.fits], minlength=len(detail.tilt))
    out: dict[int, str] = {}
    zone, off = _nearest_zone(detail)
    f = int(np.argmin(off))
    out[int(detail.tilt[f])] = (
        f"nearest a zone axis: [{' '.join(number(v, 0) for v in zone[f])}], {number(off[f])}° off"
    )
    out.setdefault(int(detail.tilt[np.argmax(fits)]), f"most spots on the lattice, {int(fits.max())}")
    rms = misfit_by_frame(detail)
    judged = np.where(fits >= _LEAST, rms, -1)
    if judged.max() > 0:
        worst = int(np.argmax(judged))
        out.setdefault(int(detail.tilt[worst]), f"worst misfit, {number(1000 * rms[worst], 1)} · 10⁻³ 1/Å")
    return out


def misfit_by_frame(detail: Detail) -> np.ndarray:
    """Rms distance (frame,) of the spots on the lattice from their nodes, 1/Å; NaN where there are none."""
    n = len(detail.geometry.alpha_deg)
    rows = detail.spots.frame[detail.fits]
    count = np.bincount(rows, minlength=n)
    total = np.bincount(rows, detail.misfit[detail.fits] ** 2, minlength=n)
    return np.where(count > 0, np.sqrt(total / np.maximum(count, 1)), np.nan)


def _nearest_zone(detail: Detail) -> tuple[np.ndarray, np.ndarray]:
    """Direction (frame, 3) of lowest indices that the beam is nearest to, and by how many degrees (frame,)."""
    several = range(-_HIGHEST, _HIGHEST + 1)
    directions = np.array([d for d in product(several, repeat=3) if np.gcd.reduce(d) == 1])
    real = directions @ np.linalg.inv(detail.crystals[0].ub)
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    cosine = detail.geometry.turns()[:, 2] @ real.T  # the beam in the sample frame is the last row of the rotation
    best = cosine.argmax(1)
    return directions[best], np.degrees(np.arccos(np.clip(cosine.max(1), -1, 1)))


def pattern_figure(detail: Detail, tilt: int, why: str, picture: str, shape: tuple[int, int], block: int) -> str:
    """One pattern with its spots as crosses and predictions as circles.

    Parameters
    ----------
    detail : Detail
    tilt : int
    why : str
        Caption.
    picture : str
        Data URI of the pattern, each of its pixels ``block`` detector pixels wide.
    shape : (rows, columns)
        Of the detector.
    block : int
    """
    frame = int(np.flatnonzero(detail.tilt == tilt)[0])
    rows, columns = shape
    width, height = (-(-n // block) * block for n in (columns, rows))
    drawn = [f'<image href="{picture}" width="{width}" height="{height}" preserveAspectRatio="none"/>']
    radius = max(detail.spots.radius_px, columns / 90)
    for crystal, colour in zip(detail.crystals, ("#0072b2", *_OTHERS), strict=False):
        px, sure = _predicted(detail, crystal, frame, shape)
        drawn += [_circles(px[sure], 1.7 * radius, colour, "sure"), _circles(px[~sure], 1.7 * radius, colour, "faint")]
    here = detail.spots.frame == frame
    for which, kind in ((detail.fits & here, "onit"), (~detail.fits & here, "offit")):
        drawn.append(_crosses(detail.spots.px[which], 0.8 * radius, kind))
    angle = degrees(float(detail.geometry.alpha_deg[frame]))
    return (
        f'<figure><svg class="pattern" viewBox="0 0 {columns} {rows}" role="img" aria-label="Pattern at {angle} with '
        f'spots and predictions">{"".join(drawn)}</svg><figcaption>tilt {tilt}, {angle}: {why}</figcaption></figure>'
    )


def _predicted(detail: Detail, crystal: Crystal, frame: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Places (n, 2) px of the reflections near the sphere in a frame, and which are within their rocking curves."""
    geometry = detail.geometry.at(np.array([frame]))
    empty = replace(detail.spots.some(np.zeros(0, int)), center_px=detail.spots.center_px[[frame]])
    corners = np.array([[0, 0], [shape[1], 0], [0, shape[0]], shape[::-1]]) - detail.spots.center_px[frame]
    limit = float(np.linalg.norm(corners, axis=1).max()) * geometry.pixel
    most = np.ceil(limit * np.linalg.norm(np.linalg.inv(crystal.ub), axis=1)).astype(int)
    hkl = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in most], indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ crystal.ub.T, axis=1)
    hkl = hkl[(length > 0) & (length < limit) & present(hkl, crystal.lattice)]
    at = predict(hkl, np.maximum(_reach(detail), _WIDTHS * _width(detail, limit)), empty, geometry, crystal)
    on = np.flatnonzero(((at.px > -0.5) & (at.px < np.array(shape[::-1]) - 0.5)).all(1))
    nearest = on[np.argsort(np.abs(at.s[on]), kind="stable")[:_MOST]]
    return at.px[nearest], np.abs(at.s[nearest]) < _WIDTHS * _width(detail, at.length[nearest])


def _reach(detail: Detail) -> float:
    """Excitation error, 1/Å, within which most spots on the lattice lie."""
    turns = detail.geometry.turns()[detail.spots.frame[detail.fits]]
    node = np.einsum("nij,nj->ni", turns, detail.hkl[detail.fits] @ detail.crystals[0].ub.T)
    s = np.abs(detail.geometry.excitation(node))
    return float(np.nanpercentile(s, _SEEN)) if np.isfinite(s).any() else 0.0


def _width(detail: Detail, length: np.ndarray | float) -> np.ndarray:
    """Standard deviation (…) of the rocking curves at |g| (…), 1/Å."""
    frames = detail.reflections and detail.reflections.frames
    if not frames:
        return np.full(np.shape(length), _UNKNOWN_WIDTH)
    return np.asarray(np.hypot(frames.rocking_width, np.radians(frames.mosaicity_deg) * length))


def _circles(px: np.ndarray, r: float, colour: str, kind: str) -> str:
    # Pixel centres have integer coordinates, the drawing's origin is the first pixel's corner. Each is one arc from its
    # lowest point all but round to it.
    arc = f"a{r:.1f} {r:.1f} 0 1 1 .1 0z"
    d = "".join(f"M{x + 0.45:.1f} {y + 0.5 + r:.1f}{arc}" for x, y in px.tolist())
    return f'<path class="{kind}" stroke="{colour}" d="{d}"/>'


def _crosses(px: np.ndarray, r: float, kind: str) -> str:
    d = "".join(f"M{x + 0.5 - r:.1f} {y + 0.5:.1f}h{2 * r:.1f}m{-r:.1f} {-r:.1f}v{2 * r:.1f}" for x, y in px.tolist())
    return f'<path class="{kind}" d="{d}"/>'
