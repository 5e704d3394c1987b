"""Particles in one setting: their mean cell, one scale, errors, outliers, and the mean of equivalents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stemtomo_dl.crystal import scale
from stemtomo_dl.crystal.ambiguity import Aligned
from stemtomo_dl.crystal.error_shells import interpolated, shell_factors
from stemtomo_dl.crystal.laue import LaueClass, lattice_of_class, unique_codes, unpacked
from stemtomo_dl.crystal.phase import Joined, Member
from stemtomo_dl.crystal.settings import changed_cell, direct_basis, reindexed

_CURVE_POINTS = 25
_ROUNDING = 1e-9  # Å, degrees


class Placed(NamedTuple):
    """A particle that agrees, and how it is brought into the common setting."""

    member: Member
    matrix: np.ndarray
    aligned: Aligned


class Scaled(NamedTuple):
    """Particles on one scale; observations are divided by their g and carry corrected sigmas."""

    cell: np.ndarray
    cell_esd: np.ndarray
    observed: scale.Observed
    bad: np.ndarray  # observations that are outliers
    model: scale.Model
    curves: list[scale.Curve]
    errors: scale.ErrorModel
    misfits: np.ndarray  # a particle
    hkl: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    multiplicity: np.ndarray


def on_one_scale(placed: Sequence[Placed], laue: LaueClass, rng: np.random.Generator) -> Scaled:
    """Particles in one setting on one scale, their errors, and the means of what is no outlier."""
    cell, esd = _mean_cell(placed, laue)
    observed, code = _observed(placed, cell, laue)
    model, curves = scale.fit_scales(observed, len(placed), len(code), rng)
    g = scale.factors(observed, curves)
    observed = observed._replace(intensity=observed.intensity / g, sigma=observed.sigma / g)
    errors, sigma, bad, misfits = _errors(observed, len(placed), len(code))
    observed = observed._replace(sigma=sigma)
    good = observed.some(~bad)
    mean, error, count = scale.merge(good.group, good.intensity, good.sigma, len(code))
    return Scaled(cell, esd, observed, bad, model, curves, errors, misfits, unpacked(code), mean, error, count)


def _mean_cell(placed: Sequence[Placed], laue: LaueClass) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of the cells (6,), with the metric of the Laue class, and its standard deviation.

    The larger of what the cells' own deviations and their scatter tell, NaN where neither does.
    """
    crystals = [p.member.crystal for p in placed]
    cells = np.array([_symmetric(changed_cell(_told(p, laue)[0], p.matrix), laue) for p in placed])
    weight = np.array([max(c.n_indexed, 1) / max(c.rms_inv_angstrom, 1e-4) ** 2 for c in crystals])
    share = weight / weight.sum()
    mean = share @ cells
    own = np.sqrt(share**2 @ np.array([_own_esd(p, laue) for p in placed]) ** 2)
    if len(placed) < 2:
        return mean, own
    effective = (share**2).sum()
    spread = np.sqrt(share @ (cells - mean) ** 2 * effective / (1 - effective))
    spread = np.where(spread < _ROUNDING, 0.0, spread)  # of what the class fixes only rounding is left
    return mean, np.fmax(own, spread)


def obtuse(placed: Sequence[Placed], laue: LaueClass) -> list[Placed]:
    """The same in the setting whose oblique angle is not below 90°, where a monoclinic class leaves one.

    Particles of a higher metric may all be brought into either.
    """
    angles = _mean_cell(placed, laue)[0][3:]
    off = angles - 90
    if laue.name != "2/m" or off.min() > -_ROUNDING:
        return list(placed)
    turn = np.diag([-1.0, 1.0, -1.0] if np.argmin(off) == 0 else [1.0, -1.0, -1.0])
    return [p._replace(matrix=turn @ p.matrix) for p in placed]


def _told(placed: Placed, laue: LaueClass) -> tuple[np.ndarray, np.ndarray | None]:
    """A crystal's cell (6,) and its standard deviations: the free one where the Laue class is lower than the metric."""
    crystal = placed.member.crystal
    lower = lattice_of_class(laue, crystal.lattice) != crystal.lattice
    if lower and crystal.free_cell is not None:
        return crystal.free_cell, crystal.free_cell_esd
    return crystal.cell, crystal.cell_esd


