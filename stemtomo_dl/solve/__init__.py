"""Structure solution from intensities: phases, space group, atoms."""

from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.solution import Solution, solve

__all__ = ["Intensities", "Solution", "solve"]
