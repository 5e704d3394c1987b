"""Refinement against smtbx of cctbx, in a process of its own: one crashes in one process with gemmi and numba."""

import json
import shutil
import subprocess
from dataclasses import replace

import gemmi
import numpy as np
import pytest
from solve.synthetic import known, measured

from stemtomo_dl.solve.model import Model, Symmetry
from stemtomo_dl.solve.refine import Reflections, refine

CCTBX = shutil.which("cctbx.python")  # Debian's python3-cctbx
WEIGHT = 0.1
THEIRS = """
import json, sys
from cctbx import crystal, miller, sgtbx, xray
from cctbx.array_family import flex
from cctbx.eltbx import xray_scattering
from scitbx.lstbx import normal_eqns_solving
from smtbx.refinement import least_squares, model

p = json.load(sys.stdin)
group = sgtbx.space_group()
for triplet in p["operations"]:
    group.expand_smx(sgtbx.rt_mx(triplet))
symmetry = crystal.symmetry(unit_cell=p["cell"], space_group=group)
structure = xray.structure(crystal_symmetry=symmetry)
for i, (element, site) in enumerate(zip(p["elements"], p["sites"])):
    structure.add_scatterer(xray.scatterer(label=f"{element}{i}", site=site, u=0.01, scattering_type=element))
factors = {e: xray_scattering.gaussian(a, b, 0) for e, (a, b) in p["factors"].items()}
structure.scattering_type_registry(custom_dict=factors)
if p["anisotropic"]:
    structure.convert_to_anisotropic()
for atom in structure.scatterers():
    atom.flags.set_grad_site(True)
    atom.flags.set_grad_u_aniso(p["anisotropic"])
    atom.flags.set_grad_u_iso(not p["anisotropic"])
    atom.set_use_u(not p["anisotropic"], p["anisotropic"])
reflections = miller.set(symmetry, flex.miller_index([tuple(h) for h in p["hkl"]]), anomalous_flag=False)
fo2 = reflections.array(flex.double(p["fo2"]), flex.double(p["sigma"])).set_observation_type_xray_intensity()
weights = least_squares.mainstream_shelx_weighting(a=p["weight"], b=0)
squares = model(fo2.as_xray_observations(), structure, [], None, weights).least_squares()
normal_eqns_solving.levenberg_marquardt_iterations(
    squares, n_max_iterations=50, gradient_threshold=1e-9, step_threshold=1e-9, tau=1e-3
)
squares.build_up()
covariance = squares.covariance_matrix_and_annotations()
print(json.dumps({
    "sites": [a.site for a in structure.scatterers()],
    "u": list(structure.extract_u_iso_or_u_equiv()),
    "variance": dict(zip(covariance.annotations, covariance.diagonal())),
    "figures": [squares.r1_factor()[0], squares.wR2(), squares.goof()],
}))
"""


@pytest.mark.skipif(CCTBX is None, reason="cctbx is not installed (Debian: apt-get install python3-cctbx)")
@pytest.mark.parametrize(("name", "elements", "anisotropic"), [
    ("zirconia", "Zr,O", False), ("zirconia", "Zr,O", True), ("anatase", "Ti,O", False), ("rutile", "Ti,O", True),
])  # fmt: skip
def test_smtbx_refines_to_the_same_structure(name, elements, anisotropic):
    contents = known(name)
    data = measured(contents, elements, 0.7, 0.8)
    keep = ~np.asarray(contents.operations.systematic_absences(np.ascontiguousarray(data.hkl)), bool)
    ours = Reflections(data.hkl[keep], data.intensity[keep], data.sigma[keep], np.ones(int(keep.sum())))
    named = tuple(s.element.name for s in contents.sites)
    start = Model.of(
        Symmetry(contents.operations, data.cell), named, [np.array(s.fract.tolist()) for s in contents.sites], 0.01
    )
    moved = [s + 0.004 * start.site_basis(i).sum(0) for i, s in enumerate(start.sites)]
    fit = refine(replace(start, sites=np.array(moved), anisotropic=anisotropic), ours, cycles=50, weight=WEIGHT)
    asked = {
        "operations": [op.triplet() for op in contents.operations], "cell": data.cell, "elements": named,
        "sites": np.array(moved).tolist(), "anisotropic": anisotropic, "weight": WEIGHT,
        "hkl": ours.hkl.tolist(), "fo2": (ours.fo2 / fit.scale).tolist(), "sigma": (ours.sigma / fit.scale).tolist(),
        "factors": {e: [list(gemmi.Element(e).c4322.a), list(gemmi.Element(e).c4322.b)] for e in set(named)},
    }  # fmt: skip
    done = subprocess.run([CCTBX, "-c", THEIRS], input=json.dumps(asked), capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    away = (fit.model.sites - np.array(theirs["sites"]) + 0.5) % 1 - 0.5
    assert np.linalg.norm(away @ fit.model.symmetry.direct.T, axis=1).max() < 1e-3
    np.testing.assert_allclose(fit.model.u, theirs["u"], atol=1e-4)
    np.testing.assert_allclose([fit.r1_all, fit.wr2, fit.goof], theirs["figures"], rtol=0.02)
    esds = np.array([[theirs["variance"][f"{e}{i}.{x}"] ** 0.5 for x in "xyz"] for i, e in enumerate(named)])
    np.testing.assert_allclose(fit.site_esd, esds, rtol=0.02, atol=1e-9)
