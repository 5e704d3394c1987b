"""A crystal's series drawn for the tests of integration: flat disks on a peaked background, counted."""

import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl.crystal.cells import reciprocal_basis
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.predict import turning_axes
from stemtomo_dl.geometry import disk_radius_px, excitation_error, g_to_detector, tilt_rotation, wavelength
from stemtomo_dl.records import DiffractionSeries, Instrument

INSTRUMENT = Instrument(200.0, 0.7, 0.02, 5.0, 31.0, rotation_deg=-6.0)
WAVE, CENTER, SIZE = wavelength(200.0), np.array([48.3, 47.1]), 96
RADIUS = disk_radius_px(0.7, WAVE, 0.02)
CELL = np.array([9.18, 5.45, 5.15, 90, 90, 90])
UB = Rotation.random(random_state=6).as_matrix() @ reciprocal_basis(CELL)
CRYSTAL = Crystal("oP", 1.0, 999, 0.0, 31.0, 0.0, 0.0, UB, CELL, np.zeros(2))
THICKNESS = 200.0  # Å


def strength(hkl):
    """Exponential intensities that equivalents share: Wilson's statistics."""
    key = np.abs(hkl) @ [1, 31, 997]
    return np.array([np.random.default_rng(k).exponential() for k in key])


def drawn(alpha, turns=None, counts=40.0, background=1.0, seed=0, rocking=None, ub=UB, power=strength):
    """A series of the crystal above, frames turned by (frame, 2) radians about the tilt axis and across it."""
    rng = np.random.default_rng(seed)
    rocking = rocking or (lambda s: np.sinc(THICKNESS * s) ** 2)
    turns = np.zeros((len(alpha), 2)) if turns is None else turns
    n = 15
    hkl = np.stack(np.meshgrid(*[np.arange(-n, n + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ ub.T, axis=1)
    hkl = hkl[(length > 0) & (length < 1.4)]
    each, g0 = power(hkl), hkl @ ub.T
    y, x = np.mgrid[:SIZE, :SIZE]
    far = np.hypot(x - CENTER[0], y - CENTER[1])
    mean = np.tile(background * (0.05 + 8 * np.exp(-far / 6)), (len(alpha), 1, 1))
    own = Rotation.from_rotvec(turns @ turning_axes(31.0)).as_matrix()
    for f, turn in enumerate(own @ tilt_rotation(31.0, alpha)):
        g = g0 @ turn.T
        value = counts * each * rocking(excitation_error(g, WAVE))
        px = g_to_detector(g, 0.02, -6.0, CENTER)
        for (cx, cy), v in zip(px[value > 0.02], value[value > 0.02], strict=True):
            if 0 < cx < SIZE and 0 < cy < SIZE:
                part = np.s_[max(0, int(cy) - 4) : int(cy) + 6, max(0, int(cx) - 4) : int(cx) + 6]
                disk = np.clip(RADIUS + 0.5 - np.hypot(x[part] - cx, y[part] - cy), 0, 1)
                mean[f][part] += v * disk / (np.pi * RADIUS**2)
    m, patterns = len(alpha), rng.poisson(mean).astype("f4")
    frame = np.arange(m, dtype="i4")
    ones = np.ones(m, "i4")
    measured = np.ones(patterns.shape, bool)
    return DiffractionSeries(INSTRUMENT, patterns, measured, alpha, frame, ones, 0 * ones, CENTER)


def no_spots(series):
    """What finding spots would leave of a series where nothing was found."""
    n = len(series.alpha_deg)
    none = np.zeros(0)
    return Spots(RADIUS, np.zeros(0, "i4"), np.zeros((0, 2)), none, none, np.tile(CENTER, (n, 1)))
