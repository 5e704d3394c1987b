"""Spots tell geometry by as much as their brightness and their distance from the beam let them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.adjust import misfit, spreads
from stemtomo_dl.crystal.cells import reciprocal_basis
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.joint import refine_jointly
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.records import Instrument

ALPHA = np.arange(-50.0, 51.0, 1.0)
STATED = Geometry(Instrument(200.0, 0.5, 0.02, 5.0, 30.0), ALPHA)
CENTER = np.array([64.0, 64.0])
CELL = np.array([9.18, 5.45, 5.15, 90.0, 90.0, 90.0])
UB = Rotation.random(random_state=3).as_matrix() @ reciprocal_basis(CELL)
CRYSTAL = Crystal("oP", 1.0, 500, 0.0, 30.0, 0.0, 0.0, UB, CELL, np.zeros(2))
HKL = np.stack(np.meshgrid(*[np.arange(-11, 12)] * 3, indexing="ij"), -1).reshape(-1, 3)
HKL = HKL[HKL.any(1) & (np.linalg.norm(HKL @ UB.T, axis=1) < 1.1)]
WIDTH, LEAST = 0.0015, 0.02  # of the rocking curve, 1/Å; the faintest that is seen


def series(rng, turn_deg=0.0, least=LEAST):
    """Spots of exponentially distributed strengths with their indices, seen as far as they are bright enough."""
    true = replace(STATED, turn_rad=np.radians(rng.normal(0, 1, (len(ALPHA), 3)) * turn_deg))
    strength = rng.exponential(1.0, len(HKL))
    frame, px, hkl, bright = [], [], [], []
    for f, turn in enumerate(true.turns()):
        g = HKL @ UB.T @ turn.T
        intensity = strength / (1 + (true.excitation(g) / WIDTH) ** 2)
        seen = intensity > least
        px.append(true.to_detector(g[seen], CENTER))
        frame.append(np.full(seen.sum(), f, "i4"))
        hkl.append(HKL[seen])
        bright.append(intensity[seen])
    bright, px = np.concatenate(bright), np.concatenate(px)
    px = px + rng.normal(0, 1, px.shape) * (0.05 / np.sqrt(bright))[:, None]
    center = np.tile(CENTER, (len(ALPHA), 1))
    return Spots(2.0, np.concatenate(frame), px, 100 * bright, np.ones(len(px)), center), np.concatenate(hkl), true


def test_spreads_are_what_misfits_of_bright_and_faint_spots_are():
    spots, hkl, _ = series(np.random.default_rng(0))
    off = np.abs(misfit(spots, hkl, STATED, CRYSTAL))
    width = spreads(spots, hkl, STATED, CRYSTAL)
    for part in np.array_split(np.argsort(spots.intensity), 5):
        for k in range(3):
            assert np.median(width[part, k]) == pytest.approx(1.4826 * np.median(off[part, k]), rel=0.4)
    bright = spots.intensity > np.percentile(spots.intensity, 90)
    assert np.median(width[~bright, 2]) > 3 * np.median(width[bright, 2])


def test_spreads_of_equal_spots_are_equal():
    spots, hkl, _ = series(np.random.default_rng(1))
    equal = replace(spots, intensity=np.zeros(len(spots)))  # as of programs that keep no intensities
    width = spreads(equal, hkl, STATED, CRYSTAL)
    length = np.linalg.norm(hkl @ UB.T, axis=1)
    order = np.argsort(length)
    assert np.isfinite(width).all()
    assert (width > 0).all()
    assert np.abs(np.diff(np.log(width[order, 0]))).max() < 0.2  # by nothing but the distance from the beam


def test_faint_spots_do_not_blur_the_orientation_of_frames():
    left = []
    for least in (0.2, 0.02):
        spots, _, true = series(np.random.default_rng(2), turn_deg=0.1, least=least)
        geometry, (crystal,) = refine_jointly([spots], [CRYSTAL], STATED)
        off = geometry.of(crystal).turns() @ crystal.ub @ np.linalg.inv(UB) @ np.swapaxes(true.turns(), 1, 2)
        turn = Rotation.from_matrix(off).as_rotvec(degrees=True)[:, :2]
        left.append(np.sqrt((turn**2).mean()))
    few, many = left
    assert many < few
