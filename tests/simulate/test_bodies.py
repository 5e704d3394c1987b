"""Rounded, twinned, shelled and touching bodies against voxels, linear programs and closed forms."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.optimize import linprog
from scipy.spatial.transform import Rotation

from stemtomo_dl import resources
from stemtomo_dl.errors import InputError
from stemtomo_dl.simulate.body import make_body
from stemtomo_dl.simulate.contact import Placed, arrival, overlap
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.simulate.population import Population
from stemtomo_dl.simulate.shape import Solid, ball, enclosed, footprint

CUBE = np.concatenate([np.eye(3), -np.eye(3)])
RUTILE = "rutile.cif"
ANATASE = "anatase.cif"
STRUCTURES = {
    name: read_structure(name[:-4], (resources.synthetic() / "structures" / name).read_text(), 2.0)
    for name in (RUTILE, ANATASE)
}


def body(seed: int = 3, **keys):
    population = Population.model_validate({"cif": RUTILE, "count": 1, "size_nm": 20, **keys})
    return make_body(population, STRUCTURES, np.random.default_rng(seed), "particles.0")


def inside(solid: Solid, points: np.ndarray) -> np.ndarray:
    """Whether points (…, 3) lie in a solid, by its definition alone."""
    out = (points @ solid.normals.T <= solid.distances).all(-1)
    out &= np.linalg.norm(points - solid.center, axis=-1) <= solid.radius
    return out if solid.core is None else out & ~inside(solid.core, points)


def voxels(extent: float, step: float) -> np.ndarray:
    axis = np.arange(-extent, extent, step) + step / 2
    return np.stack(np.meshgrid(axis, axis, axis, indexing="xy"), -1)  # (y, x, z, 3)


BODIES = {
    "rounded": {"habit": "rod", "aspect": 1.5, "rounding": 0.5},
    "rounded irregular": {"shape": "random", "irregularity": 0.1, "rounding": 0.3},
    "twinned": {"habit": "truncated-octahedron", "twin": {"plane": (1, 0, 1), "offset": 0.3}},
    "twinned and rounded": {"habit": "block", "rounding": 0.4, "twin": {"plane": (1, 0, 1)}},
    "twinned ball": {"shape": "sphere", "twin": {"axis": (0, 0, 1), "angle_deg": 90, "composition": (1, 1, 0)}},
    "core and shell": {"habit": "block", "rounding": 0.2, "shell": {"thickness_nm": 3, "cif": ANATASE}},
}


@pytest.mark.parametrize("keys", BODIES.values(), ids=BODIES)
def test_masks_and_thickness_equal_a_ray_trace(keys):
    turn = Rotation.from_rotvec([0.4, -0.7, 0.2]).as_matrix()
    made, step, z = body(**keys), 1.0, 0.05
    axis = np.arange(-20.0, 21.0)
    for part in made.parts:
        solid, at = part.solid.turned(turn), np.array([20.0, 20.0])
        seen = footprint(solid, at, step, (41, 41))
        grid = np.stack(np.meshgrid(axis, axis, np.arange(-25, 25, z), indexing="xy"), -1)
        traced = inside(part.solid, grid @ turn).sum(-1) * z  # the lab's points in the frame of the sample
        window = slice(seen.y0, seen.y0 + seen.outline.shape[0]), slice(seen.x0, seen.x0 + seen.outline.shape[1])
        np.testing.assert_allclose(seen.thickness, traced[window], atol=2.1 * z * (1 + (solid.core is not None)))
        cut = traced.copy()
        cut[window] = 0
        assert cut.max() <= 2 * z
        sure = (traced[window] > 2 * z) | (traced[window] == 0)
        doubtful = (traced[window] == 0) & seen.outline  # grazed between two samples of z
        assert (seen.thickness[doubtful] <= z).all()
        np.testing.assert_array_equal(seen.outline[sure & ~doubtful], traced[window][sure & ~doubtful] > 0)


@pytest.mark.parametrize("keys", BODIES.values(), ids=BODIES)
def test_volumes_and_centroids_equal_voxels(keys):
    grid, made = voxels(20, 0.4), body(**keys)
    for part in made.parts:
        held = inside(part.solid, grid)
        assert part.solid.volume == pytest.approx(held.sum() * 0.4**3, rel=1e-2)
        if part.solid.core is None:
            np.testing.assert_allclose(grid[held].mean(0), 0, atol=0.05)


@pytest.mark.parametrize("keys", [BODIES["twinned"], BODIES["twinned and rounded"], BODIES["twinned ball"]])
def test_twins_share_one_body_between_them(keys):
    made = body(**keys)
    grid = voxels(20, 0.5)
    first, second = (inside(p.solid, grid - p.position_nm) for p in made.parts)
    assert not (first & second).any()
    np.testing.assert_array_equal(first | second, inside(made.hull, grid))
    plane = np.array(keys["twin"].get("composition") or keys["twin"]["plane"])
    normal = made.parts[0].u @ made.parts[0].structure.b @ plane
    apart = made.parts[1].position_nm - made.parts[0].position_nm
    assert apart @ normal > 0
    assert (grid[first] @ normal).max() <= (grid[second] @ normal).min()


def test_twin_laws_are_what_crystallography_says():
    """A mirror twin shares its plane's reflection and its zone; a 4-fold axis of the crystal would twin nothing."""
    mirror = body(habit="block", twin={"plane": (1, 0, 1)}).parts
    ub = [p.u @ p.structure.b for p in mirror]
    np.testing.assert_allclose(ub[1] @ [1, 0, 1], ub[0] @ [1, 0, 1], atol=1e-12)
    np.testing.assert_allclose(ub[1] @ [0, 1, 0], -(ub[0] @ [0, 1, 0]), atol=1e-12)
    normal = ub[0] @ [1, 0, 1] / np.linalg.norm(ub[0] @ [1, 0, 1])
    reflected = ub[0] - 2 * np.outer(normal, normal @ ub[0])
    np.testing.assert_allclose(ub[1], -reflected, atol=1e-12)  # mirror = inversion · two-fold
    axis = body(habit="block", twin={"axis": (0, 0, 1), "angle_deg": 90, "composition": (1, 1, 0)}).parts
    ub = [p.u @ p.structure.b for p in axis]
    np.testing.assert_allclose(ub[1] @ [1, 0, 0], ub[0] @ [0, 1, 0], atol=1e-12)
    for part in (*mirror, *axis):
        assert np.linalg.det(part.u) == pytest.approx(1)


