"""What the particles of one tilt series share, refined from the spots of all of them at once.

The camera length is a matter of its own: everything larger by one factor looks the same but for the curvature of the
Ewald sphere, see `with_camera_length`. What an ellipse does along the tilt axis and
across it is told from a cell by the metric that the cell's system has, or by crystals that lie otherwise. A single
triclinic crystal does not tell it, and a monoclinic one so badly that small errors of the stage tell more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stemtomo_dl.crystal.adjust import Held, adjust, misfit, spreads
from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.nouns import Crystal, Spots
from stemtomo_dl.crystal.refine import indices, scored

_OWN = 4.0  # widths that a spot may be off its node
_ELLIPSE = 0.004
_SEVERAL = 3  # crystals
_CAMERA = Held(elevation_deg=0.5, ellipse=_ELLIPSE, tilt_shift_px=1.0)
_ALL = replace(_CAMERA, tilt_turn_rad=1.5e-3)
_STATED = 0.02  # what a camera length is good to
_FLOOR = 0.0015  # the least standard deviation of it that is believed
_CAMERA_ROUNDS = 2
_ROUNDS = (  # what is free, from what all spots tell to what few do; and the reach in the detector's plane, 1/Å and px
    (Held(tilt_shift_px=1.0), 0.015, 2.0),
    (Held(tilt_shift_px=1.0), 0.015, 1.5),
    (_CAMERA, 0.012, 1.0),
    (_ALL, 0.012, 1.0),
    (_ALL, 0.012, 1.0),
)


def refine_jointly(
    spots: Sequence[Spots],
    crystals: Sequence[Crystal],
    geometry: Geometry,
    with_ellipse: bool | None = None,
    rate: float = 0.0,
) -> tuple[Geometry, list[Crystal]]:
    """Refine the geometry that particles share, and each one's cell and orientation with it.

    Parameters
    ----------
    spots : sequence of Spots
        Of each crystal; their frames are the geometry's (`goniometer.placed` makes them so).
    crystals : sequence of Crystal
        As indexed one by one.
    geometry : Geometry
        Of the whole tilt series, as stated.
    with_ellipse : bool or None
        Whether the ellipse is free; None: from three crystals on, or with a cell of right angles.
    rate : float
        What the steps of the tilt are good to, relative; 0 where they are as stated.

    Returns
    -------
    Geometry
        With the tilt axis's azimuth and elevation, the ellipse, and every tilt's orientation error and beam centre;
        the camera length's factor as given.
    list of Crystal
        In the order given.
    """
    if not crystals:
        return geometry, []
    counts = [c.n_indexed for c in crystals]
    azimuth = [c.tilt_axis_deg for c in crystals]
    now, them = geometry.with_axis(_median(azimuth, counts)), list(crystals)
    if with_ellipse is None:
        with_ellipse = _tell_ellipse(crystals)
    for held, reach, pixels in _ROUNDS:
        held = replace(held, ellipse=held.ellipse if with_ellipse else 0.0, rate=rate)
        now, them = _round(spots, now, them, held, max(reach, pixels * now.pixel))
    return now, [scored(s, now, c) for s, c in zip(spots, them, strict=True)]


def with_camera_length(
    spots: Sequence[Spots], geometry: Geometry, crystals: Sequence[Crystal], rate: float = 0.0
) -> tuple[Geometry, list[Crystal]]:
    """Jointly refined geometry and crystals, with the camera length that the Ewald sphere's curvature tells.

    The wavelength is an absolute ruler: g and −g are excited at tilts that differ by λ|g| (radian) from 180°. A tilt's
    error moves one of the two forth and the other back, so that goniometers need not be good to that. Still only many
    crystals tell it to a few per mille, and how good the stated one is nobody knows: that is learned, too, and
    what is told of the difference counts by that (positive-part shrinkage: James & Stein 1961, Proc. 4th Berkeley
    Symp. 1, 361). Where it is no more than its standard deviation, the stated one is kept.

    Parameters
    ----------
    spots, geometry, crystals, rate
        As `refine_jointly` takes and gives them.

    Returns
    -------
    Geometry, list of Crystal
        The geometry with what the curvature tells, used or not.
    """
    if not crystals:
        return geometry, []
    now, them = geometry, list(crystals)
    for _ in range(_CAMERA_ROUNDS):  # with what an ellipse leaves open, even where it is kept as stated
        now, them = _round(spots, now, them, replace(_ALL, scale=_STATED, rate=rate), _reach(now))
    esd = float(np.hypot(now.curvature_esd or 0.0, _FLOOR))
    geometry = replace(geometry, curvature_scale=now.scale, curvature_esd=esd)
    off = now.scale - geometry.scale
    variance = min(max(off**2 - esd**2, 0.0), _STATED**2)  # of stated ones
    if not variance:
        return geometry, list(crystals)
    scale = geometry.scale + off * variance / (variance + esd**2)
    them = [c.rescaled(scale) for c in crystals]
    held = replace(_ALL, ellipse=_ELLIPSE if _tell_ellipse(crystals) else 0.0, rate=rate)
    geometry, them = _round(spots, replace(geometry, scale=scale), them, held, _reach(now))
    return geometry, [scored(s, geometry, c) for s, c in zip(spots, them, strict=True)]


def with_free_cells(spots: Sequence[Spots], geometry: Geometry, crystals: Sequence[Crystal]) -> list[Crystal]:
    """Crystals with the cells that they have without the metric of their lattice's system.

    Camera and stage are kept as all crystals tell them, so that a cell is free to be what it is: an angle of 90.3° is a
    right one within what a crystal alone tells, and only its intensities may say later that it need not be.

    Parameters
    ----------
    spots, geometry, crystals
        As jointly refined.
    """
    held, out = Held(axis_deg=0.0), []
    for some, crystal in zip(spots, crystals, strict=True):
        loose = replace(crystal, lattice="a" + crystal.lattice[1])
        _, (free,) = _round([some], geometry, [loose], held, _reach(geometry))
        out.append(replace(crystal, free_cell=free.cell, free_cell_esd=free.cell_esd))
    return out


def camera_line(scale: float, told: float | None, esd: float | None) -> str:
    """What the curvature of the Ewald sphere says of the reciprocal pixel, in words; empty where it was not asked."""
    if told is None or esd is None:
        return ""
    value = f"the Ewald sphere's curvature tells {100 * (told - 1):+.1f} ± {100 * esd:.1f} %"
    if scale == 1:
        return f"the reciprocal pixel is as stated; {value}"
    return f"the reciprocal pixel is corrected by {100 * (scale - 1):+.1f} %; {value}"


def _tell_ellipse(crystals: Sequence[Crystal]) -> bool:
    """Whether crystals tell an ellipse: several, or one with a cell of right angles."""
    return len(crystals) >= _SEVERAL or any(c.lattice[0] not in "am" for c in crystals)


def _reach(geometry: Geometry) -> float:
    """How far spots may be from their nodes at last, 1/Å."""
    _, reach, pixels = _ROUNDS[-1]
    return max(reach, pixels * geometry.pixel)


def _round(
    spots: Sequence[Spots], geometry: Geometry, crystals: list[Crystal], held: Held, reach: float
) -> tuple[Geometry, list[Crystal]]:
    """Give spots their indices, and fit to those that lie as a crystal's own do."""
    some, told = [], []
    for each, crystal in zip(spots, crystals, strict=True):
        hkl, fits = indices(each, geometry, crystal, reach)
        if fits.any():
            width = spreads(each, hkl, geometry, crystal, fits)
            fits &= (np.abs(misfit(each, hkl, geometry, crystal)) < _OWN * width).all(1)
        some.append(each.some(fits))
        told.append(hkl[fits])
    return adjust(some, told, geometry, crystals, held)


def _median(values: Sequence[float], weights: Sequence[float]) -> float:
    """Weighted median."""
    order = np.argsort(values)
    total = np.cumsum(np.asarray(weights, float)[order])
    return float(np.asarray(values)[order][np.searchsorted(total, total[-1] / 2)])
