"""The tables of the tracker <-> `Tracks`: tracks.csv, particles.csv, states.csv, drift.csv, and the stage's facts.

Columns of CONTRACT section 4, and further ones. Files that lack the further columns, or cells of them, are read all
the same: `Tracks.plain` says what is then taken for true.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import SOURCES, STATES, Tracks
from stemtomo_dl.store.atomic import write_json
from stemtomo_dl.store.tables import Column, read_table, write_table

_WHOLE, _NUMBER = Column(whole=True), Column()
_SIGHTINGS = {
    **dict.fromkeys(("track", "tilt"), _WHOLE),
    "alpha_deg": _NUMBER,
    "instance": _WHOLE,
    **dict.fromkeys(("x_px", "y_px", "area_px"), _NUMBER),
    "state": Column(words=STATES, default=0),
    "source": Column(words=SOURCES, default=0),
    "residual_px": Column(default=np.nan),
    "detected": Column(whole=True, least=-1, default=np.nan),  # then the instance itself
    "identity": Column(default=np.nan),
}
_ERRORS, _WEDGE = ("x_err_nm", "y_err_nm", "z_err_nm"), ("from_deg", "to_deg")
_PARTICLES = {
    "track": _WHOLE,
    "n_tilts": _WHOLE,
    **dict.fromkeys(("x_nm", "y_nm", "z_nm", "residual_px"), _NUMBER),
    **dict.fromkeys((*_ERRORS, *_WEDGE, "overlap_share", "own_motion_px"), Column(default=np.nan)),
    "n_clean": Column(default=np.nan),
}
_STATES = {
    **dict.fromkeys(("track", "tilt"), _WHOLE),
    "alpha_deg": _NUMBER,
    "state": Column(words=STATES),
    **dict.fromkeys(("x_px", "y_px"), _NUMBER),
}
_DRIFT = {
    "tilt": _WHOLE,
    **dict.fromkeys(("alpha_deg", "x_px", "y_px"), _NUMBER),
    "alpha_offset_deg": Column(default=0.0),
}
_NAMES = ("tracks.csv", "particles.csv", "states.csv", "drift.csv")


class Tables(NamedTuple):
    """Where the four tables lie."""

    tracks: Path
    particles: Path
    states: Path
    drift: Path

    @classmethod
    def of_run(cls, folder: Path) -> Tables:
        """Those of a run."""
        return cls(*(folder / name for name in _NAMES))

    @classmethod
    def beside(cls, path: Path) -> Tables:
        """Those of a tracker that ran alone: NAME.csv, NAME_particles.csv, NAME_states.csv, NAME_drift.csv."""
        return cls(path, *(path.with_name(f"{path.stem}_{name}") for name in _NAMES[1:]))


def stage_facts(tracks: Tracks) -> dict[str, Any]:
    """What the tracker found out about the stage, as run.json has it under "stage"; null is what is not known."""

    def plain(value: float) -> float | None:
        return round(float(value), 5) if np.isfinite(value) else None

    return {
        "tilt_axis_deg": plain(tracks.tilt_axis_deg),
        "tilt_axis_error_deg": plain(tracks.tilt_axis_error_deg),
        "noise_px": plain(tracks.noise_px),
        "rigid": tracks.rigid,
        "note": tracks.note,
        "gauge_error_nm": [plain(v) for v in tracks.gauge_error_nm],
        "drift_px": [[plain(v) for v in d] for d in tracks.drift_px],
        "alpha_offset_deg": [plain(v) for v in tracks.alpha_offset_deg],
    }


def write_stage(tables: Tables, tracks: Tracks) -> Path:
    """Write the stage's facts beside tables that belong to no run, as NAME_stage.json."""
    path = tables.tracks.with_name(f"{tables.tracks.stem}_stage.json")
    write_json(path, stage_facts(tracks))
    return path


def write_tracks(tables: Tables, tracks: Tracks) -> None:
    """Write the four tables."""
    _write_particles(tables.particles, tracks)
    particle, tilt = np.nonzero(tracks.states >= 0)
    states = (
        (k, t, tracks.alpha_deg[t], STATES[s], *xy)
        for k, t, s, xy in zip(
            tracks.particle[particle],
            tilt,
            tracks.states[particle, tilt],
            tracks.predicted_px[particle, tilt],
            strict=True,
        )
    )
    write_table(tables.states, _STATES, states)
    drift = zip(
        range(len(tracks.alpha_deg)), tracks.alpha_deg, *tracks.drift_px.T, tracks.alpha_offset_deg, strict=True
    )
    write_table(tables.drift, _DRIFT, drift)
    rows = zip(
        tracks.track,
        tracks.tilt,
        tracks.alpha_deg[tracks.tilt],
        tracks.instance,
        tracks.x_px,
        tracks.y_px,
        tracks.area_px,
        (STATES[s] for s in tracks.state),
        (SOURCES[s] for s in tracks.source),
        tracks.misfit_px,
        tracks.detected,
        tracks.identity.astype(float),
        strict=True,
    )
    write_table(tables.tracks, _SIGHTINGS, rows)  # last: it is what says that the stage has ended


