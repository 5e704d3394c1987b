"""The binary files of a run: images.h5, masks.h5, series.h5 <-> records.

Layouts are those of CONTRACT section 4, with additions: images.h5 also has /beam_px, /mean_pattern,
/max_pattern, /bad_pixels, /good, /beam_hidden and /sectors (tilt, y, x, sector), whose attribute ``probes_together``
says how many probes along y and x each of its own is the sum of; series.h5 also has /measured and /n_support.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import hdf5plugin  # noqa: F401  (importing it registers the filters that other programs store patterns with)
import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import DiffractionSeries, Masks, VirtualImages
from stemtomo_dl.store.atomic import writing
from stemtomo_dl.store.facts import brightest, stated_instrument
from stemtomo_dl.store.h5 import QUICK, SMALL, crops, open_ours

_MAY_LACK = {  # of a series, a value a frame
    "dose_e_per_A2": "f8",
    "accumulated_dose_e_per_A2": "f8",
    "separated": "?",
    "bragg_signal": "f4",
    "purity": "f4",
}
_OF_FRAMES = ("alpha_deg", "n_probes", "n_support")  # of a series of ours, beside its tilts


def series_name(track: int) -> str:
    """Where in a run a particle's series lies."""
    return f"particles/p{track:04d}/series.h5"


def write_images(
    path: Path, tilts: Iterator[tuple[int, VirtualImages]], alpha_deg: np.ndarray, bad_pixels: np.ndarray
) -> None:
    """Write images.h5 tilt by tilt; a tilt that is not given stays NaN, with /good False."""
    n = len(alpha_deg)
    with writing(path) as tmp, h5py.File(tmp, "w") as f:
        f["alpha_deg"] = alpha_deg
        f.create_dataset("bad_pixels", data=bad_pixels, **SMALL)
        good = f.create_dataset("good", data=np.zeros(n, bool))
        hidden = f.create_dataset("beam_hidden", data=np.zeros(n, bool))
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
                if v.dropped is not None:
                    like = v.dropped
                    f.create_dataset("dropped", (n, *like.shape), bool, chunks=(1, *like.shape), **SMALL)
            if v.sectors is not None:
                f["sectors"][i] = v.sectors
            if v.dropped is not None:
                f["dropped"][i] = v.dropped
            for name in ("images", "mean_pattern", "max_pattern", "beam_px"):
                f[name][i] = getattr(v, name)
            good[i], hidden[i] = True, v.beam_hidden


def read_images(path: Path, tilt: int, *, sectors: bool = True) -> VirtualImages:
    """Virtual images of one tilt; counts in sectors, most of the file, only where they are asked for."""
    with open_ours(path, ("images", "mean_pattern", "max_pattern", "beam_px")) as f:
        return VirtualImages(
            tuple(f["images"].attrs["detectors"]),
            f["images"][tilt],
            f["beam_px"][tilt],
            f["mean_pattern"][tilt],
            f["max_pattern"][tilt],
            f["sectors"][tilt] if sectors and "sectors" in f else None,
            "beam_hidden" in f and bool(f["beam_hidden"][tilt]),
            f["dropped"][tilt] if "dropped" in f else None,
        )


