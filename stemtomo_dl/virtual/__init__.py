"""4D-STEM -> virtual images, streamed tilt by tilt."""

from stemtomo_dl.virtual.bad_pixels import find_bad_pixels
from stemtomo_dl.virtual.beam import beam_positions
from stemtomo_dl.virtual.images import DETECTORS, virtual_images

__all__ = ["DETECTORS", "beam_positions", "find_bad_pixels", "virtual_images"]
