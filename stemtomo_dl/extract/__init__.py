"""Tracks + raw scans -> one diffraction pattern per particle and tilt."""

from stemtomo_dl.extract.camera_length import CameraLength, camera_length
from stemtomo_dl.extract.dose import fading
from stemtomo_dl.extract.ellipse import ellipse
from stemtomo_dl.extract.separate import combine
from stemtomo_dl.extract.tilt import extract_tilt

__all__ = ["CameraLength", "camera_length", "combine", "ellipse", "extract_tilt", "fading"]
