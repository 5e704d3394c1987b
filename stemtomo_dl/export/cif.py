"""CIF of a solved structure, with what a journal's checks ask for."""

from __future__ import annotations

import re

import gemmi
import numpy as np

from stemtomo_dl import __version__
from stemtomo_dl.export.structure import cif_tensors, formula
from stemtomo_dl.scattering import scattering_factor
from stemtomo_dl.solve.checks import angles, bonds, hand
from stemtomo_dl.solve.esds import cell_spread
from stemtomo_dl.solve.model import Model
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.peaks import potential
from stemtomo_dl.solve.refine import STRONG
from stemtomo_dl.solve.trials import Trial

_PRECISE = 19  # an esd is written with two digits up to this
_DALTON = 1.66053907  # g/cm³ of one dalton in 1 Å³
_POTENTIAL = 2 * np.pi * 0.529177  # Å: h² / 2πm₀e in units of e / 4πε₀, which is 2πa₀
_MAP_A = 0.2  # Å between the points of the difference map
_SIX = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_UNKNOWN, _NONE = "?", "."  # no value, and no sense in one


def with_esd(value: float, esd: float, digits: int = 5) -> str:
    """A number with its esd in brackets, as CIFs write it: 0.1289(4); ``digits`` where it has no esd."""
    if not 0 < esd < 1e3:
        return f"{value:.{digits}f}".rstrip("0").rstrip(".") or "0"
    places = max(0, int(np.ceil(np.log10(_PRECISE / esd) - 1e-9)) - 1)
    return f"{value:.{places}f}({round(esd * 10**places)})"


def cif_text(trial: Trial, data: Intensities) -> str:
    """CIF of a refined model, in a block named after ``data``."""
    block = gemmi.cif.Block(re.sub(r"\s+", "_", data.name) or "solution")
    tags = _chemistry(trial) | _cell(trial) | _measured(trial, data) | _refined(trial)
    for tag, value in tags.items():
        block.set_pair(tag, value if value in (_UNKNOWN, _NONE) else gemmi.cif.quote(value))
    _loops(block, trial)
    document = gemmi.cif.Document()
    document.add_copied_block(block)
    return str(document.as_string())


def _chemistry(trial: Trial) -> dict[str, str]:
    """Contents of the cell."""
    model = trial.fit.model
    units, z = formula(trial)
    weight = sum(n * gemmi.Element(e).weight for e, n in units.items())
    forward = sum(n * z * float(scattering_factor(e, np.zeros(1))[0]) for e, n in units.items())
    return {
        "_audit_creation_method": f"stemtomo_dl {__version__}",
        "_chemical_formula_sum": " ".join(f"{e}{n:g}" if n != 1 else e for e, n in units.items()),
        "_chemical_formula_weight": f"{weight:.2f}",
        "_chemical_absolute_configuration": "unk" if model.symmetry.is_chiral else _NONE,
        "_exptl_crystal_density_diffrn": f"{weight * z * _DALTON / model.symmetry.cell.volume:.3f}",
        "_exptl_crystal_density_method": "not measured",
        "_exptl_crystal_F_000": f"{forward:.2f}",
        "_exptl_absorpt_correction_type": "none",
        "_cell_formula_units_Z": str(z),
    }


def _cell(trial: Trial) -> dict[str, str]:
    """Cell with its esds, and space group."""
    symmetry = trial.fit.model.symmetry
    group = gemmi.find_spacegroup_by_ops(symmetry.operations)
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    esds, of_volume = cell_spread(symmetry)
    edges = zip(names, symmetry.cell.parameters, esds.tolist(), strict=True)
    return {
        **{f"_cell_{n}": with_esd(v, e, 4) for n, v, e in edges},
        "_cell_volume": with_esd(symmetry.cell.volume, of_volume, 3),
        "_cell_measurement_temperature": _UNKNOWN,
        "_space_group_crystal_system": group.crystal_system_str() if group else _UNKNOWN,
        "_space_group_IT_number": str(group.number) if group else _UNKNOWN,
        "_space_group_name_H-M_alt": group.xhm() if group else _UNKNOWN,
        "_space_group_name_Hall": group.hall if group else _UNKNOWN,
    }


