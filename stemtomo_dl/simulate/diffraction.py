"""What a particle does to the beam: the share of electrons that every reflection takes, for every thickness.

The illumination cone is cut into cells of equal area; within one, all electrons share an excitation error. A table
holds, for every thickness of a ladder and every cell, the cumulative share of the reflections; what is left
after the last one passes unscattered. Another theory (Bloch waves) only has to fill such a table.

Thicknesses and excitation errors are both along the beam, so a crystal that lies obliquely needs no further
factor: t/ξ and t·s are the same along the beam and along its normal, to g/K (a few %). Where two particles scatter
one electron in sequence, `simulate.again` takes over. docs/theory/forward-model.md has the formulas, and says where
they hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from stemtomo_dl.geometry import excitation_error, rotate_in_plane
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate import cone
from stemtomo_dl.simulate.crystal import Structure

_COARSEST_NM = 1.0  # spacing of the thicknesses between which shares are linear
_PERIODS = 0.5  # of the fastest oscillation with thickness that a spacing may span
_MOST_SHARES = 2**24  # of a particle: a larger table is made coarser
MOST_KINEMATIC = 0.5  # the kinematic shares of a particle are scaled so as never to exceed this
UNCOUPLED = 1e-16  # 1/Å², in place of 1/ξ²: not 0, so that s = 0 is no special case
WEAKEST = 1e-5  # reflections that take no more than this at any thickness are left out
_MOSAIC_REACH = 4.0  # mosaic blocks tilted by more than so many rms are left out


@dataclass(frozen=True, eq=False)
class Beam(Record):
    """The illumination: its wavelength and the cells of its cone, numbered as in `simulate.cone`."""

    voltage_kv: float
    wavelength_a: float
    convergence_mrad: float
    rings: int
    direction: np.ndarray = array("f8", "cell 2", "1, lab frame; the cone's rim is at 1")


def make_beam(voltage_kv: float, wavelength_a: float, convergence_mrad: float, rings: int, rotation_deg: float) -> Beam:
    """Cut a cone into 3·rings² cells; ``rotation_deg`` leads from the lab frame to the detector's axes."""
    direction = rotate_in_plane(cone.middles(rings), -rotation_deg)
    return Beam(voltage_kv, wavelength_a, convergence_mrad, rings, direction)


def rings_needed(convergence_mrad: float, g_max: float, thickness_nm: float) -> int:
    """Rings, between 2 and 8, that keep the phase π·t·s within about half a radian inside a cell."""
    phase = 2 * np.pi * thickness_nm * 10 * convergence_mrad * 1e-3 * g_max
    return int(np.clip(np.ceil(phase), 2, 8))


@dataclass(frozen=True, eq=False)
class Excited(Record):
    """The reflections of one particle that matter at one tilt."""

    index: np.ndarray = array("i8", "reflection")  # row of the structure's list
    g: np.ndarray = array("f8", "reflection 3", "1/Å, lab frame")
    s: np.ndarray = array("f8", "reflection", "1/Å")
    slope: np.ndarray = array("f8", "reflection cell", "1/Å")  # excitation error in a cell less s
    extinction: np.ndarray = array("f8", "reflection", "Å")
    spread: np.ndarray = array("f8", "reflection", "1/Å")  # rms of s among the mosaic blocks


def extinction_distance(structure: Structure, beam: Beam, fading: np.ndarray | None = None) -> np.ndarray:
    """ξ_g = π V / (γ λ |F_g|) for every reflection, Å, in the small-angle limit (Spence & Zuo 1992).

    Parameters
    ----------
    fading : (reflection,) array or None
        What damage has left of |F_g|².
    """
    gamma = 1 + beam.voltage_kv / 510.99895
    amplitude = np.abs(structure.structure_factor)
    if fading is not None:
        amplitude = amplitude * np.sqrt(fading)
    return np.asarray(np.pi * structure.volume / (gamma * beam.wavelength_a * np.maximum(amplitude, 1e-9)))


