"""Shells without signal are left out, and none with."""

from dataclasses import replace

import numpy as np
import pytest
from solve.synthetic import known, measured

from stemtomo_dl.solve.signal import within_signal


@pytest.fixture(scope="module")
def brookite():
    return measured(known("brookite"), "Ti,O", 0.6, 0.9, noise=0.15)


def faded(data, beyond, seed=0):
    """Noise alone in place of what is beyond a spacing, Å."""
    noise = np.random.default_rng(seed).normal(size=len(data.hkl)) * data.sigma.mean()
    outer = np.linalg.norm(data.hkl @ data.reciprocal, axis=1) > 1 / beyond
    sigma = np.where(outer, data.sigma.mean(), data.sigma)
    return replace(data, intensity=np.where(outer, noise, data.intensity), sigma=sigma)


@pytest.mark.parametrize("beyond", [1.0, 0.8])
def test_noise_is_cut_where_it_begins(brookite, beyond):
    cut = within_signal(faded(brookite, beyond))
    assert beyond - 0.06 < cut.d_min < beyond + 0.02
    assert "noise" in cut.notes[-1]
    assert len(cut.hkl) == len(cut.intensity) == len(cut.sigma)


def test_what_holds_a_signal_stays(brookite):
    assert within_signal(brookite) is brookite
    assert within_signal(replace(brookite, sigma=100 * brookite.sigma)).d_min == brookite.d_min  # stated far too large


def test_a_little_signal_in_the_midst_keeps_what_is_within(brookite):
    """A weak shell with strong ones beyond is a crystal's, not the end of its signal."""
    inverse_d = np.linalg.norm(brookite.hkl @ brookite.reciprocal, axis=1)
    weak = (inverse_d > 1 / 0.9) & (inverse_d < 1 / 0.8)
    hollow = replace(brookite, intensity=np.where(weak, 0.0, brookite.intensity))
    assert within_signal(hollow).d_min == brookite.d_min
