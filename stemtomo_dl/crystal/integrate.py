"""A crystal's intensities from its patterns: frame by frame, and one a passage through the Ewald sphere.

Disks are measured wherever a reflection may be seen (`predict`, `disks`); the rocking curve and every frame's true
orientation are learned from how equivalent reflections must agree (`rocking`, `orient`); passages are summed or fitted
(`passages`), whichever agrees better. docs/theory/integration.md has the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.disks import Sums, measure
from stemtomo_dl.crystal.equivalents import disagreement, equivalents
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Crystal, FrameIntensities, Reflections, Spots
from stemtomo_dl.crystal.orient import frame_rotations
from stemtomo_dl.crystal.overlap import Places, places_of_others
from stemtomo_dl.crystal.passages import Passages, completed, fitted, passages, summed, with_model_error
from stemtomo_dl.crystal.predict import Predicted, predict, predicted_indices, turning_axes
from stemtomo_dl.crystal.refine import indices
from stemtomo_dl.crystal.rocking import Doubt, Rocking, doubt_of, fit_rocking
from stemtomo_dl.records import DiffractionSeries

_REACH = 5.0  # widths of the first guess from the sphere that are measured
_SEEN = 2.0  # widths within which a reflection counts as excited
_KEPT = 3.5  # widths within which a measurement is worth keeping
_ROUNDS = 3
_LEAST_WIDTH = 0.0012  # 1/Å, of the first guess
_LEAST_SUMMED = 0.6  # of the passages that can be fitted
_BETWEEN = 0.5  # of the indices: where no reflection is
_MOST_EMPTY, _LEAST_EMPTY = 4000, 50  # disks without reflection
_MORE, _FALSE = 1.3, 0.1  # times R_int of Friedel mates, and above that: equivalents that are none
_OUTLIER = 9.0  # χ² beyond which an empty disk is not empty


def integrate(
    series: DiffractionSeries, spots: Spots, geometry: Geometry, crystal: Crystal, others: Sequence[Crystal] = ()
) -> Reflections:
    """Measure every reflection of a crystal that the series passes.

    Parameters
    ----------
    series : DiffractionSeries
    spots : Spots
        Of the series; their centres and disks are used, and what is not this crystal's is kept out.
    geometry : Geometry
    crystal : Crystal
    others : sequence of Crystal
        Further lattices of the series: what their reflections lie upon is left out.

    Returns
    -------
    Reflections
        One row a passage through the Ewald sphere, unmerged, weak and negative ones among them; with the
        measurements frame by frame.
    """
    hkl, fits = indices(spots, geometry, crystal)
    stated, geometry = geometry, geometry.of(crystal)
    guess = _first_guess(spots, hkl, fits, geometry, crystal)
    upon = places_of_others(series, spots, stated, crystal, others, _SEEN * guess.sigma)
    hkl = predicted_indices(series, geometry, crystal)
    at, sums = _measured(series, spots, fits, geometry, crystal, hkl, guess, upon)
    n = len(series.patterns)
    if not len(at.row):
        none, frames = np.zeros(0), _frames(at, sums, hkl, guess, np.zeros((n, 2)), geometry)
        return Reflections(np.zeros((0, 3), "i4"), none, none, none, np.zeros(0, "i4"), frames)
    least = geometry.instrument.convergence_mrad * 1e-3 / 2  # rms of a filled cone along g
    group = _equals(at, sums, hkl, crystal.lattice, guess, least, geometry.alpha_deg)
    rocking, by, moved = guess, np.zeros((n, 2)), at
    for _ in range(_ROUNDS):
        rocking = fit_rocking(moved, sums, group[at.row], rocking, least)
        by = frame_rotations(at, sums, group[at.row], rocking, by)
        moved = at.turned(by)
    rocking = fit_rocking(moved, sums, group[at.row], rocking, least)
    doubt = doubt_of(moved, sums, rocking, group[at.row])
    order, passage = passages(moved, geometry.alpha_deg)
    moved, sums = moved.some(order), sums.some(order)
    total, fit = summed(moved, sums, passage, rocking), fitted(moved, sums, passage, rocking, doubt)
    method = _better(total, fit, group)
    made = fit if method == "fit" else completed(total, fit)
    frames = _frames(moved, sums, hkl, rocking, by, geometry)
    return _reflections(with_model_error(made, group[made.row]), hkl, geometry, frames, method)


def _measured(
    series: DiffractionSeries,
    spots: Spots,
    ours: np.ndarray,
    geometry: Geometry,
    crystal: Crystal,
    hkl: np.ndarray,
    guess: Rocking,
    upon: Places,
) -> tuple[Predicted, Sums]:
    """What could be measured of the predictions, its noise corrected by what disks between the reflections show."""
    reach = _REACH * guess.width(np.linalg.norm(hkl @ crystal.ub.T, axis=1))
    some = np.linspace(0, len(hkl) - 1, min(len(hkl), _MOST_EMPTY)).astype(int)
    empty = predict(hkl[some] + _BETWEEN, reach[some] / 2, spots, geometry, crystal)
    at, real = predict(hkl, reach, spots, geometry, crystal).joined(empty)
    strong = real & (np.abs(at.s) < _SEEN * guess.width(at.length))
    foreign = Places(spots.frame[~ours], spots.px[~ours])
    sums = measure(series, at, strong, spots.radius_px, geometry.centers(spots), foreign, upon)
    blank = sums.whole & ~real
    if blank.sum() >= _LEAST_EMPTY:
        chi2 = sums.net[blank] ** 2 / sums.noise[blank]
        sums = replace(sums, noise=sums.noise * np.clip(np.minimum(chi2, _OUTLIER).mean(), 0.5, _OUTLIER))
    use = sums.whole & real
    return at.some(use), sums.some(use)


def _first_guess(spots: Spots, hkl: np.ndarray, fits: np.ndarray, geometry: Geometry, crystal: Crystal) -> Rocking:
    """The rocking curve's width from when spots were seen."""
    g = np.einsum("nij,nj->ni", geometry.turns()[spots.frame], hkl @ crystal.ub.T)[fits]
    s, length = geometry.excitation(g), np.linalg.norm(g, axis=1)
    least = geometry.instrument.convergence_mrad * 1e-3 / 2
    if fits.sum() < 3:
        return Rocking(_LEAST_WIDTH, least)
    weight = spots.intensity[fits]
    keep = np.abs(s) < 3 * np.sqrt(np.average(s**2, weights=weight))
    a, b = np.polyfit(length[keep] ** 2, s[keep] ** 2, 1, w=np.sqrt(weight[keep]))
    return Rocking(float(max(np.sqrt(max(b, 0)), _LEAST_WIDTH)), float(max(np.sqrt(max(a, 0)), least)))


