"""One diffraction series, from anywhere, to a crystal and its reflections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.crystal.index import index
from stemtomo_dl.crystal.integrate import integrate
from stemtomo_dl.crystal.joint import refine_jointly
from stemtomo_dl.crystal.nouns import Crystal
from stemtomo_dl.crystal.spots import find_spots
from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import wavelength
from stemtomo_dl.store.reflections import write_crystals, write_hkl, write_ins
from stemtomo_dl.store.results import read_series


def reduce(path: Path, folder: Path, elements: Sequence[str] = ()) -> Crystal:
    """Index and integrate a series.h5; crystal.json, NAME.hkl and NAME.ins are written to a folder.

    Parameters
    ----------
    path : Path
        A series as the contract lays it out.
    folder : Path
    elements : sequence of str
        For SFAC.

    Returns
    -------
    Crystal
        The lattice with most spots.

    Raises
    ------
    InputError
        If the series cannot be read, or its spots are not enough to tell a lattice.
    """
    series = read_series(path)
    spots = find_spots(series)
    crystals = index(spots, series.instrument, series.alpha_deg)
    if not crystals:
        raise InputError(
            f"{path}: its {len(spots)} spots are not enough to tell a lattice; use more tilts, or check the "
            "attributes pixel_inv_angstrom and tilt_axis_deg"
        )
    stated = Geometry(series.instrument, series.alpha_deg)
    geometry, (first,) = refine_jointly([spots], crystals[:1], stated)
    crystals[0] = first
    reflections = integrate(series, spots, geometry, first)
    name = folder.resolve().name
    write_crystals(folder / "crystal.json", crystals)
    write_hkl(folder / f"{name}.hkl", reflections)
    write_ins(folder / f"{name}.ins", name, first, wavelength(series.instrument.voltage_kv), elements)
    return first
