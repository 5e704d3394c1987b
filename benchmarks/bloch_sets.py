"""Intensities of known structures as experiments give them: incomplete, noisy, kinematic or from Bloch waves."""

from __future__ import annotations

import gemmi
import numpy as np
from scipy.linalg import eigh

from stemtomo_dl import geometry
from stemtomo_dl.simulate.cif import Contents
from stemtomo_dl.simulate.crystal import structure_factors
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.symmetry import laue_rotations

VOLTAGE_KV = 200.0
_BACKGROUND = 0.01  # σ, of the mean intensity
_REACH = 0.012  # 1/Å, excitation error of the beams that are coupled
_STEP_DEG = 0.4
_HALF_RANGE_DEG = 60.0


def sphere(contents: Contents, d_min: float) -> np.ndarray:
    """All indices (reflection, 3) to d_min, without the origin."""
    axes = [np.arange(-n, n + 1) for n in contents.cell.get_hkl_limits(d_min)]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype("i4")
    hkl = np.ascontiguousarray(hkl[hkl.any(1)])
    return np.ascontiguousarray(hkl[contents.cell.calculate_1_d2_array(hkl) <= d_min**-2])


def factors(contents: Contents, hkl: np.ndarray) -> np.ndarray:
    """Structure factors (reflection,), Å, 0 where they are absent."""
    present = ~np.asarray(contents.operations.systematic_absences(np.ascontiguousarray(hkl, "i4")), bool)
    out = np.zeros(len(hkl), complex)
    out[present] = structure_factors(contents, hkl[present])
    return out


def kinematic(contents: Contents, d_min: float, share: float, noise: float, rng: np.random.Generator) -> Intensities:
    """|F|² of the unique reflections, of which a share was measured, with relative noise."""
    hkl = sphere(contents, d_min)
    images = np.einsum("ni,oij->noj", hkl, laue_rotations(contents.operations))
    highest = (images @ np.array([10**8, 10**4, 1])).argmax(1)
    hkl = np.unique(images[np.arange(len(hkl)), highest], axis=0)
    hkl = hkl[rng.random(len(hkl)) < share]
    return _noisy(contents, hkl, np.abs(factors(contents, hkl)) ** 2, noise, rng)


def dynamical(
    contents: Contents, d_min: float, thickness: float, noise: float, rng: np.random.Generator, series: int = 1
) -> Intensities:
    """Bloch-wave intensities of ``series`` randomly oriented crystals, summed over tilts from −60° to 60°.

    Each tilt couples the beams of small excitation error, sin²-averaged over thicknesses up to the one given, Å, as
    in a wedge; the sum over tilts is multiplied by the speed at which a reflection passes the sphere.
    """
    hkl = sphere(contents, d_min)
    wavelength = geometry.wavelength(VOLTAGE_KV)
    k, gamma = 1 / wavelength, 1 + VOLTAGE_KV / 510.99895
    reciprocal = np.array(contents.cell.frac.mat.tolist())
    wide = sphere(contents, d_min / 2)
    reach = np.abs(wide).max(0)
    table = np.zeros(2 * reach + 1, complex)
    table[tuple((wide + reach).T)] = factors(contents, wide) * gamma / (np.pi * contents.cell.volume)
    everything: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(series):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        g0 = hkl @ reciprocal @ (turn * np.linalg.det(turn))
        total, passed = np.zeros(len(hkl)), np.zeros(len(hkl), bool)
        before: np.ndarray | None = None
        for alpha in np.radians(np.arange(-_HALF_RANGE_DEG, _HALF_RANGE_DEG, _STEP_DEG)):
            c, s = np.cos(alpha), np.sin(alpha)
            g = g0 @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
            error = (k**2 - (g[:, :2] ** 2).sum(1) - (g[:, 2] + k) ** 2) / (2 * k)
            if before is not None:
                passed |= before * error < 0
            before = error
            near = np.flatnonzero(np.abs(error) < _REACH)
            beams = np.concatenate([[[0, 0, 0]], hkl[near]])
            away = beams[:, None] - beams[None]
            coupling = table[tuple(np.moveaxis(away + reach, -1, 0))] / (2 * k)
            np.fill_diagonal(coupling, np.concatenate([[0], error[near]]))
            waves, vectors = eigh(coupling, driver="evd")
            wedge = np.linspace(0.3, 1, 6) * thickness
            amplitude = np.einsum("bj,tj->tb", vectors * vectors[0].conj(), np.exp(2j * np.pi * np.outer(wedge, waves)))
            speed = np.abs(g[near, 1])  # of the excitation error, with tilt about x
            total[near] += (np.abs(amplitude[:, 1:]) ** 2).mean(0) * speed
        fast = np.abs(g0 @ np.array([1.0, 0, 0])) < 0.97 * np.linalg.norm(g0, axis=1)  # away from the tilt axis
        everything.append((hkl[passed & fast], total[passed & fast]))
    return _noisy(contents, *(np.concatenate(x) for x in zip(*everything, strict=True)), noise, rng)


def _noisy(
    contents: Contents, hkl: np.ndarray, true: np.ndarray, noise: float, rng: np.random.Generator
) -> Intensities:
    ground = _BACKGROUND * true.mean()
    intensity = true * (1 + noise * rng.normal(size=len(hkl))) + ground * rng.normal(size=len(hkl))
    composition = sorted({s.element.name for s in contents.sites} - {"H"})
    return Intensities(
        name="set",
        cell=tuple(contents.cell.parameters),
        wavelength=geometry.wavelength(VOLTAGE_KV),
        operations=None,
        composition=tuple((e, 0.0) for e in composition),
        hkl=hkl.astype("i4"),
        intensity=intensity,
        sigma=np.hypot(max(noise, 0.02) * np.abs(intensity), ground),
    )


def text_of(cell: str, group: str, atoms: str) -> str:
    """CIF of a structure written as 'a b c α β γ', 'P 21/c', 'Si 0 0 0; O .1 .2 .3'."""
    block = gemmi.cif.Block("known")
    for tag, value in zip(
        ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"), cell.split(), strict=True
    ):
        block.set_pair(f"_cell_{tag}", value)
    block.set_pair("_space_group_name_H-M_alt", gemmi.cif.quote(group))
    loop = block.init_loop("_atom_site_", ["label", "type_symbol", "fract_x", "fract_y", "fract_z", "U_iso_or_equiv"])
    for i, atom in enumerate(atoms.split(";")):
        element, *xyz = atom.split()
        loop.add_row([f"{element}{i}", element, *xyz, "0.006"])
    document = gemmi.cif.Document()
    document.add_copied_block(block)
    return str(document.as_string())
