"""Fields of particles: how many, where, touching or apart, and what the truth says of them."""

import numpy as np
import pytest
from scipy.optimize import linprog

from stemtomo_dl import resources
from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.simulate.film import make_film
from stemtomo_dl.simulate.sample import coat_path, make_particles
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import simulate
from stemtomo_dl.simulate.shape import footprint

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
    m = described.instrument
    extent = (m.scan[1] * m.step_nm, m.scan[0] * m.step_nm)
    film = make_film(described.film, extent, np.random.default_rng(seed + 1000))
    return make_particles(described, STRUCTURES, np.random.default_rng(seed), film), film


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
    covered = [seen(p) for p in made]
    pairs = [(i, j) for i, j in zip(*np.nonzero(touching), strict=True) if i < j]
    assert any((covered[i] & covered[j]).any() for i, j in pairs)  # and shadow each other


def seen(particle, rotation=None) -> np.ndarray:
    rotation = np.eye(3) if rotation is None else rotation
    at = field_centre((64, 64)) + (rotation @ particle.position_nm)[:2] / 2
    crop = footprint(particle.solid.turned(rotation), at, 2.0, (64, 64))
    out = np.zeros((64, 64), bool)
    out[crop.y0 : crop.y0 + crop.outline.shape[0], crop.x0 : crop.x0 + crop.outline.shape[1]] = crop.outline
    return out


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
    twin = {"count": 2, "habit": "rod", "size_nm": 18, "z_sigma_nm": 20, "twin": {"plane": (1, 0, 1), "offset": 0.2}}
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


def test_particles_follow_the_wrinkles_and_avoid_the_holes():
    support = {"holes": {"diameter_nm": 40, "period_nm": 60}, "wrinkles": {"height_nm": 20, "length_nm": 100}}
    made, film = particles(scene({"count": 30, "shape": "sphere", "size_nm": 4}, film=support))
    x, y, z = np.array([p.position_nm for p in made]).T
    assert not film.in_hole(x, y).any()
    np.testing.assert_allclose(z, film.height(x, y)[0])
    assert np.std(z) > 3


def test_particles_on_the_needle_touch_it_or_each_other():
    needle = {"needle": {"tip_nm": (0, 0), "radius_nm": 12}}
    made, film = particles(scene({"count": 6, "shape": "random", "support": "needle"}, film=needle))
    solid, place = film.needle
    for p in made:
        others = [q for q in made if q is not p]
        body = type(p)(p.structure, solid, 1.0, p.u, place)
        depths = [depth(p, q) for q in (*others, body)]
        assert max(depths) < 1e-6
        assert max(depths) > -0.01
    with pytest.raises(InputError, match=r"particles\.0\.support"):
        particles(scene({"count": 1, "shape": "sphere", "support": "needle"}))


def test_an_amorphous_shell_lengthens_the_way_and_leaves_the_outline():
    coated = {"count": 1, "shape": "sphere", "positions_nm": [(8, -4, 3)], "size_nm": 30}
    shell = {"shell": {"thickness_nm": 6, "mean_free_path_nm": 60}}
    (bare,), _ = particles(scene(coated))
    (made,), _ = particles(scene(coated | shell))
    np.testing.assert_array_equal(seen(bare), seen(made))
    m = TINY.instrument
    path = coat_path((made,), tilt_rotation(31, 20), np.zeros(2), m, 120.0) * 60 / 120
    at = (tilt_rotation(31, 20) @ [8, -4, 3])[:2]
    x, y = (np.arange(32) - 15.5) * 4 - at[0], (np.arange(24) - 11.5) * 4 - at[1]
    r2 = x[None] ** 2 + y[:, None] ** 2
    expected = 2 * (np.sqrt(np.clip(21**2 - r2, 0, None)) - np.sqrt(np.clip(15**2 - r2, 0, None)))
    np.testing.assert_allclose(path, expected, atol=1e-9)


def test_too_large_a_particle_is_refused():
    with pytest.raises(InputError, match=r"particles\.0\.size_nm"):
        particles(scene({"count": 1, "shape": "sphere", "size_nm": 400}))


def test_face_down_orientation():
    """With a plane, "upright" turns its normal along the beam."""
    lies = {"kind": "upright", "plane": (1, 0, 1)}
    made, _ = particles(scene({"count": 3, "habit": "block", "orientation": lies}))
    for p in made:
        normal = p.ub @ [1, 0, 1]
        assert normal[2] / np.linalg.norm(normal) == pytest.approx(1)
