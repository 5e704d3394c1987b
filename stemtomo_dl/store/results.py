"""The files of a run: images.h5, masks.h5, tracks.csv, particles.csv, series.h5 <-> records.

Layouts are those of CONTRACT section 4, with additions: images.h5 also has /beam_px, /mean_pattern,
/max_pattern, /bad_pixels, /good and /sectors (tilt, y, x, sector), whose attribute ``probes_together`` says how many
probes along y and x each of its own is the sum of; series.h5 also has /measured and /n_support.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import DiffractionSeries, Instrument, Masks, Tracks, VirtualImages
from stemtomo_dl.store.atomic import write_text, writing
from stemtomo_dl.store.h5 import QUICK, SMALL, crops, open_ours


def series_name(track: int) -> str:
    """Where in a run a particle's series lies."""
    return f"particles/p{track:04d}/series.h5"


def derived_names(track: int) -> list[str]:
    """What is computed from a particle's series and lies beside it."""
    return [f"particles/p{track:04d}/{n}" for n in ("crystal.json", f"p{track:04d}.hkl", f"p{track:04d}.ins")]


def write_images(
    path: Path, tilts: Iterator[tuple[int, VirtualImages]], alpha_deg: np.ndarray, bad_pixels: np.ndarray
) -> None:
    """Write images.h5 tilt by tilt; a tilt that is not given stays NaN, with /good False."""
    n = len(alpha_deg)
    with writing(path) as tmp, h5py.File(tmp, "w") as f:
        f["alpha_deg"] = alpha_deg
        f.create_dataset("bad_pixels", data=bad_pixels, **SMALL)
        good = f.create_dataset("good", data=np.zeros(n, bool))
        for i, v in tilts:
            if "images" not in f:
                f.attrs["detectors"] = list(v.detectors)
                for name, like in (
                    ("images", v.images),
                    ("mean_pattern", v.mean_pattern),
                    ("max_pattern", v.max_pattern),
                    ("beam_px", v.beam_px),
                ):
                    f.create_dataset(
                        name, (n, *like.shape), like.dtype, chunks=(1, *like.shape), fillvalue=np.nan, **SMALL
                    )
                f["images"].attrs["detectors"] = list(v.detectors)
                if v.sectors is not None:
                    like = v.sectors
                    made = f.create_dataset("sectors", (n, *like.shape), like.dtype, chunks=(1, *like.shape), **QUICK)
                    made.attrs["probes_together"] = v.probes_together
            if v.sectors is not None:
                f["sectors"][i] = v.sectors
            for name in ("images", "mean_pattern", "max_pattern", "beam_px"):
                f[name][i] = getattr(v, name)
            good[i] = True


def read_images(path: Path, tilt: int) -> VirtualImages:
    """Virtual images of one tilt."""
    with open_ours(path, ("images", "mean_pattern", "max_pattern", "beam_px")) as f:
        return VirtualImages(
            tuple(f["images"].attrs["detectors"]),
            f["images"][tilt],
            f["beam_px"][tilt],
            f["mean_pattern"][tilt],
            f["max_pattern"][tilt],
            f["sectors"][tilt] if "sectors" in f else None,
        )


