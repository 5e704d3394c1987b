"""Fading and the account of the dose, against signals whose course is known."""

import numpy as np
import pytest

from stemtomo_dl.config import ExtractConfig
from stemtomo_dl.errors import InputError
from stemtomo_dl.extract import fading
from stemtomo_dl.particles import accumulated_dose, within_dose
from stemtomo_dl.records import Instrument

KNOWN = Instrument(200, 0.8, 0.03, 5.0, 24.3, 0.0, 2500.0)  # 1 e/Å² a scan


def signals(half_dose, scatter, rng, particles=6, frames=60):
    dose = np.tile(np.arange(1.0, frames + 1), particles)
    particle = np.repeat(np.arange(particles), frames)
    strength = np.exp(rng.normal(0, 1, particles))[particle]
    return strength * 0.5 ** (dose / half_dose) * np.exp(rng.normal(0, scatter, dose.size)), dose, particle


def test_a_half_dose_is_found_whatever_the_order():
    signal, dose, particle = signals(40.0, 0.0, np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(dose.size)
    assert fading(signal[order], dose[order], particle[order]).half_dose == pytest.approx(40)


def test_its_range_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    found = [fading(*signals(60.0, 0.7, rng)) for _ in range(100)]
    held = [f.least < 60 and (f.most is None or f.most > 60) for f in found]
    assert np.mean(held) > 0.9


def test_no_fading_is_not_called_fading():
    rng = np.random.default_rng(3)
    found = [fading(*signals(np.inf, 0.7, rng)) for _ in range(100)]
    assert np.mean([f.half_dose is None for f in found]) > 0.9
    assert all(f.least > 30 for f in found if f.least)


def test_too_few_frames_tell_nothing():
    assert fading(np.ones(3), np.arange(3.0), np.zeros(3, int)).least is None
    assert fading(np.zeros(30), np.arange(30.0), np.zeros(30, int)).half_dose is None


def test_scans_that_were_left_out_count_too():
    np.testing.assert_allclose(accumulated_dose(KNOWN, np.array([0, 4, 5])), [1, 5, 6])
    assert within_dose(KNOWN, [0, 4, 5], ExtractConfig(most_dose_e_per_A2=5)) == [0, 4]
    assert within_dose(KNOWN, [0, 4, 5], ExtractConfig()) == [0, 4, 5]


def test_a_limit_that_cannot_be_kept_is_refused():
    with pytest.raises(InputError, match="leaves no tilt"):
        within_dose(KNOWN, [3, 4], ExtractConfig(most_dose_e_per_A2=2))
    with pytest.raises(InputError, match="electrons_per_pattern"):
        within_dose(Instrument(200, 0.8, 0.03, 5.0, 24.3), [0], ExtractConfig(most_dose_e_per_A2=2))
