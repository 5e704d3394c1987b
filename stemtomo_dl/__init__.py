"""From a 4D-STEM tilt series to single-crystal electron diffraction data of every particle."""

__version__ = "0.1.0"
