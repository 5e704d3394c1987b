"""What linking finds beside the links: where the particles lie, how the stage stood, how the field drifted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.records import Record, array


@dataclass(frozen=True)
class Stage:
    """The goniometer as the particles' motion shows it.

    Attributes
    ----------
    tilt_axis_deg, tilt_axis_error_deg : float
        Refined axis and its standard error; NaN where there is none. The axis as stated, with error NaN, where the
        geometry was not used.
    noise_px : float
        Standard deviation of a sighting about its prediction, along x and y each.
    rigid : bool
        False where the geometry could not be used, and outlines were linked by nearness, with gap closing.
    note : str
        Why, in a line; if rigid, what of the series is other than was stated, or cannot be known. Empty: nothing.
    """

    tilt_axis_deg: float
    tilt_axis_error_deg: float
    noise_px: float
    rigid: bool
    note: str = ""


@dataclass(frozen=True, eq=False)
class Solution(Record):
    """Positions, drift and own motion of all particles.

    A particle at p is seen at R(a, α + offset)·p + drift + creep(tilt), from the field's centre; without rigid
    geometry at p + drift + creep(tilt). ``creep_px`` is given at the tilt numbers ``knots`` and linear between.
    ``error_px`` is a particle's standard error against the other particles; ``gauge_error_px`` is what all
    positions may be wrong by together, since a shift of the whole sample and a drift that follows the cosine and
    sine of the tilt look the same: such a motion is taken to be the sample's place, so that the drift is smallest.
    """

    stage: Stage
    shape: tuple[int, int]
    alpha_deg: np.ndarray = array("f8", "tilt", "deg, as stated")
    alpha_offset_deg: np.ndarray = array("f8", "tilt", "deg, refined minus stated")
    drift_px: np.ndarray = array("f8", "tilt 2", "px (x, y)")
    position_px: np.ndarray = array("f8", "particle 3", "px, sample frame")
    error_px: np.ndarray = array("f8", "particle 3", "px, 1 sigma")
    gauge_error_px: np.ndarray = array("f8", "3", "px, 1 sigma")
    knots: np.ndarray = array("f8", "knot", "tilt number")
    creep_px: np.ndarray = array("f8", "particle knot 2", "px (x, y)")

    @property
    def own_motion_px(self) -> np.ndarray:
        """Largest extent of each particle's own motion, (particle)."""
        if not self.stage.rigid or not len(self.knots):
            return np.zeros(len(self.position_px))
        return np.hypot(*np.ptp(self.creep_px, axis=1).T)

    def predict(self, tilts: np.ndarray) -> np.ndarray:
        """Where every particle is expected, (particle, tilt, 2) px (x, y) in the scan; finite for every tilt.

        Parameters
        ----------
        tilts : (tilt) int array
            Tilt numbers. A tilt without an angle stands between its neighbours.
        """
        tilts = np.asarray(tilts, int)
        place = np.repeat(self.position_px[:, None, :2], len(tilts), axis=1)
        if self.stage.rigid:
            rotation = tilt_rotation(self.stage.tilt_axis_deg, self._alpha()[tilts])[:, :2]
            place = np.einsum("tij,pj->pti", rotation, self.position_px)
        place += self.drift_px[tilts] + field_centre(self.shape)
        if len(self.knots):
            place += np.einsum("tk,pkc->ptc", hat_functions(self.knots, tilts), self.creep_px)
        return place

    def _alpha(self) -> np.ndarray:
        """Refined angles, also of the tilts that state none."""
        alpha, known = self.alpha_deg + self.alpha_offset_deg, np.isfinite(self.alpha_deg)
        return np.interp(np.arange(len(alpha)), np.flatnonzero(known), alpha[known])


def hat_functions(knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Weights (point, knot) of linear interpolation between rising knots, constant beyond the ends."""
    if len(knots) == 1:
        return np.ones((len(at), 1))
    inside = np.clip(np.asarray(at, float), knots[0], knots[-1])
    left = np.clip(np.searchsorted(knots, inside, side="right") - 1, 0, len(knots) - 2)
    share = (inside - knots[left]) / (knots[left + 1] - knots[left])
    out = np.zeros((len(inside), len(knots)))
    row = np.arange(len(inside))
    out[row, left], out[row, left + 1] = 1 - share, share
    return out
