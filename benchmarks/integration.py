"""Integrated intensities against the truth of simulated series: one line a setting. Beside DIALS: `dials.py`.

    python benchmarks/integration.py

A scene of one particle on a film is played and averaged under its true outline, so that only integration is judged; our
own spots and lattice are used. Intensities are scaled as merging does it, merged with equal weights in the Laue class
of the lattice and compared with |F|²: `cc` is their correlation, `r1` Σ|k|F| − |F_true||/Σ|F_true| of amplitudes,
`r1_strong` the same of those above 3σ, `rint` of the unmerged ones, `cc_half` the mean of ten random halvings, `z` the
scatter about the truth over the errors that are claimed (1: honest). JSON lines.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from stemtomo_dl import resources
from stemtomo_dl.crystal.ambiguity import Aligned
from stemtomo_dl.crystal.common_scale import Placed, on_one_scale
from stemtomo_dl.crystal.equivalents import disagreement, equivalents
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.index import index
from stemtomo_dl.crystal.integrate import integrate
from stemtomo_dl.crystal.joint import refine_jointly
from stemtomo_dl.crystal.laue import laue_classes
from stemtomo_dl.crystal.phase import Member
from stemtomo_dl.crystal.spots import find_spots
from stemtomo_dl.records import DiffractionSeries, Truth
from stemtomo_dl.simulate.scene import Scene
from stemtomo_dl.simulate.series import simulate

SETTINGS: dict[str, dict[str, Any]] = {
    "steps of 1°": {},
    "steps of 1.7°": {"step": 1.7},
    "steps of 0.3°": {"step": 0.3, "span": 40},
    "steps of 0.1°": {"step": 0.1, "span": 25, "sigma": 0.01},
    "0.3 mrad": {"convergence": 0.3},
    "1.2 mrad": {"convergence": 1.2, "pixel": 0.018, "detector": 160},
    "200 electrons, thick film": {"electrons": 200, "film": 20},
    "goniometer off by 0.15°": {"step": 0.25, "span": 40, "sigma": 0.15},
    "to and fro, 15 % missing, uneven": {"step": 0.5, "order": "dose-symmetric", "missing": 0.15, "uneven": 0.1},
    "triclinic, wide disks": {"cif": "kyanite.cif", "convergence": 1.2, "step": 0.5, "pixel": 0.012, "detector": 160},
    "two-beam, steps of 1°": {"intensities": "two-beam"},
    "two-beam, steps of 0.3°": {"intensities": "two-beam", "step": 0.3, "span": 40},
    "two-beam, 55 nm": {"intensities": "two-beam", "step": 0.5, "span": 45, "size": 55},
}
LATTICE = {"brookite": "oP", "rutile": "tP", "kyanite": "aP"}
ROTATION, AXIS = -7.5, 24.3


def played(
    intensities: str = "kinematic",
    convergence: float = 0.8,
    step: float = 1.0,
    span: float = 50.0,
    electrons: float = 2000.0,
    size: float = 24.0,
    seed: int = 1,
    cif: str = "brookite.cif",
    sigma: float = 0.03,
    detector: int = 128,
    pixel: float = 0.0201,
    film: float = 8.0,
    order: str = "given",
    missing: float = 0.0,
    uneven: float = 0.0,
) -> tuple[DiffractionSeries, Truth]:
    """One particle's series and the truth."""
    particle = {"cif": cif, "count": 1, "size_nm": size, "shape": "random", "positions_nm": [(0, 0, 0)]}
    content = {
        "title": "one particle",
        "seed": seed,
        "intensities": intensities,
        "instrument": {
            "voltage_kv": 200.0,
            "convergence_mrad": convergence,
            "electrons_per_pattern": electrons,
            "scan": [14, 14],
            "step_nm": 5.0,
            "detector": [detector, detector],
            "pixel_inv_angstrom": pixel,
            "tilt_axis_deg": AXIS,
            "rotation_deg": ROTATION,
        },
        "tilts": {
            "start": -span,
            "stop": span,
            "step": step,
            "sigma_deg": sigma,
            "order": order,
            "missing": missing,
            "uneven_deg": uneven,
        },
        "drift": {"walk_px": 0.0, "beam_walk_px": 0.0, "height_nm": 0.0},
        "film": {"thickness_nm": film},
        "particles": [particle | {"orientation": {"kind": "random"}}],
    }
    text = (resources.synthetic() / "structures" / cif).read_text(encoding="utf-8")
    series = simulate(Scene.model_validate(content), {cif: text})
    truth, sums, number = series.truth, [], []
    for tilt in range(len(series)):
        mask = truth.masks.full(truth.masks.at(tilt)[0])
        sums.append(series.scan(tilt, threads=1)[mask].sum(0, dtype="f8"))
        number.append(mask.sum())
    n = np.array(number, "i4")
    patterns = (np.array(sums) / n[:, None, None]).astype("f4")
    record = DiffractionSeries(
        instrument=series.scene.experiment([]).instrument,
        patterns=patterns,
        measured=np.ones(patterns.shape, bool),
        alpha_deg=np.array(series.stated_deg, "f8"),
        tilt=np.arange(len(n), dtype="i4"),
        n_probes=n,
        n_support=0 * n,
        center_px=truth.centers_px[0].astype("f8"),
        variance=(patterns / n[:, None, None]).astype("f4"),
    )
    return record, truth


