"""Which known phase a crystal is: its cell and intensities against those of candidates."""

from __future__ import annotations

from dataclasses import dataclass

import gemmi
import numpy as np

from stemtomo_dl.records import Record, array
from stemtomo_dl.solve.nouns import Intensities
from stemtomo_dl.solve.symmetry import Merged, expand

_LENGTH = 0.04  # by so much, of its length, an edge of the reduced cell may differ
_ANGLE = 3.0  # degrees
_NAMED = 0.6  # correlation of amplitudes from which a crystal has a candidate's name


@dataclass(frozen=True, eq=False)
class Known(Record):
    """A phase that a crystal may be: every reflection of its sphere, both Friedel mates."""

    name: str
    cell: tuple[float, ...]
    hkl: np.ndarray = array("i4", "reflection 3")
    amplitude: np.ndarray = array("f8", "reflection")


@dataclass(frozen=True)
class Likeness:
    """How much a crystal is like a known phase."""

    name: str
    cell_misfit: float  # largest relative difference of an edge of the reduced cells
    correlation: float  # of the amplitudes, at best over the ways in which the cells can be laid on each other

    @property
    def named(self) -> bool:
        """Whether it is that phase; a candidate's mirror image has the same intensities."""
        return self.correlation >= _NAMED


def likenesses(data: Intensities, merged: Merged, known: list[Known]) -> list[Likeness]:
    """Known phases with the crystal's cell, most alike first."""
    hkl, value = expand(merged, np.sqrt(np.maximum(merged.intensity, 0)))
    found = []
    for phase in known:
        misfit, turns = _cell_maps(data.cell, phase)
        if turns:
            table = {tuple(h): a for h, a in zip(phase.hkl.tolist(), phase.amplitude, strict=True)}
            best = max(_correlation(hkl @ turn, value, table) for turn in turns)
            found.append(Likeness(phase.name, misfit, best))
    return sorted(found, key=lambda c: -c.correlation)


def _correlation(hkl: np.ndarray, value: np.ndarray, table: dict[tuple[int, ...], float]) -> float:
    theirs = np.array([table.get(tuple(h), 0.0) for h in hkl.tolist()])
    return float(np.corrcoef(value, theirs)[0, 1]) if theirs.std() > 0 and value.std() > 0 else 0.0


def _cell_maps(cell: tuple[float, ...], phase: Known) -> tuple[float, list[np.ndarray]]:
    """Matrices M (3, 3) with h' = h M from the crystal's indices to the phase's, of primitive or equal lattices."""
    ours, theirs = gemmi.UnitCell(*cell), gemmi.UnitCell(*phase.cell)
    a, b = np.array(ours.orth.mat.tolist()), np.array(theirs.orth.mat.tolist())
    metric = a.T @ a
    steps = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    lengths = np.linalg.norm(steps @ a.T, axis=1)
    wanted = np.linalg.norm(b, axis=0)
    rows = [steps[np.abs(lengths / w - 1) < _LENGTH] for w in wanted]
    turns, misfits = [], []
    for m in (np.array([x, y, z]) for x in rows[0] for y in rows[1] for z in rows[2]):
        if round(np.linalg.det(m)) != 1:
            continue
        new = m @ metric @ m.T
        edges = np.sqrt(np.diag(new))
        cosines = new / np.outer(edges, edges)
        angles = np.degrees(np.arccos(np.clip([cosines[1, 2], cosines[0, 2], cosines[0, 1]], -1, 1)))
        if np.abs(angles - phase.cell[3:]).max() < _ANGLE:
            turns.append(m.T)
            misfits.append(float(np.abs(edges / wanted - 1).max()))
    return min(misfits, default=1.0), turns
