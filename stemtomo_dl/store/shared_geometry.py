"""The geometry that a run's particles share, as run.json has it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from stemtomo_dl.crystal.goniometer import Geometry
from stemtomo_dl.records import Instrument


class SharedGeometry(NamedTuple):
    """A geometry whose frames are tilts of the run."""

    tilt: np.ndarray  # (frame,) rising
    geometry: Geometry

    def at(self, tilt: np.ndarray) -> Geometry:
        """That of a series whose frames are these tilts (frame,)."""
        return self.geometry.at(np.searchsorted(self.tilt, tilt))

    def entry(self) -> dict[str, Any]:
        """JSON values; null: not refined."""
        known = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self.geometry).items()}
        return {"tilt": self.tilt.tolist(), **known}

    @classmethod
    def of(cls, entry: dict[str, Any]) -> SharedGeometry:
        """That of an entry."""
        known = {k: v for k, v in entry.items() if k != "tilt"}
        arrays = {
            k: None if known[k] is None else np.array(known[k], "f8") for k in ("alpha_deg", "shift_px", "turn_rad")
        }
        known |= {"instrument": Instrument(**known["instrument"]), "ellipse": tuple(known["ellipse"])}
        return cls(np.array(entry["tilt"]), Geometry(**{**known, **arrays}))
