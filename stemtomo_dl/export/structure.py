"""A solved structure for other programs: CIF, SHELX .res/.ins/.hkl for electrons, CCP4 map."""

from __future__ import annotations

from functools import cache

import gemmi
import numpy as np
from scipy.optimize import least_squares

from stemtomo_dl.scattering import scattering_factor
from stemtomo_dl.solve.model import Model
from stemtomo_dl.solve.peaks import potential
from stemtomo_dl.solve.trials import Trial

_LARGEST = 9999.0  # F² of the strongest reflection: a blank is left between columns, which some programs split at
_PRECISE = 19  # an esd is written with two digits up to this


def with_esd(value: float, esd: float, digits: int = 5) -> str:
    """A number with its esd in brackets, as CIFs write it: 0.1289(4)."""
    if not 0 < esd < 1e3:
        return f"{value:.{digits}f}".rstrip("0").rstrip(".") or "0"
    places = max(0, int(np.ceil(np.log10(_PRECISE / esd) - 1e-9)) - 1)
    return f"{value:.{places}f}({round(esd * 10**places)})"


def labels(model: Model) -> list[str]:
    """Ti1, O1, O2 …"""
    count: dict[str, int] = {}
    out = []
    for element in model.elements:
        count[element] = count.get(element, 0) + 1
        out.append(f"{element}{count[element]}")
    return out


def formula(model: Model) -> tuple[dict[str, float], int]:
    """Atoms of the formula unit by element, in Hill's order, and formula units in the cell (Z)."""
    total: dict[str, int] = {}
    for element, n in zip(model.elements, model.multiplicities, strict=True):
        total[element] = total.get(element, 0) + round(n)
    z = int(np.gcd.reduce(list(total.values())))
    order = sorted(total, key=lambda e: (e != "C", e)) if "C" in total else sorted(total)
    return {e: total[e] / z for e in order}, z


def cif_text(trial: Trial, name: str, wavelength: float) -> str:
    """CIF of a refined model, with esds; the cell's are not known and left out."""
    fit, model = trial.fit, trial.fit.model
    group = gemmi.find_spacegroup_by_ops(model.symmetry.operations)
    units, z = formula(model)
    block = gemmi.cif.Block(name)
    tags = {
        "_chemical_formula_sum": gemmi.cif.quote(" ".join(f"{e}{n:g}" if n != 1 else e for e, n in units.items())),
        "_cell_formula_units_Z": str(z),
        "_space_group_IT_number": str(group.number) if group else "?",
        "_space_group_name_H-M_alt": gemmi.cif.quote(group.xhm()) if group else "?",
        **_measured(trial, wavelength),
        "_refine_ls_structure_factor_coef": "Fsqd",
        "_refine_ls_R_factor_gt": f"{fit.r1:.4f}",
        "_refine_ls_R_factor_all": f"{fit.r1_all:.4f}",
        "_refine_ls_wR_factor_ref": f"{fit.wr2:.4f}",
        "_refine_ls_goodness_of_fit_ref": f"{fit.goof:.3f}",
        "_refine_ls_number_reflns": str(len(trial.data.hkl)),
        "_refine_ls_number_parameters": str(fit.n_parameters),
        "_reflns_number_gt": str(fit.n_strong),
        "_reflns_threshold_expression": gemmi.cif.quote("I>2\\s(I)"),
        "_refine_ls_weighting_details": gemmi.cif.quote(
            f"w=1/[\\s^2^(Fo^2^)+({fit.weight:g}P)^2^] where P=(Fo^2^+2Fc^2^)/3"
        ),
        "_refine_ls_extinction_coef": f"{fit.extinction:.4g}",
    }
    cell = model.symmetry.cell.parameters
    for tag, value in zip(("a", "b", "c", "alpha", "beta", "gamma"), cell, strict=True):
        block.set_pair(
            f"_cell_{'angle' if tag.startswith(('alpha', 'beta', 'gamma')) else 'length'}_{tag}", f"{value:.4f}"
        )
    block.set_pair("_cell_volume", f"{model.symmetry.cell.volume:.3f}")
    for tag, value in tags.items():
        block.set_pair(tag, value)
    loop = block.init_loop("_space_group_symop_", ["id", "operation_xyz"])
    for i, op in enumerate(model.symmetry.operations, 1):
        loop.add_row([str(i), gemmi.cif.quote(op.triplet())])
    _atoms(block, trial)
    document = gemmi.cif.Document()
    document.add_copied_block(block)
    return str(document.as_string())


def _measured(trial: Trial, wavelength: float) -> dict[str, str]:
    """What the CIF says of the measurement and of the reflections."""
    merged, cell = trial.merged, trial.fit.model.symmetry.cell
    hkl = np.ascontiguousarray(trial.data.hkl, "i4")
    d = 1 / np.sqrt(cell.calculate_1_d2_array(hkl))
    theta = np.degrees(np.arcsin(wavelength / 2 / np.array([d.max(), d.min()])))
    strength = np.abs(merged.sigma).sum() / max(float(np.abs(merged.intensity).sum()), 1e-30)
    tags = {
        "_diffrn_source": gemmi.cif.quote("transmission electron microscope"),
        "_diffrn_radiation_probe": "electron",
        "_diffrn_radiation_type": "electron",
        "_diffrn_radiation_wavelength": f"{wavelength:.5f}",
        "_diffrn_measurement_method": gemmi.cif.quote("4D-STEM tilt series, patterns summed over a particle"),
        "_diffrn_reflns_number": str(len(merged.index)),
        "_diffrn_reflns_av_R_equivalents": "?" if np.isnan(merged.rint) else f"{merged.rint:.4f}",
        "_diffrn_reflns_av_unetI/netI": f"{strength:.4f}",
        "_diffrn_reflns_theta_min": f"{theta[0]:.3f}",
        "_diffrn_reflns_theta_max": f"{theta[1]:.3f}",
        "_reflns_number_total": str(len(hkl)),
        "_reflns_d_resolution_high": f"{d.min():.3f}",
        "_reflns_d_resolution_low": f"{d.max():.3f}",
        "_refine_ls_hydrogen_treatment": "undef",
    }
    for axis, indices in zip("hkl", hkl.T, strict=True):
        tags[f"_diffrn_reflns_limit_{axis}_min"] = str(indices.min())
        tags[f"_diffrn_reflns_limit_{axis}_max"] = str(indices.max())
    return tags


