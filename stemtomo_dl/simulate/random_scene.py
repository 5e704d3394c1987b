"""Random scenes that can be played: everything that the forward model knows is drawn, each option on or off."""

from __future__ import annotations

import numpy as np

from stemtomo_dl import resources
from stemtomo_dl.config import check
from stemtomo_dl.simulate.random_instrument import (
    Table,
    on,
    pair,
    random_drift,
    random_instrument,
    random_stated,
    random_tilts,
)
from stemtomo_dl.simulate.scene import Scene
from stemtomo_dl.simulate.stock import pseudo_cif
from stemtomo_dl.simulate.support import log_between

_PSEUDO = "pseudo.cif"
_HABITS = ("block", "rod", "plate", "octahedron", "truncated-octahedron")
_AXES = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_OBLIQUE = ((1, 1, 0), (1, 0, 1), (0, 1, 1), (1, -1, 0), (1, 1, 1), (2, 1, 0), (1, 2, -1))


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
    instrument = random_instrument(rng)
    tilts = random_tilts(rng)
    field_nm = min(instrument["scan"]) * instrument["step_nm"]
    film = _film(field_nm, rng)
    kinds = int(rng.integers(1, 4))
    share = rng.uniform(0.6, 1.1)
    populations = [_population(cifs, instrument, film, tilts, kinds, rng) for _ in range(kinds)]
    area_um2 = np.prod(instrument["scan"]) * (instrument["step_nm"] * share * 1e-3) ** 2
    populations = [_counted(p, float(area_um2), rng) for p in populations]
    content = {
        "title": "a random scene",
        "seed": int(rng.integers(2**31)),
        "intensities": str(rng.choice(["two-beam", "kinematic"], p=[0.7, 0.3])),
        "overlap": str(rng.choice(["sum", "sequential"], p=[0.7, 0.3])),
        "format": str(rng.choice([".h5", ".npy", ".mib", ".hspy"], p=[0.5, 0.2, 0.2, 0.1])),
        "field_fraction": share,
        "instrument": instrument,
        "stated": random_stated(instrument, rng),
        "tilts": tilts,
        "drift": random_drift(instrument, len(tilts["angles"]), rng),
        "film": film,
        "particles": populations,
    }
    scene = check(Scene, content, "random scene")
    return scene, {name: cifs[name] for name in scene.cifs}


def _structures(rng: np.random.Generator) -> dict[str, str]:
    """Shipped structures and one that does not exist."""
    found = sorted((resources.synthetic() / "structures").glob("*.cif"))
    return {p.name: p.read_text(encoding="utf-8") for p in found} | {_PSEUDO: pseudo_cif(rng)}


def _film(field_nm: float, rng: np.random.Generator) -> Table:
    """A film, with or without its blemishes, or a needle."""
    if rng.random() < 0.15:
        needle = {
            "tip_nm": pair(0.1 * field_nm, rng),
            "azimuth_deg": rng.uniform(-180, 180),
            "radius_nm": rng.uniform(0.05, 0.12) * field_nm,
            "half_angle_deg": rng.uniform(2, 10),
        }
        return {"needle": needle | on(0.5, rng, mean_free_path_nm=rng.uniform(30, 120))}
    if rng.random() < 0.07:
        return {}
    out: Table = {"thickness_nm": log_between((3, 30), rng), "element": str(rng.choice(["C", "C", "Si"]))}
    out |= on(0.3, rng, mean_free_path_nm=rng.uniform(60, 250))
    hole = rng.uniform(0.2, 0.5) * field_nm
    layout = {"period_nm": hole * rng.uniform(1.5, 3)}
    if rng.random() < 0.5:
        layout = {"per_um2": 0.15 / (hole * 1e-3) ** 2, "diameter_sigma": rng.uniform(0, 0.4)}
    out |= on(0.35, rng, holes={"diameter_nm": hole, **layout})
    length = rng.uniform(0.4, 1.5) * field_nm
    out |= on(0.4, rng, wrinkles={"length_nm": length, "height_nm": length * rng.uniform(0.02, 0.12)})
    patch = rng.uniform(0.1, 0.5) * field_nm
    dirt = {"diameter_nm": patch, "thickness_nm": log_between((2, 20), rng), "diameter_sigma": rng.uniform(0, 0.5)}
    return out | on(0.4, rng, contamination=dirt | {"per_um2": rng.uniform(0.1, 0.6) / (patch * 1e-3) ** 2})


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
    out |= on(0.2, rng, min_gap_nm=size * rng.uniform(0, 0.15))
    if "needle" in film and rng.random() < 0.8:
        return out | {"support": "needle"}
    return out | on(0.4, rng, cluster_size=rng.uniform(1.5, 5), cluster=str(rng.choice(["", "powder"])))


