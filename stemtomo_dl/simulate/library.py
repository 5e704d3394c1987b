"""Detector responses: the share of the electrons that each virtual detector receives behind a crystal, by thickness.

Training images are drawn from such tables without making a pattern. A table comes from the same theory, disks and
diffuse profiles as full patterns, which are rendered here once for every thickness and thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from scipy.special import pdtr

from stemtomo_dl.geometry import g_to_detector, wavelength
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate import diffuse
from stemtomo_dl.simulate.crystal import Structure
from stemtomo_dl.simulate.damage import Damage, fading
from stemtomo_dl.simulate.diffraction import (
    MOST_KINEMATIC,
    excite,
    kinematic_bound,
    kinematic_shares,
    make_beam,
    two_beam_shares,
)
from stemtomo_dl.simulate.optics import ADF, BF, Optics, direct_beam, filled, rings, zones

# What a table holds for an electron that meets a crystal and is not scattered diffusely: the share that any
# reflection takes, and of it what lands in every zone; over the pixels of the dark field the sums of squares and
# of cubes of the expected counts and their products with the diffuse profiles of film and crystals; from PEAK on
# the mean of its hottest pixel, of the next 2, the next 4, …
TAKEN, IN_BF, IN_ADF, IN_HAADF, SQUARES, CUBES, ON_FILM, ON_CRYSTAL, PEAK = range(9)
GROUPS = 5
QUANTITIES = PEAK + GROUPS

_SUB = 8  # places per pixel and direction to which the middles of disks are rounded
_LEVELS = np.geomspace(0.5, 3e4, 90)  # electrons scattered diffusely per pattern
_MIXES = 5  # crystal share of them: 0, ¼ … 1
_DRAWS = 64  # equally likely values of the hottest diffuse pixel


@dataclass(frozen=True, eq=False)
class Responses(Record):
    """What the detectors of one instrument see of a number of crystals, each in a row of orientations.

    ``table[c, o, b]`` is for crystal c in orientation o at thickness b of its ladder of ``step_nm``.
    """

    direct: float  # share of the direct beam in bf, whose rim may cut it
    table: np.ndarray = array("f4", "crystal orientation thickness quantity", "1")
    step_nm: np.ndarray = array("f8", "crystal", "nm")
    diffuse: np.ndarray = array("f8", "crystal 3", "share of its diffuse scattering in bf, adf, haadf")
    film: np.ndarray = array("f8", "3", "the same of the film")
    profile: np.ndarray = array("f8", "crystal ring", "share of its reflections in rings of the dark field")
    ring_px: np.ndarray = array("f8", "ring", "px")
    area_px: np.ndarray = array("f8", "3", "px in bf, adf, haadf")
    squares: np.ndarray = array("f8", "3", "Σ film², Σ film·crystal, Σ crystal² over the dark field, per electron²")
    cubes: np.ndarray = array("f8", "4", "Σ film³, film²·crystal, film·crystal², crystal³")
    levels: np.ndarray = array("f8", "level", "electrons scattered diffusely")
    hottest: np.ndarray = array("i4", "level mix draw", "counts of the hottest pixel of the diffuse scattering")


@dataclass(frozen=True, eq=False)
class Specimen(Record):
    """One crystal of a library, in a row of orientations."""

    structure: Structure
    thickest_nm: float
    ubs: np.ndarray = array("f8", "orientation 3 3", "1/Å, lab frame")
    mosaic_deg: float = 0.0  # rms tilt of its mosaic blocks
    damage: Damage | None = None
    dose_e_per_A2: float = 0.0  # that has damaged it
    kinematic: bool = False  # whether intensities are kinematic rather than two-beam
    scale: float | None = None  # of kinematic ones; None: so that no more than half is scattered

    @property
    def material(self) -> diffuse.Material:
        """What scatters diffusely in it."""
        fresh = diffuse.crystal(self.structure)
        if self.damage is None:
            return fresh
        return replace(fresh, damage=self.damage, dose_e_per_A2=self.dose_e_per_A2)


def make_responses(optics: Optics, specimens: Sequence[Specimen], steps: int) -> Responses:
    """Fill the tables of one instrument.

    Parameters
    ----------
    optics : Optics
    specimens : sequence of Specimen
        In equally many orientations each.
    steps : int
        Steps of the ladders of thicknesses.
    """
    zone, ring = zones(optics), rings(optics)
    film = optics.template(diffuse.amorphous(optics.film_element))
    own = {m: optics.template(m) for m in {s.material for s in specimens}}
    typical = np.mean([own[s.material] for s in specimens], axis=0) if specimens else film
    orientations = len(specimens[0].ubs) if specimens else 1
    table = np.zeros((len(specimens), orientations, steps + 1, QUANTITIES), np.float32)
    profile = np.zeros((len(specimens), ring.max() + 1))
    spread = _stencils(optics)
    for k, specimen in enumerate(specimens):
        for o, (shares, place) in enumerate(_disks(optics, specimen, steps)):
            _respond(shares, place, *spread, zone, ring, film, typical, table[k, o], profile[k])
    dark = zone >= ADF
    f, c = film[dark], typical[dark]
    return Responses(
        direct=float(direct_beam(optics)[zone == BF].sum()),
        table=table,
        step_nm=np.array([s.thickest_nm / steps for s in specimens], float),
        diffuse=np.array([_in_zones(own[s.material], zone) for s in specimens]).reshape(-1, 3),
        film=_in_zones(film, zone),
        profile=profile / np.maximum(profile.sum(1, keepdims=True), 1e-30),
        ring_px=np.bincount(ring[dark], minlength=ring.max() + 1).astype(float),
        area_px=np.bincount(zone.ravel(), minlength=4)[1:].astype(float),
        squares=np.array([f @ f, f @ c, c @ c]),
        cubes=np.array([(f**3).sum(), (f * f * c).sum(), (f * c * c).sum(), (c**3).sum()]),
        levels=_LEVELS.copy(),
        hottest=_hottest(f, c),
    )


def _in_zones(template: np.ndarray, zone: np.ndarray) -> np.ndarray:
    """Sums of a template over bf, adf, haadf, (3,)."""
    return np.bincount(zone.ravel(), template.ravel(), 4)[1:]


def _disks(optics: Optics, specimen: Specimen, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every orientation: cumulative shares (thickness, cell, reflection) and places of disks (reflection, 2), px."""
    wave, top, structure = wavelength(optics.voltage_kv), specimen.thickest_nm, specimen.structure
    beam = make_beam(optics.voltage_kv, wave, optics.convergence_mrad, optics.rings, optics.rotation_deg)
    left = fading(specimen.damage, specimen.dose_e_per_A2, structure.g_length) if specimen.damage else None
    found = [excite(structure, ub, beam, top, specimen.mosaic_deg, left) for ub in specimen.ubs]
    scale = specimen.scale
    if specimen.kinematic and scale is None:
        scale = min(1, MOST_KINEMATIC / max(1e-30, *(kinematic_bound(excited, top) for excited in found)))
    out = []
    for excited in found:
        if scale is not None:
            shares = kinematic_shares(excited, steps, top / steps, scale)
        else:
            shares = two_beam_shares(excited, steps, top / steps)
        center = np.array(optics.center_px)
        place = g_to_detector(excited.g, optics.pixel_inv_angstrom, optics.rotation_deg, center)
        out.append((shares, place))
    return out