def test_shells_are_even_and_their_axes_parallel_or_not():
    made = body(habit="block", shell={"thickness_nm": 3, "cif": ANATASE})
    core, shell = made.parts
    assert shell.structure.name == "anatase"
    np.testing.assert_array_equal(core.u, shell.u)
    room = shell.solid.distances - shell.solid.core.distances
    np.testing.assert_allclose(room, 3, atol=1e-9)
    other = body(habit="block", shell={"thickness_nm": 3, "cif": ANATASE, "orientation": "random"})
    assert not np.allclose(other.parts[0].u, other.parts[1].u)
    coated = body(habit="block", shell={"thickness_nm": 3})
    assert len(coated.parts) == 1
    assert coated.parts[0].coat.volume == pytest.approx(26**3 - 20**3)


def test_rounding_goes_from_sharp_to_a_ball():
    sharp, half, full = (body(habit="block", rounding=r).hull for r in (0, 0.5, 1))
    assert sharp.volume == pytest.approx(20**3)
    assert full.volume == pytest.approx(4 / 3 * np.pi * 1000, rel=1e-3)
    assert half.radius == pytest.approx((10 + 10 * np.sqrt(3)) / 2)
    r = half.radius  # a ball that sticks out of the cube's faces by six caps, which meet nowhere
    assert r < 10 * np.sqrt(2)
    cap = np.pi * (r - 10) ** 2 * (2 * r + 10) / 3
    assert half.volume == pytest.approx(4 / 3 * np.pi * r**3 - 6 * cap, rel=2e-4)


def test_habits_have_the_faces_of_their_name():
    count = {"block": 6, "octahedron": 8, "truncated-octahedron": 14, "rod": 10, "plate": 10}
    for name, faces in count.items():
        hull = body(habit=name, orientation={"kind": "fixed"}).hull
        assert len(hull.distances) == faces
        size = np.ptp(hull.vertices, axis=0)
        if name == "rod":
            assert size[2] == pytest.approx(60)
        if name == "plate":
            assert size == pytest.approx([20, 20, 20 / 3])


def test_regular_truncated_octahedron_in_a_cubic_crystal():
    text = (resources.synthetic() / "structures" / RUTILE).read_text()
    text = text.replace("P 42/m n m", "P m -3 m").replace(" 136", " 221")
    for axis in ("4.5937", "2.9587"):
        text = text.replace(axis, "5.0")
    text = text[: text.index("Ti1")] + "Ti1 Ti 0 0 0 0.005\n"
    structures = {RUTILE: read_structure("cubic", text, 2.0)}
    population = Population(cif=RUTILE, count=1, size_nm=20, habit="truncated-octahedron")
    hull = make_body(population, structures, np.random.default_rng(0), "").hull
    edge = 10 / np.sqrt(1.5)  # hexagons are √(3/2) edges from the centre
    assert len(hull.vertices) == 24
    assert hull.volume == pytest.approx(8 * np.sqrt(2) * edge**3)


def touching_by_program(a: Solid, b: Solid, offset: np.ndarray, direction: np.ndarray) -> float:
    """The largest s at which b, moved by offset + s·direction, still has a point in common with a."""
    rows = np.block([[a.normals, np.zeros((len(a.normals), 1))], [b.normals, -(b.normals @ direction)[:, None]]])
    room = np.concatenate([a.distances, b.distances + b.normals @ offset])
    found = linprog([0, 0, 0, -1], rows, room, bounds=[(None, None)] * 4)
    return found.x[3] if found.status == 0 else -np.inf


