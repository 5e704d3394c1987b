"""Random microscopes, cameras and tilt series of scenes that can be played."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.simulate.detector import Camera
from stemtomo_dl.simulate.support import log_between

Table = dict[str, Any]

_VOLTAGES = (80.0, 120.0, 200.0, 300.0)
_WANDERS_PX = 1.5  # the beam from tilt to tilt, of 0.1 px each, at most


def on(share: float, rng: np.random.Generator, **keys: Any) -> Table:
    """The keys, or nothing."""
    return keys if rng.random() < share else {}


def pair(limit: float, rng: np.random.Generator) -> list[float]:
    """Two numbers between −limit and limit."""
    return [float(v) for v in rng.uniform(-limit, limit, 2)]


def random_instrument(rng: np.random.Generator) -> Table:
    """A small microscope, as `scene.Microscope` takes it; its beam stays on the pixels of its camera's chips."""
    rows, columns = (int(n) for n in rng.integers(28, 49, 2))
    side, other = (int(n) for n in rng.choice([64, 72, 80], 2))
    electrons = log_between((40, 3000), rng)
    dwell = log_between((0.05, 10), rng)
    dose = {"electrons_per_pattern": electrons}
    if rng.random() < 0.3:
        dose = {"dwell_ms": dwell, "current_pa": electrons * 1.602176634e-19 / (dwell * 1e-3) * 1e12}
    out: Table = {
        "voltage_kv": float(rng.choice(_VOLTAGES)),
        "convergence_mrad": log_between((0.3, 1.5), rng),
        **dose,
        "scan": [rows, columns],
        "step_nm": log_between((2, 6), rng),
        "detector": [side, other],
        "pixel_inv_angstrom": 2 * rng.uniform(0.85, 1.3) / min(side, other),
        "tilt_axis_deg": rng.uniform(-180, 180),
        "rotation_deg": rng.uniform(-180, 180) if rng.random() < 0.7 else 0.0,
        "probe_samples": int(rng.choice([1, 3], p=[0.7, 0.3])),
        "raster": _raster(rng),
        "descan": _descan(rng),
        "ellipse": on(0.5, rng, ratio=rng.uniform(1.0, 1.03), azimuth_deg=rng.uniform(0, 180)),
        "camera": _camera(rng),
    }
    return out | {"beam_offset_px": _beam_offset(out, rng)}


def _raster(rng: np.random.Generator) -> Table:
    out = on(0.4, rng, shear_deg=rng.uniform(-3, 3))
    out |= on(0.4, rng, fast_scale=rng.uniform(0.97, 1.03), slow_scale=rng.uniform(0.97, 1.03))
    out |= on(0.3, rng, flyback_px=rng.uniform(-2, 2), flyback_decay_px=rng.uniform(2, 8))
    return out | on(0.3, rng, row_jitter_px=rng.uniform(0, 0.4))


def _descan(rng: np.random.Generator) -> Table:
    out = on(0.5, rng, fast_px=pair(2, rng), slow_px=pair(2, rng))
    return out | on(0.3, rng, fast_bow_px=pair(0.8, rng), slow_bow_px=pair(0.8, rng))


def _camera(rng: np.random.Generator) -> Table:
    """A kind of camera, some of its figures changed."""
    out: Table = {"kind": str(rng.choice(["ideal", "hybrid", "scintillator"], p=[0.3, 0.4, 0.3]))}
    if out["kind"] == "scintillator":
        out |= {"gain": log_between((5, 60), rng), "psf_sigma_px": rng.uniform(0.3, 1.0)}
        out |= {"read_noise": rng.uniform(1, 8), "dark_offset": rng.uniform(20, 200)}
        out |= on(0.5, rng, psf_tail_share=rng.uniform(0, 0.3), psf_tail_px=rng.uniform(2, 8))
        out |= on(0.5, rng, gain_spread=rng.uniform(0, 0.6))
    if out["kind"] == "hybrid":
        out |= on(0.4, rng, chips=[[1, 2], [2, 1], [1, 1]][rng.integers(3)])
        out |= on(0.4, rng, gap_px=int(rng.integers(1, 5)), wide_px=int(rng.integers(3)))
    out |= on(0.2, rng, saturation=int(log_between((500, 20000), rng)))
    bad = {"hot_pixels": int(rng.integers(1, 6)), "dead_pixels": int(rng.integers(1, 6))}
    out |= on(0.4, rng, **bad, **on(0.5, rng, hot_electrons=log_between((20, 1000), rng)))
    return out | (on(0.6, rng, listed_share=rng.uniform(0.4, 1)) if "hot_pixels" in out else {})