def excite(
    structure: Structure,
    ub_lab: np.ndarray,
    beam: Beam,
    thickness_nm: float,
    mosaic_deg: float = 0.0,
    fading: np.ndarray | None = None,
    deflection: float = 0.0,
) -> Excited:
    """Find the reflections that take more than `WEAKEST` at some thickness up to the one given.

    Parameters
    ----------
    ub_lab : (3, 3) array
        R·UB, 1/Å.
    thickness_nm : float
        Greatest thickness of the particle.
    mosaic_deg : float
        Rms tilt of the mosaic blocks about any axis.
    fading : (reflection,) array or None
        What damage has left of |F|² of the structure's reflections.
    deflection : float
        Transverse wave vector, 1/Å, by which crystals above may have deflected the beam, in any direction.
    """
    g = structure.hkl @ ub_lab.T
    s = excitation_error(g, beam.wavelength_a)
    extinction = extinction_distance(structure, beam, fading)
    across = np.hypot(g[:, 0], g[:, 1])  # a tilt δ about an axis in the plane moves s by δ·(g across the axis)
    spread = np.radians(mosaic_deg) * across
    oblique = beam.convergence_mrad * 1e-3 + deflection * beam.wavelength_a
    nearest = np.maximum(np.abs(s) - across * oblique - _MOSAIC_REACH * spread, 0)
    strength = np.minimum(1 / (1 + (nearest * extinction) ** 2), (np.pi * 10 * thickness_nm / extinction) ** 2)
    index = np.flatnonzero(strength > WEAKEST)  # NaN, beyond the sphere's rim, compares as no
    # s(δ) = s − g_xy·δ/K for a beam whose transverse wave vector is δ = K·convergence·direction
    slope = -(g[index, :2] @ beam.direction.T) * beam.convergence_mrad * 1e-3
    return Excited(index, g[index], s[index], slope, extinction[index], spread[index])


def kinematic_bound(excited: Excited, thickness_nm: float) -> float:
    """An upper bound on the kinematic share of all reflections at any thickness up to this and in any cell."""
    nearest = np.abs(excited.s) - np.abs(excited.slope).max(1, initial=0) - _MOSAIC_REACH * excited.spread
    envelope = np.minimum(np.pi * 10 * thickness_nm, 1 / np.maximum(nearest, 1e-9))
    return float(((envelope / excited.extinction) ** 2).sum())


