"""Tracks + raw scans -> one diffraction pattern per particle and tilt."""

from stemtomo_dl.extract.dose import fading
from stemtomo_dl.extract.separate import combine
from stemtomo_dl.extract.tilt import extract_tilt

__all__ = ["combine", "extract_tilt", "fading"]
