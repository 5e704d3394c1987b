"""Two-beam intensities against Bloch waves: where they hold, and where not. The oracle is checked itself first.

``python tests/simulate/test_bloch.py`` prints the table of docs/theory/forward-model.md.
"""

import bloch
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from stemtomo_dl import resources
from stemtomo_dl.geometry import tilt_rotation, wavelength
from stemtomo_dl.simulate.crystal import Structure, read_structure
from stemtomo_dl.simulate.diffraction import excite, extinction_distance, kinematic_shares, make_beam, two_beam_shares

G_MAX, S_MAX, COVERED = 1.4, 0.02, 0.008  # 1/Å
PARALLEL = make_beam(200, wavelength(200), 1e-6, 1, 0.0)


def read(name: str, g_max: float = 2 * G_MAX) -> Structure:
    return read_structure(name, (resources.synthetic() / f"structures/{name}.cif").read_text(), 1 / g_max)


@pytest.fixture(scope="module")
def brookite():
    return read("brookite")


@pytest.fixture(scope="module")
def tilted(brookite):
    ub = Rotation.from_rotvec([0.4, 1.1, -0.3]).as_matrix() @ brookite.b
    return bloch.beams(brookite, ub, 200, G_MAX, S_MAX)


def test_no_electron_is_lost(tilted):
    intensity = bloch.intensities(tilted, np.array([0.01, 0.02]), np.array([0.0, 100, 300, 900]))
    assert intensity.shape[1] > 40
    np.testing.assert_allclose(intensity.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(intensity[0], np.eye(intensity.shape[1])[0], atol=1e-12)
    assert intensity[3, 1:].sum() > 0.1


def test_bloch_waves_solve_the_wave_equation(tilted):
    transverse, k = np.array([-0.02, 0.01]), tilted.wave_number
    matrix = tilted.potential + np.diag(2 * k * bloch.excitation(tilted, transverse))
    wave = expm(1j * np.pi * 250 / k * matrix)[:, 0]
    np.testing.assert_allclose(bloch.intensities(tilted, transverse, np.array([250.0]))[0], abs(wave) ** 2, atol=1e-10)


def test_thin_crystals_are_kinematic(tilted, brookite):
    s, t = bloch.excitation(tilted, np.zeros(2)), 3.0
    expected = (np.pi * t * abs(tilted.potential[0]) / tilted.wave_number) ** 2 * np.sinc(t * s) ** 2
    intensity = bloch.intensities(tilted, np.zeros(2), np.array([t]))[0]
    strong = np.flatnonzero(expected > 0.05 * expected[1:].max())[1:]
    assert len(strong) > 10
    np.testing.assert_allclose(intensity[strong], expected[strong], rtol=0.03)


def test_two_beams_are_howie_and_whelans(tilted, brookite):
    """And the package's share of a lone reflection is the same, extinction distance and all."""
    g = 1 + np.argmax(abs(tilted.potential[0, 1:]))
    pair = bloch.Bloch(
        tilted.wave_number, *(v[[0, g]] for v in (tilted.hkl, tilted.g)), tilted.potential[np.ix_([0, g], [0, g])]
    )
    index = np.flatnonzero((brookite.hkl == tilted.hkl[g]).all(1))
    xi = extinction_distance(brookite, PARALLEL)[index][0]
    t = np.linspace(0, 3000, 31)
    for transverse in (np.zeros(2), np.array([0.05, -0.02]), -0.1 * tilted.g[g, :2]):
        s = bloch.excitation(pair, transverse)[1]
        expected = np.sin(np.pi * t * np.hypot(s, 1 / xi)) ** 2 / (1 + (s * xi) ** 2)
        np.testing.assert_allclose(bloch.intensities(pair, transverse, t)[:, 1], expected, atol=1e-9)


def rocking_sums(structure: Structure, orientations: int, thickness_nm: np.ndarray, seed: int = 0) -> np.ndarray:
    """Intensities integrated over rocking curves, (theory, thickness, reflection): Bloch, two-beam, kinematic.

    Crystals in random orientations are turned by ±1.3° about an axis in the plane; a reflection counts whose
    excitation error sweeps the whole of ±COVERED.
    """
    rng, sums, inner = np.random.default_rng(seed), [], read(structure.name, G_MAX)
    angles = np.arange(-1.3, 1.301, 0.06)
    for u in Rotation.random(orientations, rng=rng).as_matrix():
        near = bloch.beams(structure, u @ structure.b, 200, G_MAX, S_MAX + np.radians(1.3) * G_MAX)
        place = {h: i for i, h in enumerate(map(tuple, near.hkl[1:].tolist()))}
        column = np.array([place.get(h, -1) for h in map(tuple, inner.hkl.tolist())])
        s, found = np.zeros((len(angles), len(place))), np.zeros((3, len(angles), len(thickness_nm), len(place)))
        for a, turn in enumerate(tilt_rotation(30.0, angles)):
            turned = bloch.Bloch(near.wave_number, near.hkl, near.g @ turn.T, near.potential)
            s[a] = bloch.excitation(turned, np.zeros(2))[1:]
            kept = np.concatenate([[0], 1 + np.flatnonzero(abs(s[a]) < S_MAX)])
            beams = bloch.Bloch(near.wave_number, near.hkl[kept], turned.g[kept], near.potential[np.ix_(kept, kept)])
            found[0, a][:, kept[1:] - 1] = bloch.intensities(beams, np.zeros(2), 10 * thickness_nm)[:, 1:]
            excited = excite(inner, turn @ u @ inner.b, PARALLEL, thickness_nm.max())
            known = column[excited.index]
            for k, t in enumerate(thickness_nm):
                for n, shares in ((1, two_beam_shares(excited, 1, t)), (2, kinematic_shares(excited, 1, t, 1.0))):
                    alone = np.diff(shares[1, 0].astype(float), prepend=0)
                    found[n, a, k, known[known >= 0]] = alone[known >= 0]
        covered = (s.min(0) < -COVERED) & (s.max(0) > COVERED)
        step = abs(np.gradient(s, axis=0))[None, :, None]
        sums.append((found * step).sum(1)[..., covered])
    return np.concatenate(sums, -1)


def agreement(sums: np.ndarray) -> np.ndarray:
    """(theory, thickness, 3): CC with Bloch waves, R = Σ|I − I_B|/ΣI_B, and R after one scale factor."""
    out = []
    for theory in sums[1:]:
        for one, exact in zip(theory, sums[0], strict=True):
            scale = (one @ exact) / (one @ one)
            r = [abs(f * one - exact).sum() / exact.sum() for f in (1, scale)]
            out.append([np.corrcoef(one, exact)[0, 1], *r])
    return np.reshape(out, (2, -1, 3))


def test_where_two_beams_hold_and_where_they_stop(brookite):
    sums = rocking_sums(brookite, 2, np.array([2.5, 10.0, 20.0, 60.0]))
    assert sums.shape[-1] > 20
    two, kinematic = agreement(sums)
    assert (two[:, 0] > [0.995, 0.98, 0.97, 0.8]).all()
    assert (two[:, 1] < [0.08, 0.16, 0.2, 0.4]).all()
    assert (np.diff(two[:, 1]) > 0).all()
    assert two[3, 1] > 0.15  # many beams count: whoever needs these intensities needs another theory
    assert (two[1:, 1] < kinematic[1:, 1]).all()
    assert kinematic[3, 1] > 1.5 * two[3, 1]


if __name__ == "__main__":
    thickness = np.array([5.0, 10, 20, 30, 40, 60])
    for name in ("brookite", "cspbbr3"):
        sums = rocking_sums(read(name), 8, thickness)
        print(f"{name}: {sums.shape[-1]} reflections")
        for t, two, kinematic in zip(thickness, *agreement(sums), strict=True):
            print(
                f"| {t:.0f} |" + "".join(f" {cc:.3f} | {r:.2f} | {scaled:.2f} |" for cc, r, scaled in (two, kinematic))
            )