def standing(solid: Solid, x: float = 0.0) -> Placed:
    return Placed(solid, np.array([x, 0, 0]), solid.bound())


@pytest.mark.parametrize("seed", range(12))
def test_polyhedra_arrive_where_a_linear_program_says(seed):
    rng = np.random.default_rng(seed)
    a, b = (body(seed=seed + k, shape="random", irregularity=0.2).hull for k in (0, 100))
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    offset = rng.uniform(-9, 9, 3)
    expected = touching_by_program(a, b, offset, direction)
    assert np.isfinite(expected)
    assert arrival(b, offset, direction, [standing(a)]) == pytest.approx(expected, abs=5e-4)
    assert arrival(b, offset, direction, [standing(a)]) >= expected - 1e-9  # a gap, never an overlap


def test_balls_arrive_at_the_sum_of_their_radii():
    direction, offset = np.array([0.6, 0, 0.8]), np.array([0.0, 7, 0])
    s = arrival(ball(12), offset, direction, [standing(ball(5)), standing(ball(5), -30.0)])
    assert s == pytest.approx(np.sqrt(17**2 - 7**2), abs=1e-3)
    assert arrival(ball(3), np.array([0.0, 40, 0]), direction, [standing(ball(5))]) == -np.inf
    assert overlap(ball(3), np.array([0.0, 0, 7.99]), [standing(ball(5))])
    assert not overlap(ball(3), np.array([0.0, 0, 8.01]), [standing(ball(5))])
    assert overlap(ball(3), np.zeros(3), [standing(ball(5))])


@pytest.mark.parametrize("seed", range(3))
def test_rounded_bodies_touch_without_overlap(seed):
    rng = np.random.default_rng(seed)
    a, b = (body(seed=seed + k, habit="block", rounding=0.5).hull for k in (0, 50))
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    s = arrival(b, np.zeros(3), direction, [standing(a)])
    grid = voxels(18, 0.4).reshape(-1, 3)
    held = grid[inside(a, grid)]
    assert not inside(b, held - s * direction).any()
    assert inside(b, held - (s - 0.02 * 10 - 0.7) * direction).any()  # within 2 % of the radius and a voxel's diagonal


def test_offset_centre_and_moved_solids_agree():
    solid, centroid = enclosed(CUBE, np.full(6, 10.0), 12.0, np.array([3.0, 0, 0]))
    grid = voxels(14, 0.25)
    held = inside(solid.moved(centroid), grid)
    expected = (np.abs(grid) <= 10).all(-1) & (np.linalg.norm(grid - [3, 0, 0], axis=-1) <= 12)
    np.testing.assert_array_equal(held, expected)
    x = np.linspace(-13, 13, 40)
    np.testing.assert_allclose(
        solid.moved(centroid).thickness(x, x), solid.thickness(x - centroid[0], x - centroid[1]), atol=1e-9
    )


def test_sizes_have_the_stated_moments_and_limits():
    sizes = [2 * body(seed, shape="sphere", size_sigma=0.3).hull.radius for seed in range(2000)]
    assert np.mean(np.log(sizes)) == pytest.approx(np.log(20), abs=4 * 0.3 / np.sqrt(2000))
    assert np.std(np.log(sizes)) == pytest.approx(0.3, rel=0.05)
    limits = {"size_sigma": 0.3, "size_limits_nm": (16, 22)}
    sizes = [2 * body(seed, shape="sphere", **limits).hull.radius for seed in range(500)]
    assert 16 <= min(sizes) < 17
    assert 21.5 < max(sizes) <= 22
    with pytest.raises(InputError, match=r"particles\.0\.size_limits_nm"):
        body(shape="sphere", size_sigma=2, size_limits_nm=(19.99999, 20.00001))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"habit": "rod", "count": None}, "count or per_um2"),
        ({"habit": "rod", "per_um2": 3}, "count or per_um2"),
        ({"habit": "rod", "faces": [{"hkl": (1, 0, 0)}]}, "faces or habit"),
        ({"habit": "rod", "shape": "sphere"}, "faces"),
        ({"habit": "rod", "size_limits_nm": (30, 40)}, "size_limits_nm"),
        ({"habit": "rod", "positions_nm": [(0, 0, 0)], "cluster_size": 3}, "cluster_size"),
        ({"habit": "rod", "cluster_size": 3, "support": "needle"}, "cluster_size"),
        ({"habit": "rod", "twin": {"axis": (1, 0, 0)}}, "composition"),
        ({"habit": "rod", "twin": {"composition": (1, 0, 0)}}, "axis or plane"),
        ({"habit": "rod", "twin": {"plane": (0, 0, 0)}}, "0 0 0 is no"),
    ],
)
def test_contradictions_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        Population.model_validate({"cif": RUTILE, "count": 1, "size_nm": 20, **keys})