class Found(NamedTuple):
    """Unmerged intensities, in the indices of the truth."""

    by: str
    hkl: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray

    def some(self, rows: np.ndarray) -> Found:
        """These rows."""
        return Found(self.by, self.hkl[rows], self.intensity[rows], self.sigma[rows])


def found(by: str, reflections: tuple[np.ndarray, ...], ub: np.ndarray, truth: Truth) -> Found | str:
    """Intensities with the indices that the true lattice gives them; ``ub`` is in the sample frame."""
    relation = np.linalg.inv(truth.ub[0]) @ ub
    whole = np.rint(relation)
    if np.abs(relation - whole).max() > 0.1 or abs(round(np.linalg.det(whole))) != 1:
        return "wrong lattice"
    hkl, intensity, sigma = reflections
    return Found(by, hkl @ whole.T.astype(int), intensity, sigma)


def scores(measured: Found, truth: Truth) -> dict[str, Any]:
    """Figures of unmerged intensities."""
    _, hkl, intensity, sigma = measured
    table, power = truth.reflections[truth.phase[0]]
    known = {tuple(h): p for h, p in zip(table.tolist(), power.tolist(), strict=True)}
    known |= {(-h, -k, -n): p for (h, k, n), p in known.items()}
    group = equivalents(hkl, LATTICE[truth.phase[0]])
    true = np.bincount(group, [known.get(tuple(h), 0.0) for h in hkl.tolist()])
    count = np.bincount(group)
    true, mean = true / count, np.bincount(group, intensity) / count
    error = np.sqrt(np.bincount(group, sigma**2)) / count
    amplitude, expected, strong = np.sqrt(np.maximum(mean, 0)), np.sqrt(true), mean > 3 * error
    off = np.abs((amplitude @ expected) / (amplitude @ amplitude) * amplitude - expected)
    scale = (intensity @ true[group]) / (true[group] @ true[group])
    rng = np.random.default_rng(0)
    cc_half = [_cc_of_halves(group, intensity, rng) for _ in range(10)]
    figures = {
        "cc": np.corrcoef(mean, true)[0, 1],
        "r1": off.sum() / expected.sum(),
        "r1_strong": off[strong].sum() / expected[strong].sum(),
        "rint": disagreement(group, intensity),
        "cc_half": np.mean(cc_half),
        "z": np.median(np.abs(intensity - scale * true[group]) / sigma) / 0.6745,
    }
    return {"n": len(hkl), "unique": len(count), **{k: round(float(v), 4) for k, v in figures.items()}}


def _cc_of_halves(group: np.ndarray, intensity: np.ndarray, rng: np.random.Generator) -> float:
    n = int(group.max()) + 1
    first = rng.permutation(len(group)) % 2 == 0
    count = np.array([np.bincount(group[half], minlength=n) for half in (first, ~first)])
    total = np.array([np.bincount(group[half], intensity[half], n) for half in (first, ~first)])
    both = (count > 0).all(0)
    return float(np.corrcoef(total[:, both] / count[:, both])[0, 1])


def ours(series: DiffractionSeries, truth: Truth) -> Found | str:
    """Spots, lattice and scaled intensities by this package, or why there are none."""
    spots = find_spots(series)
    crystals = index(spots, series.instrument, series.alpha_deg, most=1)
    if not crystals:
        return "no lattice"
    geometry, (crystal,) = refine_jointly([spots], crystals, Geometry(series.instrument, series.alpha_deg))
    r = integrate(series, spots, geometry, crystal)
    laue = laue_classes(crystal.lattice)[-1]
    alone = Placed(Member(0, crystal, r), np.eye(3), Aligned(0, np.nan, 0, np.nan, True))
    scaled = on_one_scale([alone], laue, np.random.default_rng(0)).observed
    return found(r.method, (r.hkl, scaled.intensity, scaled.sigma), crystal.ub, truth)


def main() -> None:
    """Print the figures."""
    for name, setting in SETTINGS.items():
        series, truth = played(**setting)
        measured = ours(series, truth)
        told = {"by": measured.by, **scores(measured, truth)} if isinstance(measured, Found) else {"failed": measured}
        print(json.dumps({"setting": name, **told}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
