"""Spots and predicted reflections over patterns at a few telling tilts."""

from __future__ import annotations

from itertools import product

import numpy as np

from stemtomo_dl.crystal.nouns import Crystal
from stemtomo_dl.crystal.predict import predict, present
from stemtomo_dl.report.crystals import Detail
from stemtomo_dl.report.text import degrees, number

_LEAST = 5  # spots on the lattice that a tilt is judged by
_WIDTHS = 3.0  # of the rocking curve: a reflection further from the sphere is not predicted to be seen
_UNKNOWN_WIDTH = 0.004  # 1/Å, where nothing was integrated
_MOST = 220  # predictions drawn, those nearest to the sphere
_OTHERS = ("#cc79a7", "#e69f00")  # of further lattices


def telling_tilts(detail: Detail) -> dict[int, str]:
    """Tilts to be shown, each with the reason: nearest to a zone axis, most spots, worst misfit."""
    frames = detail.geometry.alpha_deg
    fits = np.bincount(detail.spots.frame[detail.fits], minlength=len(frames))
    out: dict[int, str] = {}
    zone, off = _nearest_zone(detail)
    f = int(np.argmin(off))
    out[int(detail.tilt[f])] = f"nearest a zone axis: [{' '.join(number(v, 0) for v in zone[f])}], {number(off[f])}° off"
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
    directions = np.array([d for d in product((-1, 0, 1), repeat=3) if any(d)])
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
        drawn.append(_circles(_predicted(detail, crystal, frame, shape), 1.7 * radius, colour))
    here = detail.spots.frame == frame
    for which, kind in ((detail.fits & here, "onit"), (~detail.fits & here, "offit")):
        drawn.append(_crosses(detail.spots.px[which], 0.8 * radius, kind))
    angle = degrees(float(detail.geometry.alpha_deg[frame]))
    return (
        f'<figure><svg class="pattern" viewBox="0 0 {columns} {rows}" role="img" aria-label="Pattern at {angle} with '
        f'spots and predictions">{"".join(drawn)}</svg><figcaption>tilt {tilt}, {angle}: {why}</figcaption></figure>'
    )


def _predicted(detail: Detail, crystal: Crystal, frame: int, shape: tuple[int, int]) -> np.ndarray:
    """Places (n, 2) px of the reflections of a lattice that should be seen in a frame."""
    geometry = detail.geometry.at(np.array([frame]))
    spots = detail.spots.some(np.zeros(0, int))
    spots = type(spots)(**{**vars(spots), "center_px": detail.spots.center_px[[frame]]})
    reach = np.hypot(*shape) * geometry.pixel
    most = np.ceil(reach * np.linalg.norm(np.linalg.inv(crystal.ub), axis=1)).astype(int)
    hkl = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in most], indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ crystal.ub.T, axis=1)
    hkl = hkl[(length > 0) & (length < reach) & present(hkl, crystal.lattice)]
    length = np.linalg.norm(hkl @ crystal.ub.T, axis=1)
    at = predict(hkl, _WIDTHS * _width(detail, length), spots, geometry, crystal)
    on = ((at.px > -0.5) & (at.px < np.array(shape[::-1]) - 0.5)).all(1)
    nearest = np.argsort(np.abs(at.s[on]), kind="stable")[:_MOST]
    return np.asarray(at.px[on][nearest])


def _width(detail: Detail, length: np.ndarray) -> np.ndarray:
    """Standard deviation (n,) of the rocking curves at |g| (n,), 1/Å."""
    frames = detail.reflections and detail.reflections.frames
    if not frames:
        return np.full(len(length), _UNKNOWN_WIDTH)
    return np.asarray(np.hypot(frames.rocking_width, np.radians(frames.mosaicity_deg) * length))


def _circles(px: np.ndarray, r: float, colour: str) -> str:
    # pixel centres have integer coordinates, the drawing's origin is the first pixel's corner
    d = "".join(
        f"M{x + 0.5 - r:.1f} {y + 0.5:.1f}a{r:.1f} {r:.1f} 0 1 0 {2 * r:.1f} 0a{r:.1f} {r:.1f} 0 1 0 {-2 * r:.1f} 0"
        for x, y in px.tolist()
    )
    return f'<path stroke="{colour}" d="{d}"/>'


def _crosses(px: np.ndarray, r: float, kind: str) -> str:
    d = "".join(f"M{x + 0.5 - r:.1f} {y + 0.5:.1f}h{2 * r:.1f}m{-r:.1f} {-r:.1f}v{2 * r:.1f}" for x, y in px.tolist())
    return f'<path class="{kind}" d="{d}"/>'