def _counted(population: Table, area_um2: float, rng: np.random.Generator) -> Table:
    """A population whose number is stated, or now and then the density that gives it."""
    if rng.random() < 0.7:
        return population
    kept = {key: value for key, value in population.items() if key != "count"}
    return kept | {"per_um2": population["count"] / area_um2}


def _habit(rng: np.random.Generator) -> Table:
    how = rng.random()
    if how < 0.4:
        return {"habit": str(rng.choice(_HABITS)), "aspect": rng.uniform(1.2, 3)}
    if how < 0.7:
        forms = list(_AXES)  # alone they close; others cut their edges and corners
        if rng.random() < 0.6:
            forms += [_OBLIQUE[k] for k in rng.choice(len(_OBLIQUE), 2, replace=False)]
        faces = [(sign, hkl, rng.uniform(0.7, 1.6)) for hkl in forms for sign in (1, -1)]
        return {"faces": [{"hkl": [sign * i for i in hkl], "distance": distance} for sign, hkl, distance in faces]}
    return {"shape": str(rng.choice(["sphere", "random"]))}


def _direction(rng: np.random.Generator) -> list[int]:
    """Indices of an axis or of a face, of low numbers."""
    return list((_AXES + _OBLIQUE)[rng.integers(len(_AXES + _OBLIQUE))])


def _orientation(rng: np.random.Generator) -> Table:
    kind = str(rng.choice(["random", "lying", "upright", "fixed"], p=[0.4, 0.3, 0.2, 0.1]))
    if kind == "fixed":
        turn = rng.normal(size=3)
        turn *= rng.uniform(0, 180) / np.linalg.norm(turn)
        return {"orientation": {"kind": kind, "rotation_vector_deg": turn.tolist(), "spread_deg": rng.uniform(0, 15)}}
    axis = {"direction": _direction(rng)}
    if kind != "random" and rng.random() < 0.5:
        axis = {"plane": axis["direction"]}
    return {"orientation": {"kind": kind, "spread_deg": rng.uniform(0, 15), **axis}}


def _joined(cifs: dict[str, str], size_nm: float, rng: np.random.Generator) -> Table:
    """Twins or shells."""
    twin: Table = {"fraction": rng.uniform(0.3, 1), "offset": rng.uniform(-0.4, 0.4)}
    if rng.random() < 0.6:
        twin |= {"plane": _direction(rng), **on(0.4, rng, composition=_direction(rng))}
    else:
        angle = float(rng.choice([60.0, 90.0, 120.0, 180.0, rng.uniform(20, 170)]))
        twin |= {"axis": _direction(rng), "angle_deg": angle, "composition": _direction(rng)}
    out = on(0.3, rng, twin=twin)
    shell: Table = {"thickness_nm": size_nm * rng.uniform(0.05, 0.2)}
    if rng.random() < 0.5:
        shell |= {"cif": str(rng.choice(sorted(cifs))), "orientation": str(rng.choice(["parallel", "random"]))}
    else:
        shell |= on(0.5, rng, mean_free_path_nm=rng.uniform(60, 250))
    return out | on(0.25, rng, shell=shell)


def _state(instrument: Table, tilts: Table, rng: np.random.Generator) -> Table:
    """Mosaic blocks, and damage that shows in the course of the series."""
    electrons = instrument.get("electrons_per_pattern", 1000.0)
    dose = electrons / (10 * instrument["step_nm"]) ** 2 * len(tilts["angles"])
    out = on(0.4, rng, mosaic_deg=log_between((0.02, 0.4), rng))
    out |= on(0.3, rng, mean_free_path_nm=rng.uniform(60, 250))
    damage = {"critical_dose_e_per_A2": dose * log_between((0.3, 3), rng), "power": float(rng.choice([0.0, 1.0, 2.0]))}
    damage |= on(0.5, rng, at_A=rng.uniform(0.8, 3))
    return out | on(0.35, rng, damage=damage)
