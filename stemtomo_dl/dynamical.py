"""A solved phase with the frames of its particles, for dynamical refinement by another program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from stemtomo_dl.crystal.cells import cell_of
from stemtomo_dl.crystal.nouns import Crystal, FrameIntensities, Reflections
from stemtomo_dl.crystal.phase import operator_of
from stemtomo_dl.reduction import SeriesSpots
from stemtomo_dl.run import Run
from stemtomo_dl.store.atomic import write_text
from stemtomo_dl.store.cif_pets import write_cif_pets
from stemtomo_dl.store.particle_files import Files
from stemtomo_dl.store.phases import read_stats
from stemtomo_dl.store.record_h5 import read_record
from stemtomo_dl.store.reflections import read_crystals

_STRUCTURE, _README = "solution.cif", "README.txt"
_HOW = """{name}: {formula}, {group}; R1 {r1:.3f}, kinematical

For dynamical refinement, in JANA2020 for instance:
1. Make a new structure in this folder from {structure}: it brings the cell, the space group and the atoms.
2. Import the .cif_pets as electron diffraction data of PETS, for dynamical refinement; each further particle as a data
   block of its own. All are indexed in the setting of {structure}: have no program transform them.
3. Every particle has a thickness: start with that alone, at about the particle's size. Then refine the scales of the
   frames, then the atoms, and orientations of frames last.
4. Kinematical intensities do not tell a structure from its inverse. If the space group has no inversion centre, refine
   the inverted structure too, and keep the one with the lower R.

Particles, the best agreement with the merged intensities first:
"""


def project_of(run: Run, name: str) -> list[str]:
    """Files of a phase's project by their place in the run; none of a phase that was not merged from particles."""
    place, members = f"phases/{name}/dynamical", read_stats(run.folder / "phases" / name).get("members")
    if not members:
        return []
    return [f"{place}/{n}" for n in (_STRUCTURE, _README, *(Path(Files.of(m["track"]).pets).name for m in members))]


def write_project(run: Run, name: str) -> None:
    """Write a solved phase's project: its CIF, the frames of each of its particles in its setting, and what to do.

    A particle without measurements frame by frame is left out.
    """
    folder = run.folder / "phases" / name
    stats, told = read_stats(folder), list[str]()
    write_text(folder / "dynamical" / _STRUCTURE, (folder / _STRUCTURE).read_text(encoding="utf-8"))
    for member in sorted(stats["members"], key=lambda m: m["r_merged"] or 0):
        files = Files.of(member["track"])
        path = folder / "dynamical" / Path(files.pets).name
        path.unlink(missing_ok=True)
        stored = run.folder / files.reflections
        frames = read_record(stored, Reflections).frames if stored.exists() else None
        if frames is not None:
            crystal = read_crystals(run.folder / files.crystal)[0]
            crystal, frames = in_setting(crystal, frames, operator_of(member["operator"]))
            radius = read_record(run.folder / files.spots, SeriesSpots).spots.radius_px
            write_cif_pets(path, crystal, frames, run.experiment.beam.voltage_kv, radius)
            told.append(f"  {path.name}: {len(np.unique(frames.frame))} frames, {len(frames.hkl)} measurements")
    facts = {k: stats[f] for k, f in (("formula", "formula"), ("group", "space_group"), ("r1", "r1"))}
    how = _HOW.format(name=name, structure=_STRUCTURE, **facts)
    write_text(folder / "dynamical" / _README, how + "\n".join(told) + "\n")


def in_setting(crystal: Crystal, frames: FrameIntensities, operator: np.ndarray) -> tuple[Crystal, FrameIntensities]:
    """A crystal and its frames in another setting, h' = M h.

    Of a setting of the other hand all indices are negative besides: the Bragg spots stay where they are.

    Parameters
    ----------
    crystal : Crystal
    frames : FrameIntensities
    operator : (3, 3) f8
        M.
    """
    operator = operator * np.sign(np.linalg.det(operator))
    ub = crystal.ub @ np.linalg.inv(operator)
    turned = np.rint(frames.hkl @ operator.T).astype("i4")
    return replace(crystal, ub=ub, cell=cell_of(np.linalg.inv(ub))), replace(frames, hkl=turned)
