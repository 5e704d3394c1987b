"""Fields of particles: how many, where, touching or apart, and what the truth says of them."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.optimize import linprog

from stemtomo_dl import resources
from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.simulate.body import Particle
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.simulate.film import make_film, seen_part
from stemtomo_dl.simulate.sample import coat_path, make_particles
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import simulate
from stemtomo_dl.simulate.shape import directions, footprint

TINY, CIFS = load_scene(resources.synthetic() / "scenes/tiny.toml")
CIFS = CIFS | {"anatase.cif": (resources.synthetic() / "structures/anatase.cif").read_text()}
STRUCTURES = {name: read_structure(name[:-4], text, 1.5) for name, text in CIFS.items()}
FIELD_UM2 = 24 * 32 * 16 * 0.8**2 * 1e-6


def scene(*populations, **tables) -> Scene:
    content = TINY.model_dump() | {"particles": [{"cif": "rutile.cif", "size_nm": 12, **p} for p in populations]}
    for name, table in tables.items():
        content[name] = {**content[name], **table} if isinstance(table, dict) else table
    return Scene.model_validate(content)


def particles(described: Scene, seed: int = 1):
    part = seen_part(described.film, described.instrument, np.array([60.0]), np.zeros((1, 24, 2)))
    film = make_film(described.film, part, seed)
    return make_particles(described.model_copy(update={"seed": seed}), STRUCTURES, film), film


def depth(a, b) -> float:
    """How deep two placed polyhedra overlap: the radius of the largest ball in both; negative where they are apart."""
    normals = np.concatenate([a.solid.normals, b.solid.normals])
    room = np.concatenate([p.solid.distances + p.solid.normals @ p.position_nm for p in (a, b)])
    found = linprog([0, 0, 0, -1], np.column_stack([normals, np.ones(len(room))]), room, bounds=[(None, None)] * 4)
    return float(found.x[3])


CLUSTER = {"count": 8, "shape": "random", "irregularity": 0.1, "cluster_size": 4}


@pytest.mark.parametrize("seed", range(5))
def test_agglomerated_particles_touch_and_do_not_interpenetrate(seed):
    made, _ = particles(scene(CLUSTER), seed)
    deep = np.array([[depth(a, b) if a is not b else -9 for b in made] for a in made])
    assert deep.max() < 1e-6
    touching = deep > -0.01
    assert touching.any(1).sum() >= 4  # all but those that stand alone
    lowest = np.array([p.position_nm[2] + p.solid.vertices[:, 2].max() for p in made])
    assert lowest.max() < -2.5  # the face of a film of 5 nm
    assert (touching.any(1) | (lowest > -2.6)).all()  # each lies on the film or on another


def seen(particle, rotation=None) -> np.ndarray:
    rotation = np.eye(3) if rotation is None else rotation
    at = field_centre((64, 64)) + (rotation @ particle.position_nm)[:2] / 2
    crop = footprint(particle.solid.turned(rotation), at, 2.0, (64, 64))
    out = np.zeros((64, 64), bool)
    out[crop.y0 : crop.y0 + crop.outline.shape[0], crop.x0 : crop.x0 + crop.outline.shape[1]] = crop.outline
    return out


def test_agglomerated_particles_shadow_each_other():
    made, _ = particles(scene(CLUSTER | {"count": 24, "cluster_size": 24}))
    assert np.sum([seen(p) for p in made], 0).max() > 1


def test_agglomerates_are_piles():
    """Of many balls on one spot some lie on the film, each of them sharply, and others on these."""
    made, _ = particles(scene({"count": 40, "shape": "sphere", "cluster_size": 40}))
    z = np.array([p.position_nm[2] for p in made])
    assert z.max() == pytest.approx(-2.5 - 6, abs=0.01)
    assert (np.abs(z - z.max()) < 0.01).sum() >= 5
    assert (z < z.max() - 6).sum() >= 5


def test_agglomerates_have_the_stated_mean_size():
    """In a field so wide that agglomerates do not meet, their number is 1 + (n − 1)/mean on average."""
    wide = {"scan": (400, 400), "step_nm": 4.0}
    clusters = []
    for seed in range(12):
        made, _ = particles(scene({"count": 24, "shape": "sphere", "cluster_size": 4}, instrument=wide), seed)
        place = np.array([p.position_nm for p in made])
        near = np.linalg.norm(place[:, None] - place[None], axis=-1) < 12.01
        assert (np.linalg.norm(place[:, None] - place[None], axis=-1) + 99 * np.eye(24)).min() >= 12
        reach = np.linalg.matrix_power(near.astype(float), 24) > 0
        clusters.append(len(np.unique(reach, axis=0)))
    assert np.mean(clusters) == pytest.approx(1 + 23 / 4, abs=3 * np.sqrt(23 * 3 / 16 / 12))


def test_populations_of_one_name_share_agglomerates():
    two = [{"count": 6, "shape": "sphere", "cluster_size": 12, "cluster": "powder"}] * 2
    two[1] = two[1] | {"cif": "anatase.cif"}
    made, _ = particles(scene(*two))
    assert [p.structure.name for p in made] == ["rutile"] * 6 + ["anatase"] * 6
    place = np.array([p.position_nm for p in made])
    near = np.linalg.norm(place[:, None] - place[None], axis=-1) < 12.01
    assert near[:6, 6:].any()


def test_numbers_are_drawn_as_stated():
    per_um2 = 7 / FIELD_UM2
    drawn = [
        len(particles(scene({"per_um2": per_um2, "count_law": "poisson", "shape": "sphere"}), s)[0]) for s in range(300)
    ]
    assert np.mean(drawn) == pytest.approx(7, abs=4 * np.sqrt(7 / 300))
    assert np.var(drawn) == pytest.approx(7, rel=0.3)
    assert len(particles(scene({"per_um2": per_um2, "shape": "sphere"}))[0]) == 7
    rare = scene({"count": 1, "count_law": "poisson", "shape": "sphere"})
    assert min(len(particles(rare, s)[0]) for s in range(20)) == 1


def test_twins_and_shells_are_particles_of_their_own_in_the_truth():
    twin = {"count": 1, "habit": "block", "size_nm": 24, "twin": {"plane": (1, 0, 1)}}
    shell = {"count": 1, "shape": "sphere", "shell": {"thickness_nm": 5, "cif": "anatase.cif"}}
    described = scene(twin, shell, tilts={"angles": [0.0, 25.0], "sigma_deg": 0})
    truth = simulate(described, CIFS).truth
    assert truth.phase == ("rutile", "rutile", "rutile", "anatase")
    assert set(truth.reflections) == {"rutile", "anatase"}
    np.testing.assert_allclose(truth.ub[0] @ [1, 0, 1], truth.ub[1] @ [1, 0, 1], atol=1e-9)
    assert not np.allclose(truth.ub[0], truth.ub[1])
    for tilt in range(2):
        core, around = (truth.masks.full(i) for i in truth.masks.at(tilt)[2:])
        assert (core <= around).all()  # amodal: the whole outline, the core's place included
        assert around.sum() > core.sum()
    np.testing.assert_allclose(truth.positions_nm[2], truth.positions_nm[3], atol=1e-9)


def test_trajectories_follow_the_stage_for_every_part():
    twin = {"count": 2, "habit": "rod", "size_nm": 18, "twin": {"plane": (1, 0, 1), "offset": 0.2}}
    described = scene(twin, tilts={"angles": [40.0, 0.0, -40.0], "sigma_deg": 0}, instrument={"step_nm": 1.0})
    described = described.model_copy(
        update={"instrument": described.instrument.model_copy(update={"scan": (120, 140)}), "field_fraction": 0.5}
    )
    made, _ = particles(described)
    for alpha in (40.0, 0.0, -40.0):
        rotation = tilt_rotation(31.0, alpha)
        for p in made:
            at = field_centre((300, 300)) + (rotation @ p.position_nm)[:2]
            crop = footprint(p.solid.turned(rotation), at, 1.0, (300, 300))
            ys, xs = np.indices(crop.thickness.shape)
            weigh = [np.average(v, weights=crop.thickness) for v in (xs + crop.x0, ys + crop.y0)]
            np.testing.assert_allclose(weigh, at, atol=0.05)


SHAPES = {
    "sphere": {"shape": "sphere", "size_nm": 14},
    "block": {"habit": "block", "size_nm": 12},
    "rod": {"habit": "rod", "size_nm": 9, "orientation": {"kind": "lying"}},
    "rounded": {"habit": "block", "size_nm": 14, "rounding": 0.5},
    "shelled": {"habit": "block", "size_nm": 9, "shell": {"thickness_nm": 3}},
    "twinned": {"habit": "block", "size_nm": 12, "twin": {"plane": (1, 0, 1)}},
}
FILMS = {
    "flat": {},
    "wrinkled": {"wrinkles": {"height_nm": 15, "length_nm": 80}},
    "dirty": {"contamination": {"per_um2": 150, "diameter_nm": 60, "thickness_nm": 9}},
    "holey": {"holes": {"diameter_nm": 40, "period_nm": 60}, "wrinkles": {"height_nm": 8, "length_nm": 80}},
}


def surface(solid) -> np.ndarray:
    """Points of a convex body's surface along rays from its centroid, and a polyhedron's corners, (point, 3)."""
    rays = directions(6000)
    with np.errstate(divide="ignore"):
        out = (solid.distances / np.maximum(rays @ solid.normals.T, 1e-9)).min(1, initial=np.inf)
    if np.isfinite(solid.radius):
        along = rays @ solid.center
        out = np.minimum(out, along + np.sqrt(along**2 - solid.center @ solid.center + solid.radius**2))
        return rays * out[:, None]
    return np.concatenate([rays * out[:, None], solid.vertices])


@pytest.mark.parametrize("film", FILMS.values(), ids=FILMS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_particles_rest_on_the_film(shape, film):
    """No point of a body is behind the film's upper face, and some point touches it."""
    made, mapped = particles(scene({"count": 4, "min_gap_nm": 1, **shape}, film=film))
    bodies = [made[i : i + len(made) // 4] for i in range(0, len(made), len(made) // 4)]
    for body in bodies:
        x, y, z = np.concatenate([surface(p.whole) + p.position_nm for p in body]).T
        # the points sampled lie about 0.5 nm apart, a rounded body's corners 0.9 % outside, and rims are taken wide
        assert (mapped.floor(x, y) - z).min() > -0.02
        assert (mapped.floor(x, y, rim=1.0) - z).min() < 0.35
        if len(body) == 1:
            assert not mapped.in_hole(*body[0].position_nm[:2])


def test_the_film_is_as_thick_as_it_is_said_to_be():
    for thickness in (0, 5, 80):
        (made,), _ = particles(scene({"count": 1, "shape": "sphere"}, film={"thickness_nm": thickness}))
        assert made.position_nm[2] == pytest.approx(-thickness / 2 - 6, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_bodies_never_enter_each_other(seed):
    """A crowd that may overlap in projection lies in layers; a ball that is told its place is in the way of all."""
    crowd = {"count": 25, "shape": "random", "irregularity": 0.1, "size_nm": 14}
    told = {"count": 1, "habit": "block", "size_nm": 20, "positions_nm": [(4, -6, -20)]}
    made, _ = particles(scene(crowd, crowd | {"cluster_size": 5}, told), seed)
    np.testing.assert_array_equal(made[-1].position_nm, [4, -6, -20])
    deep = np.array([[depth(a, b) if a is not b else -9 for b in made] for a in made])
    assert deep.max() < 1e-6
    assert np.sum([seen(p) for p in made], 0).max() > 1
    lowest = np.array([p.position_nm[2] + p.solid.vertices[:, 2].max() for p in made[:-1]])
    assert lowest.max() < -2.5
    assert ((deep[:-1] > -0.01).any(1) | (lowest > -2.6)).all()


def test_told_places_that_overlap_are_refused():
    two = {"count": 2, "shape": "sphere", "size_nm": 20}
    particles(scene(two | {"positions_nm": [(0, 0, 0), (0, 14.2, 14.2)]}))
    with pytest.raises(InputError, match=r"particles\.0\.positions_nm\.1"):
        particles(scene(two | {"positions_nm": [(0, 0, 0), (0, 14, 14)]}))
    with pytest.raises(InputError, match=r"particles\.1\.positions_nm\.0"):
        particles(
            scene(two | {"positions_nm": [(0, 0, 0), (0, 30, 0)]}, two | {"positions_nm": [(9, 9, 9), (0, -30, 0)]})
        )


@pytest.mark.parametrize("film", [0, 5])
def test_particles_on_the_needle_touch_it_or_each_other(film):
    needle = {"thickness_nm": film, "needle": {"tip_nm": (0, 0), "radius_nm": 12}}
    made, mapped = particles(scene({"count": 12, "shape": "random", "support": "needle"}, film=needle))
    solid, place = mapped.needle
    sides = set()
    for p in made:
        others = [q for q in made if q is not p]
        body = Particle(p.structure, solid, 1.0, p.u, place)
        depths = [depth(p, q) for q in (*others, body)]
        assert max(depths) < 1e-6
        assert max(depths) > -0.01
        sides.add(bool(p.position_nm[2] > 0))
        if film:
            assert p.position_nm[2] + p.solid.vertices[:, 2].max() < -2.5
    assert len(sides) == (1 if film else 2)  # all round it, but not through a film
    with pytest.raises(InputError, match=r"particles\.0\.support"):
        particles(scene({"count": 1, "shape": "sphere", "support": "needle"}))
    beside = {"needle": {"tip_nm": (-400, 0)}}
    with pytest.raises(InputError, match=r"film\.needle\.tip_nm"):
        particles(scene({"count": 1, "shape": "sphere", "support": "needle"}, film=beside))


def test_an_amorphous_shell_lengthens_the_way():
    coated = {"count": 1, "shape": "sphere", "positions_nm": [(8, -4, 3)], "size_nm": 30}
    shell = {"shell": {"thickness_nm": 6, "mean_free_path_nm": 60}}
    (made,), _ = particles(scene(coated | shell))
    m = TINY.instrument
    path = coat_path((made,), tilt_rotation(31, 20), np.zeros(2), m, 120.0) * 60 / 120
    at = (tilt_rotation(31, 20) @ [8, -4, 3])[:2]
    x, y = (np.arange(32) - 15.5) * 4 - at[0], (np.arange(24) - 11.5) * 4 - at[1]
    r2 = x[None] ** 2 + y[:, None] ** 2
    expected = 2 * (np.sqrt(np.clip(21**2 - r2, 0, None)) - np.sqrt(np.clip(15**2 - r2, 0, None)))
    np.testing.assert_allclose(path, expected, atol=1e-9)


@pytest.mark.parametrize("twin", [None, {"plane": (1, 0, 1), "offset": 0.2}])
def test_outlines_hold_the_amorphous_shell_and_thicknesses_do_not(twin):
    """Against points: those of the core make the thickness, those of core and shell the outline, of twins by halves."""
    coated = {"count": 1, "habit": "block", "positions_nm": [(8, -4, 30)], "size_nm": 26, "twin": twin}
    shell = {"shell": {"thickness_nm": 6}}
    tilts = {"angles": [30.0], "sigma_deg": 0}
    series = simulate(scene(coated | shell, tilts=tilts), CIFS)
    bare = simulate(scene(coated, tilts=tilts), CIFS)
    np.testing.assert_allclose(series._view(0)[1], bare._view(0)[1], atol=1e-9)
    truth, parts = series.truth, series.cast.particles
    assert len(truth.masks) == len(parts) == (1 if twin is None else 2)
    hull = np.zeros((24, 32), bool)
    for i, p in enumerate(parts):
        room = p.solid.distances + 6 * (
            np.abs(p.solid.normals @ p.ub @ [1, 0, 1]) < 0.99 * np.linalg.norm(p.ub @ [1, 0, 1])
        )
        room = room if twin else p.solid.distances + 6
        points = np.random.default_rng(0).uniform(-40, 40, (400_000, 3))
        held = points[(points @ p.solid.normals.T <= room).all(1)] + p.position_nm
        at = np.round((held @ tilt_rotation(31, 30)[:2].T) / 4 + truth.drift_px[0] + [15.5, 11.5]).astype(int)
        mask = truth.masks.full(i)
        assert (mask <= covered(at)).all()
        core = bare.truth.masks.full(i)
        assert (core <= mask).all()
        assert mask.sum() > 1.2 * core.sum()
        hull |= mask
    whole = simulate(scene({**coated, "size_nm": 38, "twin": None}, tilts=tilts), CIFS).truth.masks.full(0)
    np.testing.assert_array_equal(hull, whole)


def covered(at: np.ndarray) -> np.ndarray:
    out = np.zeros((24, 32), bool)
    inside = ((at >= 0) & (at < [32, 24])).all(1)
    out[at[inside, 1], at[inside, 0]] = True
    return out


@pytest.mark.parametrize(
    ("population", "key"),
    [
        ({"count": 1, "count_law": "poisson", "shape": "sphere"}, None),
        ({"per_um2": 1e-9, "count_law": "poisson", "shape": "sphere"}, "raise per_um2"),
        ({"per_um2": 1e-9, "shape": "sphere"}, "raise per_um2"),
        ({"count": 1, "shape": "sphere", "size_nm": 9000}, r"particles\.0\.size_nm"),
    ],
)
def test_absurd_numbers_and_sizes_are_refused(population, key):
    if key is None:
        assert particles(scene(population))
    else:
        with pytest.raises(InputError, match=key):
            particles(scene(population))


@pytest.mark.parametrize(
    "keys",
    [
        {"count": 1_000_000},
        {"count": None, "per_um2": 1e300, "count_law": "poisson"},
        {"size_nm": 0},
        {"size_nm": 1e-9},
        {"size_nm": 1e30},
        {"size_sigma": 50},
        {"irregularity": 50},
        {"aspect": 1e9},
        {"shell": {"thickness_nm": 1e9}},
        {"faces": [{"hkl": (1, 2, 3)}] * 1000},
        {"faces": [{"hkl": (10**30, 0, 0)}]},
        {"positions_nm": [(1e300, 0, 0)]},
        {"cluster_size": float("inf")},
    ],
    ids=str,
)
def test_keys_have_bounds(keys):
    with pytest.raises(ValidationError):
        scene({"count": 1, "shape": "faces" if "faces" in keys else "sphere"} | keys)


def test_nothing_in_view_is_refused():
    with pytest.raises(InputError, match=r"no particle is in view.*positions_nm"):
        simulate(scene({"count": 1, "shape": "sphere", "positions_nm": [(5000, 0, 0)]}), CIFS)


def test_face_down_orientation():
    """With a plane, "upright" turns its normal along the beam."""
    lies = {"kind": "upright", "plane": (1, 0, 1)}
    made, _ = particles(scene({"count": 3, "habit": "block", "orientation": lies}))
    for p in made:
        normal = p.ub @ [1, 0, 1]
        assert normal[2] / np.linalg.norm(normal) == pytest.approx(1)
