"""4D-STEM -> virtual images, streamed tilt by tilt."""

from stemtomo_dl.virtual.appearance import describe, identity_check
from stemtomo_dl.virtual.bad_pixels import find_bad_pixels
from stemtomo_dl.virtual.beam import beam_positions
from stemtomo_dl.virtual.hidden import hidden_in_series
from stemtomo_dl.virtual.images import DETECTORS, virtual_images
from stemtomo_dl.virtual.sectors import SECTORS, bragg

__all__ = [
    "DETECTORS",
    "SECTORS",
    "beam_positions",
    "bragg",
    "describe",
    "find_bad_pixels",
    "hidden_in_series",
    "identity_check",
    "virtual_images",
]