def _atoms(block: gemmi.cif.Block, trial: Trial) -> None:
    fit, model = trial.fit, trial.fit.model
    columns = ["label", "type_symbol", "fract_x", "fract_y", "fract_z", "U_iso_or_equiv", "adp_type", "occupancy"]
    loop = block.init_loop("_atom_site_", [*columns, "site_symmetry_multiplicity"])
    for i, label in enumerate(labels(model)):
        xyz = [with_esd(x, e) for x, e in zip(model.sites[i], fit.site_esd[i], strict=True)]
        u = with_esd(float(model.u[i]), float(fit.u_esd[i]))
        kind = "Uani" if model.anisotropic else "Uiso"
        loop.add_row([label, model.elements[i], *xyz, u, kind, "1", f"{model.multiplicities[i]:.0f}"])
    if not model.anisotropic:
        return
    loop = block.init_loop("_atom_site_aniso_", ["label", "U_11", "U_22", "U_33", "U_23", "U_13", "U_12"])
    for label, u in zip(labels(model), _cif_tensors(model), strict=True):
        loop.add_row([label, *(f"{u[i, j]:.5f}" for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)))])


def _cif_tensors(model: Model) -> np.ndarray:
    """U (atom, 3, 3), Å², as CIFs define it: M over the lengths of a*, b*, c*."""
    lengths = np.linalg.norm(model.symmetry.reciprocal, axis=1)
    return np.asarray(model.tensors / np.outer(lengths, lengths))


@cache
def four_gaussians(element: str) -> tuple[float, ...]:
    """a1 b1 … a4 b4 c of Σ aᵢ exp(−bᵢ s²) + c, fitted to the electron scattering factor over 0 < s < 2 1/Å."""
    s = np.linspace(0, 2, 201)
    wanted = scattering_factor(element, s**2)

    def misfit(p: np.ndarray) -> np.ndarray:
        model = (p[0:8:2, None] * np.exp(-p[1:8:2, None] * s**2)).sum(0) + p[8]
        return np.asarray((model - wanted) / wanted[0])

    f0 = wanted[0] / 4
    fit = least_squares(
        misfit, [f0, 0.5, f0, 3, f0, 12, f0, 40, 0.0], bounds=([-50, 0.01] * 4 + [-1], [50, 300] * 4 + [1])
    )
    return tuple(float(v) for v in fit.x)


def sfac_line(element: str) -> str:
    """SHELX's long SFAC for electrons: four Gaussians and a constant, no dispersion or absorption."""
    *pairs, c = four_gaussians(element)
    found = gemmi.Element(element)
    terms = [f"{v:.4f}" for v in pairs]
    tail = f"{c:.4f} 0 0 0 {found.covalent_r:.2f} {found.weight:.3f}"
    return f"SFAC {element.upper()} {' '.join(terms[:6])} =\n     {' '.join(terms[6:])} {tail}"


def shelx_files(trial: Trial, name: str, wavelength: float) -> dict[str, str]:
    """NAME.res, NAME.ins (the same, to refine on) and NAME.hkl (HKLF 4)."""
    model = trial.fit.model
    group = model.symmetry.operations
    units, z = formula(model)
    centring = {"P": 1, "I": 2, "R": 3, "F": 4, "A": 5, "B": 6, "C": 7}.get(group.find_centering(), 1)
    inverse = any(op.triplet() == "-x,-y,-z" for op in group.sym_ops)
    symm, seen = [], {"x,y,z", "-x,-y,-z"} if inverse else {"x,y,z"}
    for op in group.sym_ops:
        if op.triplet() not in seen:
            symm.append(f"SYMM {op.triplet().upper()}")
            seen |= {op.triplet(), (op * gemmi.Op("-x,-y,-z")).wrap().triplet()} if inverse else {op.triplet()}
    cell = " ".join(f"{v:.4f}" for v in model.symmetry.cell.parameters)
    strongest = max(float(np.abs(trial.data.fo2).max()), 1e-30)
    factor = _LARGEST / strongest
    scale = np.sqrt(trial.fit.scale * factor)
    head = [
        f"TITL {name}",
        f"CELL {wavelength:.5f} {cell}",
        f"ZERR {z} 0 0 0 0 0 0",
        f"LATT {centring if inverse else -centring}",
        *symm,
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
    for i, label in enumerate(labels(model)):
        xyz = " ".join(f"{v:9.5f}" for v in model.sites[i])
        occupancy = 10 + model.multiplicities[i] / n
        if model.anisotropic:
            u = _cif_tensors(model)[i]
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
