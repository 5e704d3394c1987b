"""The rocking curve: how an intensity falls off with the excitation error, learned from the reflections themselves.

Its width is σ² = σ₀² + (κ|g|)²: size of the crystal, and what turns with g (convergence, mosaicity, the tilt during a
frame). Its shape is a Gaussian on a Lorentzian, for the core of sinc² and the wings that fall off as 1/s². The
Lorentzian has a width of its own: with one width for both, wings that are well measured make the core too sharp, and
intensities come to depend on how finely a reflection was sampled. All are fitted so that one intensity explains all
measurements of a group of equivalent reflections (variable projection; Golub & Pereyra 1973). Where steps are wider
than the curve most groups are seen once or twice, and their own intensities would explain any curve, the narrowest
best; so intensities are marginalized, not only maximized (Neyman & Scott 1948, Econometrica 16, 1): a curve also pays
for what it makes of the few that are seen on its flanks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import minimize

from stemtomo_dl.crystal.disks import Sums
from stemtomo_dl.crystal.predict import Predicted

_LEAST_WIDTH, _MOST_WIDTH = 4e-4, 2e-2  # 1/Å
_CONTRAST = (0.03, 0.3)  # of the peak: what no width explains, least and most
_STRONG, _NEAR = 10.0, 2.0  # standard deviations of the noise, widths from the sphere: what contrast is learned from
_LEAST_OTHERS, _LEAST_STRONG = 0.5, 20  # share of a group's information, and measurements, for it
_MEDIAN = 0.6745  # of the absolute value, of a standard normal variable
_WEIGHINGS = 3  # rounds
_FWHM = 2 * np.sqrt(2 * np.log(2))
_TURNS = tuple(np.radians((0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)))
_OF_PEAK, _OF_VALUE = (0.0, 0.03, 0.05, 0.1, 0.15, 0.2), (0.0, 0.05, 0.1, 0.2, 0.3)
_BROADER = (1.0, 4.0)  # of the Lorentzian than the Gaussian, at half of the peak: least and most
_FREEDOM = 4  # degrees, of Student's t
_OUTLIER = 9.0  # χ² beyond which a measurement tells nothing more of errors
_MOST_USED = 60_000  # measurements that a shape is fitted to


@dataclass(frozen=True)
class Rocking:
    """A rocking curve of unit area over s."""

    sigma: float  # σ₀, 1/Å
    kappa: float  # κ, radians
    wings: float = 0.0  # share of the Lorentzian
    broader: float = 1.0  # its width at half of its peak over the Gaussian's

    def width(self, length: np.ndarray) -> np.ndarray:
        """σ (n,) in 1/Å at |g| (n,)."""
        return np.asarray(np.hypot(self.sigma, self.kappa * length))

    def at(self, s: np.ndarray, length: np.ndarray) -> np.ndarray:
        """P(s), Å."""
        w = self.width(length)
        half = self.broader * w * _FWHM / 2
        gauss = np.exp(-((s / w) ** 2) / 2) / (w * np.sqrt(2 * np.pi))
        return np.asarray((1 - self.wings) * gauss + self.wings / (np.pi * half * (1 + (s / half) ** 2)))

    def slope(self, s: np.ndarray, length: np.ndarray) -> np.ndarray:
        """∂P/∂s, Å²."""
        w = self.width(length)
        half = self.broader * w * _FWHM / 2
        gauss = -s / w**2 * np.exp(-((s / w) ** 2) / 2) / (w * np.sqrt(2 * np.pi))
        wing = -2 * s / half**2 / (np.pi * half * (1 + (s / half) ** 2) ** 2)
        return np.asarray((1 - self.wings) * gauss + self.wings * wing)

    def peak(self, length: np.ndarray) -> np.ndarray:
        """P(0), Å."""
        return self.at(np.zeros_like(length), length)


def common(group: np.ndarray, profile: np.ndarray, net: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, ...]:
    """Each group's intensity Σ w P I / Σ w P², and that denominator."""
    norm = np.bincount(group, weight * profile**2)
    return np.bincount(group, weight * profile * net) / np.maximum(norm, 1e-300), norm


def expected_weights(at: Predicted, sums: Sums, group: np.ndarray, rocking: Rocking) -> np.ndarray:
    """Weights (n,) of measurements by what their groups lead to expect, not by what was counted.

    On a rocking curve's flank errors of the orientation scatter measurements widely; were the low ones the surer,
    curves would come out too sharp and their intensities too low. How far strong measurements are off what others of
    their group tell, in parts of the peak, is learned from them: taken for too little, a curve follows the few that
    happen to agree.
    """
    profile, peak = rocking.at(at.s, at.length), rocking.peak(at.length)
    near = np.abs(at.s) < _NEAR * rocking.width(at.length)
    weight, contrast = 1 / sums.noise, _CONTRAST[0]
    for _ in range(_WEIGHINGS):
        intensity, norm = common(group, profile, sums.net, weight)
        expected = np.maximum(intensity, 0)[group]
        top = expected * peak
        told = weight * profile**2 < _LEAST_OTHERS * norm[group]
        strong = near & told & (top > _STRONG * np.sqrt(sums.noise))
        if strong.sum() >= _LEAST_STRONG:
            off = np.abs(sums.net - expected * profile)[strong] / top[strong]
            contrast = float(np.clip(np.median(off) / _MEDIAN, *_CONTRAST))
        weight = 1 / (sums.noise + sums.per_count * expected * profile + (contrast * top) ** 2)
    return np.asarray(weight)