def _beam_offset(m: Table, rng: np.random.Generator) -> list[float]:
    """Where the beam is: near the detector's middle, or beside the gap between chips wherever descan takes it."""
    full, near = Camera(**m["camera"]).full(), pair(3, rng)
    disk = disk_radius_px(m["convergence_mrad"], wavelength(m["voltage_kv"]), m["pixel_inv_angstrom"])
    for k, chips in enumerate(reversed(full["chips"])):
        if chips == 1 or full["gap_px"] + full["wide_px"] == 0:
            continue
        d = m["descan"]
        sweep = sum(abs(d[key][k]) / 2 for key in ("fast_px", "slow_px") if key in d)
        sweep += sum(abs(d[key][k]) for key in ("fast_bow_px", "slow_bow_px") if key in d)
        clear = full["gap_px"] / 2 + full["wide_px"] + 2 + disk + sweep + _WANDERS_PX
        near[k] = float(rng.choice([-1, 1]) * (clear + rng.uniform(0, 2)))
    return near


def random_tilts(rng: np.random.Generator) -> Table:
    """A series of 9 to about 20 tilts."""
    half, step = rng.uniform(25, 65), rng.uniform(4, 8)
    angles = np.round(np.arange(-half, half, step) + rng.uniform(0, 1), 2)
    if rng.random() < 0.3:
        angles = angles[::-1]
    out: Table = {
        "angles": angles.tolist(),
        "sigma_deg": rng.uniform(0, 0.1) if rng.random() < 0.8 else 0.0,
        "order": str(rng.choice(["given", "up", "down", "dose-symmetric"], p=[0.55, 0.15, 0.15, 0.15])),
    }
    out |= on(0.4, rng, angle_offset_deg=rng.uniform(-0.1, 0.1), angle_scale=rng.uniform(0.999, 1.001))
    out |= on(0.4, rng, backlash_deg=rng.uniform(0.02, 0.1))
    out |= on(0.4, rng, uneven_deg=rng.uniform(0.1, 1.0))
    return out | on(0.4, rng, missing=rng.uniform(0.06, 0.25))


def random_drift(instrument: Table, tilts: int, rng: np.random.Generator) -> Table:
    """What moves between so many tilts and within them."""
    jumps = [
        {
            "tilt": int(rng.integers(1, tilts)),
            "shift_px": pair(5, rng),
            "row": int(rng.integers(instrument["scan"][0])),
        }
        for _ in range(rng.integers(1, 4))
    ]
    out: Table = {"walk_px": rng.uniform(0, 0.8), "beam_walk_px": rng.uniform(0, 0.1)}
    out |= on(0.5, rng, height_nm=rng.uniform(-20, 20), lateral_nm=rng.uniform(-20, 20))
    out |= on(0.4, rng, steady_px=pair(1, rng), scan_px=rng.uniform(0, 0.5))
    return out | on(0.5, rng, jumps=jumps)


def random_stated(instrument: Table, rng: np.random.Generator) -> Table:
    """Calibrations as wrong as those of an experiment: 2 % of a reciprocal pixel, a few degrees of the tilt axis."""
    out = on(0.6, rng, pixel_inv_angstrom=instrument["pixel_inv_angstrom"] * rng.uniform(0.98, 1.02))
    out |= on(0.6, rng, tilt_axis_deg=instrument["tilt_axis_deg"] + rng.uniform(-3, 3))
    return out | on(0.3, rng, rotation_deg=instrument["rotation_deg"] + rng.uniform(-1, 1))
