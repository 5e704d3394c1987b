"""Random scenes: all can be played, every option occurs on and off, and the truth of what is played is right."""

from contextlib import contextmanager

import numpy as np
import pytest

from stemtomo_dl import known
from stemtomo_dl.config import Experiment, Model, load
from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import disk_radius_px, field_centre, tilt_rotation, wavelength
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.simulate.detector import make_sensor
from stemtomo_dl.simulate.distortion import beam_shifts
from stemtomo_dl.simulate.habit import faces, shorthand
from stemtomo_dl.simulate.motion import make_motion
from stemtomo_dl.simulate.random_scene import random_scene
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import simulate
from stemtomo_dl.simulate.shape import polyhedron
from stemtomo_dl.simulate.stock import pseudo_cif
from stemtomo_dl.store.results import read_image_facts, read_images
from stemtomo_dl.store.truth import read_truth

SEEDS = (38, 72)  # scenes that are played in a few seconds


class Quiet:
    @contextmanager
    def stage(self, name, total):
        yield lambda: None


SCENES = [random_scene(np.random.default_rng(seed))[0] for seed in range(200)]


def any_particles(scene: Scene, test) -> bool:
    return any(test(p) for p in scene.particles)


def given(model: Scene | Model, key: str) -> bool:
    """Whether a model, or the camera of a scene, states a key."""
    return key in (model.instrument.camera if isinstance(model, Scene) else model).model_fields_set


def oblique(indices: tuple[int, int, int]) -> bool:
    return sum(i != 0 for i in indices) > 1