def _stencils(optics: Optics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How the cells of a disk spread over pixels, point spread included, for every place of its middle in a pixel.

    Returns
    -------
    first : (place + 1,) int array
        Entries of place ``_SUB·row + column`` are ``first[place] … first[place + 1] − 1``.
    at : (entry, 3) int array
        Cell, row and column, the latter from the pixel of the middle.
    weight : (entry,) array
        Share of all electrons of the disk, were it evenly lit.
    """
    points = filled(optics)
    cells, many = points.shape[:2]
    parts, weights = [], []
    for place in range(_SUB * _SUB):
        middle = (np.array([place % _SUB, place // _SUB]) + 0.5) / _SUB - 0.5
        pixel = np.floor(points + middle + 0.5).astype(int)
        entries = np.column_stack([np.repeat(np.arange(cells), many), pixel[..., 1].ravel(), pixel[..., 0].ravel()])
        at, count = np.unique(entries, axis=0, return_counts=True)
        parts.append(at)
        weights.append(count / (many * cells))
    first = np.cumsum([0] + [len(p) for p in parts])
    return first, np.concatenate(parts), np.concatenate(weights)


@njit(cache=True, nogil=True)
def _respond(
    shares: np.ndarray,
    place: np.ndarray,
    first: np.ndarray,
    at: np.ndarray,
    weight: np.ndarray,
    zone: np.ndarray,
    ring: np.ndarray,
    film: np.ndarray,
    crystal: np.ndarray,
    out: np.ndarray,
    profile: np.ndarray,
) -> None:
    """Render the disks of one crystal at every thickness; fill ``out`` (thickness, quantity), add to ``profile``."""
    rows, columns = zone.shape
    image = np.zeros((rows, columns))
    touched = np.zeros((rows * columns, 2), np.int64)
    hot = np.zeros(2**GROUPS - 1)
    for b in range(1, shares.shape[0]):
        many = 0
        for r in range(len(place)):
            x, y = place[r, 0] + 0.5, place[r, 1] + 0.5
            j, i = int(np.floor(x)), int(np.floor(y))
            sub = int((y - i) * _SUB) * _SUB + int((x - j) * _SUB)
            for e in range(first[sub], first[sub + 1]):
                cell, p, q = at[e, 0], i + at[e, 1], j + at[e, 2]
                amount = shares[b, cell, r] - (shares[b, cell, r - 1] if r > 0 else 0.0)
                out[b, TAKEN] += amount * weight[e]
                if amount <= 0 or not (0 <= p < rows and 0 <= q < columns) or zone[p, q] == 0:
                    continue
                if image[p, q] == 0:
                    touched[many, 0], touched[many, 1] = p, q
                    many += 1
                image[p, q] += amount * weight[e]
        _tally(image, touched[:many], zone, ring, film, crystal, out[b], profile, hot)


@njit(cache=True, nogil=True)
def _tally(
    image: np.ndarray,
    touched: np.ndarray,
    zone: np.ndarray,
    ring: np.ndarray,
    film: np.ndarray,
    crystal: np.ndarray,
    out: np.ndarray,
    profile: np.ndarray,
    hot: np.ndarray,
) -> None:
    """Add a rendered pattern up to ``out`` (quantity) and ``profile``, and wipe it."""
    hot[:] = 0
    for n in range(len(touched)):
        p, q = touched[n]
        v, z = image[p, q], zone[p, q]
        image[p, q] = 0
        out[TAKEN + z] += v
        if z == BF:
            continue
        out[SQUARES] += v * v
        out[CUBES] += v * v * v
        out[ON_FILM] += v * film[p, q]
        out[ON_CRYSTAL] += v * crystal[p, q]
        profile[ring[p, q]] += v
        _insert(hot, v)
    for g in range(GROUPS):
        out[PEAK + g] = hot[2**g - 1 : 2 ** (g + 1) - 1].mean()


@njit(cache=True, nogil=True)
def _insert(hot: np.ndarray, value: float) -> None:
    """Keep a list of the greatest values, greatest first."""
    n = len(hot) - 1
    if value <= hot[n]:
        return
    while n > 0 and hot[n - 1] < value:
        hot[n] = hot[n - 1]
        n -= 1
    hot[n] = value


def _hottest(film: np.ndarray, crystal: np.ndarray) -> np.ndarray:
    """Equally likely values (level, mix, draw) of the greatest count among independent Poisson pixels.

    The distribution of a maximum is the product over pixels of theirs; pixels of similar density go together.
    """
    out = np.zeros((len(_LEVELS), _MIXES, _DRAWS), np.int32)
    chances = (np.arange(_DRAWS) + 0.5) / _DRAWS
    for m in range(_MIXES):
        share = m / (_MIXES - 1)
        parts = np.array_split(np.sort((1 - share) * film + share * crystal)[::-1], _edges(len(film)))
        density, pixels = np.array([p.mean() for p in parts]), np.array([len(p) for p in parts])
        for n, level in enumerate(_LEVELS):
            most = int(level * density[0] + 10 * np.sqrt(level * density[0]) + 12)
            below = pdtr(np.arange(most)[:, None], level * density)
            out[n, m] = np.searchsorted(np.exp(np.log(np.maximum(below, 1e-300)) @ pixels), chances)
    return out


def _edges(pixels: int) -> np.ndarray:
    """Where to cut a list of pixels, finely among the first."""
    return np.unique(np.geomspace(1, max(pixels - 1, 1), 40).astype(int))
