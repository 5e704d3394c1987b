"""Reflections that must be equally strong, as far as the lattice alone tells."""

from __future__ import annotations

import gemmi
import numpy as np

# The least symmetric Laue class of each crystal system: true whatever the crystal is, as long as its lattice is right.
_LEAST = {"a": "P -1", "m": "P 1 2/m 1", "o": "P m m m", "t": "P 4/m", "h": "P -3", "c": "P m -3"}


def equivalents(hkl: np.ndarray, lattice: str) -> np.ndarray:
    """Numbers (reflection,) that equivalent reflections share.

    Parameters
    ----------
    hkl : (reflection, 3) array of int
    lattice : str
        Pearson's letters; "aP" joins Friedel mates only. An hR lattice has hexagonal axes.
    """
    operations = gemmi.SpaceGroup(_LEAST[lattice[0]]).operations().sym_ops
    turns = [np.array(op.rot) // gemmi.Op.DEN for op in operations]
    span = 2 * int(np.abs(hkl).max(initial=0)) + 1
    images = np.stack([hkl @ turn for turn in turns]).astype("i8")
    key = (images @ np.array([span * span, span, 1])).max(0)
    return np.asarray(np.unique(key, return_inverse=True)[1]).ravel()


def disagreement(group: np.ndarray, intensity: np.ndarray, least: int = 20) -> float:
    """R_int of intensities in groups of equals; infinite where fewer than ``least`` have a partner."""
    count = np.bincount(group)
    mean = np.bincount(group, intensity) / np.maximum(count, 1)
    several = count[group] > 1
    if several.sum() < least:
        return np.inf
    total = np.abs(intensity[several]).sum()
    return float(np.abs(intensity - mean[group])[several].sum() / max(total, 1e-12))
