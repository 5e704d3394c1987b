"""4D-STEM scans on disk: one module per family of formats, `open` to choose among them, `write` to make them."""
