"""A solved structure for other programs: SHELX .res/.ins/.hkl for electrons, CCP4 map."""

from __future__ import annotations

import gemmi
import numpy as np

from stemtomo_dl.scattering import sfac_line
from stemtomo_dl.solve.esds import cell_spread
from stemtomo_dl.solve.model import Model
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.peaks import potential
from stemtomo_dl.solve.trials import Trial

_LARGEST = 9999.0  # F² of the strongest reflection: a blank is left between columns, which some programs split at


def formula(trial: Trial) -> tuple[dict[str, float], int]:
    """Atoms of the formula unit by element, in Hill's order, and formula units in the cell (Z).

    Hydrogen is counted as it is stated, for no model holds it.
    """
    model, total = trial.fit.model, dict[str, int]()
    for element, n in zip(model.elements, model.multiplicities, strict=True):
        total[element] = total.get(element, 0) + round(n)
    if hydrogen := trial.stated.hydrogen_in(trial.counts):
        total["H"] = hydrogen
    z = int(np.gcd.reduce(list(total.values())))
    order = sorted(total, key=lambda e: (e != "C", e != "H", e)) if "C" in total else sorted(total)
    return {e: total[e] / z for e in order}, z


def cif_tensors(model: Model) -> np.ndarray:
    """U (atom, 3, 3), Å², as CIFs and SHELX define it: M over the lengths of a*, b*, c*."""
    lengths = np.linalg.norm(model.symmetry.reciprocal, axis=1)
    return np.asarray(model.tensors / np.outer(lengths, lengths))


def symmetry_lines(group: gemmi.GroupOps) -> list[str]:
    """SHELX's LATT and SYMM: one operation of all that centring, and an inversion centre at the origin, make equal."""
    lattice = {"P": 1, "I": 2, "R": 3, "F": 4, "A": 5, "B": 6, "C": 7}.get(group.find_centering(), 1)
    turned = gemmi.Op("-x,-y,-z")
    has_centre = turned in group
    implied = [gemmi.Op("x,y,z"), *([turned] if has_centre else [])]
    lines, seen = [], set[str]()
    for op in [gemmi.Op("x,y,z"), *group.sym_ops]:
        if op.triplet() in seen:
            continue
        if seen:
            lines.append(f"SYMM {op.triplet().upper()}")
        seen |= {(op * other).translated(c).wrap().triplet() for other in implied for c in group.cen_ops}
    return [f"LATT {lattice if has_centre else -lattice}", *lines]


def shelx_files(trial: Trial, data: Intensities, name: str) -> dict[str, str]:
    """NAME.res, NAME.ins (the same, to refine on) and NAME.hkl (HKLF 4)."""
    model = trial.fit.model
    group = model.symmetry.operations
    units, z = formula(trial)
    cell = " ".join(f"{v:.4f}" for v in model.symmetry.cell.parameters)
    strongest = max(float(np.abs(trial.data.fo2).max()), 1e-30)
    factor = _LARGEST / strongest
    scale = np.sqrt(trial.fit.scale * factor)
    head = [
        f"TITL {data.name}",
        f"CELL {data.wavelength:.5f} {cell}",
        f"ZERR {z} {' '.join(f'{v:.4f}' for v in cell_spread(model.symmetry)[0])}",
        *symmetry_lines(group),
        *(sfac_line(e) for e in units),
        "UNIT " + " ".join(f"{n * z:g}" for n in units.values()),
        "L.S. 10",
        "FMAP 2",
        "PLAN 10",
        f"WGHT {trial.fit.weight:g}",
        *([f"EXTI {trial.fit.extinction:.4f}"] if trial.fit.extinction else []),
        f"FVAR {scale:.5f}",
    ]
    res = "\n".join([*head, *_shelx_atoms(model, list(units)), "HKLF 4", "END", ""])
    rows = [
        f"{h:4d}{k:4d}{m:4d}{_eight(i * factor)}{_eight(max(s * factor, 0.01))}{1:4d}"
        for (h, k, m), i, s in zip(trial.merged.hkl, trial.merged.intensity, trial.merged.sigma, strict=True)
    ]
    hkl = "\n".join([*rows, f"{0:4d}{0:4d}{0:4d}{0:8.2f}{0:8.2f}{0:4d}", ""])
    return {f"{name}.res": res, f"{name}.ins": res, f"{name}.hkl": hkl}


def _eight(value: float) -> str:
    """A number in eight columns."""
    text = f"{value:8.2f}"
    return text if len(text) == 8 else f"{value:8.0f}"[:8]


def _shelx_atoms(model: Model, order: list[str]) -> list[str]:
    n = len(model.symmetry.rotations)
    lines = []
    for i, label in enumerate(model.labels):
        xyz = " ".join(f"{v:9.5f}" for v in model.sites[i])
        occupancy = 10 + model.multiplicities[i] / n
        if model.anisotropic:
            u = cif_tensors(model)[i]
            six = [f"{u[j, k]:.5f}" for j, k in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))]
            shown = f"{' '.join(six[:2])} =\n     {' '.join(six[2:])}"
        else:
            shown = f"{model.u[i]:.5f}"
        lines.append(f"{label:<4} {order.index(model.elements[i]) + 1} {xyz} {occupancy:.5f} {shown}")
    return lines


def ccp4_map(trial: Trial, spacing: float) -> gemmi.Ccp4Map:
    """Potential map (V-like, arbitrary zero) of the whole cell from Fo with the model's phases."""
    fit, symmetry = trial.fit, trial.fit.model.symmetry
    fo = trial.data.amplitude / np.sqrt(fit.scale) * np.exp(1j * np.angle(fit.fc))
    grid = gemmi.FloatGrid(potential(symmetry, trial.data.hkl, fo, spacing).astype("f4"))
    grid.set_unit_cell(symmetry.cell)
    grid.spacegroup = gemmi.SpaceGroup("P 1")
    out = gemmi.Ccp4Map()
    out.grid = grid
    out.update_ccp4_header()
    return out
