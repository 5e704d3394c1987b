"""Restraints: derivatives, their number, what they do to a model, and that nothing changes without them."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
from solve.synthetic import known, measured

from stemtomo_dl.export.cif import cif_text
from stemtomo_dl.simulate.cif import read_contents
from stemtomo_dl.solve.candidates import Candidate
from stemtomo_dl.solve.checks import bonds
from stemtomo_dl.solve.model import Model, Symmetry
from stemtomo_dl.solve.refine import Reflections, refine
from stemtomo_dl.solve.restrained import restrained, restraints_of
from stemtomo_dl.solve.symmetry import laue_rotations, merge
from stemtomo_dl.solve.trials import Trial
from stemtomo_dl.structures import _solved

# low quartz, rounded: its two Si-O are 1.605 and 1.614 Å
QUARTZ = """data_quartz
_cell_length_a 4.913
_cell_length_b 4.913
_cell_length_c 5.405
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_space_group_name_H-M_alt 'P 32 2 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
Si1 Si .4697 0 .6666667 .008
O1 O .4135 .2669 .7858 .012
"""


@pytest.fixture(scope="module")
def quartz():
    return read_contents("quartz", QUARTZ)


def refined(contents, noise, seed=0, share=0.5, d_min=0.9):
    """The structure refined freely against noisy intensities, from its true places."""
    elements = tuple(s.element.name for s in contents.sites)
    data = measured(contents, ",".join(dict.fromkeys(elements)), d_min, share, noise, seed)
    symmetry = Symmetry(contents.operations, data.cell)
    merged = merge(data, laue_rotations(contents.operations))
    keep = ~np.asarray(contents.operations.systematic_absences(np.ascontiguousarray(merged.hkl, "i4")), bool)
    reflections = Reflections(merged.hkl[keep], merged.intensity[keep], merged.sigma[keep], np.ones(int(keep.sum())))
    model = Model.of(symmetry, elements, [s.fract.tolist() for s in contents.sites], 0.01)
    fit = refine(model, reflections, cycles=30)
    group = gemmi.find_spacegroup_by_ops(contents.operations)
    return data, Trial(Candidate(group, 1, 1, 0, np.zeros(3)), merged, reflections, fit, fit.r1_all, data.stated)


@pytest.mark.parametrize("anisotropic", [False, True])
@pytest.mark.parametrize("name", ["quartz", "kyanite", "anatase"])
def test_derivatives_of_restraints_are_finite_differences(quartz, name, anisotropic):
    _, trial = refined(quartz if name == "quartz" else known(name), 0.2)
    rng, model = np.random.default_rng(0), trial.fit.model
    noise = rng.normal(size=model.tensors.shape) * 2e-5
    model = replace(model, tensors=model.tensors + noise + np.swapaxes(noise, 1, 2), anisotropic=anisotropic)
    found = restraints_of(trial.fit)
    analytic, row = found.derivatives(model), 0
    turning = found.departures(model).size  # along a bond, its direction is held: only sites' part of it is left out
    for atom in range(len(model.elements)):
        for field, bases in (("sites", model.site_basis(atom)), ("tensors", model.tensor_basis(atom))):
            for basis in bases:
                ahead, behind = getattr(model, field).copy(), getattr(model, field).copy()
                ahead[atom] += 1e-6 * basis
                behind[atom] -= 1e-6 * basis
                up, down = (found.departures(replace(model, **{field: v})) for v in (ahead, behind))
                compared = len(found.contrasts) if field == "sites" else turning
                np.testing.assert_allclose(analytic[row, :compared], ((up - down) / 2e-6)[:compared], atol=1e-3)
                row += 1
    assert row == len(analytic)


def test_each_kind_of_bond_counts_once_less_and_each_bond_once(quartz):
    _, trial = refined(quartz, 0.2)
    found = restraints_of(trial.fit)
    lengths = np.unique([round(b.length, 6) for b in bonds(trial.fit)])
    assert len(lengths) == len(found.first) == 2  # two pairs of four Si-O are equal by symmetry
    held = restrained(trial)
    assert held.fit.n_restraints == 1 + 2  # a difference of lengths, displacements along two bonds
    aniso = restrained(replace(trial, fit=replace(trial.fit, model=replace(trial.fit.model, anisotropic=True))))
    assert aniso.fit.n_restraints == 1 + 2 + 2 * 6


def test_bonds_of_a_ring_are_alike_and_join_its_neighbours():
    _, trial = refined(ring(), 0.1)
    assert restrained(trial).fit.n_restraints == 5 + 6


def test_bonds_to_other_elements_or_of_another_length_are_not_alike():
    _, trial = refined(known("kyanite"), 0.1)
    found, names = restraints_of(trial.fit), trial.fit.model.elements
    for row in found.contrasts:
        joined = np.flatnonzero(row)
        assert len({frozenset((names[found.first[b]], names[found.second[b]])) for b in joined}) == 1
    np.testing.assert_allclose(found.contrasts @ found.contrasts.T, np.eye(len(found.contrasts)), atol=1e-12)


def ring():
    """Six carbons 1.39 Å apart in a ring, tilted, in general places of P -1."""
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    angles = np.arange(6) * np.pi / 3
    places = 1.39 * np.stack([np.cos(angles), np.sin(angles), np.zeros(6)], 1) @ turn
    cell = gemmi.UnitCell(6.6, 6.8, 7.2, 85, 100, 95)
    places += cell.orthogonalize(gemmi.Fractional(0.25, 0.25, 0.25)).tolist()
    atoms = [f"C{i} C {' '.join(f'{x:.5f}' for x in cell.fractionalize(gemmi.Position(*p)).tolist())} .03"
             for i, p in enumerate(places)]  # fmt: skip
    head = QUARTZ[: QUARTZ.index("Si1")].replace("P 32 2 1", "P -1")
    for old, new in zip(("a 4.913", "b 4.913", "c 5.405", "alpha 90", "beta 90", "gamma 120"),
                        ("a 6.6", "b 6.8", "c 7.2", "alpha 85", "beta 100", "gamma 95"), strict=True):  # fmt: skip
        head = head.replace(old, new)
    return read_contents("ring", head + "\n".join(atoms) + "\n")


def test_restrained_models_of_noisy_data_are_nearer_to_the_truth():
    contents = ring()
    true, away, wrong, moves = np.array([s.fract.tolist() for s in contents.sites]), [], [], []
    for seed in range(6):
        _, free = refined(contents, 0.3, seed, d_min=1.0)
        both = free.fit, restrained(free).fit
        shifts = [((f.model.sites - true + 0.5) % 1 - 0.5) @ f.model.symmetry.direct.T for f in both]
        away.append([float(np.linalg.norm(s)) for s in shifts])
        wrong.append([float(np.std([b.length - 1.39 for b in bonds(f)])) for f in both])
        moves.append([float(np.std(f.model.u)) for f in both])
    for free_mean, held_mean in (np.mean(x, 0) for x in (away, wrong, moves)):
        assert held_mean < 0.95 * free_mean


def test_good_data_are_not_bent_by_restraints(quartz):
    _, free = refined(quartz, 0.02, share=1.0, d_min=0.6)
    held = restrained(free)
    assert np.abs(held.fit.model.sites - free.fit.model.sites).max() < 2e-3
    assert held.fit.site_esd.max() < 1.05 * free.fit.site_esd.max()


def test_cif_says_how_many_restraints_and_how_well_they_are_kept(quartz):
    data, free = refined(quartz, 0.3)
    for trial, number in ((free, 0), (restrained(free), 3)):
        block = gemmi.cif.read_string(cif_text(trial, data)).sole_block()
        assert int(block.find_value("_refine_ls_number_restraints")) == number
        both = [float(block.find_value(f"_refine_ls_{t}")) for t in ("goodness_of_fit_ref", "restrained_S_all")]
        assert (both[0] == both[1]) == (number == 0)


def test_restraints_are_off_unless_asked_for_and_said_in_the_figures(quartz):
    data = measured(quartz, "Si,O", 0.8, 0.9)
    free, held = (_solved(data, [], 0, restraints=r).figures for r in (False, True))
    assert (free["structure"], free["restraints"], free["restrained_goof"]) == ("solved", 0, free["goof"])
    assert (held["structure"], held["restraints"]) == ("solved", 3 if not held["anisotropic"] else 15)
    assert np.ptp([b[2] for b in held["bonds"]]) < np.ptp([b[2] for b in free["bonds"]])