def _write_particles(path: Path, tracks: Tracks) -> None:
    row = np.searchsorted(tracks.particle, tracks.track)
    seen, clean = (np.bincount(row[k], minlength=len(tracks.particle)) for k in (slice(None), tracks.state == 0))
    rows = zip(
        tracks.particle,
        seen,
        *tracks.position_nm.T,
        tracks.residual_px,
        *tracks.position_error_nm.T,
        *tracks.usable_deg.T,
        tracks.overlap_share,
        tracks.own_motion_px,
        clean,
        strict=True,
    )
    write_table(path, _PARTICLES, rows)


def read_tracks(tables: Tables, run_json: Path | None = None) -> Tracks:
    """Read what `write_tracks` wrote, or the like of it by another program.

    All may have been edited: a particle of which no sighting is left (two tracks were given one number) is
    dropped. states.csv may be absent. Whether the sightings fit the masks is `linked.check_tracks`' to say.

    Parameters
    ----------
    tables : Tables
    run_json : Path, optional
        The run's book, which has the stage's facts; where it has none, the tilt axis is the one that was stated.

    Raises
    ------
    InputError
        If a table is missing, lacks a column of the contract, or the tables do not fit each other.
    """
    s, p = read_table(tables.tracks, _SIGHTINGS), read_table(tables.particles, _PARTICLES)
    d = read_table(tables.drift, _DRIFT)
    if not np.array_equal(d["tilt"], np.arange(len(d["tilt"]))):
        raise InputError(f"{tables.drift}: must have one row for every tilt, in order, from 0; correct it")
    _check_angles(tables.tracks, s, d["alpha_deg"])
    kept = np.flatnonzero(np.isin(p["track"], s["track"]))
    kept = kept[np.argsort(p["track"][kept], kind="stable")]
    p = {k: v[kept] for k, v in p.items()}
    tracks = Tracks.plain(
        **{k: s[k].astype("i4") for k in ("track", "tilt", "instance")},
        **{k: s[k] for k in ("x_px", "y_px", "area_px")},
        **{k: s[k].astype("i1") for k in ("state", "source")},
        misfit_px=s["residual_px"],
        detected=np.where(np.isnan(s["detected"]), s["instance"], s["detected"]).astype("i4"),
        identity=s["identity"].astype("f4"),
        alpha_deg=d["alpha_deg"],
        alpha_offset_deg=d["alpha_offset_deg"],
        drift_px=np.stack([d["x_px"], d["y_px"]], 1),
        particle=p["track"].astype("i4"),
        position_nm=np.stack([p["x_nm"], p["y_nm"], p["z_nm"]], 1),
        position_error_nm=np.stack([p[k] for k in _ERRORS], 1),
        usable_deg=np.stack([p[k] for k in _WEDGE], 1),
        **{k: p[k] for k in ("residual_px", "overlap_share", "own_motion_px")},
        **(_read_stage(run_json) if run_json else {}),
    )
    return _with_states(tables.states, tracks) if tables.states.exists() else tracks


def _check_angles(path: Path, s: dict[str, np.ndarray], alpha_deg: np.ndarray) -> None:
    known = np.append(alpha_deg, np.nan)[np.minimum(s["tilt"], len(alpha_deg)).astype(int)]
    other = np.flatnonzero(np.abs(s["alpha_deg"] - known) > 1e-3)  # they have four decimals
    if len(other):
        raise InputError(
            f"{path}: row {other[0] + 1}: alpha_deg {s['alpha_deg'][other[0]]:g} is not that of tilt "
            f"{int(s['tilt'][other[0]])}, which is {known[other[0]]:g}; correct it"
        )


def _with_states(path: Path, tracks: Tracks) -> Tracks:
    """Tracks with what states.csv says of them; its rows of particles that are no more are passed over."""
    t = read_table(path, _STATES)
    states, predicted = tracks.states.copy(), tracks.predicted_px.copy()
    beyond = np.flatnonzero(t["tilt"] >= states.shape[1])
    if len(beyond):
        raise InputError(
            f"{path}: row {beyond[0] + 1}: tilt {int(t['tilt'][beyond[0]])}: the last tilt is {states.shape[1] - 1}; "
            "correct it"
        )
    here = np.isin(t["track"], tracks.particle)
    at = np.searchsorted(tracks.particle, t["track"][here]), t["tilt"][here].astype(int)
    states[at] = t["state"][here].astype("i1")
    predicted[at] = np.stack([t["x_px"], t["y_px"]], 1)[here]
    return replace(tracks, states=states, predicted_px=predicted)


def _read_stage(path: Path) -> dict[str, Any]:
    """The stage's facts in a run's book."""
    if not path.exists():
        return {}
    number: Callable[[Any], float] = lambda v: np.nan if v is None else float(v)  # noqa: E731
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        facts = book.get("stage")
        if facts is None:
            return {"tilt_axis_deg": float(book["settings"]["stage"]["tilt_axis_deg"])}
        return {
            **{k: number(facts[k]) for k in ("tilt_axis_deg", "tilt_axis_error_deg", "noise_px")},
            "rigid": bool(facts["rigid"]),
            "note": str(facts["note"]),
            "gauge_error_nm": np.array([number(v) for v in facts["gauge_error_nm"]]),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise InputError(f"{path}: does not tell the stage ({e!r}); run 'stemtomo track {path.parent}' again") from e