def _own_esd(placed: Placed, laue: LaueClass) -> np.ndarray:
    """Standard deviations (6,) of a crystal's cell in the common setting; its parameters' correlations are left out."""
    own, esd = _told(placed, laue)
    if esd is None:
        return np.full(6, np.nan)

    def there(cell: np.ndarray) -> np.ndarray:
        return _symmetric(changed_cell(cell, placed.matrix), laue)

    variance = sum(((there(own + d) - there(own - d)) / 2) ** 2 for d in np.diag(esd))
    return np.asarray(np.where(variance < _ROUNDING**2, 0.0, np.sqrt(variance)))


def _symmetric(cell: np.ndarray, laue: LaueClass) -> np.ndarray:
    """The cell whose metric is the mean over the rotations of a Laue class."""
    basis = direct_basis(cell)
    r = laue.rotations.astype(float)
    metric = (np.swapaxes(r, 1, 2) @ (basis @ basis.T) @ r).mean(0)
    length = np.sqrt(np.diag(metric))
    cosine = [metric[i, j] / (length[i] * length[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.r_[length, np.degrees(np.arccos(np.clip(cosine, -1, 1)))]


def _observed(placed: Sequence[Placed], cell: np.ndarray, laue: LaueClass) -> tuple[scale.Observed, np.ndarray]:
    """All observations in the common setting, and the codes of the unique reflections."""
    parts = []
    reciprocal = np.linalg.inv(direct_basis(cell))
    for n, p in enumerate(placed):
        r = p.member.reflections
        hkl, whole = reindexed(r.hkl, p.matrix)
        length = np.linalg.norm(hkl[whole] @ reciprocal.T, axis=1)
        code = unique_codes(hkl[whole], laue.rotations)
        parts.append((np.full(whole.sum(), n), code, r.intensity[whole], r.sigma[whole], r.alpha_deg[whole], length))
    member_of, code, *rest = (np.concatenate(c) for c in zip(*parts, strict=True))
    unique, group = np.unique(code, return_inverse=True)
    return scale.Observed(member_of, group, *rest), unique


def _errors(
    observed: scale.Observed, n_members: int, n: int
) -> tuple[scale.ErrorModel, np.ndarray, np.ndarray, np.ndarray]:
    """Error model, corrected sigmas, outliers, and particles' misfits, by which sigmas of the worse ones are raised.

    What is left is corrected by shells of resolution.
    """
    group, intensity = observed.group, observed.intensity
    bad = np.zeros(len(group), bool)
    for _ in range(2):
        model = scale.fit_errors(group[~bad], intensity[~bad], observed.sigma[~bad], n)
        corrected = scale.corrected_sigma(model, group, intensity, observed.sigma, n)
        misfits = scale.member_misfits(observed.member, group, intensity, corrected, n_members, n)
        corrected = corrected * np.fmax(misfits, 1.0)[observed.member]
        shells = shell_factors(group[~bad], intensity[~bad], corrected[~bad], observed.inverse_d[~bad])
        model, corrected = model._replace(shells=shells), corrected * interpolated(shells, observed.inverse_d)
        bad = scale.outliers(group, intensity, corrected, n)
    return model, corrected, bad, misfits


def joined(n: int, placed: Placed, scaled: Scaled) -> Joined:
    """What is to be told of the n-th particle."""
    mine = scaled.observed.member == n
    observed, bad, curve = scaled.observed.some(mine), scaled.bad[mine], scaled.curves[n]
    expected = scaled.mean[observed.group]
    off = np.abs(observed.intensity - expected)
    angles = np.linspace(observed.alpha_deg.min(), observed.alpha_deg.max(), _CURVE_POINTS)
    course = curve.factor(angles, np.zeros(len(angles)))
    return Joined(
        placed.member.track,
        placed.matrix,
        curve.scale,
        curve.b,
        placed.aligned.cc,
        placed.aligned.common,
        placed.aligned.second,
        float(scaled.misfits[n]),
        float(off[~bad].sum() / max(np.abs(expected[~bad]).sum(), 1e-12)),
        len(observed.intensity),
        int(bad.sum()),
        tuple(zip(angles.tolist(), course.tolist(), strict=True)),
    )
