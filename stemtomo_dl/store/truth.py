"""truth.h5, the known answer beside a synthetic experiment, as CONTRACT section 5 lays it out."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Masks, Truth
from stemtomo_dl.store.atomic import writing
from stemtomo_dl.store.h5 import SMALL

_VALUES = ("ub", "positions_nm", "alpha_deg", "drift_px", "centers_px")


def write_truth(path: Path, truth: Truth) -> None:
    """Write a truth; a particle out of view at a tilt has an empty mask there.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    masks, shape = truth.masks, (len(truth.alpha_deg), len(truth.ub), *truth.masks.shape)
    with writing(path) as temporary, h5py.File(temporary, "w") as f:
        stored = f.create_dataset("masks", shape, bool, chunks=(1, 1, *masks.shape), **SMALL)
        for i, (tilt, particle) in enumerate(zip(masks.tilt, truth.particle, strict=True)):
            stored[tilt, particle] = masks.full(i)
        for name in _VALUES:
            f[name] = getattr(truth, name)
        f.create_dataset("phase", data=list(truth.phase), dtype=h5py.string_dtype())
        for name, (hkl, intensity) in truth.reflections.items():
            f[f"phases/{name}/hkl"] = hkl
            f[f"phases/{name}/intensity"] = intensity


def read_truth(path: Path) -> Truth:
    """Read a truth; instances are ordered by tilt, then particle, empty masks left out.

    Raises
    ------
    InputError
        If the file is missing, is not HDF5 or lacks a dataset.
    """
    try:
        file = h5py.File(path)
    except OSError as e:
        why = "is not a readable HDF5 file" if path.exists() else "is missing"
        raise InputError(f"{path}: {why}; give the truth.h5 of a synthetic experiment") from e
    with file as f:
        try:
            values = {name: f[name][:].astype("f8") for name in _VALUES}
            masks, particle = _read_masks(f["masks"], values["alpha_deg"])
            phase = tuple(f["phase"].asstr()[:])
            reflections = {k: (v["hkl"][:].astype("i4"), v["intensity"][:]) for k, v in f["phases"].items()}
            return Truth(masks=masks, particle=particle, phase=phase, reflections=reflections, **values)
        except OSError as e:
            raise InputError(f"{path}: is damaged and cannot be read to its end ({e}); write it again") from e
        except (KeyError, TypeError, ValueError) as e:
            raise InputError(f"{path}: does not hold a truth as the contract lays it out ({e}); write it again") from e


def _read_masks(stored: h5py.Dataset, alpha_deg: np.ndarray) -> tuple[Masks, np.ndarray]:
    """Masks tilt by tilt, and the particle that each shows; the whole array need not fit in memory."""
    parts, particles = [], []
    for tilt in range(stored.shape[0]):
        frame = stored[tilt]
        seen = np.flatnonzero(frame.any((1, 2)))
        parts.append(Masks.pack(frame[seen], np.full(len(seen), tilt), np.ones(len(seen)), alpha_deg))
        particles.append(seen)
    return Masks.concatenate(parts), np.concatenate(particles).astype("i4")
