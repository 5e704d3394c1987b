"""One particle's diffraction series -> its lattice -> its reflections.

Spots are found (`spots`), a lattice is searched for in them without a known cell (`search`, `index`), its symmetry is
recognised (`bravais`), cell and orientation are refined (`refine`), and intensities are measured (`integrate`).
"""
