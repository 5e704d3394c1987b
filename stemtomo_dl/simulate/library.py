"""Detector responses: the share of the electrons that each virtual detector receives behind a crystal, by thickness.

Training images are drawn from such tables without making a pattern. A table comes from the same theory, disks and
diffuse profiles as full patterns, which are rendered here once for every thickness and thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.special import pdtr

from stemtomo_dl.geometry import disk_radius_px, g_to_detector, wavelength
from stemtomo_dl.records import Record, array
from stemtomo_dl.simulate import cone, diffuse
from stemtomo_dl.simulate.crystal import Structure
from stemtomo_dl.simulate.diffraction import excite, make_beam, two_beam_shares

BF, ADF, HAADF = 1, 2, 3  # zones of the detector; 0 is none of them

# What a table holds for an electron that meets a crystal and is not scattered diffusely: the share that any
# reflection takes, and of it what lands in every zone; over the pixels of the dark field the sums of squares and
# of cubes of the expected counts and their products with the diffuse profiles of film and crystals; from PEAK on
# the mean of its hottest pixel, of the next 2, the next 4, …
TAKEN, IN_BF, IN_ADF, IN_HAADF, SQUARES, CUBES, ON_FILM, ON_CRYSTAL, PEAK = range(9)
GROUPS = 5
QUANTITIES = PEAK + GROUPS

_SUB = 8  # places per pixel and direction to which the middles of disks are rounded
_POINTS = 100.0  # per px², that fill a disk
_LEVELS = np.geomspace(0.5, 3e4, 90)  # electrons scattered diffusely per pattern
_MIXES = 5  # crystal share of them: 0, ¼ … 1
_DRAWS = 64  # equally likely values of the hottest diffuse pixel


@dataclass(frozen=True)
class Optics:
    """An instrument with its virtual detectors, which are those of `virtual.detectors`."""

    voltage_kv: float
    convergence_mrad: float
    pixel_inv_angstrom: float
    detector: tuple[int, int]  # rows, columns
    center_px: tuple[float, float]  # column, row
    rings: int = 3  # of cells in the illumination cone
    rotation_deg: float = 0.0
    bf_disk_radii: float = 1.2
    haadf_from: float = 0.6
    film_element: str = "C"

    @property
    def disk_px(self) -> float:
        """Radius of the illumination disk on the detector."""
        return disk_radius_px(self.convergence_mrad, wavelength(self.voltage_kv), self.pixel_inv_angstrom)

    def template(self, material: diffuse.Material) -> np.ndarray:
        """Share (qy, qx) of a material's diffusely scattered electrons in every pixel."""
        radii = diffuse.quantiles(material, self.voltage_kv, self.pixel_inv_angstrom, self.disk_px)
        return diffuse.template(radii, np.array(self.center_px), self.detector)


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


def zones(optics: Optics) -> np.ndarray:
    """Virtual detector (qy, qx) of every pixel, by the rules of `virtual.detectors.DetectorMaps`."""
    rows, columns = optics.detector
    (cx, cy), disk = optics.center_px, optics.disk_px
    edge = min(cx, columns - 1 - cx, cy, rows - 1 - cy)
    reach = max(0.97 * edge, 0.25 * max(rows, columns))
    y, x = np.indices(optics.detector)
    r = np.hypot(x - np.round(cx), y - np.round(cy))
    bright, outer = optics.bf_disk_radii * disk + 0.5, optics.haadf_from * reach
    dark = (r > max(min(2.0 * disk + 1.5, 0.5 * outer), bright)) & (r <= reach)
    return np.select([r <= bright, dark & (r <= outer), dark], [BF, ADF, HAADF], 0).astype("i8")


def rings(optics: Optics) -> np.ndarray:
    """Whole number of px (qy, qx) by which every pixel is away from the beam."""
    y, x = np.indices(optics.detector)
    return np.round(np.hypot(x - optics.center_px[0], y - optics.center_px[1])).astype("i8")