def ladder(excited: Excited, thickness_nm: float) -> tuple[int, float]:
    """Number of steps and their height, nm, of a ladder of thicknesses from 0 to the greatest.

    A share oscillates with the thickness with the period 1/√(s² + 1/ξ²). Two steps fall on the shortest period of all
    that are kept, so that those which matter more, nearer to the sphere, have many.
    """
    fastest = np.hypot(np.abs(excited.s) + np.abs(excited.slope).max(1, initial=0), 1 / excited.extinction)
    step_nm = min(_COARSEST_NM, _PERIODS / 10 / max(float(fastest.max(initial=0)), 1e-9))
    row = max(1, excited.slope.size)
    steps = min(int(np.ceil(thickness_nm / step_nm)), _MOST_SHARES // row)
    steps = max(1, steps, int(np.ceil(thickness_nm / _COARSEST_NM)))
    return steps, thickness_nm / steps


def table_shape(excited: Excited, steps: int) -> tuple[int, int, int]:
    """Shape (thickness, cell, reflection) of a particle's table of shares."""
    return steps + 1, excited.slope.shape[1], len(excited.index)


def two_beam_shares(excited: Excited, steps: int, step_nm: float, out: np.ndarray | None = None) -> np.ndarray:
    """Cumulative shares (thickness, cell, reflection) of the two-beam theory.

    p = sin²(π t √(s² + 1/ξ²)) / (1 + (sξ)²) for each reflection by itself (Hirsch et al. 1965), t along the beam.
    Together they take 1 − Π(1 − p), as if each met what the others leave, and share it as p₁ : p₂ : …; so a
    reflection alone keeps its p, weak ones keep theirs, and no more is taken than there is.

    Parameters
    ----------
    out : array of `table_shape` or None
        Receives the shares, f4.
    """
    strength = excited.extinction**-2
    return _cumulate(excited, strength, strength, steps, step_nm, True, out)


def kinematic_shares(
    excited: Excited, steps: int, step_nm: float, scale: float, out: np.ndarray | None = None
) -> np.ndarray:
    """Cumulative shares as `two_beam_shares`, of the kinematic theory, I = scale·(π t/ξ)² sinc²(t s)."""
    strength = scale * excited.extinction**-2
    uncoupled = np.full(len(strength), UNCOUPLED)
    return _cumulate(excited, strength, uncoupled, steps, step_nm, False, out)


def _cumulate(
    excited: Excited,
    strength: np.ndarray,
    coupling: np.ndarray,
    steps: int,
    step_nm: float,
    shared: bool,
    out: np.ndarray | None,
) -> np.ndarray:
    out = np.empty(table_shape(excited, steps), np.float32) if out is None else out
    _fill(excited.s, excited.slope, excited.spread, strength, coupling, step_nm * 10, shared, out)
    return out


@njit(cache=True, nogil=True)
def _fill(
    s: np.ndarray,
    slope: np.ndarray,
    spread: np.ndarray,
    strength: np.ndarray,
    coupling: np.ndarray,
    step_a: float,
    shared: bool,
    out: np.ndarray,
) -> None:
    """Running sums over reflections of strength·sin²(π t √(s² + coupling)) / (s² + coupling), over mosaic blocks."""
    curves = np.empty((len(s), out.shape[0]))
    for c in range(out.shape[1]):
        curves[:] = 0
        for r in range(len(s)):
            _add_curves(s[r] + slope[r, c], spread[r], strength[r], coupling[r], step_a, curves[r])
        for b in range(out.shape[0]):
            total, left = 0.0, 1.0
            for r in range(len(s)):
                total += curves[r, b]
                left *= 1 - curves[r, b]
                out[b, c, r] = total
            if shared and total > 0:
                out[b, c] *= (1 - left) / total


@njit(cache=True, nogil=True)
def _add_curves(s: float, spread: float, strength: float, coupling: float, step_a: float, curve: np.ndarray) -> None:
    """Add the mean over mosaic blocks of strength·sin²(π t √(s² + coupling)) / (s² + coupling) at t = 0, step, 2 step …

    As a function of s no part of it oscillates faster than with the period 1/t, and the Fourier transform of a
    Gaussian of rms σ is below 1e-8 beyond 1/σ; so a sum over blocks σ/(tσ + 1) apart equals the integral.
    """
    t = step_a * (len(curve) - 1)
    half = int(np.ceil(_MOSAIC_REACH * (t * spread + 1))) if spread > 0 else 0
    weight = 0.0
    for n in range(-half, half + 1):
        weight += np.exp(-((n / (t * spread + 1)) ** 2) / 2)
    for n in range(-half, half + 1):
        tilt = n / (t * spread + 1)  # of a block, in rms
        effective = (s + tilt * spread) ** 2 + coupling
        amount = strength / effective * np.exp(-(tilt**2) / 2) / weight / 2
        # v = 1 − cos(bθ) = 2 sin²(bθ/2) by v(b + 1) = 2v(b) − v(b − 1) + 2(1 − cos θ)(1 − v(b)), exact for small θ too
        first = 2 * np.sin(np.pi * step_a * np.sqrt(effective)) ** 2
        before, here = first, 0.0
        for b in range(len(curve)):
            curve[b] += amount * here
            before, here = here, 2 * here - before + 2 * first * (1 - here)
