"""Virtual images of whole tilts without patterns, against those that the pipeline makes from the patterns."""

from pathlib import Path

import numpy as np
import pytest

from stemtomo_dl.config import ImagesConfig
from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Instrument, Tile
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import Series, simulate
from stemtomo_dl.virtual import beam_positions, virtual_images

DAMAGE = {"critical_dose_e_per_A2": 2.0}
TOLERANCES = {"bf": 0.02, "adf": 0.04, "haadf": 0.04, "variance": 0.1, "maximum": 0.1}
SMALL, CIFS = load_scene(Path("brookite_small"))


class InMemory:
    """A scan that is an array."""

    name = "memory"

    def __init__(self, patterns: np.ndarray) -> None:
        self.patterns, self.shape, self.dtype = patterns, patterns.shape, patterns.dtype

    def tiles(self, budget: int) -> list[Tile]:
        return [Tile(0, self.shape[0], 0, self.shape[1])]

    def read(self, tile: Tile) -> np.ndarray:
        return self.patterns[tile.window]


def changed(instrument: dict, particles: dict, **keys: str) -> Series:
    """A small scene of three tilts with some keys changed."""
    content = SMALL.model_dump() | {"tilts": {"angles": [0.0, 20.0, -35.0]}} | keys
    content["instrument"] |= instrument
    content["particles"][0] |= particles
    content["drift"] |= {"jumps": []}
    return simulate(Scene.model_validate(content), CIFS)


def from_patterns(series: Series, tilt: int) -> tuple[np.ndarray, np.ndarray]:
    """The pipeline's images of a tilt, and its beam positions."""
    m = series.scene.instrument
    instrument = Instrument(m.voltage_kv, m.convergence_mrad, m.pixel_inv_angstrom, m.step_nm, m.tilt_axis_deg)
    made = virtual_images(InMemory(series.scan(tilt)), instrument, series.blind_pixels, ImagesConfig())
    return made.images, beam_positions(made.beam_px, m.scan)


@pytest.mark.parametrize(
    ("instrument", "particles", "keys"),
    [
        ({}, {}, {}),
        (  # the beam off the gaps, in which the pipeline would not find its centre
            {"camera": {"kind": "hybrid", "hot_pixels": 3}, "beam_offset_px": (9.0, 8.0)},
            {"damage": DAMAGE, "mosaic_deg": 0.2},
            {},
        ),
        ({"camera": {"kind": "scintillator"}}, {}, {"intensities": "kinematic"}),
        (  # a gap takes a tenth of the beam
            {"camera": {"kind": "hybrid"}, "convergence_mrad": 2.4, "beam_offset_px": (5.4, 9.0)},
            {},
            {},
        ),
        (
            {"raster": {"shear_deg": 4.0, "flyback_px": 2.0}, "descan": {"fast_px": (1.5, 0.5)}},
            {"shell": {"thickness_nm": 3.0}},
            {},
        ),
    ],
    ids=["plain", "hybrid", "scintillator", "grazed", "distorted"],
)
def test_images_without_patterns_are_those_of_the_patterns(instrument, particles, keys):
    agree(changed(instrument, particles, **keys), TOLERANCES)


def test_electrons_that_a_tail_moves():
    """The maximum is left out: of a tail that is counted, the hottest pixel comes out a fifth too low."""
    series = changed({"camera": {"psf_sigma_px": 0.5, "psf_tail_share": 0.1}, "convergence_mrad": 1.6}, {})
    agree(series, {name: rel for name, rel in TOLERANCES.items() if name != "maximum"})


def agree(series: Series, tolerances: dict[str, float]) -> None:
    tilt, truth = 1, series.truth.masks
    (made, beam), drawn = from_patterns(series, tilt), series.images(tilt)
    assert drawn.images.shape == made.shape
    np.testing.assert_allclose(beam_positions(drawn.beam_px, truth.shape), beam, atol=0.3)
    offset = series.scene.instrument.camera.full()["dark_offset"]
    outlines = [truth.full(i) for i in truth.at(tilt)]
    areas = [np.any(outlines, axis=0), ~np.any(outlines, axis=0)]
    for k, (name, rel) in enumerate(tolerances.items()):
        for area in areas:
            noise = 4 * np.hypot(made[k][area].std(), drawn.images[k][area].std()) / np.sqrt(area.sum())
            difference = abs(made[k][area].mean() - drawn.images[k][area].mean())
            signal = abs(made[k][area].mean() - (offset if name != "variance" else 0))
            assert difference < noise + rel * signal, name
        if name != "maximum":  # it hardly rises above the noise of single probes
            assert np.corrcoef(made[k].ravel(), drawn.images[k].ravel())[0, 1] > 0.5, name


def test_one_seed_gives_the_same_images():
    series = changed({}, {})
    first, again, other = series.images(1).images, changed({}, {}).images(1).images, series.images(2).images
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("instrument", "word"),
    [
        ({"camera": {"kind": "hybrid"}, "beam_offset_px": (0.0, 9.0)}, "in bf;"),
        ({"camera": {"kind": "hybrid", "gap_px": 37}}, "in bf and adf;"),
    ],
)
def test_a_detector_without_pixels_is_an_input_error(instrument, word):
    """Before anything is written, and whichever tilt it is at."""
    series = changed(instrument, {})
    for call in (series.check_images, lambda: series.images(0)):
        with pytest.raises(InputError, match=rf"beam_offset_px.*gap_px.*{word}"):
            call()
