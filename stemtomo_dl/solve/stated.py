"""What a crystal is said to hold, and what a model pays that departs from it."""

from __future__ import annotations

from dataclasses import dataclass

import gemmi
import numpy as np

ALIKE = 2  # atomic numbers that differ by no more cannot be told apart by intensities
_ABSENT = 0.3  # of R1, what an element costs that is said to be there and is not in the model
_SURPLUS = 0.5  # of R1, what a model costs of which every atom is one too many


@dataclass(frozen=True)
class Stated:
    """Elements that a structure is said to hold.

    Attributes
    ----------
    elements : tuple of str
        Hydrogen left out.
    numbers : tuple of float
        Of each in the cell; all 0 where they are not known.
    whole : bool
        Whether each of them is there; else they are those of a sample of several phases.
    per_cell : bool
        Else the numbers are those of a formula, and how often the cell holds it is not known.
    hydrogen : float
        With ``numbers``; no model holds it.
    """

    elements: tuple[str, ...]
    numbers: tuple[float, ...]
    whole: bool
    per_cell: bool = True
    hydrogen: float = 0.0

    @property
    def counted(self) -> bool:
        """Whether the number of each element is known."""
        return bool(self.numbers) and min(self.numbers) > 0

    def counts(self, elements: tuple[str, ...], multiplicities: np.ndarray) -> np.ndarray:
        """Atoms of each stated element (element,) in the cell of a model."""
        named = np.array(elements)
        return np.array([multiplicities[named == e].sum() for e in self.elements])

    def expected(self, counts: np.ndarray) -> np.ndarray:
        """Atoms of each element (element,) that the cell of a model with so many should hold."""
        numbers = np.array(self.numbers)
        return numbers if self.per_cell else numbers * (counts.sum() / numbers.sum())

    def hydrogen_in(self, counts: np.ndarray) -> int:
        """Hydrogen in the cell of a model with so many atoms of each element, of whole formulas where it may be."""
        if not self.counted or self.per_cell:
            return round(self.hydrogen)
        units = float(counts.sum()) / sum(self.numbers)
        return round(self.hydrogen * (round(units) or units))

    def cost(self, counts: np.ndarray) -> float:
        """Factor, 1 or more, by which R1 of a model with these atoms counts.

        An atom that is lacking may be one that the data do not show; one too many of its element is wrong.
        """
        factor = 1.0 + (_ABSENT * int((counts == 0).sum()) if self.whole else 0.0)
        if self.counted and counts.sum():
            numbers = self.expected(counts)
            factor += _SURPLUS * float(np.maximum(counts - numbers, 0).sum() / numbers.sum())
        return factor

    def departure(self, counts: np.ndarray) -> float:
        """Share of a model's atoms that would have to be of another element; 0 where numbers are not known."""
        if not self.counted or not counts.sum():
            return 0.0
        order = np.argsort([gemmi.Element(e).atomic_number for e in self.elements])
        charges = np.array([gemmi.Element(self.elements[i]).atomic_number for i in order])
        label = np.cumsum(np.diff(charges, prepend=charges[0]) > ALIKE)
        shares = [np.bincount(label, np.asarray(n)[order] / np.sum(n)) for n in (counts, self.numbers)]
        return float(np.abs(shares[0] - shares[1]).sum() / 2)
