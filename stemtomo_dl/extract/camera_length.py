"""The camera length, from a crystal whose cell is known."""

from __future__ import annotations

from typing import NamedTuple

import gemmi
import numpy as np


class CameraLength(NamedTuple):
    """By what `pixel_inv_angstrom` must be multiplied, and by how much of its length an edge is then still off."""

    factor: float
    misfit: float


def camera_length(cell: tuple[float, ...], known: tuple[float, ...], turn: np.ndarray) -> CameraLength:
    """How far the stated size of a detector pixel is off, from a cell that was found with it.

    The two cells differ by a stretch whose squares are the eigenvalues of G G₀⁻¹, G the metric tensor of the cell that
    was found and G₀ that of the known one. A wrong camera length stretches all directions alike, so the factor is
    the stretches' geometric mean; what departs from it is distortion or strain, and tells how far to trust the factor.

    Parameters
    ----------
    cell, known : tuple of float
        a, b, c in Å, α, β, γ in degrees.
    turn : (3, 3) array
        M that leads from indices in ``cell`` to those in ``known``, h' = h·M.
    """
    basis, reference = (np.array(gemmi.UnitCell(*c).orth.mat.tolist()).T for c in (cell, known))
    found = np.asarray(turn, float).T @ basis
    stretches = np.sqrt(np.linalg.eigvals(found @ found.T @ np.linalg.inv(reference @ reference.T)).real)
    factor = float(np.prod(stretches) ** (1 / 3))
    return CameraLength(factor, float(np.abs(stretches / factor - 1).max()))
