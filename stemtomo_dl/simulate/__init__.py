"""The forward model: a known answer in, a 4D-STEM tilt series out."""
