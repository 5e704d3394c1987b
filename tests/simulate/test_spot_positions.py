"""From counts back to the lattice: spots found on the detector against the contract's formulas and the truth's UB."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.constants import c, e, h, m_e
from scipy.spatial.transform import Rotation

from stemtomo_dl import resources
from stemtomo_dl.simulate.scene import Scene
from stemtomo_dl.simulate.series import simulate

CIFS = {"rutile.cif": (resources.synthetic() / "structures/rutile.cif").read_text()}
AXIS, TURN, PIXEL, VOLTAGE = 37.0, 21.0, 0.012, 80
ANGLES = [-50.0, 0.0, 34.0]


@pytest.fixture(scope="module")
def series():
    microscope = {
        "voltage_kv": VOLTAGE,
        "convergence_mrad": 0.2,
        "electrons_per_pattern": 1e6,
        "scan": (3, 4),
        "step_nm": 3.0,
        "detector": (280, 300),
        "pixel_inv_angstrom": PIXEL,
        "tilt_axis_deg": AXIS,
        "rotation_deg": TURN,
        "beam_offset_px": (2.4, -3.3),
        "camera": {"dtype": "uint32", "psf_sigma_px": 0.8},  # so that centroids do not stick to pixels
    }
    turned = {"kind": "fixed", "rotation_vector_deg": (31.0, -64.0, 22.0)}
    ball = {"cif": "rutile.cif", "count": 1, "size_nm": 12, "shape": "sphere", "positions_nm": [(0, 0, 0)]}
    scene = {
        "title": "spots",
        "instrument": microscope,
        "tilts": {"angles": ANGLES, "sigma_deg": 0.3},
        "drift": {"beam_walk_px": 1.0},
        "particles": [ball | {"orientation": turned}],
    }
    return simulate(Scene.model_validate(scene), CIFS)


def spots(pattern: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Centroids (spot, 2) column, row of what stands out in a pattern, the direct beam left out."""
    above = pattern - ndimage.median_filter(pattern, 15)
    smooth = ndimage.uniform_filter(above, 3)
    peaks = np.argwhere((smooth == ndimage.maximum_filter(smooth, 9)) & (smooth > 300))
    out, steps = [], np.arange(-4, 5)
    for y, x in peaks:
        window = above[y - 4 : y + 5, x - 4 : x + 5]
        if window.shape == (9, 9) and np.hypot(x - center[0], y - center[1]) > 10:
            out.append([x + (window.sum(0) @ steps) / window.sum(), y + (window.sum(1) @ steps) / window.sum()])
    return np.array(out)


@pytest.mark.parametrize("tilt", range(len(ANGLES)))
def test_spots_lie_at_the_lab_vectors_of_the_truth(series, tilt):
    """Column +g_x, row +g_y after `rotation_deg` from x toward y; K tan 2θ, which is further out, is not meant."""
    truth = series.truth
    energy = VOLTAGE * 1e3 * e
    k = np.sqrt(2 * m_e * energy * (1 + energy / (2 * m_e * c**2))) / h * 1e-10
    axis = np.array([np.cos(np.radians(AXIS)), np.sin(np.radians(AXIS)), 0])
    stage = Rotation.from_rotvec(np.radians(truth.alpha_deg[tilt]) * axis)
    hkl, intensity = truth.reflections["rutile"]
    g = stage.apply(hkl @ truth.ub[0].T)
    s = np.sqrt(k**2 - g[:, 0] ** 2 - g[:, 1] ** 2) - (k + g[:, 2])
    near = (np.abs(s) < 0.08) & (intensity > 1e-3 * intensity.max())
    turned = Rotation.from_euler("z", TURN, degrees=True).apply(g[near])[:, :2]
    place = truth.centers_px[tilt] + turned / PIXEL
    found = spots(series.scan(tilt).sum((0, 1), dtype=float), truth.centers_px[tilt])
    away = found[:, None] - place
    nearest = np.hypot(*np.moveaxis(away, -1, 0)).argmin(1)
    off, out = away[np.arange(len(found)), nearest], turned[nearest] / np.hypot(*turned[nearest].T)[:, None]
    assert len(found) >= 12
    assert np.hypot(*off.T).max() < 0.1
    assert abs(off.mean(0)).max() < 0.04
    length = np.hypot(*turned[nearest].T)
    assert length.max() > 1.4
    further = length * (1 / np.sqrt(1 - (length / k) ** 2) - 1) / PIXEL
    slope = ((off * out).sum(1) * further).sum() / (further**2).sum()
    assert slope == pytest.approx(0, abs=0.1)  # 1 for tan 2θ
