"""What a structure is solved from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import gemmi
import numpy as np

from stemtomo_dl.records import Record, array
from stemtomo_dl.solve.stated import Stated

HYDROGEN = ("H", "D")


@dataclass(frozen=True, eq=False)
class Intensities(Record):
    """Intensities of one crystal or many, merged or not, with what is known of the crystal.

    Attributes
    ----------
    cell : tuple of float
        a, b, c in Å, α, β, γ in degrees.
    wavelength : float
        Å.
    operations : tuple of str or None
        Triplets of the space group where it is stated; None where it is to be found.
    composition : tuple of (str, float)
        Elements with their number in the cell, or in a formula; 0 where only the element is known.
    cell_esd : tuple of float
        Standard deviations of ``cell``; 0 where symmetry fixes a value, or nothing is known.
    observations : int or None
        That the intensities were merged from, where the file says no more of them than their means.
    rint : float or None
        Of those observations.
    whole : bool
        Whether every element of ``composition`` is there; else they are those of a sample of several phases.
    per_cell : bool
        Whether the numbers of ``composition`` are the cell's; else a formula's, whose units in it are not known.
    guessed : bool
        Whether the elements only stand for others that scatter about as much.
    notes : tuple of str
        What had to be taken for granted when they were read, for a person.
    """

    name: str
    cell: tuple[float, ...]
    wavelength: float
    operations: tuple[str, ...] | None
    composition: tuple[tuple[str, float], ...]
    hkl: np.ndarray = array("i4", "reflection 3")
    intensity: np.ndarray = array("f8", "reflection")
    sigma: np.ndarray = array("f8", "reflection")
    cell_esd: tuple[float, ...] = (0.0,) * 6
    observations: int | None = None
    rint: float | None = None
    whole: bool = True
    per_cell: bool = True
    guessed: bool = False
    notes: tuple[str, ...] = ()

    @cached_property
    def reciprocal(self) -> np.ndarray:
        """Rows a*, b*, c* (3, 3), 1/Å, Cartesian."""
        return np.array(gemmi.UnitCell(*self.cell).frac.mat.tolist())

    @cached_property
    def metric(self) -> np.ndarray:
        """a·a, a·b … (3, 3), Å²."""
        direct = np.array(gemmi.UnitCell(*self.cell).orth.mat.tolist())
        return direct.T @ direct

    @property
    def d_min(self) -> float:
        """Spacing of the outermost reflection, Å."""
        return float(1 / np.linalg.norm(self.hkl @ self.reciprocal, axis=1).max())

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols, hydrogen left out: it is not looked for."""
        return self.stated.elements

    @property
    def stated(self) -> Stated:
        """What the structure is said to hold."""
        shown = [(e, n) for e, n in self.composition if e not in HYDROGEN]
        hidden = sum(n for e, n in self.composition if e in HYDROGEN)
        return Stated(tuple(e for e, _ in shown), tuple(n for _, n in shown), self.whole, self.per_cell, hidden)
