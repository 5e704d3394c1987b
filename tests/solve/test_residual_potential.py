"""The difference map's unit: an atom that a model lacks shows its potential there."""

from types import SimpleNamespace

import gemmi
import numpy as np
import pytest

from stemtomo_dl.export.cif import residual_potential
from stemtomo_dl.solve.model import Model, Symmetry
from stemtomo_dl.solve.refine import Reflections

EDGE, U = 6.0, 0.05
VOLTS = 47.87801  # V Å²: h² / 2πm₀e
VOLTS_OF_CHARGE = 14.399645  # V: of an elementary charge 1 Å away


def test_an_atom_that_lacks_is_as_high_as_its_potential():
    """Analytically: Σ aᵢ (4π / (bᵢ + B))^{3/2} of its Gaussians, by h² / 2πm₀e."""
    symmetry = Symmetry(gemmi.SpaceGroup("P -1").operations(), (EDGE, EDGE, EDGE, 90, 90, 90))
    n = np.arange(-18, 19)
    hkl = np.stack(np.meshgrid(n, n, n, indexing="ij"), -1).reshape(-1, 3)
    hkl = hkl[(hkl @ np.array([10000, 100, 1]) > 0) & (np.linalg.norm(hkl, axis=1) < 18)]
    there = Model.of(symmetry, ("U", "O"), [(0, 0, 0), (0.5, 0.5, 0.5)], U)
    s2 = (np.linalg.norm(hkl, axis=1) / EDGE / 2) ** 2
    f = {e: sum(a * np.exp(-(b + 8 * np.pi**2 * U) * s2) for a, b in zip(c.a, c.b, strict=True))
         for e, c in ((e, gemmi.Element(e).c4322) for e in ("U", "O"))}  # fmt: skip
    total = f["U"] + f["O"] * (-1.0) ** hkl.sum(1)
    assert (total > 0).all()  # uranium has the phases
    data = Reflections(hkl, total**2, np.full(len(hkl), 1e-3), np.ones(len(hkl)))
    fit = SimpleNamespace(model=there, scale=1.0, fc=f["U"] + 0j, fc2=f["U"] ** 2)
    shown = residual_potential(SimpleNamespace(fit=fit, data=data))
    oxygen = gemmi.Element("O").c4322
    peak = sum(a * (4 * np.pi / (b + 8 * np.pi**2 * U)) ** 1.5 for a, b in zip(oxygen.a, oxygen.b, strict=True))
    forward = sum(oxygen.a) / EDGE**3  # F(000) is in no difference map
    assert shown.max() == pytest.approx((peak - forward) * VOLTS / VOLTS_OF_CHARGE, rel=0.01)
    assert np.unravel_index(shown.argmax(), shown.shape) == tuple(k // 2 for k in shown.shape)
