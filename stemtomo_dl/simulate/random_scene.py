"""Random scenes that can be played: everything that the forward model knows is drawn, each option on or off."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemtomo_dl import resources
from stemtomo_dl.config import check
from stemtomo_dl.simulate.scene import Scene
from stemtomo_dl.simulate.stock import pseudo_cif
from stemtomo_dl.simulate.support import log_between

Table = dict[str, Any]

_PSEUDO = "pseudo.cif"
_HABITS = ("block", "rod", "plate", "octahedron", "truncated-octahedron")
_AXES = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_VOLTAGES = (80.0, 120.0, 200.0, 300.0)


def random_scene(rng: np.random.Generator) -> tuple[Scene, dict[str, str]]:
    """Draw a scene that plays within about half a minute; the same generator gives the same one.

    Returns
    -------
    scene : Scene
        Its own seed is drawn too.
    cifs : dict
        Text of every CIF by the name that the scene gives it, as `load_scene` returns them.
    """
    cifs = _structures(rng)
    instrument = _instrument(rng)
    tilts = _tilts(rng)
    field_nm = min(instrument["scan"]) * instrument["step_nm"]
    film = _film(field_nm, rng)
    kinds = int(rng.integers(1, 4))
    populations = [_population(cifs, instrument, film, tilts, kinds, rng) for _ in range(kinds)]
    content = {
        "title": "a random scene",
        "seed": int(rng.integers(2**31)),
        "intensities": str(rng.choice(["two-beam", "kinematic"], p=[0.7, 0.3])),
        "overlap": str(rng.choice(["sum", "sequential"], p=[0.7, 0.3])),
        "format": str(rng.choice([".h5", ".npy", ".mib"], p=[0.6, 0.2, 0.2])),
        "field_fraction": rng.uniform(0.6, 1.1),
        "instrument": instrument,
        "stated": _stated(instrument, rng),
        "tilts": tilts,
        "drift": _drift(instrument, len(tilts["angles"]), rng),
        "film": film,
        "particles": populations,
    }
    scene = check(Scene, content, "random scene")
    return scene, {name: cifs[name] for name in scene.cifs}


def _on(share: float, rng: np.random.Generator, **keys: Any) -> Table:
    """The keys, or nothing."""
    return keys if rng.random() < share else {}


def _pair(limit: float, rng: np.random.Generator) -> list[float]:
    return [float(v) for v in rng.uniform(-limit, limit, 2)]


def _structures(rng: np.random.Generator) -> dict[str, str]:
    """Shipped structures and one that does not exist."""
    found = sorted((resources.synthetic() / "structures").glob("*.cif"))
    return {p.name: p.read_text(encoding="utf-8") for p in found} | {_PSEUDO: pseudo_cif(rng)}


def _instrument(rng: np.random.Generator) -> Table:
    rows, columns = (int(n) for n in rng.integers(28, 49, 2))
    side, other = (int(n) for n in rng.choice([64, 72, 80], 2))
    electrons = log_between((40, 3000), rng)
    dwell = log_between((0.05, 10), rng)
    dose = {"electrons_per_pattern": electrons}
    if rng.random() < 0.3:
        dose = {"dwell_ms": dwell, "current_pa": electrons * 1.602176634e-19 / (dwell * 1e-3) * 1e12}
    return {
        "voltage_kv": float(rng.choice(_VOLTAGES)),
        "convergence_mrad": log_between((0.3, 1.5), rng),
        **dose,
        "scan": [rows, columns],
        "step_nm": log_between((2, 6), rng),
        "detector": [side, other],
        "pixel_inv_angstrom": 2 * rng.uniform(0.85, 1.3) / min(side, other),
        "tilt_axis_deg": rng.uniform(-180, 180),
        "rotation_deg": rng.uniform(-180, 180) if rng.random() < 0.7 else 0.0,
        "beam_offset_px": _pair(3, rng),
        "probe_samples": int(rng.choice([1, 3], p=[0.7, 0.3])),
        "raster": _raster(rng),
        "descan": _descan(rng),
        "ellipse": _on(0.5, rng, ratio=rng.uniform(1.0, 1.03), azimuth_deg=rng.uniform(0, 180)),
        "camera": _camera(rng),
    }


def _raster(rng: np.random.Generator) -> Table:
    out = _on(0.4, rng, shear_deg=rng.uniform(-3, 3))
    out |= _on(0.4, rng, fast_scale=rng.uniform(0.97, 1.03), slow_scale=rng.uniform(0.97, 1.03))
    out |= _on(0.3, rng, flyback_px=rng.uniform(-2, 2), flyback_decay_px=rng.uniform(2, 8))
    return out | _on(0.3, rng, row_jitter_px=rng.uniform(0, 0.4))


def _descan(rng: np.random.Generator) -> Table:
    out = _on(0.5, rng, fast_px=_pair(2, rng), slow_px=_pair(2, rng))
    return out | _on(0.3, rng, fast_bow_px=_pair(0.8, rng), slow_bow_px=_pair(0.8, rng))


def _camera(rng: np.random.Generator) -> Table:
    """A kind of camera, some of its figures changed."""
    out: Table = {"kind": str(rng.choice(["ideal", "hybrid", "scintillator"], p=[0.3, 0.4, 0.3]))}
    if out["kind"] == "scintillator":
        out |= {"gain": log_between((5, 60), rng), "psf_sigma_px": rng.uniform(0.3, 1.0)}
        out |= {"read_noise": rng.uniform(1, 8), "dark_offset": rng.uniform(20, 200)}
    out |= _on(0.4, rng, hot_pixels=int(rng.integers(1, 6)), dead_pixels=int(rng.integers(1, 6)))
    return out | (_on(0.6, rng, listed_share=rng.uniform(0.4, 1)) if "hot_pixels" in out else {})


def _tilts(rng: np.random.Generator) -> Table:
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
    out |= _on(0.4, rng, angle_offset_deg=rng.uniform(-0.1, 0.1), angle_scale=rng.uniform(0.999, 1.001))
    out |= _on(0.4, rng, backlash_deg=rng.uniform(0.02, 0.1))
    out |= _on(0.4, rng, uneven_deg=rng.uniform(0.1, 1.0))
    return out | _on(0.4, rng, missing=rng.uniform(0.06, 0.25))


def _stated(instrument: Table, rng: np.random.Generator) -> Table:
    """Calibrations as wrong as those of an experiment: 2 % of a reciprocal pixel, a few degrees of the tilt axis."""
    out = _on(0.6, rng, pixel_inv_angstrom=instrument["pixel_inv_angstrom"] * rng.uniform(0.98, 1.02))
    out |= _on(0.6, rng, tilt_axis_deg=instrument["tilt_axis_deg"] + rng.uniform(-3, 3))
    return out | _on(0.3, rng, rotation_deg=instrument["rotation_deg"] + rng.uniform(-1, 1))


def _drift(instrument: Table, tilts: int, rng: np.random.Generator) -> Table:
    jumps = [
        {
            "tilt": int(rng.integers(1, tilts)),
            "shift_px": _pair(5, rng),
            "row": int(rng.integers(instrument["scan"][0])),
        }
        for _ in range(rng.integers(1, 4))
    ]
    out: Table = {"walk_px": rng.uniform(0, 0.8), "beam_walk_px": rng.uniform(0, 0.1)}
    out |= _on(0.5, rng, height_nm=rng.uniform(-20, 20), lateral_nm=rng.uniform(-20, 20))
    out |= _on(0.4, rng, steady_px=_pair(1, rng), scan_px=rng.uniform(0, 0.5))
    return out | _on(0.5, rng, jumps=jumps)


def _film(field_nm: float, rng: np.random.Generator) -> Table:
    """A film, with or without its blemishes, or a needle."""
    if rng.random() < 0.15:
        needle = {
            "tip_nm": _pair(0.1 * field_nm, rng),
            "azimuth_deg": rng.uniform(-180, 180),
            "radius_nm": rng.uniform(0.05, 0.12) * field_nm,
            "half_angle_deg": rng.uniform(2, 10),
        }
        return {"needle": needle}
    if rng.random() < 0.07:
        return {}
    out: Table = {"thickness_nm": log_between((3, 30), rng), "element": str(rng.choice(["C", "C", "Si"]))}
    hole = rng.uniform(0.2, 0.5) * field_nm
    layout = {"period_nm": hole * rng.uniform(1.5, 3)}
    if rng.random() < 0.5:
        layout = {"per_um2": 0.15 / (hole * 1e-3) ** 2, "diameter_sigma": rng.uniform(0, 0.4)}
    out |= _on(0.35, rng, holes={"diameter_nm": hole, **layout})
    length = rng.uniform(0.4, 1.5) * field_nm
    out |= _on(0.4, rng, wrinkles={"length_nm": length, "height_nm": length * rng.uniform(0.02, 0.12)})
    patch = rng.uniform(0.1, 0.5) * field_nm
    dirt = {"diameter_nm": patch, "thickness_nm": log_between((2, 20), rng), "diameter_sigma": rng.uniform(0, 0.5)}
    return out | _on(0.4, rng, contamination=dirt | {"per_um2": rng.uniform(0.1, 0.6) / (patch * 1e-3) ** 2})


def _population(
    cifs: dict[str, str], instrument: Table, film: Table, tilts: Table, kinds: int, rng: np.random.Generator
) -> Table:
    """Particles of one kind among several; together they leave room for one another."""
    field_nm = min(instrument["scan"]) * instrument["step_nm"]
    size = field_nm * log_between((0.1, 0.25), rng)
    count = int(np.clip(np.round(log_between((0.06, 0.35), rng) / kinds * (field_nm / size) ** 2), 1, 20))
    out: Table = {
        "cif": str(rng.choice(sorted(cifs))),
        "count": count,
        "count_law": str(rng.choice(["fixed", "poisson"], p=[0.7, 0.3])),
        "size_nm": size,
        "size_sigma": rng.uniform(0, 0.35),
        "size_limits_nm": [0.4 * size, 1.8 * size],
        "irregularity": rng.uniform(0, 0.15) if rng.random() < 0.7 else 0.0,
        "rounding": rng.uniform(0, 0.8) if rng.random() < 0.5 else 0.0,
        **_habit(rng),
        **_orientation(rng),
        **_joined(cifs, size, rng),
        **_state(instrument, tilts, rng),
    }
    if "needle" in film and rng.random() < 0.8:
        return out | {"support": "needle"}
    return out | _on(0.4, rng, cluster_size=rng.uniform(1.5, 5), cluster=str(rng.choice(["", "powder"])))


def _habit(rng: np.random.Generator) -> Table:
    how = rng.random()
    if how < 0.4:
        return {"habit": str(rng.choice(_HABITS)), "aspect": rng.uniform(1.2, 3)}
    if how < 0.6:
        forms = [(sign, hkl, rng.uniform(0.7, 1.6)) for hkl in _AXES for sign in (1, -1)]
        return {"faces": [{"hkl": [sign * i for i in hkl], "distance": distance} for sign, hkl, distance in forms]}
    return {"shape": str(rng.choice(["sphere", "random"]))}


def _orientation(rng: np.random.Generator) -> Table:
    kind = str(rng.choice(["random", "lying", "upright"], p=[0.5, 0.3, 0.2]))
    axis = {"direction": list(_AXES[rng.integers(3)])}
    if kind != "random" and rng.random() < 0.5:
        axis = {"plane": axis["direction"]}
    return {"orientation": {"kind": kind, "spread_deg": rng.uniform(0, 15), **axis}}


def _joined(cifs: dict[str, str], size_nm: float, rng: np.random.Generator) -> Table:
    """Twins or shells."""
    plane = [int(v) for v in rng.permutation([1, int(rng.integers(2)), 0])]
    out = _on(0.25, rng, twin={"plane": plane, "fraction": rng.uniform(0.3, 1), "offset": rng.uniform(-0.4, 0.4)})
    shell: Table = {"thickness_nm": size_nm * rng.uniform(0.05, 0.2)}
    if rng.random() < 0.5:
        shell |= {"cif": str(rng.choice(sorted(cifs))), "orientation": str(rng.choice(["parallel", "random"]))}
    return out | _on(0.25, rng, shell=shell)


def _state(instrument: Table, tilts: Table, rng: np.random.Generator) -> Table:
    """Mosaic blocks, and damage that shows in the course of the series."""
    electrons = instrument.get("electrons_per_pattern", 1000.0)
    dose = electrons / (10 * instrument["step_nm"]) ** 2 * len(tilts["angles"])
    out = _on(0.4, rng, mosaic_deg=log_between((0.02, 0.4), rng))
    out |= _on(0.3, rng, mean_free_path_nm=rng.uniform(60, 250))
    damage = {"critical_dose_e_per_A2": dose * log_between((0.3, 3), rng), "power": float(rng.choice([0.0, 1.0, 2.0]))}
    return out | _on(0.35, rng, damage=damage)
