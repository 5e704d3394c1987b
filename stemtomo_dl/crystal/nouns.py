"""What is known of a crystal: its spots, its lattice, its reflections."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stemtomo_dl.records import Record, array


@dataclass(frozen=True, eq=False)
class Spots(Record):
    """Diffraction spots of a series, and where the beam is in each of its frames."""

    radius_px: float  # of the disks
    frame: np.ndarray = array("i4", "spot")
    px: np.ndarray = array("f8", "spot 2", "px (column, row)")
    intensity: np.ndarray = array("f8", "spot", "counts")
    sigma: np.ndarray = array("f8", "spot", "counts, standard deviation of the background under it")
    center_px: np.ndarray = array("f8", "frame 2", "px (column, row)")

    def __len__(self) -> int:
        return len(self.frame)

    def some(self, which: np.ndarray) -> Spots:
        """The spots that an index or a mask (spot,) names."""
        parts = {n: getattr(self, n)[which] for n in ("frame", "px", "intensity", "sigma")}
        return replace(self, **parts)


@dataclass(frozen=True, eq=False)
class Crystal(Record):
    """A lattice in its conventional setting, and the stage and beam that it was refined with."""

    lattice: str  # Pearson's letters: aP, mP, mC, oP … cF
    indexed_fraction: float  # of the spots
    n_indexed: int  # spots
    rms_inv_angstrom: float  # of the indexed spots' distances in the detector's plane
    tilt_axis_deg: float
    length_deviation: float  # of the unconstrained lattice from the conventional one: largest, relative
    angle_deviation_deg: float
    ub: np.ndarray = array("f8", "3 3", "1/Å, sample frame at α = 0; columns a*, b*, c*")
    cell: np.ndarray = array("f8", "6", "Å, deg")
    center_shift_px: np.ndarray = array("f8", "2", "px (column, row), to be added to the spots' centres")
    cell_esd: np.ndarray | None = array("f8", "6", "Å, deg, but for the camera length", optional=True)
    scale: float = 1.0  # true 1/Å per pixel over the stated one, in which the cell is
    free_cell: np.ndarray | None = array("f8", "6", "Å, deg, without the metric of the lattice's system", optional=True)
    free_cell_esd: np.ndarray | None = array("f8", "6", "Å, deg", optional=True)

    def rescaled(self, scale: float) -> Crystal:
        """The same seen by a camera of another scale."""
        lengths = np.repeat([self.scale / scale, 1.0], 3)
        names = ("cell", "cell_esd", "free_cell", "free_cell_esd")
        cells: dict[str, Any] = {n: None if getattr(self, n) is None else getattr(self, n) * lengths for n in names}
        return replace(self, ub=self.ub * (scale / self.scale), scale=scale, **cells)


@dataclass(frozen=True, eq=False)
class FrameIntensities(Record):
    """Intensities frame by frame, as dynamical refinement takes them: one row a reflection near the sphere in a frame.

    ``rotation`` is what turns the sample frame at α = 0 into the lab frame, the frame's own error included.
    """

    rocking_width: float  # 1/Å, standard deviation of the rocking curve at g = 0
    mosaicity_deg: float  # by how much it grows with g, standard deviation
    hkl: np.ndarray = array("i4", "measurement 3")
    frame: np.ndarray = array("i4", "measurement")
    intensity: np.ndarray = array("f8", "measurement", "counts per probe")
    sigma: np.ndarray = array("f8", "measurement", "counts per probe")
    s: np.ndarray = array("f8", "measurement", "1/Å, excitation error")
    alpha_deg: np.ndarray = array("f8", "frame", "deg")
    rotation: np.ndarray = array("f8", "frame 3 3")


@dataclass(frozen=True, eq=False)
class Reflections(Record):
    """Integrated intensities: one row a passage of a reflection through the Ewald sphere.

    ``method`` is "sum" where they are integrals over the excitation error as far as these can be had, "fit" where
    rocking curves were fitted.
    """

    hkl: np.ndarray = array("i4", "reflection 3")
    intensity: np.ndarray = array("f8", "reflection", "counts · 1/Å, Lorentz-corrected")
    sigma: np.ndarray = array("f8", "reflection", "counts · 1/Å")
    alpha_deg: np.ndarray = array("f8", "reflection", "deg, of the passage")
    frame: np.ndarray | None = array("i4", "reflection", optional=True)  # nearest to the sphere
    frames: FrameIntensities | None = None
    method: str = ""
