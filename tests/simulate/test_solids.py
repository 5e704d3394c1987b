"""Chords against a ray-trace through voxels, volumes against closed forms."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl.simulate.shape import Solid, ball, footprint, polyhedron

CUBE = np.concatenate([np.eye(3), -np.eye(3)])


def irregular(seed: int) -> Solid:
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(20, 3))
    normals = np.concatenate([normals / np.linalg.norm(normals, axis=1, keepdims=True), CUBE])
    return polyhedron(normals, rng.uniform(4, 9, len(normals)))


@pytest.mark.parametrize("seed", range(4))
def test_chords_equal_a_ray_trace(seed):
    solid = irregular(seed)
    x, y = np.linspace(-9, 9, 23), np.linspace(-10, 10, 19)
    z = np.arange(-15, 15, 0.01)
    grid = np.stack(np.meshgrid(x, y, z, indexing="xy"), -1)  # (y, x, z, 3)
    inside = np.ones(grid.shape[:3], bool)
    for normal, distance in zip(solid.normals, solid.distances, strict=True):
        inside &= grid @ normal <= distance
    assert inside.any()
    np.testing.assert_allclose(solid.thickness(x, y), inside.sum(-1) * 0.01, atol=0.021)


def test_volume_and_centroid():
    turned = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    box = polyhedron(CUBE @ turned.T, np.array([1.0, 2, 3, 2, 4, 1]))  # not about its centre
    assert box.volume == pytest.approx(3 * 6 * 4)
    np.testing.assert_allclose(box.vertices.mean(0), 0, atol=1e-9)
    assert np.sort(box.vertices @ turned[:, 0]) == pytest.approx([-1.5] * 4 + [1.5] * 4)
    assert ball(3).thickness(np.array([0.0, 1, 5]), np.zeros(1))[0] == pytest.approx([6, 2 * np.sqrt(8), 0])


@pytest.mark.parametrize("seed", range(3))
def test_footprint_holds_the_whole_volume_at_its_place(seed):
    turn = Rotation.from_rotvec([0.4, 0.3, seed]).as_matrix()
    solid, at, step = irregular(seed).turned(turn), np.array([81.3, 70.8]), 0.2
    seen = footprint(solid, at, step, (150, 170))
    assert seen.thickness.sum() * step**2 == pytest.approx(solid.volume, rel=5e-3)
    ys, xs = np.mgrid[seen.y0 : seen.y0 + seen.thickness.shape[0], seen.x0 : seen.x0 + seen.thickness.shape[1]]
    centre = [np.average(v, weights=seen.thickness) for v in (xs, ys)]
    np.testing.assert_allclose(centre, at, atol=0.03)
    np.testing.assert_array_equal(seen.outline, seen.thickness > 0)


def test_footprint_is_cut_by_the_field_and_may_be_empty():
    whole = footprint(ball(10), np.array([20.0, 15.0]), 1.0, (30, 40))
    cut = footprint(ball(10), np.array([2.0, 15.0]), 1.0, (30, 40))
    assert cut.outline.shape[1] == 13
    np.testing.assert_array_equal(cut.outline, whole.outline[:, 8:])
    assert not footprint(ball(10), np.array([200.0, 15.0]), 1.0, (30, 40)).outline.any()


def test_samples_average_the_thickness_only():
    fine, coarse = (footprint(ball(10), np.array([20.3, 15.1]), 2.0, (30, 40), n) for n in (4, 1))
    np.testing.assert_array_equal(fine.outline, coarse.outline)
    assert fine.thickness.sum() * 4 == pytest.approx(ball(10).volume, rel=0.01)
    assert not np.array_equal(fine.thickness, coarse.thickness)


def test_open_faces_are_refused():
    with pytest.raises(ValueError, match="enclose"):
        polyhedron(CUBE[:4], np.ones(4))