def _measured(trial: Trial, data: Intensities) -> dict[str, str]:
    """What the CIF says of the measurement and of the reflections."""
    merged, cell = trial.merged, trial.fit.model.symmetry.cell
    hkl = np.ascontiguousarray(trial.data.hkl, "i4")
    d = 1 / np.sqrt(cell.calculate_1_d2_array(hkl))
    theta = np.degrees(np.arcsin(data.wavelength / 2 / np.array([d.max(), d.min()])))
    strength = np.abs(merged.sigma).sum() / max(float(np.abs(merged.intensity).sum()), 1e-30)
    rint = data.rint if np.isnan(merged.rint) else merged.rint
    fraction = _fraction(trial, float(d.min()))
    tags = {
        "_diffrn_ambient_temperature": _UNKNOWN,
        "_diffrn_source.device": "elect-micro",
        "_diffrn_radiation_probe": "electron",
        "_diffrn_radiation_wavelength": f"{data.wavelength:.5f}",
        "_diffrn_measurement_device": "transmission electron microscope",
        "_diffrn_measurement_method": "3D electron diffraction, tilt series",
        "_diffrn_reflns_number": str(data.observations or len(merged.index)),
        "_diffrn_reflns_av_R_equivalents": _UNKNOWN if rint is None else f"{rint:.4f}",
        "_diffrn_reflns_av_unetI/netI": f"{strength:.4f}",
        "_diffrn_reflns_theta_min": f"{theta[0]:.3f}",
        "_diffrn_reflns_theta_max": f"{theta[1]:.3f}",
        "_diffrn_reflns_theta_full": f"{theta[1]:.3f}",
        "_diffrn_measured_fraction_theta_max": fraction,
        "_diffrn_measured_fraction_theta_full": fraction,
        "_reflns_number_total": str(len(hkl)),
        "_reflns_number_gt": str(trial.fit.n_strong),
        "_reflns_threshold_expression": "I>2\\s(I)",
        "_reflns_d_resolution_high": f"{d.min():.3f}",
        "_reflns_d_resolution_low": f"{d.max():.3f}",
    }
    for axis, indices in zip("hkl", hkl.T, strict=True):
        tags[f"_diffrn_reflns_limit_{axis}_min"] = str(indices.min())
        tags[f"_diffrn_reflns_limit_{axis}_max"] = str(indices.max())
    return tags


def _fraction(trial: Trial, d_min: float) -> str:
    """Measured share of the unique reflections to ``d_min`` that the group allows."""
    group = gemmi.find_spacegroup_by_ops(trial.fit.model.symmetry.operations)
    if group is None:
        return _UNKNOWN
    whole = gemmi.make_miller_array(trial.fit.model.symmetry.cell, group, d_min * (1 - 1e-6))
    return f"{min(1.0, len(trial.data.hkl) / max(len(whole), 1)):.3f}"


def _refined(trial: Trial) -> dict[str, str]:
    """Refinement and its figures."""
    fit, symmetry = trial.fit, trial.fit.model.symmetry
    difference = residual_potential(trial)
    return {
        "_refine.diffraction_theory": "kinematical",
        "_refine_special_details": "Electron scattering factors of neutral atoms at rest, in Å.",
        "_refine_ls_structure_factor_coef": "Fsqd",
        "_refine_ls_matrix_type": "full",
        "_refine_ls_weighting_scheme": "calc",
        "_refine_ls_weighting_details": f"w=1/[\\s^2^(Fo^2^)+({fit.weight:g}P)^2^] where P=(Fo^2^+2Fc^2^)/3",
        "_refine_ls_hydrogen_treatment": "undef",
        "_refine_ls_extinction_method": "SHELXL" if fit.extinction else "none",
        "_refine_ls_extinction_coef": f"{fit.extinction:.4g}" if fit.extinction else _NONE,
        "_refine_ls_extinction_expression": "Fc^*^=kFc[1+0.001xFc^2^\\l^3^/sin(2\\q)]^-1/4^"
        if fit.extinction
        else _NONE,
        "_refine_ls_abs_structure_details": hand(symmetry),
        "_refine_ls_R_factor_gt": f"{fit.r1:.4f}",
        "_refine_ls_R_factor_all": f"{fit.r1_all:.4f}",
        "_refine_ls_wR_factor_ref": f"{fit.wr2:.4f}",
        "_refine_ls_goodness_of_fit_ref": f"{fit.goof:.3f}",
        "_refine_ls_number_reflns": str(len(trial.data.hkl)),
        "_refine_ls_number_parameters": str(fit.n_parameters),
        "_refine_ls_number_restraints": str(fit.n_restraints),
        "_refine_ls_restrained_S_all": f"{fit.restrained_goof:.3f}",
        "_refine_ls_shift/su_max": f"{fit.shift:.3f}",
        "_refine_diff.potential_max": f"{difference.max():.3f}",
        "_refine_diff.potential_min": f"{difference.min():.3f}",
        "_refine_diff.potential_RMS": f"{difference.std():.3f}",
        "_atom_sites_solution_primary": "dual" if trial.recycled else "iterative",
    }


