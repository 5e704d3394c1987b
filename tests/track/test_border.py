"""The middle of a particle whose outline the scan's edge cuts."""

import numpy as np
import pytest

from stemtomo_dl.geometry import field_centre
from stemtomo_dl.track.border import uncut
from stemtomo_dl.track.series import Series

SHAPE = (60, 80)
Y, X = np.mgrid[-40:100, -40:120]


def ellipse(middle, half, angle):
    """Centroid and second moments of a drawn ellipse, whole and where the scan sees it, relative to its centre."""
    c, s = np.cos(angle), np.sin(angle)
    dx, dy = X - middle[0], Y - middle[1]
    inside = ((c * dx + s * dy) / half[0]) ** 2 + ((c * dy - s * dx) / half[1]) ** 2 <= 1
    seen = inside & (X >= 0) & (SHAPE[1] > X) & (Y >= 0) & (SHAPE[0] > Y)
    out = []
    for part in (inside, seen):
        at = np.stack([X[part], Y[part]], 1).astype(float)
        out += [at.mean(0) - field_centre(SHAPE), np.cov(at.T)]
    return out


def series(xy, covariance, cut):
    none, n = np.zeros(0), len(xy)
    cut = np.array(cut, float)
    groups = [np.array([k]) for k in range(n)]
    rank = np.arange(n)
    narrow = np.sqrt(np.linalg.eigvalsh(covariance)[:, 0])
    return Series(xy, none, none, cut, covariance, narrow, rank, groups, rank, np.arange(n) * 1.0, SHAPE, None)


@pytest.mark.parametrize("angle", [0.0, 0.5, 1.2])
@pytest.mark.parametrize("middle", [(2.0, 30.0), (77.0, 25.0), (40.0, -2.0), (35.0, 58.0)])
def test_a_cut_outline_tells_where_the_middle_is(middle, angle):
    half = (13.0, 8.0)
    inner, covariance = ellipse((40.0, 30.0), half, angle)[:2]
    true, _, seen, narrowed = ellipse(middle, half, angle)
    off = np.linalg.norm(seen - true)
    assert off > 2.0
    before = series(np.array([inner, seen, inner]), np.array([covariance, narrowed, covariance]), [0, 25.0, 0])
    after = uncut(before, np.array([[0, 1, 2]]))
    assert np.linalg.norm(after.xy[1] - true) < 0.12 * off + 0.2
    assert after.cut[1] < 25.0
    np.testing.assert_array_equal(after.xy[[0, 2]], before.xy[[0, 2]])


def test_without_a_whole_outline_nothing_is_moved():
    _, _, seen, narrowed = ellipse((2.0, 30.0), (13.0, 8.0), 0.3)
    before = series(np.array([seen]), narrowed[None], [25.0])
    after = uncut(before, np.array([[0]]))
    np.testing.assert_array_equal(after.xy, before.xy)
    np.testing.assert_array_equal(after.cut, before.cut)
