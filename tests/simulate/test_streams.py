"""Each use of a seed has random numbers of its own: what is added to a scene changes nothing else."""

import numpy as np
import pytest

from stemtomo_dl import resources
from stemtomo_dl.errors import InputError
from stemtomo_dl.simulate import sample
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import simulate

TINY, CIFS = load_scene(resources.synthetic() / "scenes/tiny.toml")
HOLES = {"diameter_nm": 12, "diameter_sigma": 0.3, "per_um2": 900}
DIRT = {"per_um2": 900, "diameter_nm": 14, "thickness_nm": 3}
WRINKLES = {"height_nm": 6, "length_nm": 90}
FILM = {"thickness_nm": 6, "holes": HOLES, "contamination": DIRT, "wrinkles": WRINKLES}
BALLS = {"cif": "rutile.cif", "count": 3, "size_nm": 9, "size_sigma": 0.2, "shape": "sphere"}
WANDERING = {"walk_px": 0.8, "beam_walk_px": 0.1, "scan_px": 0.5}
STAGE = {"angles": [0.0, 12, 25, 38], "sigma_deg": 0.2, "uneven_deg": 0.3}


def played(particles=(BALLS,), **tables):
    content = TINY.model_dump() | {"film": FILM, "drift": WANDERING, "tilts": STAGE, "particles": list(particles)}
    return simulate(Scene.model_validate(content | tables), CIFS)


def rows(array: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(row) for row in array}


@pytest.mark.parametrize(
    "more",
    [{"drift": WANDERING | {"walk_px": 6}}, {"tilts": STAGE | {"angles": [0.0, 12, 25, 70]}}],
    ids=["drift", "tilt"],
)
def test_what_is_seen_of_the_film_does_not_redraw_the_sample(more):
    less, other = played(), played(**more)
    np.testing.assert_array_equal(less.truth.positions_nm, other.truth.positions_nm)
    np.testing.assert_array_equal(less.film.waves, other.film.waves)
    for one, two in ((less.film.holes, other.film.holes), (less.film.dirt, other.film.dirt)):
        assert rows(one) < rows(two)


@pytest.mark.parametrize("gone", ["holes", "contamination", "wrinkles"])
def test_features_of_a_film_have_streams_of_their_own(gone):
    full, less = played().film, played(film={k: v for k, v in FILM.items() if k != gone}).film
    for key, field in (("holes", "holes"), ("contamination", "dirt"), ("wrinkles", "waves")):
        if key != gone:
            # where a film is wrinkled more of it comes into view
            assert rows(getattr(less, field)) <= rows(getattr(full, field))
            assert len(getattr(less, field))


def test_one_more_tilt_leaves_those_before_it():
    short, long = played().motion, played(tilts=STAGE | {"angles": [*STAGE["angles"], 50.0]}).motion
    for name in ("stated_deg", "alpha_deg", "drift_px", "row_px", "centers_px"):
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[:4])


@pytest.mark.parametrize("cluster_size", [1, 3])
def test_one_more_particle_leaves_the_others_where_they_are(cluster_size):
    last = BALLS | {"size_nm": 7, "cluster_size": cluster_size}
    less, more = (played([BALLS, last | {"count": n}]).truth for n in (5, 6))
    np.testing.assert_array_equal(less.positions_nm, more.positions_nm[:8])
    np.testing.assert_array_equal(less.ub, more.ub[:8])
    np.testing.assert_array_equal(less.drift_px, more.drift_px)


def test_scans_are_the_same_where_others_are_missing():
    raster = {"row_jitter_px": 0.3}
    instrument = TINY.instrument.model_dump() | {"raster": raster}
    full = played(instrument=instrument)
    part = played(tilts=STAGE | {"missing": [0, 2]}, instrument=instrument)
    assert part.motion.turn.tolist() == [1, 3]
    for mine, turn in enumerate(part.motion.turn):
        np.testing.assert_array_equal(part.scan(mine), full.scan(turn))
        np.testing.assert_array_equal(part.images(mine).images, full.images(turn).images)


def test_twins_and_shells_count_as_particles(monkeypatch):
    twins = {"cif": "rutile.cif", "count": 2, "habit": "block", "size_nm": 12, "twin": {"plane": (1, 0, 1)}}
    monkeypatch.setattr(sample, "MOST_THICKNESSES", 3 * 24 * 32)
    played([BALLS])
    with pytest.raises(InputError, match=r"particles\.0.*more than 3 particles in 24 × 32"):
        played([twins])