def residual_potential(trial: Trial) -> np.ndarray:
    """Difference map (a, b, c) of the electrostatic potential over the whole cell, elementary charges per Å.

    With f in Å the sum Σ (Fo − Fc) exp(−2πi h·x) / V is in 1/Å², and the potential is h² / 2πm₀e of it. The unit is
    that of the CIF dictionary, 1 e/Å = e / 4πε₀Å = 14.40 V.
    """
    fit, fo = trial.fit, trial.data.amplitude / np.sqrt(trial.fit.scale)
    rest = (fo - np.sqrt(fit.fc2 / fit.scale)) * np.exp(1j * np.angle(fit.fc))
    return _POTENTIAL * potential(fit.model.symmetry, trial.data.hkl, rest, _MAP_A)


def _loops(block: gemmi.cif.Block, trial: Trial) -> None:
    model = trial.fit.model
    loop = block.init_loop("_space_group_symop_", ["id", "operation_xyz"])
    for i, op in enumerate(model.symmetry.operations, 1):
        loop.add_row([str(i), gemmi.cif.quote(op.triplet())])
    loop = block.init_loop("_atom_type_", ["symbol", "scat_dispersion_real", "scat_dispersion_imag", "scat_source"])
    for element in sorted(set(model.elements)):
        loop.add_row([element, "0", "0", gemmi.cif.quote("International Tables Vol. C, 4.3.2.2, electrons")])
    _atoms(block, trial)
    names = model.labels
    columns = ["atom_site_label_1", "atom_site_label_2", "distance", "site_symmetry_2", "publ_flag"]
    loop = block.init_loop("_geom_bond_", columns)
    for b in bonds(trial.fit):
        loop.add_row([names[b.first], names[b.second], with_esd(b.length, b.esd, 3), b.symmetry, "yes"])
    _angles(block, trial)
    _reflections(block, trial)


def _angles(block: gemmi.cif.Block, trial: Trial) -> None:
    """Angles of the bonds at each atom."""
    names, found = trial.fit.model.labels, angles(trial.fit)
    if not found:
        return
    labels = [f"atom_site_label_{i}" for i in (1, 2, 3)]
    columns = [*labels, "site_symmetry_1", "site_symmetry_3", "", "publ_flag"]
    loop = block.init_loop("_geom_angle", [f"_{c}" if c else "" for c in columns])
    for a in found:
        ends = names[a.first.second], names[a.first.first], names[a.second.second]
        loop.add_row([*ends, a.first.symmetry, a.second.symmetry, with_esd(a.degrees, a.esd, 2), "yes"])


def _reflections(block: gemmi.cif.Block, trial: Trial) -> None:
    """Unique reflections on the scale of Fc², with which R factors can be checked from the CIF alone."""
    columns = [
        "index_h",
        "index_k",
        "index_l",
        "F_squared_meas",
        "F_squared_sigma",
        "F_squared_calc",
        "observed_status",
    ]
    loop = block.init_loop("_refln_", columns)
    data, scale = trial.data, trial.fit.scale
    for hkl, *values in zip(data.hkl, data.fo2 / scale, data.sigma / scale, trial.fit.fc2 / scale, strict=True):
        observed = "o" if values[0] > STRONG * values[1] else "<"
        loop.add_row([*map(str, hkl), *(f"{v:.6g}" for v in values), observed])


def _atoms(block: gemmi.cif.Block, trial: Trial) -> None:
    fit, model = trial.fit, trial.fit.model
    columns = ["label", "type_symbol", "fract_x", "fract_y", "fract_z", "U_iso_or_equiv", "adp_type", "occupancy"]
    loop = block.init_loop("_atom_site_", [*columns, "site_symmetry_order", "calc_flag", "refinement_flags_posn"])
    for i, label in enumerate(model.labels):
        xyz = [with_esd(x, e) for x, e in zip(model.sites[i], fit.site_esd[i], strict=True)]
        u = with_esd(float(model.u[i]), float(fit.u_esd[i]))
        kind = "Uani" if model.anisotropic else "Uiso"
        order = len(model.symmetry.rotations) / model.multiplicities[i]
        loop.add_row([label, model.elements[i], *xyz, u, kind, "1", f"{order:.0f}", "d", "S" if order > 1 else "."])
    if not model.anisotropic:
        return
    loop = block.init_loop("_atom_site_aniso_", ["label", "U_11", "U_22", "U_33", "U_23", "U_13", "U_12"])
    for label, u, e in zip(model.labels, cif_tensors(model), _tensor_esds(model, fit.tensor_esd), strict=True):
        loop.add_row([label, *(with_esd(float(u[i, j]), float(e[i, j])) for i, j in _SIX)])


def _tensor_esds(model: Model, esds: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(model.symmetry.reciprocal, axis=1)
    return np.asarray(esds / np.outer(lengths, lengths))