def make_responses(
    optics: Optics, crystals: Sequence[tuple[Structure, np.ndarray]], thickness_nm: Sequence[float], steps: int
) -> Responses:
    """Fill the tables of one instrument.

    Parameters
    ----------
    optics : Optics
    crystals : sequence of (Structure, (orientation, 3, 3) array)
        UB in the lab frame, 1/Å, in equally many orientations for every crystal.
    thickness_nm : sequence of float
        Greatest thickness of every crystal.
    steps : int
        Steps of the ladders of thicknesses.
    """
    zone, ring = zones(optics), rings(optics)
    film = optics.template(diffuse.amorphous(optics.film_element))
    own = {s.name: optics.template(diffuse.crystal(s)) for s in {s.name: s for s, _ in crystals}.values()}
    typical = np.mean([own[s.name] for s, _ in crystals], axis=0) if crystals else film
    dark = zone >= ADF
    f, c = film[dark], typical[dark]
    orientations = len(crystals[0][1]) if crystals else 1
    table = np.zeros((len(crystals), orientations, steps + 1, QUANTITIES), np.float32)
    profile = np.zeros((len(crystals), ring.max() + 1))
    spread = _stencils(optics)
    for k, ((structure, ubs), top) in enumerate(zip(crystals, thickness_nm, strict=True)):
        for o, ub in enumerate(ubs):
            shares, place = _disks(optics, structure, ub, top, steps)
            _respond(shares, place, *spread, zone, ring, film, typical, table[k, o], profile[k])
    return Responses(
        direct=_direct(optics, zone),
        table=table,
        step_nm=np.array(thickness_nm, float) / steps,
        diffuse=np.array([_in_zones(own[s.name], zone) for s, _ in crystals]).reshape(-1, 3),
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


def _direct(optics: Optics, zone: np.ndarray) -> float:
    """Share of an evenly lit disk about the beam's centre that lands in bf."""
    places = cone.points(optics.rings, optics.disk_px, _POINTS) + np.array(optics.center_px)
    column, row = np.floor(places + 0.5).astype(int).reshape(-1, 2).T
    inside = (row >= 0) & (row < zone.shape[0]) & (column >= 0) & (column < zone.shape[1])
    return float((zone[row[inside], column[inside]] == BF).sum() / len(row))


def _disks(
    optics: Optics, structure: Structure, ub: np.ndarray, top_nm: float, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative shares (thickness, cell, reflection) of a crystal and where its disks are, (reflection, 2) px."""
    wave = wavelength(optics.voltage_kv)
    beam = make_beam(optics.voltage_kv, wave, optics.convergence_mrad, optics.rings, optics.rotation_deg)
    excited = excite(structure, ub, beam, top_nm)
    shares = two_beam_shares(excited, steps, top_nm / steps)
    return shares, g_to_detector(excited.g, optics.pixel_inv_angstrom, optics.rotation_deg, np.array(optics.center_px))


def _stencils(optics: Optics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How the cells of a disk spread over pixels, for every place of its middle within a pixel.

    Returns
    -------
    first : (place + 1,) int array
        Entries of place ``_SUB·row + column`` are ``first[place] … first[place + 1] − 1``.
    at : (entry, 3) int array
        Cell, row and column, the latter from the pixel of the middle.
    weight : (entry,) array
        Share of all electrons of the disk, were it evenly lit.
    """
    points = cone.points(optics.rings, optics.disk_px, _POINTS)
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
        hot[:] = 0
        for n in range(many):
            p, q = touched[n]
            v, z = image[p, q], zone[p, q]
            image[p, q] = 0
            out[b, TAKEN + z] += v
            if z == BF:
                continue
            out[b, SQUARES] += v * v
            out[b, CUBES] += v * v * v
            out[b, ON_FILM] += v * film[p, q]
            out[b, ON_CRYSTAL] += v * crystal[p, q]
            profile[ring[p, q]] += v
            _insert(hot, v)
        for g in range(GROUPS):
            out[b, PEAK + g] = hot[2**g - 1 : 2 ** (g + 1) - 1].mean()


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
