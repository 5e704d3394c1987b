"""The facts that a diffraction series from anywhere states about its instrument."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.optimize import brentq

from stemtomo_dl.errors import InputError
from stemtomo_dl.geometry import wavelength
from stemtomo_dl.records import Instrument

_CALLED = {  # the contract's name of an attribute -> how others call it, with what a value there must be multiplied by
    "voltage_kv": {"voltage_kV": 1.0, "accelerating_voltage_kv": 1.0, "voltage_v": 1e-3},
    "pixel_inv_angstrom": {"pixel_inv_nm": 0.1},
    "tilt_axis_deg": {"rotation_axis_deg": 1.0},
    "convergence_mrad": {"convergence_semi_angle_mrad": 1.0},
}
_WAVELENGTH = ("wavelength_angstrom", "wavelength_a", "wavelength")
_BEAM_PX = 6.0
_AXIS = ("rotation_axis", "rotation_axis_xds", "tilt_axis")  # a vector x y z, x right and y down


def stated_instrument(attributes: Mapping[str, Any], where: str | Path, option: bool = False) -> Instrument:
    """Instrument of a series that stands alone, from its attributes or what others call them.

    Parameters
    ----------
    attributes : mapping
        ``voltage_kv`` or ``wavelength_angstrom``; ``pixel_inv_angstrom``; ``tilt_axis_deg``, on the detector, or a
        ``rotation_axis`` "x y z" (x right, y down). ``convergence_mrad`` may lack: the beam then counts as parallel.
    where : str or Path
        The file, for messages.
    option : bool
        Whether what is missing is to be given as an option of the command, rather than written into the file.

    Raises
    ------
    InputError
        If one is missing or is not a number that it can be.
    """
    a = dict(attributes)
    for name, others in _CALLED.items():
        given = next(((o, by) for o, by in others.items() if o in a), None)
        if name not in a and given is not None:
            a[name] = _number(a, given[0], where) * given[1]
    length = next((n for n in _WAVELENGTH if n in a), None)
    if "voltage_kv" not in a and length is not None:
        a["voltage_kv"] = _voltage_kv(_number(a, length, where), length, where)
    vector = next((n for n in _AXIS if n in a), None)
    if "tilt_axis_deg" not in a and vector is not None:
        a["tilt_axis_deg"] = _azimuth_deg(a[vector], vector, where)
    a.setdefault("convergence_mrad", 0.0)
    for name in ("voltage_kv", "pixel_inv_angstrom", "tilt_axis_deg"):
        if name not in a:
            if option:
                raise InputError(f"{where}: the frames do not state {name}; give --{name.replace('_', '-')}")
            raise InputError(f"{where}: has no attribute '{name}'; add it, see the contract's series.h5")
    voltage, pixel, axis, cone = (_number(a, n, where) for n in (*_CALLED,))
    for name, value in (("voltage_kv", voltage), ("pixel_inv_angstrom", pixel)):
        if value <= 0:
            raise InputError(f"{where}: attribute '{name}' is {value:g}; it must be above 0")
    electrons = _number(a, "electrons_per_pattern", where) if "electrons_per_pattern" in a else None
    step = _number(a, "step_nm", where) if "step_nm" in a else np.nan
    return Instrument(voltage, max(cone, 0.0), pixel, step, axis, 0.0, electrons)


def brightest(patterns: np.ndarray) -> np.ndarray:
    """Column and row of the direct beam: the centre of mass about the brightest place of the mean pattern (y, x)."""
    mean = np.zeros(patterns.shape[1:])
    for pattern in patterns:
        mean += np.nan_to_num(pattern)
    smooth = ndimage.gaussian_filter(mean, 2.0)
    y, x = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
    rows, columns = np.indices(smooth.shape)
    near = np.hypot(columns - x, rows - y) < _BEAM_PX
    weight = np.where(near, np.maximum(mean - np.median(mean), 0), 0)
    if weight.sum() <= 0:
        return np.array([x, y], float)
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


def _number(attributes: Mapping[str, Any], name: str, where: str | Path) -> float:
    try:
        value = float(attributes[name])
    except (TypeError, ValueError):
        value = np.nan
    if not np.isfinite(value) and name != "step_nm":
        raise InputError(f"{where}: attribute '{name}' is {attributes[name]!r}; it must be a number")
    return value


def _voltage_kv(wavelength_a: float, name: str, where: str | Path) -> float:
    """The voltage at which electrons have this wavelength."""
    if not wavelength(1000.0) < wavelength_a < wavelength(1.0):
        raise InputError(f"{where}: attribute '{name}' is {wavelength_a:g}; give the electrons' wavelength in Å")
    return float(brentq(lambda kv: wavelength(kv) - wavelength_a, 1.0, 1000.0))


def _azimuth_deg(vector: object, name: str, where: str | Path) -> float:
    """Direction in the detector's plane of an axis given as numbers or as text that begins with them."""
    text = vector.decode() if isinstance(vector, bytes) else str(vector)
    found = re.findall(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?", text)[:3]
    if len(found) < 2 or not np.any(xy := np.array(found[:2], float)):
        raise InputError(f"{where}: attribute '{name}' is {text!r}; give the axis as x y z, x right and y down")
    return float(np.degrees(np.arctan2(xy[1], xy[0])))
