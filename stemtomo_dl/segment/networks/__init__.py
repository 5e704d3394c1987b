"""Networks that find particles and draw their outlines."""