def fit_rocking(at: Predicted, sums: Sums, group: np.ndarray, start: Rocking, least_kappa: float) -> Rocking:
    """Fit width and shape to measurements in groups of equivalents.

    Parameters
    ----------
    at, sums : Predicted, Sums
    group : (n,) array of int
    start : Rocking
    least_kappa : float
        What the convergence alone makes, radians.
    """
    total = sums.noise + sums.per_count * np.maximum(sums.net, 0)
    strength = np.bincount(group, np.maximum(sums.net, 0) ** 2 / total)
    best = np.argsort(-strength, kind="stable")[: max(int(_MOST_USED * len(strength) / len(group)), 1)]
    use = np.isin(group, best)
    row, net, s, length = np.unique(group[use], return_inverse=True)[1], sums.net[use], at.s[use], at.length[use]
    weight = expected_weights(at.some(use), sums.some(use), row, start)

    def cost(p: np.ndarray) -> float:
        rocking = _made(p, least_kappa)
        profile = rocking.at(s, length)
        intensity, norm = common(row, profile, net, weight)
        intensity = np.maximum(intensity, 0)
        chi2 = weight * (net - intensity[row] * profile) ** 2
        return float(np.log1p(chi2 / _OUTLIER).mean() + _freedom(intensity, norm).sum() / (_OUTLIER * len(net)))

    first = [np.log(start.sigma), np.log(max(start.kappa, least_kappa * 1.1)), 0.2, np.log(2.0)]
    simplex = np.array(first) + np.concatenate([np.zeros((1, 4)), np.diag([0.3, 0.3, 0.3, 0.7])])
    options = {"initial_simplex": simplex, "maxfev": 160, "xatol": 0.01, "fatol": 1e-5}
    return _made(minimize(cost, first, method="Nelder-Mead", options=options).x, least_kappa)


def _freedom(intensity: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """What each group's free intensity adds to −2 log L: log(1 + Λ²/σ²), Λ being the mean intensity and σ² = 1/norm.

    The intensity is integrated out under N(0, Λ²) (Rasmussen & Williams 2006, Gaussian Processes, eq. 2.43).
    """
    return np.asarray(np.log1p(intensity.mean() ** 2 * norm))


def _made(p: np.ndarray, least_kappa: float) -> Rocking:
    sigma = float(np.clip(np.exp(p[0]), _LEAST_WIDTH, _MOST_WIDTH))
    kappa, broader = np.clip(np.exp(p[1]), least_kappa, 0.1), np.clip(np.exp(p[3]), *_BROADER)
    return Rocking(sigma, float(kappa), float(np.clip(p[2], 0, 1)), float(broader))


@dataclass(frozen=True)
class Doubt:
    """Standard deviations of what no counting statistics tells of a measurement."""

    turn: float = 0.0  # of a frame's orientation, radians
    of_peak: float = 0.0  # of the curve, in parts of its peak
    of_value: float = 0.0  # of the curve, in parts of itself there


def variance(at: Predicted, sums: Sums, rocking: Rocking, intensity: np.ndarray, doubt: Doubt) -> np.ndarray:
    """Variance (n,) of measurements of given intensities (n,): of the counts, the orientation, and the curve itself.

    Multiple scattering makes another curve for every reflection: in a thick crystal it takes from the top first.
    """
    counted, *uncounted = _variances(at, sums, rocking, intensity)
    shares = (doubt.turn, doubt.of_peak, doubt.of_value)
    return np.asarray(counted + sum(k**2 * v for k, v in zip(shares, uncounted, strict=True)))


def _variances(at: Predicted, sums: Sums, rocking: Rocking, intensity: np.ndarray) -> tuple[np.ndarray, ...]:
    """Variances (n,) of the counts, and of each field of ``Doubt`` where it is 1."""
    expected = np.maximum(intensity, 0)
    here = expected * rocking.at(at.s, at.length)
    turned = expected * rocking.slope(at.s, at.length) * np.linalg.norm(at.turning, axis=1)
    return sums.noise + sums.per_count * here, turned**2, (expected * rocking.peak(at.length)) ** 2, here**2


def doubt_of(at: Predicted, sums: Sums, rocking: Rocking, group: np.ndarray) -> Doubt:
    """What is uncertain besides the counts, by how measurements scatter about what others predict.

    The likelihood of each measurement given the others of its group is evaluated for a few values of each, under
    Student's t (Lange, Little & Taylor 1989, J. Am. Stat. Assoc. 84, 881): with a χ² that is cut off, measurements of
    strong intensities would all be outliers of no doubt at all. The three are told apart by where on the curve
    measurements scatter; were it all put down to orientations, those of a thick crystal would seem unknown, and what is
    seen on flanks would be left out.
    """
    profile = rocking.at(at.s, at.length)
    weight = expected_weights(at, sums, group, rocking)
    intensity, norm = common(group, profile, sums.net, weight)
    own = weight * profile**2 / np.maximum(norm, 1e-300)[group]
    told = own < _LEAST_OTHERS
    if not told.any():
        return Doubt()
    left = np.maximum(1 - own, 0.1)[told]
    off2 = ((sums.net - intensity[group] * profile)[told] / left) ** 2
    counted, *uncounted = (v[told] / left for v in _variances(at, sums, rocking, intensity[group]))

    def cost(shares: tuple[float, ...]) -> float:
        spread = counted + sum(k**2 * v for k, v in zip(shares, uncounted, strict=True))
        return float((np.log(spread) + (_FREEDOM + 1) * np.log1p(off2 / (_FREEDOM * spread))).mean())

    return Doubt(*min(product(_TURNS, _OF_PEAK, _OF_VALUE), key=cost))