def read_image_facts(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tilt angles (tilt), which tilts are there (tilt) bool, and bad pixels (qy, qx) bool of images.h5."""
    with open_ours(path, ("alpha_deg", "good", "bad_pixels")) as f:
        return f["alpha_deg"][:], f["good"][:], f["bad_pixels"][:]


def read_beam(path: Path) -> np.ndarray:
    """Direct-beam surfaces of images.h5, (tilt, 2, 6); NaN where a tilt is not there."""
    with open_ours(path, ("beam_px",)) as f:
        return np.asarray(f["beam_px"][:])


def write_masks(path: Path, masks: Masks) -> None:
    """Write masks.h5: one chunk an instance."""
    with writing(path) as tmp, h5py.File(tmp, "w") as f:
        shape = (len(masks), *masks.shape)
        chunks = (1, *masks.shape)
        data = f.create_dataset("masks", shape, bool, chunks=chunks, maxshape=(None, *masks.shape), **SMALL)
        for i in range(len(masks)):
            data[i] = masks.full(i)
        f["tilt"], f["score"], f["alpha_deg"] = masks.tilt, masks.score, masks.alpha_deg


def read_masks(path: Path) -> Masks:
    """Read masks.h5, ours or another program's.

    Raises
    ------
    InputError
        If a dataset is missing or the datasets do not fit each other.
    """
    with open_ours(path, ("masks", "tilt", "alpha_deg")) as f:
        n, tilt, alpha = len(f["masks"]), f["tilt"][:], f["alpha_deg"][:].astype("f8")
        score = f["score"][:] if "score" in f else np.ones(n, "f4")
        if f["masks"].ndim != 3 or len(tilt) != n or len(score) != n:
            raise InputError(f"{path}: /masks, /tilt and /score do not fit each other; one row an instance is needed")
        if n and not (tilt.min() >= 0 and tilt.max() < len(alpha)):
            raise InputError(f"{path}: /tilt names a tilt that /alpha_deg does not have; number tilts from 0")
        shape = (int(f["masks"].shape[1]), int(f["masks"].shape[2]))
        found = list(crops(f["masks"]))
    origin = np.array([o for _, o in found], "i4").reshape(-1, 2)
    return Masks(shape, tuple(c for c, _ in found), origin, tilt.astype("i4"), score.astype("f4"), alpha)


_SIGHTINGS = ("track", "tilt", "alpha_deg", "instance", "x_px", "y_px", "area_px")
_PARTICLES = ("track", "n_tilts", "x_nm", "y_nm", "z_nm", "residual_px")
_DRIFT = ("tilt", "alpha_deg", "x_px", "y_px")


def write_tracks(folder: Path, tracks: Tracks) -> None:
    """Write tracks.csv, particles.csv and drift.csv."""
    rows = zip(
        tracks.track,
        tracks.tilt,
        tracks.alpha_deg[tracks.tilt],
        tracks.instance,
        tracks.x_px,
        tracks.y_px,
        tracks.area_px,
        strict=True,
    )
    count = np.bincount(tracks.track, minlength=int(tracks.particle.max(initial=0)) + 1)
    particles = (
        (k, count[k], *p, r) for k, p, r in zip(tracks.particle, tracks.position_nm, tracks.residual_px, strict=True)
    )
    drift = ((i, a, *d) for i, (a, d) in enumerate(zip(tracks.alpha_deg, tracks.drift_px, strict=True)))
    # drift.csv first: tracks.csv is what says that the stage has ended
    _write_csv(folder / "drift.csv", _DRIFT, drift)
    _write_csv(folder / "particles.csv", _PARTICLES, particles)
    _write_csv(folder / "tracks.csv", _SIGHTINGS, rows)


def read_tracks(folder: Path) -> Tracks:
    """Read what `write_tracks` wrote; tracks.csv and particles.csv may have further columns.

    Both may have been edited: a particle of which no sighting is left (two tracks were given one number) is
    dropped. Whether the sightings fit the masks is `linked.check_tracks`' to say.
    """
    s = _read_csv(folder / "tracks.csv", _SIGHTINGS, whole=("track", "tilt", "instance"))
    p = _read_csv(folder / "particles.csv", _PARTICLES, whole=("track",))
    d = _read_csv(folder / "drift.csv", _DRIFT, whole=("tilt",))
    if not np.array_equal(d["tilt"], np.arange(len(d["tilt"]))):
        raise InputError(f"{folder / 'drift.csv'}: must have one row for every tilt, in order, from 0; correct it")
    known = np.append(d["alpha_deg"], np.nan)[np.minimum(s["tilt"], len(d["tilt"])).astype(int)]
    other = np.flatnonzero(np.abs(s["alpha_deg"] - known) > 1e-3)  # they have four decimals
    if len(other):
        raise InputError(
            f"{folder / 'tracks.csv'}: row {other[0] + 1}: alpha_deg {s['alpha_deg'][other[0]]:g} is not that of tilt "
            f"{int(s['tilt'][other[0]])}, which is {known[other[0]]:g}; correct it"
        )
    kept = np.flatnonzero(np.isin(p["track"], s["track"]))
    kept = kept[np.argsort(p["track"][kept], kind="stable")]
    return Tracks(
        **{k: s[k].astype("i4") for k in ("track", "tilt", "instance")},
        x_px=s["x_px"],
        y_px=s["y_px"],
        area_px=s["area_px"],
        alpha_deg=d["alpha_deg"],
        drift_px=np.stack([d["x_px"], d["y_px"]], 1),
        particle=p["track"][kept].astype("i4"),
        position_nm=np.stack([p["x_nm"], p["y_nm"], p["z_nm"]], 1)[kept],
        residual_px=p["residual_px"][kept],
    )


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{v:.4f}" if isinstance(v, float) else v for v in row] for row in rows)
    write_text(path, text.getvalue())


def _read_csv(path: Path, columns: tuple[str, ...], whole: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Named columns of a CSV file as floats, some of which must hold whole numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            rows = [(reader.line_num, row) for row in reader]
            lacking = [c for c in columns if c not in (reader.fieldnames or ())]
    except OSError as e:
        raise InputError(f"{path}: is missing; run the stage that writes it again") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"{path}: is not a CSV file ({e}); run the stage that writes it again") from e
    if lacking:
        raise InputError(f"{path}: column '{lacking[0]}' is missing; columns needed: {', '.join(columns)}")
    return {c: np.array([_number(path, line, c, row[c], c in whole) for line, row in rows], float) for c in columns}


def _number(path: Path, line: int, column: str, text: str | None, whole: bool) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = None
    if value is None or (whole and not (value.is_integer() and 0 <= value < 2**31)):
        kind = "a whole number from 0" if whole else "a number"
        raise InputError(f"{path}: line {line}: {column} must be {kind}, got '{text or ''}'; correct it")
    return value


def write_series(path: Path, series: DiffractionSeries) -> None:
    """Write one particle's series.h5; it stands alone."""
    with writing(path) as tmp, h5py.File(tmp, "w") as f:
        frame = series.patterns.shape[1:]
        # Background-free means are noise to a compressor: stored plain, they are read at the disk's speed.
        f.create_dataset("patterns", data=series.patterns, chunks=(1, *frame))
        f.create_dataset("measured", data=series.measured, chunks=(1, *frame), **SMALL)
        for name in ("alpha_deg", "tilt", "n_probes", "n_support", "center_px"):
            f[name] = getattr(series, name)
        if series.dose_e_per_A2 is not None:
            f["dose_e_per_A2"] = series.dose_e_per_A2
        facts = {k: v for k, v in asdict(series.instrument).items() if v is not None}
        # Patterns are in detector axes, and so is the tilt axis that goes with them.
        facts["tilt_axis_deg"] += facts.pop("rotation_deg")
        f.attrs.update(facts)


def read_series(path: Path) -> DiffractionSeries:
    """Read a series.h5; its tilt axis is the one on the detector, its scan rotation 0."""
    with open_ours(path, ("patterns", "alpha_deg")) as f:
        patterns = f["patterns"][:].astype("f4", copy=False)
        n = len(patterns)
        a = dict(f.attrs)
        lacking = [k for k in ("voltage_kv", "pixel_inv_angstrom", "tilt_axis_deg", "convergence_mrad") if k not in a]
        if lacking:
            raise InputError(f"{path}: has no attribute '{lacking[0]}'; see the contract's series.h5")
        instrument = Instrument(
            float(a["voltage_kv"]),
            float(a["convergence_mrad"]),
            float(a["pixel_inv_angstrom"]),
            float(a.get("step_nm", np.nan)),
            float(a["tilt_axis_deg"]),
            0.0,
            float(a["electrons_per_pattern"]) if "electrons_per_pattern" in a else None,
        )
        middle = np.array([patterns.shape[2] // 2, patterns.shape[1] // 2], float)
        return DiffractionSeries(
            instrument=instrument,
            patterns=patterns,
            measured=f["measured"][:] if "measured" in f else np.ones(patterns.shape, bool),
            alpha_deg=f["alpha_deg"][:].astype("f8"),
            tilt=f["tilt"][:].astype("i4") if "tilt" in f else np.arange(n, dtype="i4"),
            n_probes=f["n_probes"][:].astype("i4") if "n_probes" in f else np.ones(n, "i4"),
            n_support=f["n_support"][:].astype("i4") if "n_support" in f else np.zeros(n, "i4"),
            center_px=f["center_px"][:].astype("f8") if "center_px" in f else middle,
            dose_e_per_A2=f["dose_e_per_A2"][:].astype("f8") if "dose_e_per_A2" in f else None,
        )
