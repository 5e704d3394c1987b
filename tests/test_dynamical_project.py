"""The project for dynamical refinement: frames of every particle in the solution's setting."""

import json
import shutil
from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
from report.crystalline import NAME, make_crystal_run
from scipy.spatial.transform import Rotation

from stemtomo_dl import dynamical
from stemtomo_dl.crystal.cells import reciprocal_basis
from stemtomo_dl.crystal.nouns import Crystal, FrameIntensities
from stemtomo_dl.crystal.phase import operator_of, operator_text
from stemtomo_dl.store.intensities import read_intensities

CELL = np.array([5.1, 7.3, 9.2, 85.0, 95.0, 108.0])
SWAPPED = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])


def particle():
    ub = Rotation.random(random_state=5).as_matrix() @ reciprocal_basis(CELL)
    hkl = np.random.default_rng(0).integers(-6, 7, (30, 3)).astype("i4")
    one, alpha = np.ones(30), np.zeros(2)
    frames = FrameIntensities(
        *(0.002, 0.0, hkl, np.zeros(30, "i4"), one, one, 0 * one, alpha, np.tile(np.eye(3), (2, 1, 1)))
    )
    return Crystal("aP", 1.0, 30, 0.001, 0.0, 0.0, 0.0, ub, CELL, np.zeros(2)), frames


@pytest.mark.parametrize(
    "operator", [np.eye(3), SWAPPED, -SWAPPED, SWAPPED @ np.diag([1, -1, -1]), [[1, 1, 0], [0, 1, 0], [0, 0, 1]]]
)
def test_a_change_of_setting_leaves_the_spots_where_they_are(operator):
    operator = np.array(operator, float)
    crystal, frames = particle()
    turned, moved = dynamical.in_setting(crystal, frames, operator)
    np.testing.assert_allclose(moved.hkl @ turned.ub.T, frames.hkl @ crystal.ub.T, atol=1e-12)
    assert np.linalg.det(turned.ub) > 0  # a crystal has no mirror image, whatever setting it is given
    edges = np.array(gemmi.UnitCell(*CELL).orth.mat.tolist()) @ operator.T  # columns, of the same crystal
    np.testing.assert_allclose(turned.cell[:3], np.linalg.norm(edges, axis=0), rtol=1e-9)
    assert gemmi.UnitCell(*turned.cell).volume == pytest.approx(gemmi.UnitCell(*CELL).volume)
    same = (moved.hkl == np.rint(frames.hkl @ operator.T)).all()
    assert same == (np.linalg.det(operator) > 0)


def test_operators_are_read_as_they_are_written():
    for matrix in (SWAPPED, -SWAPPED, np.array([[1, 1, 0], [0, -1, 0], [0, 0, 1]])):
        np.testing.assert_array_equal(operator_of(operator_text(matrix)), matrix)
    np.testing.assert_array_equal(operator_of("-k,h,l") @ [1, 2, 3], [-2, 1, 3])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """That of a phase of two particles, of which the second has a and b exchanged and c turned round."""
    folder = make_crystal_run(tmp_path_factory.mktemp("solved") / "run")
    place = folder / "phases" / NAME
    stats = json.loads((place / "stats.json").read_text())
    for member, operator in zip(stats["members"], ("h,k,l", "k,h,-l"), strict=True):
        member |= {"operator": operator, "r_merged": 0.1}
    (place / "stats.json").write_text(json.dumps(stats))
    experiment = SimpleNamespace(beam=SimpleNamespace(voltage_kv=200.0))
    run = SimpleNamespace(folder=folder, experiment=experiment)
    dynamical.write_project(run, NAME)
    return run


def test_all_is_in_one_folder_in_one_setting(project):
    place = project.folder / "phases" / NAME / "dynamical"
    said = dynamical.project_of(project, NAME)
    assert sorted(said) == sorted(str(p.relative_to(project.folder)) for p in place.iterdir())
    structure = gemmi.make_small_structure_from_block(gemmi.cif.read(str(place / "solution.cif")).sole_block())
    first, second = (read_intensities(place / f"p000{k}.cif_pets", elements="Ti,O") for k in (1, 2))
    for read in (first, second):
        assert read.cell == pytest.approx(tuple(structure.cell.parameters), rel=0.02)
    assert {(k, h, -n) for h, k, n in first.hkl.tolist()} == {tuple(h) for h in second.hkl.tolist()}
    told = (place / "README.txt").read_text()
    assert "p0002.cif_pets" in told
    assert "solution.cif" in told


def test_a_particle_without_frames_is_left_out(project, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(project.folder, folder)
    (folder / "particles/p0002/reflections.h5").unlink()
    dynamical.write_project(SimpleNamespace(folder=folder, experiment=project.experiment), NAME)
    place = folder / "phases" / NAME / "dynamical"
    assert not (place / "p0002.cif_pets").exists()
    assert "p0002" not in (place / "README.txt").read_text()
    assert (place / "p0001.cif_pets").exists()
