"""Detector tables against patterns rendered pixel by pixel and against the detectors of the pipeline."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl import resources
from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.geometry import g_to_detector, wavelength
from stemtomo_dl.simulate import diffuse
from stemtomo_dl.simulate import library as lib
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.simulate.damage import Damage
from stemtomo_dl.simulate.diffraction import excite, make_beam, two_beam_shares
from stemtomo_dl.simulate.library import Specimen, make_responses
from stemtomo_dl.simulate.optics import ADF, BF, HAADF, Optics, zones
from stemtomo_dl.virtual.detectors import DetectorMaps

OPTICS = Optics(200, 0.9, 0.025, (80, 96), (48.3, 38.6), rotation_deg=17)
TOP, STEPS = 60.0, 6


@pytest.fixture(scope="module")
def crystal():
    cif = (resources.synthetic() / "structures/brookite.cif").read_text()
    structure = read_structure("brookite", cif, 0.8)
    return structure, Rotation.from_rotvec([0.5, 0.2, 0.9]).as_matrix() @ structure.b


@pytest.fixture(scope="module")
def responses(crystal):
    structure, ub = crystal
    tilted = Rotation.from_rotvec([0.02, 0, 0]).as_matrix() @ ub
    return make_responses(OPTICS, [Specimen(structure, TOP, np.stack([ub, tilted]))], STEPS)


@pytest.mark.parametrize(
    ("optics", "config"),
    [
        (OPTICS, ImagesConfig()),
        (Optics(300, 0.3, 0.03, (64, 64), (31.5, 33.2), bf_disk_radii=1.7, haadf_from=0.5), None),
        (Optics(80, 1.5, 0.02, (70, 128), (20.0, 60.4), haadf_from=0.7), None),
    ],
)
def test_zones_are_those_of_the_pipeline(optics, config):
    config = config or ImagesConfig(bf_disk_radii=optics.bf_disk_radii, haadf_from=optics.haadf_from)
    good, centre = np.ones(optics.detector, bool), np.array(optics.center_px)
    maps = DetectorMaps.around(centre, np.ones(optics.detector), good, optics.disk_px, 0, config)
    rows, columns = optics.detector
    ours = zones(optics)
    for zone in (BF, ADF, HAADF):
        window = maps.stack[zone - 1, maps.margin : maps.margin + rows, maps.margin : maps.margin + columns]
        np.testing.assert_array_equal(ours == zone, window > 0)


def rendered(crystal, step: int) -> np.ndarray:
    """The Bragg disks' expected pattern, by throwing many electrons' places onto the pixels."""
    structure, ub = crystal
    wave, rng = wavelength(200), np.random.default_rng(4)
    beam = make_beam(200, wave, 0.9, OPTICS.rings, OPTICS.rotation_deg)
    excited = excite(structure, ub, beam, TOP)
    shares = np.diff(two_beam_shares(excited, STEPS, TOP / STEPS)[step].astype(float), axis=-1, prepend=0)
    place = g_to_detector(excited.g, OPTICS.pixel_inv_angstrom, OPTICS.rotation_deg, np.array(OPTICS.center_px))
    cells, many = shares.shape[0], 40000
    rho, turn = np.sqrt(rng.random(many)), rng.random(many)
    ring = np.minimum((rho * OPTICS.rings).astype(int), OPTICS.rings - 1)
    cell = 3 * ring**2 + (turn * 3 * (2 * ring + 1)).astype(int)
    dx, dy = (OPTICS.disk_px * rho * f(2 * np.pi * turn) for f in (np.cos, np.sin))
    image = np.zeros(OPTICS.detector)
    for r, (x, y) in enumerate(place):
        j, i = np.floor(x + dx + 0.5).astype(int), np.floor(y + dy + 0.5).astype(int)
        inside = (i >= 0) & (i < image.shape[0]) & (j >= 0) & (j < image.shape[1])
        weight = shares[cell, r] / many
        np.add.at(image, (i[inside], j[inside]), weight[inside])
    assert cells == 3 * OPTICS.rings**2
    return image


@pytest.mark.parametrize("step", [2, 6])
def test_tables_equal_sums_over_patterns(crystal, responses, step):
    image, zone, got = rendered(crystal, step), zones(OPTICS), responses.table[0, 0, step]
    assert got[lib.TAKEN] >= image.sum() - 1e-4
    for q, z in ((lib.IN_BF, BF), (lib.IN_ADF, ADF), (lib.IN_HAADF, HAADF)):
        assert got[q] == pytest.approx(image[zone == z].sum(), abs=6e-3 * image.sum())
    dark = image[zone >= ADF]
    assert got[lib.SQUARES] == pytest.approx((dark**2).sum(), rel=0.05)
    assert got[lib.CUBES] == pytest.approx((dark**3).sum(), rel=0.08)
    hottest = np.sort(dark)[::-1]
    for g in range(lib.GROUPS):
        assert got[lib.PEAK + g] == pytest.approx(
            hottest[2**g - 1 : 2 ** (g + 1) - 1].mean(), rel=0.08 if g < 2 else 0.15
        )  # rims, rounded


def test_nothing_is_scattered_without_thickness(responses):
    assert (responses.table[:, :, 0] == 0).all()
    assert (responses.table >= 0).all()
    shares = responses.table
    assert (shares[..., lib.IN_BF : lib.IN_HAADF + 1].sum(-1) <= shares[..., lib.TAKEN] + 1e-5).all()


def test_orientations_differ(responses):
    assert np.abs(responses.table[0, 0] - responses.table[0, 1]).max() > 1e-3


def test_hottest_pixel_is_distributed_as_drawn(responses):
    rng = np.random.default_rng(5)
    level = int(np.abs(responses.levels - 400).argmin())
    film = OPTICS.template(diffuse.amorphous("C"))[zones(OPTICS) >= ADF]
    drawn = rng.poisson(responses.levels[level] * film, (4000, film.size)).max(1)
    table = responses.hottest[level, 0]
    assert table.mean() == pytest.approx(drawn.mean(), rel=0.03)
    assert table.std() == pytest.approx(drawn.std(), rel=0.15)


def test_a_point_spread_keeps_electrons_and_dims_the_hottest_pixel(crystal, responses):
    structure, ub = crystal
    blurred = make_responses(replace(OPTICS, psf_px=1.0), [Specimen(structure, TOP, ub[None])], STEPS)
    sharp, soft = responses.table[0, 0, STEPS], blurred.table[0, 0, STEPS]
    assert soft[lib.TAKEN] == pytest.approx(sharp[lib.TAKEN], rel=1e-3)
    assert soft[lib.PEAK] < 0.8 * sharp[lib.PEAK]
    dark = lib.IN_ADF, lib.IN_HAADF
    assert soft[list(dark)].sum() == pytest.approx(sharp[list(dark)].sum(), rel=0.05)


def test_damage_and_kinematic_theory_change_the_tables(crystal, responses):
    structure, ub = crystal
    specimen = Specimen(structure, TOP, ub[None])
    others = [
        replace(specimen, damage=Damage(critical_dose_e_per_A2=10), dose_e_per_A2=20),
        replace(specimen, kinematic=True),
        replace(specimen, mosaic_deg=0.2),
    ]
    made = make_responses(OPTICS, others, STEPS)
    fresh, (damaged, kinematic, mosaic) = responses.table[0, 0, STEPS], made.table[:, 0, STEPS]
    assert damaged[lib.TAKEN] < 0.8 * fresh[lib.TAKEN]
    assert 0 < kinematic[lib.TAKEN] <= 0.5
    assert np.abs(mosaic - fresh).max() > 1e-3
    assert made.diffuse[0, 2] > made.diffuse[1, 2]  # what reflections lose lands further out
