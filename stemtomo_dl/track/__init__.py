"""Masks -> tracks."""

from stemtomo_dl.track.fill import Prompt
from stemtomo_dl.track.tracked import Tracked, track_masks

__all__ = ["Prompt", "Tracked", "track_masks"]
