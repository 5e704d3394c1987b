"""Masks -> tracks."""

from stemtomo_dl.track.fill import Prompt
from stemtomo_dl.track.split import Look, split
from stemtomo_dl.track.tracked import Tracked, track_masks

__all__ = ["Look", "Prompt", "Tracked", "split", "track_masks"]
