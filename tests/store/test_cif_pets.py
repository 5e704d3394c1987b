"""Frame by frame intensities, read back by our reader and, through PETS2's own conventions, by hand."""

import gemmi
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import reciprocal_basis
from stemtomo_dl.crystal.nouns import Crystal, FrameIntensities
from stemtomo_dl.geometry import excitation_error, tilt_rotation, wavelength
from stemtomo_dl.store.cif_pets import write_cif_pets
from stemtomo_dl.store.intensities import read_intensities

CELL = np.array([7.1, 7.9, 5.6, 84.0, 101.0, 106.0])
UB = Rotation.random(random_state=3).as_matrix() @ reciprocal_basis(CELL)
AXIS = 31.0


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    rng = np.random.default_rng(0)
    alpha = np.array([-20.0, -7.5, 3.0, 22.0])
    own = Rotation.from_rotvec(rng.normal(0, 0.004, (4, 3))).as_matrix()
    rotation = own @ tilt_rotation(AXIS, alpha)
    n = 8
    hkl = np.stack(np.meshgrid(*[np.arange(-n, n + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    hkl = hkl[np.any(hkl != 0, axis=1)]
    rows = []
    for f, turn in enumerate(rotation):
        s = excitation_error(hkl @ UB.T @ turn.T, wavelength(200))
        near = np.flatnonzero(np.abs(s) < 0.006)
        rows.append((hkl[near], np.full(len(near), f, "i4"), s[near]))
    h, frame, s = (np.concatenate(c) for c in zip(*rows, strict=True))
    net = rng.normal(0.02, 0.05, len(h))
    sigma = np.full(len(h), 0.01)
    frames = FrameIntensities(0.0015, 0.03, h.astype("i4"), frame, net, sigma, s, alpha, rotation)
    crystal = Crystal("aP", 1.0, 99, 0.002, AXIS, 0.0, 0.0, UB, CELL, np.zeros(2))
    path = tmp_path_factory.mktemp("pets") / "p0001.cif_pets"
    write_cif_pets(path, crystal, frames, 200.0, 2.3)
    return path, frames


def test_our_reader_gets_back_what_was_written(written):
    path, frames = written
    read = read_intensities(path, elements="Si,O")
    assert read.cell == pytest.approx(tuple(CELL))
    assert read.wavelength == pytest.approx(wavelength(200), abs=1e-6)
    assert len(read.hkl) == len(frames.hkl)
    assert {tuple(h) for h in read.hkl} == {tuple(h) for h in frames.hkl}
    key, back = (np.lexsort((i, *h.T)) for h, i in ((frames.hkl, frames.intensity), (read.hkl, read.intensity)))
    np.testing.assert_allclose(read.intensity[back], frames.intensity[key] / 0.01, atol=0.006)
    np.testing.assert_allclose(read.sigma, 1.0, atol=0.006)


def test_the_file_places_reflections_as_the_series_has_them(written):
    """Rz(ω) Rx(α) Ry(β) UB h, beam along −z, y up: as quartz and glycine of PETS2 are."""
    path, frames = written
    block = gemmi.cif.read(str(path))[0]
    ub = np.array([[float(block.find_value(f"_diffrn_orient_matrix_UB_{i}{j}")) for j in (1, 2, 3)] for i in (1, 2, 3)])
    zones = np.array(
        [[float(v) for v in r] for r in block.find("_diffrn_zone_axis_", list("uvw") + ["alpha", "beta", "omega"])]
    )
    rows = np.array(
        [[int(v) for v in r] for r in block.find("_refln_", ["index_h", "index_k", "index_l", "zone_axis_id"])]
    )
    turn = [
        (Rotation.from_euler("z", o) * Rotation.from_euler("x", a) * Rotation.from_euler("y", b)).as_matrix()
        for a, b, o in np.radians(zones[:, 3:])
    ]
    assert zones[:, 3] == pytest.approx(frames.alpha_deg, abs=0.6)
    for h, k, n, zone in rows:
        g = turn[zone - 1] @ ub @ [h, k, n]
        true = frames.rotation[zone - 1] @ UB @ [h, k, n]
        assert g == pytest.approx(true * [1, -1, -1], abs=2e-4)
    k = 1 / wavelength(200)
    off = [k - np.linalg.norm(turn[z - 1] @ ub @ h + [0, 0, -k]) for *h, z in rows.tolist()]
    assert np.median(np.abs(off)) < 0.004
    toward = np.array([t[2] @ ub for t in turn])
    np.testing.assert_allclose(zones[:, :3], toward / np.abs(toward).max(1, keepdims=True), atol=2e-5)
