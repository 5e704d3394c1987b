"""Elements that have no room where they are named."""

from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
from solve.synthetic import measured
from solve.test_esds import contents_of

from stemtomo_dl.solve import solve
from stemtomo_dl.solve.checks import _R0
from stemtomo_dl.solve.crowding import crowded, unit_length
from stemtomo_dl.solve.model import Model, Symmetry

# published structures, rounded: cell, group, atoms
TRUE = {
    "PbS": ((5.936,) * 3 + (90,) * 3, "F m -3 m", "Pb 0 0 0; S .5 .5 .5"),
    "CdS": ((4.136, 4.136, 6.713, 90, 90, 120), "P 63 m c", "Cd .33333 .66667 0; S .33333 .66667 .377"),
    "FeS2": ((5.418,) * 3 + (90,) * 3, "P a -3", "Fe 0 0 0; S .3848 .3848 .3848"),
    "MoS2": ((3.160, 3.160, 12.294, 90, 90, 120), "P 63/m m c", "Mo .33333 .66667 .25; S .33333 .66667 .621"),
    "TiS": ((3.30, 3.30, 6.38, 90, 90, 120), "P 63/m m c", "Ti 0 0 0; S .33333 .66667 .25"),
    "ZrS": ((5.16,) * 3 + (90,) * 3, "F m -3 m", "Zr 0 0 0; S .5 .5 .5"),
    "Cu2O": ((4.270,) * 3 + (90,) * 3, "P n -3 m:2", "Cu 0 0 0; O .25 .25 .25"),
    "TiO": ((4.18,) * 3 + (90,) * 3, "F m -3 m", "Ti 0 0 0; O .5 .5 .5"),
    "CO2": ((5.624,) * 3 + (90,) * 3, "P a -3", "C 0 0 0; O .1185 .1185 .1185"),
    "K2SO4": ((7.476, 5.763, 10.071, 90, 90, 90), "P n m a",
              "K .6741 .25 .4104; K .9890 .25 .7050; S .2330 .25 .4196; O .0377 .25 .4161; O .2970 .25 .5583; "
              "O .3008 .0406 .3517"),
    "LiF": ((4.027,) * 3 + (90,) * 3, "F m -3 m", "Li 0 0 0; F .5 .5 .5"),
    "ZnO": ((3.250, 3.250, 5.207, 90, 90, 120), "P 63 m c", "Zn .33333 .66667 0; O .33333 .66667 .3819"),
    "NaCl": ((5.640,) * 3 + (90,) * 3, "F m -3 m", "Na 0 0 0; Cl .5 .5 .5"),
}  # fmt: skip


def named(name: str, others: dict[str, str]) -> SimpleNamespace:
    cell, group, atoms = TRUE[name]
    rows = [a.split() for a in atoms.split(";")]
    elements = tuple(others.get(r[0], r[0]) for r in rows)
    sites = [np.array(r[1:], float) for r in rows]
    model = Model.of(Symmetry(gemmi.SpaceGroup(group).operations(), cell), elements, sites, 0.01)
    return SimpleNamespace(model=model, site_covariance=np.zeros((3 * len(rows),) * 2))


@pytest.mark.parametrize("name", TRUE)
def test_true_structures_have_room(name):
    """Peroxidic and metallic sulfides, molecules and anions within anions among them."""
    assert not crowded(named(name, {}))


@pytest.mark.parametrize(("name", "others"), [
    ("ZnO", {"Zn": "Cd", "O": "S"}), ("TiO", {"Ti": "Zr", "O": "S"}), ("LiF", {"Li": "Na", "F": "Cl"}),
    ("Cu2O", {"Cu": "Ag", "O": "Se"}), ("ZnO", {"O": "Br"}),
])  # fmt: skip
def test_heavier_elements_in_their_places_have_none(name, others):
    atom, total, charge = crowded(named(name, others))[0]
    assert total > 2.5 * charge
    assert named(name, others).model.elements[atom] in others.values()


def test_lengths_are_those_of_the_tabulated_pairs():
    """O'Keeffe & Brese's formula against the parameters that were fitted pair by pair."""
    off = [unit_length(*pair) - r0 for pair, (r0, _) in _R0.items() if pair not in (("Cu", "O"), ("Ce", "O"))]
    assert np.sqrt(np.mean(np.square(off))) < 0.05


def test_zincite_is_not_solved_as_the_sulfide_of_cadmium():
    """Both scatter in nearly the same ratio, so intensities are fitted well by either."""
    contents = contents_of("zincite")
    right, wrong = (
        solve(measured(contents, elements, 0.7, 0.9), np.random.default_rng(0), starts=4)
        for elements in ("Zn,O", "Cd,S")
    )
    assert right.solved
    assert wrong.best.fit.r1 < 0.25
    assert not wrong.solved
    assert any("far too short" in m for m in wrong.missing)