OPTIONS = {
    "kinematic": lambda s: s.intensities == "kinematic",
    "sequential": lambda s: s.overlap == "sequential",
    "current": lambda s: s.instrument.current_pa is not None,
    "averaged thickness": lambda s: s.instrument.probe_samples > 1,
    "shear": lambda s: s.instrument.raster.shear_deg != 0,
    "scale": lambda s: s.instrument.raster.fast_scale != 1,
    "flyback": lambda s: s.instrument.raster.flyback_px != 0,
    "jitter": lambda s: s.instrument.raster.row_jitter_px > 0,
    "descan": lambda s: s.instrument.descan.fast_px != (0, 0),
    "bowed descan": lambda s: s.instrument.descan.fast_bow_px != (0, 0),
    "ellipse": lambda s: s.instrument.ellipse.ratio > 1,
    "rotation": lambda s: s.instrument.rotation_deg != 0,
    "hybrid": lambda s: s.instrument.camera.kind == "hybrid",
    "scintillator": lambda s: s.instrument.camera.kind == "scintillator",
    "hot pixels": lambda s: s.instrument.camera.hot_pixels > 0,
    "listed pixels": lambda s: s.instrument.camera.listed_share > 0,
    "stated pixel": lambda s: s.stated.pixel_inv_angstrom is not None,
    "stated axis": lambda s: s.stated.tilt_axis_deg is not None,
    "stated rotation": lambda s: s.stated.rotation_deg is not None,
    "angle errors": lambda s: s.tilts.sigma_deg > 0,
    "angle offset and scale": lambda s: s.tilts.angle_offset_deg != 0 and s.tilts.angle_scale != 1,
    "backlash": lambda s: s.tilts.backlash_deg > 0,
    "uneven": lambda s: s.tilts.uneven_deg > 0,
    "missing": lambda s: s.tilts.missing != [],
    "downward": lambda s: s.tilts.angles[0] > s.tilts.angles[-1],
    "ordered": lambda s: s.tilts.order != "given",
    "off the axis": lambda s: s.drift.height_nm != 0,
    "sliding": lambda s: s.drift.scan_px > 0,
    "jumps": lambda s: s.drift.jumps != [],
    "film": lambda s: s.film.thickness_nm > 0,
    "holes": lambda s: s.film.holes is not None,
    "wrinkles": lambda s: s.film.wrinkles is not None,
    "dirt": lambda s: s.film.contamination is not None,
    "needle": lambda s: s.film.needle is not None,
    "on the needle": lambda s: any_particles(s, lambda p: p.support == "needle"),
    "poisson numbers": lambda s: any_particles(s, lambda p: p.count_law == "poisson"),
    "faces": lambda s: any_particles(s, lambda p: bool(p.faces)),
    "habit": lambda s: any_particles(s, lambda p: p.habit is not None),
    "sphere": lambda s: any_particles(s, lambda p: p.shape == "sphere"),
    "random shape": lambda s: any_particles(s, lambda p: p.shape == "random"),
    "irregular": lambda s: any_particles(s, lambda p: p.irregularity > 0),
    "rounded": lambda s: any_particles(s, lambda p: p.rounding > 0),
    "twin": lambda s: any_particles(s, lambda p: p.twin is not None),
    "amorphous shell": lambda s: any_particles(s, lambda p: p.shell is not None and p.shell.cif is None),
    "crystalline shell": lambda s: any_particles(s, lambda p: p.shell is not None and p.shell.cif is not None),
    "textured": lambda s: any_particles(s, lambda p: p.orientation.kind != "random"),
    "mosaic": lambda s: any_particles(s, lambda p: p.mosaic_deg > 0),
    "damage": lambda s: any_particles(s, lambda p: p.damage is not None),
    "agglomerates": lambda s: any_particles(s, lambda p: p.cluster_size > 1),
    "pseudo-structure": lambda s: any_particles(s, lambda p: p.cif == "pseudo.cif"),
    "several kinds": lambda s: len(s.particles) > 1,
    "other formats": lambda s: s.format != ".h5",
    "hspy": lambda s: s.format == ".hspy",
    "density": lambda s: any_particles(s, lambda p: p.per_um2 is not None),
    "gaps": lambda s: any_particles(s, lambda p: p.min_gap_nm is not None),
    "fixed orientation": lambda s: any_particles(s, lambda p: p.orientation.kind == "fixed"),
    "oblique axis": lambda s: any_particles(s, lambda p: oblique(p.orientation.plane or p.orientation.direction)),
    "twin by plane": lambda s: any_particles(s, lambda p: p.twin is not None and p.twin.plane is not None),
    "twin by axis": lambda s: any_particles(s, lambda p: p.twin is not None and p.twin.axis is not None),
    "twin by angle": lambda s: any_particles(s, lambda p: p.twin is not None and p.twin.angle_deg != 180),
    "composition": lambda s: any_particles(s, lambda p: p.twin is not None and p.twin.composition is not None),
    "some twinned": lambda s: any_particles(s, lambda p: p.twin is not None and p.twin.fraction < 1),
    "oblique faces": lambda s: any_particles(s, lambda p: any(oblique(f.hkl) for f in p.faces)),
    "tail": lambda s: given(s, "psf_tail_share") and given(s, "psf_tail_px"),
    "gain spread": lambda s: given(s, "gain_spread"),
    "saturation": lambda s: given(s, "saturation"),
    "hot electrons": lambda s: given(s, "hot_electrons"),
    "chips": lambda s: given(s, "chips"),
    "gap": lambda s: given(s, "gap_px"),
    "wide pixels": lambda s: given(s, "wide_px"),
    "path in the film": lambda s: s.film.mean_free_path_nm is not None,
    "path in the needle": lambda s: s.film.needle is not None and given(s.film.needle, "mean_free_path_nm"),
    "path in a shell": lambda s: any_particles(
        s, lambda p: p.shell is not None and given(p.shell, "mean_free_path_nm")
    ),
    "path in a particle": lambda s: any_particles(s, lambda p: p.mean_free_path_nm is not None),
    "damage at": lambda s: any_particles(s, lambda p: p.damage is not None and p.damage.at_A != 1),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_seen_on_and_off(option):
    on = sum(OPTIONS[option](s) for s in SCENES)
    assert 4 <= on <= 196


def test_the_beam_keeps_clear_of_gaps():
    """At every tilt and at the corners, edges and middle of the scan, of all but dead pixels that lie at random."""
    hybrids = 0
    for s in SCENES:
        m, camera = s.instrument, s.instrument.camera
        even = camera.model_copy(update={"hot_pixels": 0, "dead_pixels": 0})
        lost = make_sensor(even, m.detector, np.random.default_rng(0)).listed
        disk = disk_radius_px(m.convergence_mrad, wavelength(m.voltage_kv), m.pixel_inv_angstrom)
        phi, radius = np.arange(400) * 2.399963, disk * np.sqrt((np.arange(400) + 0.5) / 400)
        points = radius[:, None] * np.column_stack([np.cos(phi), np.sin(phi)])
        shifts = beam_shifts(m.descan, (3, 3)).reshape(-1, 1, 1, 2)
        places = make_motion(s).centers_px[:, None] + points + shifts
        column, row = np.floor(places + 0.5).astype(int).reshape(-1, 2).T
        share = lost[row, column].reshape(places.shape[:3]).mean(2)
        assert share.max() <= 0.03, s
        hybrids += lost.any()
    assert hybrids > 30


def test_stated_values_are_off_by_no_more_than_the_contract_allows():
    for s in SCENES:
        m = s.instrument
        assert (s.stated.pixel_inv_angstrom or m.pixel_inv_angstrom) / m.pixel_inv_angstrom == pytest.approx(
            1, abs=0.02
        )
        if s.stated.tilt_axis_deg is not None:
            assert abs(s.stated.tilt_axis_deg - m.tilt_axis_deg) <= 3
        assert s.tilts.sigma_deg <= 0.1
        assert abs(s.tilts.angle_offset_deg) <= 0.1
        assert s.tilts.angle_scale == pytest.approx(1, abs=0.001)
        assert s.tilts.backlash_deg <= 0.1


def test_one_seed_gives_one_scene():
    (first, cifs), (again, same), (other, _) = (random_scene(np.random.default_rng(k)) for k in (3, 3, 4))
    assert first == again
    assert cifs == same
    assert first != other


@pytest.mark.parametrize("name", ["block", "rod", "plate", "octahedron", "truncated-octahedron"])
def test_habits_close_without_any_symmetry(name):
    structure = read_structure("pseudo", pseudo_cif(np.random.default_rng(1)), 1.5)
    normals, distances = faces(structure, shorthand(name, 2.0))
    body = polyhedron(normals, distances)
    assert body.volume > 1
    np.testing.assert_allclose((normals @ normals.T).min(1), -1)  # every face has its opposite


def test_the_truth_of_drawn_scenes():
    """Cells are those of the phases, and outlines lie where positions, tilts and drift say."""
    checked = []
    for scene, cifs in (random_scene(np.random.default_rng(seed)) for seed in range(0, 40, 5)):
        series = simulate(scene, cifs)
        t, m = series.truth, scene.instrument
        assert len(t.masks) > 0
        known, errors = {p.structure.name: p.structure.b for p in series.cast.particles}, []
        for ub, phase in zip(t.ub, t.phase, strict=True):
            np.testing.assert_allclose(ub.T @ ub, known[phase].T @ known[phase], atol=1e-9)
            assert np.linalg.det(ub) > 0
        for i in range(len(t.masks)):
            mask, tilt, p = t.masks.full(i), t.masks.tilt[i], t.particle[i]
            y, x = np.nonzero(mask)
            if min(*y, *x) == 0 or x.max() == m.scan[1] - 1 or y.max() == m.scan[0] - 1:
                continue  # partly out of view
            at = (tilt_rotation(m.tilt_axis_deg, t.alpha_deg[tilt]) @ t.positions_nm[p])[:2] / m.step_nm
            at = at + t.drift_px[tilt] + field_centre(m.scan)
            reach = series.cast.particles[p].solid.bound() / m.step_nm
            off = float(np.hypot(x.mean() - at[0], y.mean() - at[1]))
            assert off < 0.3 * reach + 3  # rows slide and lean, and outlines are not where their bodies' weight is
            errors.append(off)
        checked += errors
        assert np.median(errors) < 0.9  # and yet a wrong angle, height or drift would show
    assert len(checked) > 100


@pytest.mark.parametrize("seed", SEEDS)
def test_drawn_scenes_play_end_to_end(seed, tmp_path):
    """Written, read back, played again from the scene that lies beside: the same bytes."""
    count, _ = known.simulate("random", tmp_path / "one", Quiet(), seed)
    truth = read_truth(tmp_path / "one/truth.h5")
    assert count == len(truth.alpha_deg)
    scene, cifs = random_scene(np.random.default_rng(seed))
    np.testing.assert_allclose(truth.ub, simulate(scene, cifs).truth.ub)
    experiment = load(Experiment, tmp_path / "one/experiment.toml")
    assert experiment.detector.pixel_inv_angstrom == pytest.approx(
        scene.stated.pixel_inv_angstrom or scene.instrument.pixel_inv_angstrom
    )
    known.simulate(str(tmp_path / "one/scene.toml"), tmp_path / "two", Quiet())
    scans = sorted((tmp_path / "one/scans").iterdir())
    assert len(scans) >= count
    for path in scans:
        assert path.read_bytes() == (tmp_path / "two/scans" / path.name).read_bytes()


def test_images_only_from_the_command(tmp_path):
    count, _ = known.simulate("tiny", tmp_path, Quiet(), 7, images_only=True)
    alpha, good, bad = read_image_facts(tmp_path / "images.h5")
    assert good.all()
    assert len(alpha) == count == len(read_truth(tmp_path / "truth.h5").alpha_deg) == 4
    assert bad.shape == (64, 48)
    assert read_images(tmp_path / "images.h5", 0).images.shape == (5, 24, 32)
    assert not (tmp_path / "scans").exists()
    assert load_scene(tmp_path / "scene.toml")[0].seed == 7
    with pytest.raises(InputError, match="another scene"):
        known.simulate("tiny", tmp_path, Quiet(), 8, images_only=True)
