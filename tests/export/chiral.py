"""A chiral crystal's series from the contract's formulas alone: of every pair ±h only one reflection has intensity."""

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl.records import DiffractionSeries, Instrument

K = 39.8735  # 1/Å at 200 kV, from CODATA constants
AXIS, PIXEL, CENTER, SHAPE = 37.0, 0.02, (61.0, 47.0), (96, 120)
UB = Rotation.from_rotvec([0.4, -0.9, 0.7]).as_matrix() @ np.linalg.inv(
    np.array([[6.1, 0, 0], [0.5, 7.3, 0], [0.9, -0.6, 8.4]])
)
_H = np.array([(h, k, m) for h in range(-7, 8) for k in range(-8, 9) for m in range(-9, 10) if (h, k, m) > (0, 0, 0)])
SIGN = np.where(np.random.default_rng(3).random(len(_H)) < 0.5, -1, 1)
HKL = _H * SIGN[:, None]
HKL = HKL[np.linalg.norm(HKL @ UB.T, axis=1) < 0.9]


def series(alpha, both=False):
    """Gaussian spots at column +g_x, row +g_y with a rocking width of 0.004 1/Å; 60 counts a probe at their highest.

    With ``both`` reflections of either sign have intensity.
    """
    hkl = np.concatenate([HKL, -HKL]) if both else HKL
    axis = np.array([np.cos(np.radians(AXIS)), np.sin(np.radians(AXIS)), 0])
    y, x = np.indices(SHAPE)
    patterns = np.zeros((len(alpha), *SHAPE), "f4")
    for pattern, a in zip(patterns, alpha, strict=True):
        g = Rotation.from_rotvec(np.radians(a) * axis).apply(hkl @ UB.T)
        s = np.sqrt(K**2 - g[:, 0] ** 2 - g[:, 1] ** 2) - (K + g[:, 2])
        for (gx, gy, _), e in zip(g, np.exp(-0.5 * (s / 0.004) ** 2), strict=True):
            if e > 1e-3:
                cx, cy = CENTER[0] + gx / PIXEL, CENTER[1] + gy / PIXEL
                pattern += 60 * e * np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / 0.8**2)
    patterns -= np.float32(0.25)  # a background that was taken too high
    measured = np.ones(patterns.shape, bool)
    measured[:, 20:22, :] = False
    n = len(alpha)
    probes = np.full(n, 50, "i4")
    instrument = Instrument(200, 0.4, PIXEL, 5.0, AXIS)
    return DiffractionSeries(
        instrument,
        patterns,
        measured,
        np.asarray(alpha, float),
        np.arange(n, dtype="i4"),
        probes,
        probes,
        np.array(CENTER),
    )


def counted(given):
    """The spots counted, without any background: DIALS would take its noise for thousands of spots."""
    counts = np.random.default_rng(5).poisson((given.patterns + 0.25) * given.n_probes[:, None, None])
    return replace(given, patterns=(counts / given.n_probes[:, None, None]).astype("f4"))