def read_image_facts(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tilt angles (tilt), which tilts are there (tilt) bool, and bad pixels (qy, qx) bool of images.h5."""
    with open_ours(path, ("alpha_deg", "good", "bad_pixels")) as f:
        return f["alpha_deg"][:], f["good"][:], f["bad_pixels"][:]


def read_beam(path: Path) -> np.ndarray:
    """Direct-beam surfaces of images.h5, (tilt, 2, 6); NaN where a tilt is not there."""
    with open_ours(path, ("beam_px",)) as f:
        return np.asarray(f["beam_px"][:])


def read_beam_hidden(path: Path) -> np.ndarray:
    """Whether the direct beam was behind a stop, (tilt) bool; False where a tilt is not there."""
    with open_ours(path, ("beam_px",)) as f:
        return np.asarray(f["beam_hidden"][:]) if "beam_hidden" in f else np.zeros(len(f["beam_px"]), bool)


def write_masks(path: Path, masks: Masks) -> None:
    """Write masks.h5: one chunk an instance."""
    with writing(path) as tmp, h5py.File(tmp, "w") as f:
        shape = (len(masks), *masks.shape)
        chunks = (1, *masks.shape)
        data = f.create_dataset("masks", shape, bool, chunks=chunks, maxshape=(None, *masks.shape), **SMALL)
        for i in range(len(masks)):
            data[i] = masks.full(i)
        f["tilt"], f["score"], f["alpha_deg"] = masks.tilt, masks.score, masks.alpha_deg
        if masks.source is not None:
            f["source"] = masks.source


def read_masks(path: Path) -> Masks:
    """Read masks.h5, ours or another program's.

    Raises
    ------
    InputError
        If a dataset is missing or the datasets do not fit each other.
    """
    with open_ours(path, ("masks", "tilt", "alpha_deg")) as f:
        if not isinstance(f["masks"], h5py.Dataset) or f["masks"].ndim != 3 or f["masks"].dtype.kind not in "buif":
            raise InputError(f"{path}: /masks must be numbers or bool by (instance, row, column)")
        n = len(f["masks"])
        tilt, alpha = _column(path, f, "tilt"), _column(path, f, "alpha_deg").astype("f8")
        score = _column(path, f, "score") if "score" in f else np.ones(n, "f4")
        source = _column(path, f, "source").astype("i1") if "source" in f else None
        if any(len(a) != n for a in (tilt, score, source) if a is not None):
            raise InputError(f"{path}: /masks, /tilt and /score do not fit each other; one row an instance is needed")
        if n and not (tilt.min() >= 0 and tilt.max() < len(alpha) and (tilt % 1 == 0).all()):
            raise InputError(f"{path}: /tilt names a tilt that /alpha_deg does not have; number tilts from 0")
        if f["masks"].dtype.kind == "f" and not all(np.isin(m, (0, 1)).all() for m in f["masks"]):
            raise InputError(f"{path}: /masks are neither 0 nor 1 everywhere; say what is inside, as masks > 0.5")
        shape = (int(f["masks"].shape[1]), int(f["masks"].shape[2]))
        cut = list(crops(f["masks"]))
    origin = np.array([o for _, o in cut], "i4").reshape(-1, 2)
    tilt, score, alpha = tilt.astype("i4"), score.astype("f4"), np.where(np.isfinite(alpha), alpha, np.nan)
    return Masks(shape, tuple(c for c, _ in cut), origin, tilt, score, alpha, source)


def _column(path: Path, file: h5py.File, name: str) -> np.ndarray:
    """Numbers in a row."""
    if not isinstance(file[name], h5py.Dataset) or file[name].ndim != 1 or file[name].dtype.kind not in "uif":
        raise InputError(f"{path}: /{name} must be numbers in a row")
    return np.asarray(file[name][:])


def found_digest(path: Path) -> str:
    """SHA-256 of the outlines that the segmenter found, whatever else masks.h5 holds and however it is laid out."""
    masks = read_masks(path)
    found = masks.some(masks.found)
    total = hashlib.sha256(str(found.shape).encode())
    for values in (found.origin, found.tilt, found.score, found.alpha_deg, *found.crops):
        total.update(str(values.shape).encode())
        total.update(values.tobytes())
    return total.hexdigest()


def write_series(path: Path, series: DiffractionSeries) -> None:
    """Write one particle's series.h5; it stands alone."""
    with writing(path) as tmp, h5py.File(tmp, "w") as f:
        frame = series.patterns.shape[1:]
        # Background-free means are noise to a compressor: stored plain, they are read at the disk's speed.
        f.create_dataset("patterns", data=series.patterns, chunks=(1, *frame))
        if series.variance is not None:
            f.create_dataset("variance", data=series.variance, chunks=(1, *frame))
        f.create_dataset("measured", data=series.measured, chunks=(1, *frame), **SMALL)
        for name in ("alpha_deg", "tilt", "n_probes", "n_support", "center_px"):
            f[name] = getattr(series, name)
        for name in _MAY_LACK:
            if (values := getattr(series, name)) is not None:
                f[name] = values
        facts = {k: v for k, v in asdict(series.instrument).items() if v is not None}
        # Patterns are in detector axes, and so is the tilt axis that goes with them.
        facts["tilt_axis_deg"] += facts.pop("rotation_deg")
        f.attrs.update(facts)


def read_series(path: Path, stated: Mapping[str, Any] | None = None) -> DiffractionSeries:
    """Read a series.h5; its tilt axis is the one on the detector, its scan rotation 0.

    Without /center_px the beam is where the mean pattern is brightest; what ``stated`` says counts before the file.
    Pixels that are no numbers count as not measured.

    Raises
    ------
    InputError
        If a dataset or an attribute is missing, does not fit or is no number.
    """
    with open_ours(path, ("patterns", "alpha_deg")) as f:
        _check_frames(path, f)
        patterns = f["patterns"][:].astype("f4", copy=False)
        n, finite = len(patterns), np.isfinite(patterns)
        patterns[~finite] = 0
        measured = f["measured"][:].astype(bool) if "measured" in f else np.ones(patterns.shape, bool)
        known = {**f.attrs, **(stated or {})}
        center = known.get("center_px", f["center_px"][:] if "center_px" in f else None)
        return DiffractionSeries(
            instrument=stated_instrument(known, path),
            patterns=patterns,
            measured=measured & finite,
            alpha_deg=f["alpha_deg"][:].astype("f8"),
            tilt=f["tilt"][:].astype("i4") if "tilt" in f else np.arange(n, dtype="i4"),
            n_probes=f["n_probes"][:].astype("i4") if "n_probes" in f else np.ones(n, "i4"),
            n_support=f["n_support"][:].astype("i4") if "n_support" in f else np.zeros(n, "i4"),
            center_px=brightest(patterns) if center is None else np.asarray(center, "f8"),
            variance=f["variance"][:].astype("f4", copy=False) if "variance" in f else None,
            **{name: f[name][:].astype(kind) for name, kind in _MAY_LACK.items() if name in f},
        )


def _check_frames(path: Path, f: h5py.File) -> None:
    """Refuse a series.h5 whose datasets do not fit each other, or whose angles or centre are no numbers."""
    shape = f["patterns"].shape
    if len(shape) != 3 or f["alpha_deg"].shape != shape[:1]:
        raise InputError(
            f"{path}: /patterns {shape} and /alpha_deg {f['alpha_deg'].shape} do not fit each other; "
            "patterns (frame, row, column) and an angle a frame are needed"
        )
    if f["patterns"].dtype.kind not in "iufb":
        raise InputError(f"{path}: /patterns are {f['patterns'].dtype}; give counts as integers or real numbers")
    by_frame = ("tilt", "n_probes", "n_support", *_MAY_LACK)
    wanted = {"measured": shape, "variance": shape, "center_px": (2,), **dict.fromkeys(by_frame, shape[:1])}
    for name, right in wanted.items():
        if name in f and f[name].shape != right:
            raise InputError(f"{path}: /{name} is {f[name].shape} where /patterns {shape} ask for {right}; correct it")
    lost = np.flatnonzero(~np.isfinite(f["alpha_deg"][:].astype("f8")))
    if len(lost):
        frames = ", ".join(map(str, lost[:5].tolist())) + (" …" if len(lost) > 5 else "")
        raise InputError(f"{path}: /alpha_deg is no number at frame {frames}; correct it, or leave the frames out")
    if "center_px" in f and not np.isfinite(f["center_px"][:].astype("f8")).all():
        raise InputError(f"{path}: /center_px is no number; correct it, or leave it out")


def read_frames_of(path: Path, tilts: Collection[int]) -> DiffractionSeries:
    """The frames of a series.h5 at some tilts, without their variances, which are half of the file.

    Parameters
    ----------
    path : Path
    tilts : collection of int
        Those that the series has no frame of are passed over.

    Raises
    ------
    InputError
        If a dataset or an attribute is missing or does not fit.
    """
    with open_ours(path, ("patterns", "measured", "tilt", *_OF_FRAMES)) as f:
        rows = np.flatnonzero(np.isin(f["tilt"][:], list(tilts)))
        _, *shape = f["patterns"].shape
        kinds = {"patterns": "f4", "measured": "?"}
        images = {k: np.array([f[k][i] for i in rows.tolist()], kind).reshape(-1, *shape) for k, kind in kinds.items()}
        values = {name: f[name][:][rows] for name in ("tilt", *_OF_FRAMES)}
        return DiffractionSeries(
            stated_instrument(dict(f.attrs), path), center_px=f["center_px"][:], **images, **values
        )


class FrameFacts(NamedTuple):
    """What a series.h5 says of its frames, one value each; None: not known."""

    alpha_deg: np.ndarray
    n_probes: np.ndarray
    dose_e_per_A2: np.ndarray | None
    bragg_signal: np.ndarray | None


def read_frame_facts(path: Path) -> FrameFacts:
    """Angles, probes, doses and signals of all frames of a series.h5; no pattern is read.

    Raises
    ------
    InputError
        If a dataset is missing.
    """
    with open_ours(path, ("alpha_deg", "n_probes")) as f:
        dose, signal = (f[name][:] if name in f else None for name in ("dose_e_per_A2", "bragg_signal"))
        return FrameFacts(f["alpha_deg"][:], f["n_probes"][:], dose, signal)