def _equals(
    at: Predicted, sums: Sums, hkl: np.ndarray, lattice: str, guess: Rocking, least: float, alpha_deg: np.ndarray
) -> np.ndarray:
    """Numbers (reflection,) that reflections of one intensity share.

    Those that the lattice makes equivalent, unless they disagree where Friedel mates agree: the metric of a crystal may
    be higher than its symmetry, as of a monoclinic one with β = 90°.
    """
    group, mates = equivalents(hkl, lattice), equivalents(hkl, "aP")
    rocking = fit_rocking(at, sums, mates[at.row], guess, least)
    order, passage = passages(at, alpha_deg)
    fit = fitted(at.some(order), sums.some(order), passage, rocking, Doubt())
    row, intensity = fit.row[fit.keep], fit.intensity[fit.keep]
    apart, together = disagreement(mates[row], intensity), disagreement(group[row], intensity)
    return mates if np.isfinite(together) and together > _MORE * apart + _FALSE else group


def _better(total: Passages, fit: Passages, group: np.ndarray) -> str:
    """Which estimate the equals agree on, by the passages that both have; sums of few of them tell too little."""
    both = total.keep & fit.keep
    if both.sum() < _LEAST_SUMMED * fit.keep.sum():
        return "fit"
    misfit = [disagreement(group[p.row[both]], p.intensity[both]) for p in (total, fit)]
    return "sum" if misfit[0] < misfit[1] else "fit"


def _frames(
    at: Predicted, sums: Sums, hkl: np.ndarray, rocking: Rocking, by: np.ndarray, geometry: Geometry
) -> FrameIntensities:
    keep = np.abs(at.s) < _KEPT * rocking.width(at.length)
    own = Rotation.from_rotvec(by @ turning_axes(geometry.instrument.tilt_axis_deg)).as_matrix()
    sigma = np.sqrt(sums.noise + sums.per_count * np.maximum(sums.net, 0))
    return FrameIntensities(
        rocking_width=rocking.sigma,
        mosaicity_deg=float(np.degrees(rocking.kappa)),
        hkl=hkl[at.row[keep]].astype("i4"),
        frame=at.frame[keep].astype("i4"),
        intensity=sums.net[keep],
        sigma=sigma[keep],
        s=at.s[keep],
        alpha_deg=geometry.alpha_deg,
        rotation=own @ geometry.turns(),
    )


def _reflections(
    p: Passages, hkl: np.ndarray, geometry: Geometry, frames: FrameIntensities, method: str
) -> Reflections:
    k = p.keep
    return Reflections(
        hkl=hkl[p.row[k]].astype("i4"),
        intensity=p.intensity[k],
        sigma=np.sqrt(p.variance[k]),
        alpha_deg=geometry.alpha_deg[p.frame[k]],
        frame=p.frame[k].astype("i4"),
        frames=frames,
        method=method,
    )
