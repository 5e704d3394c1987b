"""Spots and excitation errors against diffsims, where it is installed."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl import resources
from stemtomo_dl.geometry import tilt_rotation, wavelength
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.simulate.diffraction import excite, make_beam

generators = pytest.importorskip("diffsims.generators.simulation_generator")
crystal_map = pytest.importorskip("orix.crystal_map")
quaternion = pytest.importorskip("orix.quaternion")
diffpy = pytest.importorskip("diffpy.structure")

PHASES = ("brookite", "anatase", "cspbbr3", "zirconia", "kyanite")  # the last two monoclinic and triclinic
# diffsims looks against the beam: half a turn about x leads there, and with it the sign of s changes
FLIP = np.diag([1.0, -1.0, -1.0])


def cell_parameters(direct: np.ndarray) -> list[float]:
    """Lengths and angles of a cell with the columns a, b, c."""
    a, b, c = direct.T / np.linalg.norm(direct, axis=0)[:, None]
    return [*np.linalg.norm(direct, axis=0), *np.degrees(np.arccos([b @ c, c @ a, a @ b]))]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PHASES)
def test_spots_and_excitation_errors(name):
    text = (resources.synthetic() / f"structures/{name}.cif").read_text()
    ours = read_structure(name, text, 0.8)
    cell = diffpy.Structure([diffpy.Atom("Ti", [0, 0, 0])], diffpy.Lattice(*cell_parameters(ours.direct)))
    phase = crystal_map.Phase(point_group="1", space_group=1, structure=cell)
    seen = {}

    def shape(errors: np.ndarray, width: float) -> np.ndarray:
        seen["s"] = errors
        return np.ones_like(errors)

    checked = 0
    for u in Rotation.random(5, rng=np.random.default_rng(2)).as_matrix():
        ub = tilt_rotation(20.0, 13.0) @ u @ ours.b
        # what turns the lattice as orix lays it into ours, seen from their side
        turn = FLIP @ ub @ np.linalg.inv(phase.structure.lattice.recbase)
        assert np.linalg.det(turn) == pytest.approx(1)
        x, y, z, w = Rotation.from_matrix(turn).as_quat()
        generator = generators.SimulationGenerator(200, shape_factor_model=shape, minimum_intensity=0)
        vectors = generators.DiffractingVector.from_min_dspacing(phase, min_dspacing=0.8, include_zero_vector=False)
        kept, hkl, _ = generator.get_intersecting_reflections(
            vectors, ~quaternion.Rotation([w, x, y, z]), generator.wavelength, 0.01, with_direct_beam=False
        )
        indices = np.round(hkl).astype(int).tolist()
        theirs = {tuple(h): (g, s) for h, g, s in zip(indices, kept.data, seen["s"], strict=True)}
        beam = make_beam(200, wavelength(200), 8.0, 1, 0.0)
        excited = excite(ours, ub, beam, 30)
        for index, g, s in zip(excited.index, excited.g, excited.s, strict=True):
            if abs(s) < 0.0099:
                their_g, their_s = theirs[tuple(ours.hkl[index].tolist())]
                np.testing.assert_allclose(FLIP @ their_g, g, atol=1e-6)
                assert -their_s == pytest.approx(s, abs=1e-6)
                checked += 1
    assert checked >= 15
