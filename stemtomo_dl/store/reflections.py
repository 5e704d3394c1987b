"""What is known of a crystal, on disk: crystal.json, SHELX HKLF 4 and the .ins beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stemtomo_dl.crystal.nouns import Crystal, Reflections
from stemtomo_dl.store.atomic import write_json, write_text

_HIGHEST = 9999.0  # F8.2 holds no more beside a sign
_LATT = {"P": 1, "I": 2, "R": 3, "F": 4, "A": 5, "B": 6, "C": 7}


def write_crystals(path: Path, crystals: Sequence[Crystal]) -> None:
    """Write crystal.json: the lattice with most spots, the others under "more"."""
    first, *more = [_entry(c) for c in crystals]
    write_json(path, {**first, "more": more})


def _entry(crystal: Crystal) -> dict[str, object]:
    return {
        "cell": [round(float(v), 5) for v in crystal.cell],
        "ub": crystal.ub.tolist(),
        "lattice": crystal.lattice,
        "indexed_fraction": crystal.indexed_fraction,
        "n_indexed": crystal.n_indexed,
        "rms_inv_angstrom": crystal.rms_inv_angstrom,
        "tilt_axis_deg": crystal.tilt_axis_deg,
        "center_shift_px": crystal.center_shift_px.tolist(),
        "length_deviation": crystal.length_deviation,
        "angle_deviation_deg": crystal.angle_deviation_deg,
    }


def write_hkl(path: Path, reflections: Reflections) -> None:
    """Write HKLF 4: 3I4, 2F8.2, scaled so that the strongest fits; the end is a line of zeros."""
    scale = _HIGHEST / max(float(reflections.intensity.max(initial=0)), 1e-12)
    rows = zip(reflections.hkl.tolist(), reflections.intensity * scale, reflections.sigma * scale, strict=True)
    lines = [f"{h:4d}{k:4d}{n:4d}{max(i, -999.0):8.2f}{np.clip(s, 0.01, _HIGHEST):8.2f}" for (h, k, n), i, s in rows]
    write_text(path, "\n".join([*lines, f"{0:4d}{0:4d}{0:4d}{0:8.2f}{0:8.2f}"]) + "\n")


def write_ins(path: Path, title: str, crystal: Crystal, wavelength_a: float, elements: Sequence[str] = ()) -> None:
    """Write the head of a SHELX .ins: CELL with the electrons' wavelength, LATT, SFAC where elements are known."""
    cell = " ".join(f"{v:.4f}" for v in crystal.cell)
    lines = [f"TITL {title}", f"CELL {wavelength_a:.5f} {cell}", "ZERR 1 0 0 0 0 0 0"]
    lines.append(f"LATT {_LATT[crystal.lattice[1]]}")
    if elements:
        lines += [f"SFAC {' '.join(elements)}", f"UNIT {' '.join('1' for _ in elements)}"]
    write_text(path, "\n".join([*lines, "HKLF 4", "END"]) + "\n")
