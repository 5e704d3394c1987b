"""A phase: what particles of one lattice and one structure are together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import gemmi
import numpy as np

from stemtomo_dl.crystal.absences import Absence, SpaceGroup
from stemtomo_dl.crystal.laue import ClassTest, LaueClass, OperationTest, triplet
from stemtomo_dl.crystal.nouns import Crystal, Reflections
from stemtomo_dl.crystal.scale import ErrorModel
from stemtomo_dl.crystal.statistics import Shell
from stemtomo_dl.records import Record, array


class Member(NamedTuple):
    """One particle: its track, its crystal, and its reflections in the crystal's setting."""

    track: int
    crystal: Crystal
    reflections: Reflections


class Joined(NamedTuple):
    """A particle in a phase.

    Attributes
    ----------
    track : int
    operator : (3, 3) f8
        h of the phase = operator · h of the particle.
    scale : float
        Its intensities are so many times the merged ones.
    b_factor : float
        Å², relative to the mean of the phase.
    cc : float
        Correlation of its normalised amplitudes with those of all others; NaN where it is alone.
    common : int
        Reflections compared for it.
    second_cc : float
        That of the best other indexing; NaN where there is none.
    misfit : float
        How many times σ' its observations are typically off those of the others; its sigmas are raised by what is
        above 1. NaN where it shares too little to tell.
    r_merged : float
        Σ|I/g − <I>| / Σ<I> of its observations with the merged intensities.
    observations, rejected : int
    curve : tuple of (alpha_deg, scale)
        Scales over the angle, at B = 0.
    """

    track: int
    operator: np.ndarray
    scale: float
    b_factor: float
    cc: float
    common: int
    second_cc: float
    misfit: float
    r_merged: float
    observations: int
    rejected: int
    curve: tuple[tuple[float, float], ...]


class LeftOut(NamedTuple):
    """A particle of the phase's lattice that is not merged, and why."""

    track: int
    reason: str


@dataclass(frozen=True, eq=False)
class Phase(Record):
    """Particles of one lattice that agree, merged.

    Attributes
    ----------
    lattice : str
        Pearson's letters, of the crystal system of the Laue class, which may be lower than the metric tells.
    laue : LaueClass
    members : tuple of Joined
    left_out : tuple of LeftOut
    operations : tuple of OperationTest
    classes : tuple of ClassTest
        The likeliest first.
    space_groups : tuple of SpaceGroup
        The likeliest first.
    absences : tuple of Absence
    wilson : float
        Mean of |E² − 1|: 0.968 centric, 0.736 acentric.
    shells : tuple of Shell
    overall : Shell
    resolution_a : float
        Of the outermost shell, from within, up to which CC1/2 is at least 0.3; Å.
    scaling : str
        What was scaled, chosen by cross-validation.
    errors : ErrorModel
    n_rejected : int
        Observations far from their equivalents.
    cell_esd : (6,) f8
        Of the weighted mean over members, from their spread and their own deviations; NaN where neither is known.
    """

    lattice: str
    laue: LaueClass
    members: tuple[Joined, ...]
    left_out: tuple[LeftOut, ...]
    operations: tuple[OperationTest, ...]
    classes: tuple[ClassTest, ...]
    space_groups: tuple[SpaceGroup, ...]
    absences: tuple[Absence, ...]
    wilson: float
    shells: tuple[Shell, ...]
    overall: Shell
    resolution_a: float
    scaling: str
    errors: ErrorModel
    n_rejected: int
    cell: np.ndarray = array("f8", "6", "Å, deg")
    cell_esd: np.ndarray = array("f8", "6", "Å, deg")
    hkl: np.ndarray = array("i4", "reflection 3")
    intensity: np.ndarray = array("f8", "reflection")
    sigma: np.ndarray = array("f8", "reflection")
    multiplicity: np.ndarray = array("i4", "reflection")


def operator_text(matrix: np.ndarray) -> str:
    """A change of indices as h,k,l text, as -k,h,l."""
    return triplet(matrix).translate(str.maketrans("xyz", "hkl"))


def operator_of(text: str) -> np.ndarray:
    """The matrix (3, 3) f8 of a change of indices that `operator_text` wrote."""
    op = gemmi.Op(text.translate(str.maketrans("hkl", "xyz")))
    return np.array(op.rot, float) / gemmi.Op.DEN
